"""At most one replica works at a time: leader election on a Lease of coordination.k8s.io.

Figures are 15/10/2 s: others may take a lease that they have seen unchanged for 15 s; a leader that could not renew for
10 s stops; everybody tries every 2 s. So a leader has 5 s to stop its work before anybody else can begin.

What is *not* promised: a process that is stopped (SIGSTOP, a paused machine) for longer than that wakes up and may run
a few steps before its timers tell it. `fence()` is for that: it reads the clock, and it is to be asked right before
every write that only a leader may make. Even so a request that is under way already cannot be called back; what must
not happen twice is protected by names and resourceVersions, never by the lease alone.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from toe_async.apis.kinds import LEASES
from toe_async.apis.meta import encode
from toe_async.kube import requests
from toe_async.kube.errors import Conflict, KubeError, NotFound
from toe_async.kube.sender import Sender
from toe_async.lib.backoff import Backoff
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner, cancel_and_wait
from toe_async.runtime.errors import NotLeadingError
from toe_async.runtime.lease import (
    RENEW_DEADLINE,
    RETRY_PERIOD,
    Create,
    Observed,
    Renew,
    Take,
    Wait,
    decide,
    fresh,
    given_up,
    held,
    observe,
)
from toe_async.telemetry import log as logs
from toe_async.telemetry.metrics import OperatorMetrics

log = logs.get("runtime.leader")

REQUEST_TIMEOUT: Final = 3.0
"""A request that hangs must leave time for two more before the renew deadline."""
RELEASE_TIMEOUT: Final = 2.0
SHORTEST_TRY: Final = 0.001
"""A timer may end a tick early; in what is then left of a deadline nothing can be asked, only asked for ever."""


class LeaderElector:
    """Competes for one Lease. `identity` must be different in every process that competes, a restart apart.

    `run` is called once; `is_leader` and `fence` may be asked at any time.
    """

    def __init__(
        self,
        client: Sender,
        *,
        namespace: str,
        name: str,
        identity: str,
        clock: Clock,
        metrics: OperatorMetrics,
    ) -> None:
        if not identity:
            raise ValueError(f"lease {namespace}/{name}: an identity is needed, such as the pod's name")
        self.namespace, self.name, self.identity = namespace, name, identity
        self._client, self._clock = client, clock
        self._status = metrics.leader_election_master_status.labels(name)
        self._status.set(0)
        self._seen: Observed | None = None
        self._leading = False
        self._renewed_at = 0.0
        self._told_holder = ""

    @property
    def is_leader(self) -> bool:
        """Whether this process leads and its last renewal is fresh enough to act on."""
        return self._leading and self._clock.monotonic() < self._renewed_at + RENEW_DEADLINE

    @property
    def holder(self) -> str:
        """Who held the lease when it was last read; empty when nobody did."""
        return self._seen.spec.holder_identity if self._seen is not None else ""

    def fence(self) -> None:
        """Return only while this process leads for certain. Ask right before a write that only a leader may make.

        Raises:
            NotLeadingError: the lease was lost, or could not be renewed in time.
        """
        if not self.is_leader:
            raise NotLeadingError(
                f"{self.identity} does not hold lease {self.namespace}/{self.name} (holder: {self.holder or 'nobody'})"
            )

    async def run(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Compete until cancelled; whenever the lease is ours, run `lead()`, and cancel it when the lease is lost.

        `lead` is never run twice at a time: before the next competition its cancellation is waited for. When `run` is
        cancelled, `lead` is cancelled and may take its time, during which the lease is still renewed; then it is given
        up. When `lead` returns or raises, the lease is given up and `run` does the same.
        """
        while True:
            try:
                await self._acquire()
            except asyncio.CancelledError:
                if self.holder == self.identity:
                    await self._release()
                raise
            if await self._lead(lead):
                return

    async def _acquire(self) -> None:
        pause = Backoff(RETRY_PERIOD, RETRY_PERIOD, factor=1.0, jitter=1.2)
        while True:
            if await self._try():
                break
            await asyncio.sleep(pause.next())
        self._leading = True
        self._status.set(1)
        log.info("leading", lease=self.name, identity=self.identity)

    async def _lead(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Whether the work ended by itself; False when the lease was lost. Raises what the work raised."""
        async with TaskOwner(_read_below) as owner:
            renewing = owner.start(self._renew(), name=f"renewal of lease {self.name}")
            working = owner.start(lead(), name=f"work under lease {self.name}")
            try:
                await asyncio.wait({renewing, working}, return_when=asyncio.FIRST_COMPLETED)
                ended = working.done()
                if not ended:
                    log.error("lost the lease, stopping the work", lease=self.name, holder=self.holder or "unknown")
            finally:
                await self._wind_down(renewing, working)
        if not working.cancelled() and (error := working.exception()) is not None:
            raise error
        return ended

    async def _wind_down(self, renewing: "asyncio.Task[None]", working: "asyncio.Task[None]") -> None:
        try:
            # Renewal goes on while the work winds down: nobody else may begin before it has ended.
            await cancel_and_wait(working)
        finally:
            fresh = not renewing.done() and self.is_leader
            self._leading = False
            self._status.set(0)
        await cancel_and_wait(renewing)
        if fresh:
            await self._release()

    async def _renew(self) -> None:
        """Returns when the lease is lost: somebody else holds it, or it could not be renewed for RENEW_DEADLINE."""
        began = self._renewed_at
        while True:
            # From begin to begin: a try that hung is followed by the next one at once, there is no time to lose.
            wake = min(began + RETRY_PERIOD, self._renewed_at + RENEW_DEADLINE)
            await asyncio.sleep(max(0.0, wake - self._clock.monotonic()))
            began = self._clock.monotonic()
            left = self._renewed_at + RENEW_DEADLINE - began
            if left < SHORTEST_TRY:
                return
            try:
                async with asyncio.timeout(left):
                    renewed = await self._try()
            except TimeoutError:
                renewed = False
            if not renewed and self.holder not in {"", self.identity}:
                # `fence` has to refuse from this moment on, not only when the work has ended.
                self._renewed_at = -math.inf
                return

    async def _try(self) -> bool:
        """Take or renew the lease if that may be done now; False when not, or when the API server cannot be asked."""
        try:
            if self._leading:
                try:
                    await self._write(Renew())
                except (Conflict, NotFound):  # touched by somebody, perhaps only its labels: read what it says now
                    pass
                else:
                    return True
            await self._read()
            step = decide(self._seen, self.identity, self._clock.monotonic())
            if isinstance(step, Wait):
                self._tell(step.holder)
                return False
            await self._write(step)
        except Conflict:
            return False  # another candidate was faster
        except (KubeError, msgspec.DecodeError) as error:
            log.warning("cannot read or write the lease", lease=f"{self.namespace}/{self.name}", error=str(error))
            return False
        return True

    async def _read(self) -> None:
        try:
            raw = await self._client.send(requests.get(LEASES, self.namespace, self.name, timeout=REQUEST_TIMEOUT))
        except NotFound:
            self._seen = None
        else:
            self._seen = observe(raw, self._seen, self._clock.monotonic())

    async def _write(self, step: Create | Take | Renew) -> None:
        wall = self._clock.now()
        body = encode(held(self._seen or fresh(self.namespace, self.name), self.identity, wall, step))
        # Counted from before the request: the others count from when they see its effect, which is later.
        sent_at = self._clock.monotonic()
        if self._seen is None:
            request = requests.create(LEASES, self.namespace, body, timeout=REQUEST_TIMEOUT)
        else:
            request = requests.replace(LEASES, self.namespace, self.name, body, timeout=REQUEST_TIMEOUT)
        raw = await self._client.send(request)
        self._seen = observe(raw, None, self._clock.monotonic())
        self._renewed_at = sent_at

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT):
                try:
                    await self._give_up()
                except Conflict:
                    await self._read()
                    if self.holder == self.identity:
                        await self._give_up()
        except (KubeError, TimeoutError, msgspec.DecodeError) as error:
            log.warning("could not give up the lease, others have to wait for it", lease=self.name, error=str(error))
        else:
            log.info("gave up the lease", lease=self.name)

    async def _give_up(self) -> None:
        if self._seen is None:
            return
        body = encode(given_up(self._seen, self._clock.now()))
        raw = await self._client.send(
            requests.replace(LEASES, self.namespace, self.name, body, timeout=REQUEST_TIMEOUT)
        )
        self._seen = observe(raw, None, self._clock.monotonic())

    def _tell(self, holder: str) -> None:
        if holder != self._told_holder:
            self._told_holder = holder
            log.info("another replica leads", lease=self.name, holder=holder)


def _read_below(name: str, error: BaseException) -> None:
    """The elector looks at the results of its own tasks."""
