"""One attempt on one target, from the pod to its outcome.

Theory of operation. Each step may have been done before, by a process that died in between or one that no longer leads:
the record is registered again, the container found, the orders sent again, the result asked for or read from the pod.
So an attempt begins at its beginning whenever it is begun, and nothing is done twice. A cancelled task (the operator
stops) leaves everything to the next one; `cancel` is what ends the tool.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from toe_async.agent.protocol import Orders, digest
from toe_async.apis.captures import NotStored, Standing
from toe_async.apis.core import NamespaceObject
from toe_async.apis.podspec import PodDetail
from toe_async.apis.powertool import TargetState
from toe_async.apis.reasons import Reason
from toe_async.capture import toolorders
from toe_async.capture.conversation import LEAST_WAIT_SECONDS, Conversation
from toe_async.capture.placing import Placing, gone, is_ours, vessel_of
from toe_async.capture.preflight import Fitting, host_pid, level_of, preflight
from toe_async.capture.refusals import Refused
from toe_async.capture.settling import End, settled
from toe_async.capture.toolevents import ToolResult, read_result
from toe_async.capture.toolfaults import Fault, ToolFault
from toe_async.capture.toolfetching import Fetching
from toe_async.capture.toolports import Attached, Captures, Deliveries, Kube, PodWatch, Ticket
from toe_async.capture.toolrecord import ToolRecord
from toe_async.capture.toolrun import Progress, ToolCapture
from toe_async.capture.toolstate import PULL_GRACE_SECONDS, Look, end_fault, in_trouble, look, start_fault
from toe_async.capture.vessels import WAIT_SECONDS, agent_pod, ephemeral_patch
from toe_async.kube.errors import KubeError
from toe_async.lib.backoff import Backoff
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner
from toe_async.telemetry import log

CANCEL_SECONDS: Final = 100.0
"""How long a tool that is told to end may take: its grace, what it stores of what it has, and some for the way."""
EXTRA_SECONDS: Final = 120.0
_AGENT_POLL_SECONDS: Final = 5.0
_BETWEEN_LOOKS_SECONDS: Final = 0.25
_LAST_ASK_SECONDS: Final = 20.0
_STATES: Final = {
    "warmup": TargetState.RUNNING,
    "running": TargetState.RUNNING,
    "stopping": TargetState.RUNNING,
    "storing": TargetState.STORING,
    "keeping": TargetState.STORING,
    "done": TargetState.STORING,
}
_ORDER = (TargetState.STARTING, TargetState.RUNNING, TargetState.STORING)
_KEPT_MODES = frozenset({"ephemeral", "s3"})
_OTHER_ORDERS: Final = Fault(
    Reason.NOT_STARTED,
    "the orders became others after the tool's container was made (by the collector's CA, the namespace's Pod Security "
    "level or a restart of the target), so nothing was run",
    passing=True,
)
_log = log.get("capture.tool")


class ToolSettings(Struct, frozen=True, kw_only=True):
    """What an administrator sets for all tools. Seconds and bytes."""

    agents_namespace: str
    collector_url: str
    max_bytes: int
    upload_seconds: float = 900.0
    start_seconds: float = 120.0
    poll_seconds: float = 30.0


class Parts(Struct, frozen=True, kw_only=True):
    """What all attempts share. `ca` gives the PEM of the collector's CA, empty where the system's are meant."""

    kube: Kube
    watch: PodWatch
    namespaces: Callable[[str], NamespaceObject | None]
    captures: Captures
    deliveries: Deliveries
    ca: Callable[[], Awaitable[str]]
    settings: ToolSettings
    clock: Clock


class Attempt:
    """One attempt. `run` once; `cancel` at any time."""

    def __init__(self, capture: ToolCapture, parts: Parts, tell: Callable[[Progress], None]) -> None:
        self._capture, self._parts, self._tell = capture, parts, tell
        self._placing = Placing(parts.kube)
        self._changed = asyncio.Event()
        self._cancelled: Fault | None = None
        self._cancelled_at = 0.0
        self._discard = False
        self._looked_at = float("-inf")
        self._progress = Progress(state=TargetState.STARTING)
        self._vessel = vessel_of(capture, parts.settings.agents_namespace, agent=False)
        self._vessel_uid = ""
        self._given: Orders | None = None
        self._level = ""
        self._record = ToolRecord(capture, parts.captures, parts.clock)
        self._fetching: Fetching | None = None
        self._seen = Look(phase="absent")
        self._outcome: Progress | None = None
        self.found = False
        """Whether the container was there before: another process had made it."""

    def cancel(self, reason: Reason, message: str, *, discard: bool) -> None:
        """Tell the tool to end; the attempt ends with this reason unless its outcome is there already."""
        if self._cancelled is None:
            self._cancelled, self._cancelled_at = Fault(reason, message), self._parts.clock.monotonic()
            self._changed.set()
        if discard and not self._discard:
            self._discard = True
            self._changed.set()

    async def run(self) -> Progress:
        """Do everything that is left to do and return the outcome. A cancelled task leaves the tool running."""
        async with AsyncExitStack() as stack:
            ticket: Ticket | None = None
            if self._mode == "collector":
                ticket = await stack.enter_async_context(self._parts.captures.hold(self._capture.id))
            try:
                progress = await self._steps(ticket)
            except ToolFault as ended:
                progress = await self._failed(ended.fault)
            except asyncio.CancelledError:
                if ticket is not None:
                    ticket.leave()
                raise
        self._outcome = progress
        return progress

    async def release(self) -> None:
        """The outcome is written down: take back what an attempt that is begun again would need.

        Without its agent pod it would make another one, and with a closed record it would end otherwise. What fails
        here ends by itself: pods by their deadline, records by their expiry.
        """
        completed = self._outcome is not None and self._outcome.state is TargetState.COMPLETED
        self._parts.deliveries.release(self._capture.id)
        if self._fetching is not None:
            await self._fetching.fetched()
        if self._mode == "collector" and not completed:
            await self._record.close()
        if not (self._mode == "ephemeral" and self._outcome is not None and self._outcome.artifacts):
            await self._delete_agent()

    # -- steps --------------------------------------------------------------------------------------------------------

    async def _steps(self, ticket: Ticket | None) -> Progress:
        capture, target = self._capture, self._capture.target
        pod = await self._patiently(target.namespace, target.pod)
        if pod is None or pod.metadata.uid != target.pod_uid:
            raise gone(capture)
        namespace = self._parts.namespaces(target.namespace)
        self._level = level_of(namespace)
        self._given = await self._write_orders(pod)
        seen = look(pod, self._vessel.container)
        if seen.phase == "absent" and host_pid(capture.tool, self._level):
            self._vessel = vessel_of(capture, self._parts.settings.agents_namespace, agent=True)
            seen = await self._look() or seen
        self.found = seen.phase != "absent"
        fitting = None if self.found else _fitting(capture, pod, namespace)
        if not self.found:  # a container that is there has to be told
            self._check_cancelled()
        if ticket is not None and self.found:
            await self._ask()  # it was registered then; a collector that is away now ends nothing
        elif ticket is not None:
            await self._register()
        if fitting is not None:
            self._check_cancelled()
            await self._place(fitting)
        vessel = self._vessel
        with self._parts.watch.watching(vessel.namespace, vessel.pod, self._changed.set):
            self._seen = await self._started()
            self._report(TargetState.STARTING)
            if ticket is not None and self._seen.image_id:
                await self._ask()  # says which image it really is; nothing depends on the answer
            return await self._converse(ticket)

    async def _write_orders(self, pod: PodDetail) -> Orders:
        settings = self._parts.settings
        orders = toolorders.orders(
            self._capture,
            pod,
            level=self._level,
            collector=settings.collector_url,
            ca=await self._parts.ca(),
            max_bytes=settings.max_bytes,
            upload_seconds=settings.upload_seconds,
        )
        if isinstance(orders, Refused):
            raise ToolFault(orders.reason, orders.message)
        return orders

    async def _register(self) -> None:
        """Register, again and again for as long as a start may take: a run never begins that could not end well."""
        told = await self._ask(self._parts.settings.start_seconds)
        if isinstance(told, NotStored):
            raise ToolFault(told.reason, f"the capture could not be registered: {told.message}", passing=not told.final)
        if told.state == "Cancelled":
            raise ToolFault(Reason.CANCELLED, "the capture was cancelled at the collector before its tool was started")

    async def _place(self, fitting: Fitting) -> None:
        capture, orders = self._capture, digest(self._orders)
        if self._vessel.agent:
            pod = agent_pod(
                capture.id,
                namespace=self._vessel.namespace,
                target=capture.target,
                image=capture.tool.image,
                orders_digest=orders,
                security_context=fitting.security_context,
                deadline_seconds=int(WAIT_SECONDS + self._total_seconds() + self._orders.keep_seconds),
            )
            await self._placing.create(capture, self._vessel, pod)
            return
        patch = ephemeral_patch(
            capture.id,
            pod_uid=capture.target.pod_uid,
            image=capture.tool.image,
            orders_digest=orders,
            security_context=fitting.security_context,
            target_container=capture.target.container,
            volume=fitting.volume,
        )
        await self._placing.inject(capture, self._vessel, patch)

    async def _started(self) -> Look:
        """Wait until the container runs or has ended."""
        clock, settings = self._parts.clock, self._parts.settings
        began, trouble_since = clock.monotonic(), None
        while True:
            seen = await self._look()
            if seen is None:
                raise self._vanished()
            if seen.phase in {"running", "ended"}:
                return seen
            now = clock.monotonic()
            # One that was asked for comes up without us, and would wait for orders: it is better told.
            if self._cancelled is not None and now >= self._cancelled_at + CANCEL_SECONDS:
                self._check_cancelled()
            trouble_since = (trouble_since or now) if in_trouble(seen) else None
            troubled = now - (trouble_since or now)
            if (fault := start_fault(seen, troubled, self._capture.tool.image)) is not None:
                raise ToolFault(fault.reason, fault.message, passing=fault.passing)
            left = settings.start_seconds - (now - began)
            if self._cancelled is not None:
                left = min(left, self._cancelled_at + CANCEL_SECONDS - now)
            if left <= 0:
                words = ": ".join(part for part in (seen.reason, seen.message) if part) or "the kubelet says nothing"
                message = f"the tool's container did not start within {settings.start_seconds:g} s ({words})"
                raise ToolFault(Reason.NOT_STARTED, message, passing=True)
            grace = PULL_GRACE_SECONDS - troubled if trouble_since is not None else left
            await self._wait(min(left, grace))

    async def _converse(self, ticket: Ticket | None) -> Progress:
        """Talk with the supervisor until there is an outcome."""
        ours = not self._seen.orders or self._seen.orders == digest(self._orders)
        talk = Conversation(
            self._capture.id,
            self._orders if ours else None,
            attach=self._attach,
            token=ticket.token if ticket is not None else None,
            changed=self._changed.set,
            clock=self._parts.clock,
        )
        async with TaskOwner(_unexpected) as owner:
            if self._cancelled is not None:
                talk.cancel(discard=self._discard)
            if self._seen.phase == "running":
                owner.start(talk.run(), name=f"talk {self._capture.id}")
            fault = await self._until_over(talk)
            # What it said is more than a termination message can hold.
            result = talk.result or read_result(self._seen.message, self._capture.id)
            if fault is None and result is None:
                fault = end_fault(self._seen, self._capture.tool.name)
            self._report(TargetState.STORING if result is not None else self._progress.state)
            return await self._settle(result, fault)

    async def _until_over(self, talk: Conversation) -> Fault | None:
        """Wait for the container's end or a result that is to be fetched; else return what ended the waiting."""
        clock = self._parts.clock
        ends_at, late = clock.monotonic() + self._seconds_left(), None
        while True:
            # A tool runs on while the API server is away.
            seen = await self._look(ends_at - clock.monotonic())
            if seen is None:
                return self._vanished().fault
            self._seen = seen
            if seen.phase == "ended" or (talk.result is not None and self._mode in _KEPT_MODES):
                return late if late is not None and late.reason is Reason.CAPTURE_TIMED_OUT else None
            if self._orders_changed(talk):
                return _OTHER_ORDERS
            now = clock.monotonic()
            if late is None and now >= ends_at:
                late = Fault(Reason.CAPTURE_TIMED_OUT, self._late_words(talk.trouble), passing=True)
                ends_at = now + CANCEL_SECONDS
                talk.cancel()
            elif now >= ends_at:
                return late
            if self._cancelled is not None and late is None:
                late = Fault(self._cancelled.reason, f"{self._cancelled.message}; the tool has not confirmed its end")
                ends_at = self._cancelled_at + CANCEL_SECONDS
                talk.cancel()
            if self._discard:
                talk.cancel(discard=True)
            if (state := _STATES.get(talk.phase)) is not None:
                self._report(state, talk.bytes)
            await self._wait(ends_at - now)

    def _orders_changed(self, talk: Conversation) -> bool:
        return bool(self._seen.orders) and self._seen.orders != digest(self._orders) and talk.waits_for_orders

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _settle(self, result: ToolResult | None, fault: Fault | None) -> Progress:
        clock, seconds = self._parts.clock, self._orders.upload_seconds + EXTRA_SECONDS
        end = self._end(fault, result)
        if self._mode == "collector":
            told = await self._ask(seconds)
            end = replace(end, standing=told if isinstance(told, Standing) else None)
        elif self._mode == "s3" and result is not None:
            self._fetching = Fetching(
                self._capture,
                self._vessel,
                self._orders,
                kube=self._parts.kube,
                deliveries=self._parts.deliveries,
                clock=clock,
            )
            ended = self._seen.phase == "ended"
            delivered, undelivered = await self._fetching.deliver(result, clock.monotonic() + seconds, ended=ended)
            end = replace(end, delivered=delivered, undelivered=undelivered)
        return settled(end)

    async def _failed(self, fault: Fault) -> Progress:
        """What is stored is told all the same, and a pod that went after its capture was complete did its work."""
        standing = None
        if self._mode == "collector" and (self._record.standing is not None or fault.reason is Reason.POD_GONE):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_ASK_SECONDS):
                    told = await self._ask()
                    standing = told if isinstance(told, Standing) else None
        return settled(replace(self._end(fault, None), standing=standing))

    async def _ask(self, seconds: float = 0.0) -> Standing | NotStored:
        """Register again and hear where the capture stands; within `seconds` of trouble, again and again."""
        ends_at = self._parts.clock.monotonic() + seconds
        return await self._record.ask_until(ends_at, self._given, self._level, self._seen.image_id)

    def _end(self, fault: Fault | None, result: ToolResult | None) -> End:
        return End(
            capture=self._capture,
            tool_container=self._vessel.container,
            result=result,
            fault=fault,
            cancelled=self._cancelled,
            exit_code=self._seen.exit_code,
            started_at=self._seen.started_at or self._progress.started_at,
            finished_at=self._seen.finished_at or self._parts.clock.now(),
        )

    async def _delete_agent(self) -> None:
        if not self._vessel.agent or not self._vessel_uid:
            return
        try:
            await self._placing.delete(self._vessel, self._vessel_uid)
        except KubeError as error:  # its deadline ends it, and `ToolRunner.tidy` removes it
            _log.warning("an agent pod is left behind", pod=self._vessel.pod, why=str(error))

    # -- looking ------------------------------------------------------------------------------------------------------

    @property
    def _mode(self) -> str:
        return self._capture.spec.output.mode

    @property
    def _orders(self) -> Orders:
        assert self._given is not None  # written before anything that needs them
        return self._given

    async def _look(self, seconds: float = 0.0) -> Look | None:
        """The tool's container now; None when its pod is gone. Troubles that pass are waited for."""
        pod = await self._patiently(self._vessel.namespace, self._vessel.pod, seconds)
        self._looked_at = self._parts.clock.monotonic()
        if pod is None or not is_ours(self._capture, self._vessel, pod):
            return None
        self._vessel_uid = pod.metadata.uid
        return look(pod, self._vessel.container)

    async def _patiently(self, namespace: str, name: str, seconds: float = 0.0) -> PodDetail | None:
        backoff = Backoff(1.0, 15.0, jitter=0.5)
        ends_at = self._parts.clock.monotonic() + max(seconds, self._parts.settings.start_seconds)
        while True:
            try:
                return await self._placing.read(namespace, name)
            except ToolFault as trouble:
                wait = backoff.next()
                if not trouble.fault.passing or self._parts.clock.monotonic() + wait >= ends_at:
                    raise
            await asyncio.sleep(wait)

    async def _wait(self, seconds: float) -> None:
        """Wait for news, and look again before long however quiet it is."""
        poll = _AGENT_POLL_SECONDS if self._vessel.agent else self._parts.settings.poll_seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(LEAST_WAIT_SECONDS, min(seconds, poll))):
                await self._changed.wait()
        # Each look asks the API server, and a container may say as much as it likes.
        if (early := self._looked_at + _BETWEEN_LOOKS_SECONDS - self._parts.clock.monotonic()) > 0:
            await asyncio.sleep(early)
        self._changed.clear()

    def _check_cancelled(self) -> None:
        if self._cancelled is not None:
            raise ToolFault(self._cancelled.reason, self._cancelled.message)

    def _vanished(self) -> ToolFault:
        if self._vessel.agent:
            where = f"{self._vessel.namespace}/{self._vessel.pod}"
            return ToolFault(Reason.CONTAINER_FAILED, f"somebody deleted the tool's agent pod {where}", passing=True)
        return gone(self._capture)

    def _attach(self) -> AbstractAsyncContextManager[Attached]:
        vessel = self._vessel
        return self._parts.kube.attach(vessel.namespace, vessel.pod, vessel.container)

    def _report(self, state: TargetState, bytes_: int = 0) -> None:
        """Tell how far it has come; never back, whatever the container says."""
        state = max(state, self._progress.state, key=_ORDER.index)
        progress = Progress(
            state=state,
            bytes=max(bytes_, self._progress.bytes),
            started_at=self._seen.started_at,
            tool_container=self._vessel.container,
        )
        if progress != self._progress:
            self._progress = progress
            self._tell(progress)

    def _late_words(self, trouble: str) -> str:
        heard = f"; the last trouble in talking to it: {trouble}" if trouble else ""
        return f"the tool did not end within {self._total_seconds():.0f} s{heard}"

    def _total_seconds(self) -> float:
        orders = self._orders
        return orders.warmup + orders.duration + orders.grace + orders.upload_seconds + EXTRA_SECONDS

    def _seconds_left(self) -> float:
        """Until the container should have ended, counted from its start whoever saw that."""
        total, started = self._total_seconds(), self._seen.started_at
        passed = (self._parts.clock.now() - started).total_seconds() if started is not None else 0.0
        return total - min(max(passed, 0.0), total)


def _fitting(capture: ToolCapture, pod: PodDetail, namespace: NamespaceObject | None) -> Fitting:
    found = preflight(capture, pod, namespace)
    if isinstance(found, Fitting):
        return found
    raise ToolFault(found[0].reason, "; ".join(one.message for one in found))


def _unexpected(name: str, error: BaseException) -> None:
    _log.error("talking to a tool ended by an error", task=name, error=type(error).__name__)
