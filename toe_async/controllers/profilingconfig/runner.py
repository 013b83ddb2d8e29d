"""Takes the captures that were claimed, apart from any reconcile (PR2).

A capture is one task: its profiles one after the other into the spool, then its account in the status. It lives as long
as this process, not as long as the leadership: the claim is ours, and whoever leads next sees it. What was received is
delivered by ``sinks.delivery``; the status says Uploading until that has reported.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from structlog.contextvars import bound_contextvars

from toe_async.apis.captures import ArtifactRecord, CaptureRecord
from toe_async.apis.profilingstatus import ArtifactStatus, ProfileType
from toe_async.apis.reasons import Reason
from toe_async.capture.pprof import CaptureFailed, Taken
from toe_async.capture.targets import PprofTarget
from toe_async.controllers.profilingconfig.accounts import Accounts, captured, failed
from toe_async.controllers.profilingconfig.facts import ConfigKey, Start
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner, cancel_and_wait
from toe_async.sinks.errors import SpoolError
from toe_async.sinks.spool import Spool
from toe_async.telemetry import log
from toe_async.telemetry.metrics import OperatorMetrics

_log = log.get("profilingconfig.capture")

# A profiler that somebody else uses is usually free again within one profile's length (U8).
BUSY_WAITS = (5.0, 15.0, 30.0)
BROKEN_WAITS = (1.0,)

Write = Callable[[bytes], Awaitable[None]]


class Take(Protocol):
    """``capture.pprof.take`` with its client: stream one profile into ``write``."""

    async def __call__(
        self, target: PprofTarget, profile: ProfileType, seconds: int, write: Write, *, max_bytes: int
    ) -> Taken:
        """Raise CaptureFailed when nothing usable came."""


class Finishing(Protocol):
    """Is told that no further artifact of a capture will come."""

    def finished(self, record: CaptureRecord) -> None:
        """Take note."""


class CaptureRunner:
    """Owns the capture tasks of this process."""

    def __init__(
        self,
        *,
        take: Take,
        spool: Spool,
        accounts: Accounts,
        pod_uid: Callable[[str, str], str | None],
        clock: Clock,
        metrics: OperatorMetrics,
        owner: TaskOwner,
        max_bytes: int,
    ) -> None:
        self._take, self._spool, self._accounts = take, spool, accounts
        self._pod_uid, self._clock, self._metrics, self._owner = pod_uid, clock, metrics, owner
        self._max_bytes = max_bytes
        self._tasks: dict[str, tuple[ConfigKey, asyncio.Task[None]]] = {}
        self._reasons: dict[str, tuple[Reason, str]] = {}
        for reason in ("threshold-exceeded", "on-demand"):
            metrics.profiling_captures.labels(reason)
        self._delivery: Finishing | None = None
        self.on_end: Callable[[ConfigKey], None] = lambda key: None

    def deliver_with(self, delivery: Finishing) -> None:
        """Say who is told when a capture has brought everything."""
        self._delivery = delivery

    @property
    def running(self) -> frozenset[str]:
        """Ids of the captures that this process takes now."""
        return frozenset(self._tasks)

    def start(self, key: ConfigKey, start: Start) -> None:
        """Begin a claimed capture; a second start of the same one changes nothing."""
        id_ = start.record.id
        if id_ in self._tasks:
            return
        self._metrics.profiling_captures.labels(start.record.reason).inc()
        self._accounts.tell_start(start.record)
        task = self._owner.start(self._run(key, start), name=f"capture {id_}")
        self._tasks[id_] = (key, task)
        task.add_done_callback(lambda _: self._ended(id_))

    def cancel(self, id_: str, reason: Reason, message: str) -> None:
        """Stop a capture; what it has received whole is still delivered, the rest fails with this reason."""
        if (held := self._tasks.get(id_)) is not None and id_ not in self._reasons:
            self._reasons[id_] = (reason, message)
            held[1].cancel()

    def forget(self, key: ConfigKey) -> None:
        """The configuration is gone: stop its captures."""
        for id_ in [id_ for id_, (owner, _) in self._tasks.items() if owner == key]:
            self.cancel(id_, Reason.CANCELLED, "the ProfilingConfig was deleted")

    async def drain(self, seconds: float) -> None:
        """Let the running captures end for so long, then stop the others and wait for their accounts."""
        tasks = [task for _, task in self._tasks.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for id_ in tuple(self._tasks):
            self.cancel(id_, Reason.CANCELLED, "the operator is shutting down")
        left = [task for _, task in self._tasks.values()]
        if left:
            await asyncio.wait(left, timeout=seconds)
        await cancel_and_wait(*left)

    # ---- one capture ---------------------------------------------------------------------------------------------

    def _ended(self, id_: str) -> None:
        key, _ = self._tasks.pop(id_)
        self._reasons.pop(id_, None)
        self.on_end(key)

    async def _run(self, key: ConfigKey, start: Start) -> None:
        began = self._clock.monotonic()
        record = start.record
        results: list[ArtifactStatus] = []
        with bound_contextvars(namespace=key.namespace, name=key.name, captureID=record.id):
            try:
                for type_ in start.types:
                    results.append(await self._one(start, type_))  # noqa: PERF401 -- kept when a later one is cancelled
            except asyncio.CancelledError:
                if record.id not in self._reasons:
                    raise  # the process ends: the spool and the row's deadline tell the rest
            reason, message = self._reasons.get(record.id, (Reason.CANCELLED, "the capture was cancelled"))
            seen = {result.type for result in results}
            results += [failed(type_, reason, message) for type_ in start.types if type_ not in seen]
            self._metrics.capture_duration.labels(record.kind).observe(self._clock.monotonic() - began)
            await self._accounts.received(record, results)
        if self._delivery is not None:
            self._delivery.finished(record)

    async def _one(self, start: Start, type_: ProfileType) -> ArtifactStatus:
        record, waits = start.record, {Reason.PROFILER_BUSY: list(BUSY_WAITS)}
        others = list(BROKEN_WAITS)
        while True:
            try:
                artifact = await self._receive(start, type_)
            except CaptureFailed as failure:
                left = waits.get(failure.reason, others)
                alive = self._pod_uid(record.target.namespace, record.target.pod) == record.target.pod_uid
                if failure.retry and left and alive:
                    await asyncio.sleep(left.pop(0))
                    continue
                reason = failure.reason if alive else Reason.POD_GONE
                return self._gave_up(record, type_, reason, failure.message)
            except SpoolError as failure:
                return self._gave_up(record, type_, failure.reason, str(failure))
            self._count(record, type_, "received", "")
            return captured(artifact)

    async def _receive(self, start: Start, type_: ProfileType) -> ArtifactRecord:
        """One profile into the spool, whole or not at all. The pod's UID is looked at before and after."""
        record = start.record
        self._same_pod(record)
        writer = await self._spool.begin(record, f"{type_}.pprof", type_, self._max_bytes)
        try:
            taken = await self._take(start.target, type_, start.cpu_seconds, writer.write, max_bytes=self._max_bytes)
            self._same_pod(record)
            return await writer.commit(taken.verified)
        finally:
            await writer.abort()  # does nothing after a commit

    def _same_pod(self, record: CaptureRecord) -> None:
        target = record.target
        if self._pod_uid(target.namespace, target.pod) != target.pod_uid:
            raise CaptureFailed(Reason.POD_GONE, f"pod {target.namespace}/{target.pod} is gone or another one by now")

    def _gave_up(self, record: CaptureRecord, type_: ProfileType, reason: Reason, message: str) -> ArtifactStatus:
        _log.warning("profile not taken", pod=record.target.pod, type=str(type_), reason=str(reason), why=message)
        self._metrics.profiling_errors.labels(reason).inc()
        self._count(record, type_, "failed", reason)
        return failed(type_, reason, message)

    def _count(self, record: CaptureRecord, type_: ProfileType, result: str, reason: str) -> None:
        self._metrics.captures.labels(record.kind, str(type_), result, reason).inc()
