"""From the spool to the sinks, again and again until the deadline.

Theory of operation. Every entry of the spool belongs to a lane, one lane per sink. A lane whose last answer was bad for
the whole sink (it is down, it refuses the key) sends one entry at a time, and not before its backoff is over, so a dead
sink costs neither the live ones their places nor itself a stampede when it returns. Besides that each entry has a
backoff of its own.

An entry leaves in one order only: the sink's receipt or the deadline, then `report` until it returns, then the removal
from the spool. A process that dies in between does the last steps again: sinks recognise what they have (S3 by the
object's metadata, the collector by its digest) and `report` must bear being told twice.

Deadlines are wall-clock, counted from the instant that the spool persisted; waits are monotonic.
"""

import asyncio
import contextlib
import heapq
import itertools
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Struct

from toe_async.apis.captures import ArtifactRecord, CaptureRecord, CollectorRef, Receipt, SinkRef
from toe_async.apis.reasons import Reason
from toe_async.lib.backoff import Backoff
from toe_async.lib.clock import Clock
from toe_async.lib.durations import format_duration
from toe_async.lib.tasks import TaskOwner
from toe_async.sinks.errors import SinkRefused, SinkUnavailable, SpoolError
from toe_async.sinks.spool import SpoolEntry
from toe_async.telemetry import log
from toe_async.telemetry.metrics import OperatorMetrics

_log = log.get(__name__)

LEAST_WAIT_SECONDS = 0.001
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 600.0
MOST_OPEN_CAPTURES = 1000


class DeliveryFailed(Struct, frozen=True):
    """An artifact will not be stored: why, in one word and one sentence."""

    reason: Reason
    message: str


Report = Callable[[CaptureRecord, ArtifactRecord, Receipt | DeliveryFailed], Awaitable[None]]
OnRetry = Callable[[CaptureRecord, ArtifactRecord, Reason, str], None]


class Source(Protocol):
    """What delivery needs of the spool."""

    @property
    def used_bytes(self) -> int:
        """Bytes that wait."""

    def listening(self, callback: Callable[[SpoolEntry], None]) -> AbstractContextManager[None]:
        """Call back for every entry that there is, then for each new one."""

    async def remove(self, entry: SpoolEntry) -> None:
        """Forget an entry; raises SpoolError."""


class Destination(Protocol):
    """What delivery needs of the sinks."""

    async def store(self, entry: SpoolEntry, *, again: bool) -> Receipt:
        """Store one artifact; `again` when an earlier attempt may have succeeded unheard.

        Raises:
            SinkUnavailable, SinkRefused.
        """

    async def complete(self, record: CaptureRecord, artifacts: tuple[ArtifactRecord, ...]) -> None:
        """Say that nothing more will come of a capture.

        Raises:
            SinkUnavailable, SinkRefused.
        """

    async def probe(self, ref: SinkRef, namespace: str) -> str | None:
        """Return None when the sink would take an artifact now, as far as can be told, else why not in one sentence."""


class _Parcel:
    """An entry on its way. It is over once `outcome` is set."""

    def __init__(self, entry: SpoolEntry, deadline: datetime) -> None:
        self.entry, self.deadline = entry, deadline
        self.backoff = _waits()
        self.tried = entry.recovered
        self.last = "no attempt was made"
        self.running = False
        self.outcome: Receipt | DeliveryFailed | None = None


class _Lane:
    """The entries of one sink, by the time at which each is due."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, int, _Parcel]] = []
        self.backoff = _waits()
        self.opens_at = 0.0
        self.running = 0
        self.turn = 0

    @property
    def troubled(self) -> bool:
        """Whether the sink's last answer was bad for everything that goes there."""
        return self.backoff.failures > 0

    def due_at(self) -> float | None:
        """Return when something may be sent next, however many places there are; None when nothing waits."""
        while self.waiting and self.waiting[0][2].outcome is not None:
            heapq.heappop(self.waiting)
        return max(self.waiting[0][0], self.opens_at) if self.waiting else None

    def heal(self, now: float) -> None:
        """The sink works again: what waited because it did not, is due."""
        if self.troubled:
            self.backoff.reset()
            self.opens_at = now
            self.waiting = [(min(due, now), turn, parcel) for due, turn, parcel in self.waiting]
            heapq.heapify(self.waiting)

    def hold(self, now: float, at_least: float) -> None:
        """The sink is in trouble: wait. Entries that were under way together count as one failure."""
        if now >= self.opens_at:
            self.opens_at = now + max(self.backoff.next(), at_least)


