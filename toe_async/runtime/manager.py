"""Start and stop of one process: what has to be there first starts first and goes last.

Order: services (recorder, deliveries, servers) -> sources (informers) -> all sources synced -> leadership -> leading
work (controllers). The stop goes the other way round, each stage asked to finish and then cancelled, all of it within
`grace` seconds: controllers take no new keys and end what they do, the lease is given up, watches close, and what the
services still hold (queued Events, uploads) is sent. A part that fails stops the whole process: half an operator that
looks alive is worse than a restart.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, Protocol

from msgspec import Struct

from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner, cancel_and_wait
from toe_async.telemetry import log as logs

log = logs.get("runtime.manager")

GRACE: Final = 25.0
"""Less than the 30 s that a pod gets between TERM and KILL."""
_TELL_EVERY: Final = 30.0

Run = Callable[[], Coroutine[Any, Any, None]]
Wait = Callable[[], Awaitable[object]]


class PartFailedError(Exception):
    """A part of the process ended though it was to run until the stop."""


class Elector(Protocol):
    """Runs work while this process leads; `runtime.leader.LeaderElector` is one."""

    async def run(self, lead: Run) -> None:
        """Compete and lead until cancelled."""


class Part(Struct, frozen=True):
    """Something that runs from start to stop.

    `drain` is called before the cancellation and should return when nothing is left to lose; `ready` is waited for
    before the next stage starts.
    """

    name: str
    run: Run
    drain: Wait | None = None
    ready: Wait | None = None


class Manager:
    """See the module. Parts are added before `run`; `run` is called once."""

    def __init__(self, *, clock: Clock, elector: Elector | None = None, grace: float = GRACE) -> None:
        self._clock, self._elector, self._grace = clock, elector, grace
        self._services: list[Part] = []
        self._sources: list[Part] = []
        self._leading: list[Part] = []
        self._halt = asyncio.Event()
        self._failure: PartFailedError | None = None
        self._awaited: set[str] = {"start"}
        self._stop_by: float | None = None

    def add_service(self, part: Part) -> None:
        """Runs in every replica, from the first moment to the last."""
        self._services.append(part)

    def add_source(self, part: Part) -> None:
        """Runs in every replica; leadership is not sought before it is ready."""
        self._sources.append(part)

    def add_leading(self, part: Part) -> None:
        """Runs only while this replica leads (always when there is no elector). Its `run` may be called again."""
        self._leading.append(part)

    def not_ready(self) -> str | None:
        """What keeps this replica from being ready, for a readiness check; None when all stages have started."""
        return f"waiting for {', '.join(sorted(self._awaited))}" if self._awaited else None

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything, work until `stop` is set or a part fails, stop everything.

        Raises:
            PartFailedError: a part ended by itself; raised after the stop, the cause chained.
        """
        seeking = Part("leadership", self._seek)
        async with TaskOwner(self._part_failed) as owner:
            owner.start(self._relay(stop), name="stop signal")
            stages: list[_Started] = []
            try:
                for parts in (self._services, self._sources, [seeking]):
                    stages.append(self._start(parts, owner))
                    if not await self._ready(parts, owner):
                        break
                await self._halt.wait()
            finally:
                self._stop_by = self._clock.monotonic() + self._grace
                self._awaited = {"stop"}
                for started in reversed(stages):
                    await self._drain(started, self._stop_by)
                    await cancel_and_wait(*started.values())
        if self._failure is not None:
            raise self._failure

    async def _relay(self, stop: asyncio.Event) -> None:
        await stop.wait()
        log.info("stopping", grace_seconds=self._grace)
        self._halt.set()

    def _start(self, parts: Iterable[Part], owner: TaskOwner) -> "_Started":
        return {part: owner.start(self._watched(part), name=part.name) for part in parts}

    async def _watched(self, part: Part) -> None:
        await part.run()
        if self._stop_by is None:
            raise PartFailedError(f"{part.name} ended by itself")

    def _part_failed(self, name: str, error: BaseException) -> None:
        log.error("a part of the process failed", part=name, error=f"{type(error).__name__}: {error}")
        if self._failure is None and isinstance(error, PartFailedError):
            self._failure = error
        elif self._failure is None:
            self._failure = PartFailedError(f"{name} failed: {type(error).__name__}: {error}")
            self._failure.__cause__ = error
        self._halt.set()

    async def _ready(self, parts: Iterable[Part], owner: TaskOwner) -> bool:
        """Whether all of them got ready; False when the stop came first."""
        halted = owner.start(self._halt.wait(), name="halt while starting")
        waiting = {owner.start(_call(part.ready), name=part.name) for part in parts if part.ready is not None}
        self._awaited = {task.get_name() for task in waiting}
        try:
            while waiting:
                done, _ = await asyncio.wait(
                    {*waiting, halted}, timeout=_TELL_EVERY, return_when=asyncio.FIRST_COMPLETED
                )
                if self._halt.is_set():
                    return False
                waiting -= done
                self._awaited = {task.get_name() for task in waiting}
                if not done:
                    log.warning("still waiting", parts=sorted(self._awaited))
            return not self._halt.is_set()
        finally:
            await cancel_and_wait(halted, *waiting)

    async def _seek(self) -> None:
        if self._elector is None:
            await self._lead()
        else:
            await self._elector.run(self._lead)

    async def _lead(self) -> None:
        async with TaskOwner(self._part_failed) as owner:
            started = self._start(self._leading, owner)
            try:
                await asyncio.Event().wait()
            finally:
                # A lost lease leaves no time: everything is cancelled. At the stop half of the grace is for this stage.
                if self._stop_by is not None:
                    await self._drain(started, self._stop_by - self._grace / 2)

    async def _drain(self, started: "_Started", deadline: float) -> None:
        async with TaskOwner(_tell) as owner:
            left = max(0.0, deadline - self._clock.monotonic())
            drains = [
                owner.start(_call(part.drain), name=part.name)
                for part, task in started.items()
                if part.drain is not None and not task.done()
            ]
            if not drains:
                return
            _, late = await asyncio.wait(drains, timeout=left)
            if late:
                log.warning("cut short by the end of the grace period", parts=sorted(task.get_name() for task in late))


_Started = dict[Part, "asyncio.Task[None]"]


async def _call(waiter: Wait) -> None:
    await waiter()


def _tell(name: str, error: BaseException) -> None:
    log.error("draining failed", part=name, error=f"{type(error).__name__}: {error}")