class _Capture:
    """What a collector capture still waits for before it can be completed."""

    def __init__(self, record: CaptureRecord) -> None:
        self.record = record
        self.pending = 0
        self.finished = False
        self.stored: dict[str, ArtifactRecord] = {}


class Delivery:
    """Drains the spool. One `run` at a time, owned by the caller; everything else may be called at any time.

    `report` is awaited before an entry leaves the spool, again and again while it raises. `on_retry` is told each
    failed attempt; it must not block.
    """

    def __init__(
        self,
        spool: Source,
        sinks: Destination,
        report: Report,
        *,
        on_retry: OnRetry,
        clock: Clock,
        metrics: OperatorMetrics,
        deadline_seconds: float,
        concurrency: int = 4,
    ) -> None:
        self._spool, self._sinks, self._report, self._on_retry = spool, sinks, report, on_retry
        self._clock, self._metrics = clock, metrics
        self._deadline = timedelta(seconds=deadline_seconds)
        self._concurrency = concurrency
        self._turns = itertools.count()
        self._changed = asyncio.Event()
        self._fresh: deque[SpoolEntry] = deque()
        self._lanes: dict[tuple[str, ...], _Lane] = {}
        self._by_deadline: list[tuple[datetime, int, _Parcel]] = []
        self._captures: dict[str, _Capture] = {}
        self._complete: deque[_Capture] = deque()
        metrics.spool_bytes.set_function(lambda: spool.used_bytes)
        for sink in ("s3", "collector"):
            metrics.profiling_uploads.labels(sink)
            metrics.artifact_bytes.labels(sink)
            for result in ("stored", "retry", "failed"):
                metrics.uploads.labels(sink, result)

    def wake(self) -> None:
        """Look again now. Backoffs stay as they are; new entries are seen without it."""
        self._changed.set()

    def finished(self, record: CaptureRecord) -> None:
        """Say that no further artifact of this capture will be spooled, so that the collector may close it.

        Without it the collector closes the capture at its expiry.
        """
        if (capture := self._captures.get(record.id)) is not None:
            capture.finished = True
            self._close_if_done(capture)

    async def probe(self, ref: SinkRef, namespace: str) -> str | None:
        """Return None when the sink would take an artifact of a config in `namespace` now, else why not."""
        return await self._sinks.probe(ref, namespace)

    async def run(self) -> None:
        """Deliver until cancelled. Attempts under way are cancelled with it; their entries stay in the spool."""
        for state in (self._fresh, self._lanes, self._by_deadline, self._captures, self._complete):
            state.clear()
        async with TaskOwner(_unexpected) as tasks:
            with self._spool.listening(self._take):
                while True:
                    self._changed.clear()
                    wait = self._turn(tasks)
                    with contextlib.suppress(TimeoutError):
                        # Rounding may leave a wait too short for the clock to show that it passed.
                        async with asyncio.timeout(wait if wait is None else max(wait, LEAST_WAIT_SECONDS)):
                            await self._changed.wait()

    def _take(self, entry: SpoolEntry) -> None:
        if isinstance(entry.record.sink, CollectorRef):
            capture = self._capture(entry.record)
            capture.pending += 1
            capture.finished |= entry.recovered
        self._fresh.append(entry)
        self._changed.set()

    def _turn(self, tasks: TaskOwner) -> float | None:
        """Start whatever may start; return the seconds until time alone allows more, None for never."""
        while self._fresh:
            self._admit(self._fresh.popleft(), tasks)
        while self._complete:
            capture = self._complete.popleft()
            tasks.start(self._finish(capture), name=f"complete {capture.record.id}")
        now, wall = self._clock.monotonic(), self._clock.now()
        while self._by_deadline and (self._by_deadline[0][2].outcome or self._by_deadline[0][0] <= wall):
            parcel = heapq.heappop(self._by_deadline)[2]
            if not parcel.running and not parcel.outcome:  # a running one has the deadline in its own timeout
                self._end(parcel, self._too_late(parcel), tasks)
        while (lane := self._next_lane(now)) is not None:
            parcel = heapq.heappop(lane.waiting)[2]
            lane.turn = next(self._turns)
            lane.running += 1
            parcel.running = True
            tasks.start(self._attempt(lane, parcel, tasks), name=f"deliver {parcel.entry.name}")
        for key in [key for key, lane in self._lanes.items() if lane.due_at() is None and lane.running == 0]:
            del self._lanes[key]
        waits = [due - now for lane in self._lanes.values() if (due := lane.due_at()) is not None and due > now]
        if self._by_deadline:
            waits.append((self._by_deadline[0][0] - wall).total_seconds())
        return min(waits, default=None)

    def _admit(self, entry: SpoolEntry, tasks: TaskOwner) -> None:
        parcel = _Parcel(entry, entry.artifact.captured_at + self._deadline)
        if entry.lost is not None:
            self._end(parcel, DeliveryFailed(entry.lost.reason, entry.lost.message), tasks)
            return
        lane = self._lanes.setdefault(_lane_key(entry.record), _Lane())
        turn = next(self._turns)
        heapq.heappush(lane.waiting, (self._clock.monotonic(), turn, parcel))
        heapq.heappush(self._by_deadline, (parcel.deadline, turn, parcel))

    def _next_lane(self, now: float) -> _Lane | None:
        if sum(lane.running for lane in self._lanes.values()) >= self._concurrency:
            return None
        # Sinks in trouble may hold half of the places, so that their timeouts never keep the others out.
        troubled = sum(lane.running for lane in self._lanes.values() if lane.troubled)
        room_for_troubled = troubled < max(1, self._concurrency // 2)
        ready = [
            lane
            for lane in self._lanes.values()
            if (due := lane.due_at()) is not None
            and due <= now
            and (not lane.troubled or (lane.running == 0 and room_for_troubled))
        ]
        return min(ready, key=lambda lane: lane.turn, default=None)

    async def _attempt(self, lane: _Lane, parcel: _Parcel, tasks: TaskOwner) -> None:
        entry, sink = parcel.entry, _sink_name(parcel.entry.record)
        trouble: SinkUnavailable | None = None
        outcome: Receipt | DeliveryFailed | None = None
        left = (parcel.deadline - self._clock.now()).total_seconds()
        try:
            with self._metrics.upload_in_progress.track_inprogress():
                async with asyncio.timeout(left) as limit:
                    outcome = await self._sinks.store(entry, again=parcel.tried)
        except SinkUnavailable as error:
            trouble = error
        except SinkRefused as error:
            outcome = DeliveryFailed(error.reason, str(error))
        except TimeoutError:
            if limit.expired():
                outcome = self._too_late(parcel)
            else:
                trouble = SinkUnavailable("the sink did not answer in time")
        except Exception as error:  # noqa: BLE001 -- a fault of ours must not lose the artifact: it is logged and retried
            _log.error("delivery met an error that it does not know", entry=entry.name, **_whence(error))
            trouble = SinkUnavailable(f"internal error {type(error).__name__}; see the operator's log", sink_wide=False)
        finally:
            lane.running -= 1
            parcel.running = False
            parcel.tried = True
            self._changed.set()
        now = self._clock.monotonic()
        if trouble is not None and self._clock.now() < parcel.deadline:
            self._retry(lane, parcel, trouble, now)
            return
        if trouble is not None:
            parcel.last = str(trouble)
        outcome = outcome or self._too_late(parcel)
        if isinstance(outcome, Receipt):
            lane.heal(now)
            self._metrics.uploads.labels(sink, "stored").inc()
        self._end(parcel, outcome, tasks)

    def _retry(self, lane: _Lane, parcel: _Parcel, trouble: SinkUnavailable, now: float) -> None:
        entry = parcel.entry
        parcel.last = str(trouble)
        asked = min(trouble.retry_after or 0.0, LONGEST_RETRY_AFTER_SECONDS)
        wait = max(parcel.backoff.next(), asked)
        if trouble.sink_wide:
            lane.hold(now, asked)
        heapq.heappush(lane.waiting, (now + wait, next(self._turns), parcel))
        self._metrics.uploads.labels(_sink_name(entry.record), "retry").inc()
        _log.warning("an artifact is not stored yet", entry=entry.name, why=parcel.last, wait_seconds=round(wait, 1))
        self._on_retry(entry.record, entry.artifact, trouble.reason, parcel.last)

    def _too_late(self, parcel: _Parcel) -> DeliveryFailed:
        within = format_duration(self._deadline)
        return DeliveryFailed(Reason.UPLOAD_FAILED, f"not stored within {within} of its capture: {parcel.last}")

    def _end(self, parcel: _Parcel, outcome: Receipt | DeliveryFailed, tasks: TaskOwner) -> None:
        parcel.outcome = outcome
        sink = _sink_name(parcel.entry.record)
        if isinstance(outcome, Receipt):
            self._metrics.profiling_uploads.labels(sink).inc()
            self._metrics.artifact_bytes.labels(sink).inc(outcome.size)
        else:
            self._metrics.uploads.labels(sink, "failed").inc()
            self._metrics.profiling_errors.labels(outcome.reason).inc()
        tasks.start(self._settle(parcel.entry, outcome), name=f"report {parcel.entry.name}")

    async def _settle(self, entry: SpoolEntry, outcome: Receipt | DeliveryFailed) -> None:
        backoff = _waits()
        while True:
            try:
                await self._report(entry.record, entry.artifact, outcome)
                break
            except Exception as error:  # noqa: BLE001 -- whatever keeps the outcome from being told, it is told later
                _log.warning("the outcome of a delivery could not be reported", entry=entry.name, **_whence(error))
            await asyncio.sleep(backoff.next())
        try:
            await self._spool.remove(entry)
        except SpoolError as error:
            _log.warning("a settled entry stays on disk until a restart", entry=entry.name, why=str(error))
        if (capture := self._captures.get(entry.record.id)) is not None:
            capture.pending -= 1
            if isinstance(outcome, Receipt):
                capture.stored[entry.artifact.leaf] = entry.artifact
            self._close_if_done(capture)

    def _capture(self, record: CaptureRecord) -> _Capture:
        if len(self._captures) >= MOST_OPEN_CAPTURES and record.id not in self._captures:
            # Only captures that nobody finished pile up; the collector closes them by itself.
            del self._captures[next(iter(self._captures))]
        return self._captures.setdefault(record.id, _Capture(record))

    def _close_if_done(self, capture: _Capture) -> None:
        if capture.finished and capture.pending == 0:
            del self._captures[capture.record.id]
            if capture.stored:
                self._complete.append(capture)
                self._changed.set()

    async def _finish(self, capture: _Capture) -> None:
        """Complete a capture, in three tries: what it stored is safe without it."""
        backoff = _waits()
        for _ in range(3):
            try:
                await self._sinks.complete(capture.record, tuple(capture.stored.values()))
                return
            except (SinkUnavailable, SinkRefused) as error:
                why = str(error)
            await asyncio.sleep(backoff.next())
        _log.info("a capture stays open until it expires", capture=capture.record.id, why=why)


def _waits() -> Backoff:
    return Backoff(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, jitter=0.5)


def _sink_name(record: CaptureRecord) -> str:
    return "collector" if isinstance(record.sink, CollectorRef) else "s3"


def _lane_key(record: CaptureRecord) -> tuple[str, ...]:
    """Two artifacts share a lane when what stops one would stop the other."""
    sink = record.sink
    if isinstance(sink, CollectorRef):
        return ("collector",)
    whose = (record.namespace, sink.credentials_secret) if sink.credentials_secret else ()
    return ("s3", sink.endpoint, sink.region, sink.bucket, *whose)


def _whence(error: BaseException) -> dict[str, str]:
    """Say what an error is and where it arose; not its text, which may hold a header with a token."""
    frames = [f"{frame.f_code.co_qualname}:{line}" for frame, line in traceback.walk_tb(error.__traceback__)]
    return {"error": type(error).__name__, "where": " > ".join(frames[-4:])}


def _unexpected(name: str, error: BaseException) -> None:
    _log.error("a delivery task ended by an error", task=name, **_whence(error))
