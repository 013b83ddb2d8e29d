"""Delivery: order, patience, deadlines and reports, in virtual time."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from loopclock import LoopClock
from prometheus_client import CollectorRegistry

from toe_async.apis.captures import ArtifactRecord, CaptureRecord, CollectorRef, Receipt, S3Ref, SinkRef
from toe_async.apis.reasons import Reason
from toe_async.sinks.delivery import Delivery, DeliveryFailed
from toe_async.sinks.errors import SinkRefused, SinkUnavailable, SpoolError
from toe_async.sinks.spool import Lost, SpoolEntry
from toe_async.telemetry.metrics import OperatorMetrics

MakeRecord = Callable[..., CaptureRecord]
MakeArtifact = Callable[..., ArtifactRecord]
Outcome = Receipt | DeliveryFailed

START = datetime(2026, 1, 1, tzinfo=UTC)
COLLECTOR = CollectorRef(endpoint="https://collector")


def s3(bucket: str = "profiles") -> S3Ref:
    """A bucket."""
    return S3Ref(bucket=bucket, endpoint="https://s3.example.org")


class FakeSpool:
    """A spool without a disk, so that no thread disturbs the virtual time."""

    def __init__(self) -> None:
        self.held: dict[str, SpoolEntry] = {}
        self.callback: Callable[[SpoolEntry], None] | None = None
        self.removals = 0
        self.broken = False

    @property
    def used_bytes(self) -> int:
        return sum(entry.artifact.size for entry in self.held.values())

    @contextlib.contextmanager
    def listening(self, callback: Callable[[SpoolEntry], None]) -> Iterator[None]:
        for entry in list(self.held.values()):
            callback(entry)
        self.callback = callback
        yield
        self.callback = None

    async def remove(self, entry: SpoolEntry) -> None:
        self.removals += 1
        self.held.pop(entry.name)
        if self.broken:
            raise SpoolError("the disk refuses")

    def add(self, entry: SpoolEntry) -> None:
        self.held[entry.name] = entry
        if self.callback:
            self.callback(entry)


class FakeSinks:
    """Answers each attempt by a rule; keeps when and how each was made."""

    def __init__(self) -> None:
        self.rule: Callable[[SpoolEntry], Awaitable[None]] = self.good
        self.attempts: list[tuple[float, str, bool]] = []
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.completed: list[tuple[str, list[str]]] = []
        self.completion_fails = 0

    async def good(self, entry: SpoolEntry) -> None:
        await asyncio.sleep(0)

    async def down(self, entry: SpoolEntry) -> None:
        raise SinkUnavailable("the store is down")

    async def store(self, entry: SpoolEntry, *, again: bool) -> Receipt:
        bucket = entry.record.sink.bucket if isinstance(entry.record.sink, S3Ref) else "collector"
        self.attempts.append((asyncio.get_running_loop().time(), entry.name, again))
        for key in (bucket, "all"):
            self.running[key] += 1
            self.most[key] = max(self.most[key], self.running[key])
        try:
            await self.rule(entry)
        finally:
            for key in (bucket, "all"):
                self.running[key] -= 1
        return Receipt(uri=f"s3://{entry.name}", size=entry.artifact.size, sha256=entry.artifact.sha256)

    async def complete(self, record: CaptureRecord, artifacts: tuple[ArtifactRecord, ...]) -> None:
        if self.completion_fails:
            self.completion_fails -= 1
            raise SinkUnavailable("no")
        self.completed.append((record.id, sorted(artifact.leaf for artifact in artifacts)))

    async def probe(self, ref: SinkRef, namespace: str) -> str | None:
        return f"{namespace} may not"


class Rig:
    """A delivery with its fakes."""

    def __init__(self, make_record: MakeRecord, make_artifact: MakeArtifact) -> None:
        self.spool, self.sinks = FakeSpool(), FakeSinks()
        self.metrics = OperatorMetrics(CollectorRegistry())
        self.reports: list[tuple[float, str, Outcome]] = []
        self.retries: list[tuple[str, Reason, str]] = []
        self.reported = asyncio.Event()
        self.report_fails = 0
        self.make_record, self.make_artifact = make_record, make_artifact
        self.delivery = Delivery(
            self.spool,
            self.sinks,
            self.report,
            on_retry=lambda record, artifact, reason, why: self.retries.append((record.id, reason, why)),
            clock=LoopClock(),
            metrics=self.metrics,
            deadline_seconds=3600,
        )

    async def report(self, record: CaptureRecord, artifact: ArtifactRecord, outcome: Outcome) -> None:
        assert f"{record.id}-{artifact.leaf}" in self.spool.held, "reported after it left the spool"
        if self.report_fails:
            self.report_fails -= 1
            raise ConnectionError("no API server")
        self.reports.append((asyncio.get_running_loop().time(), f"{record.id}-{artifact.leaf}", outcome))
        self.reported.set()

    def add(
        self,
        name: str = "one",
        sink: SinkRef | None = None,
        *,
        type_: str = "heap",
        recovered: bool = False,
        lost: Lost | None = None,
        age: float = 0,
    ) -> SpoolEntry:
        record = self.make_record(name, sink=sink or s3())
        captured_at = LoopClock().now() - timedelta(seconds=age)
        artifact = self.make_artifact(type_, captured_at=captured_at)
        entry = SpoolEntry(
            name=f"{record.id}-{artifact.leaf}",
            record=record,
            artifact=artifact,
            path=Path("/nowhere"),
            recovered=recovered,
            lost=lost,
        )
        self.spool.add(entry)
        return entry

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.timeout(1_000_000), asyncio.TaskGroup() as group:
            task = group.create_task(self.delivery.run())
            await asyncio.sleep(0)
            yield
            task.cancel()

    async def wait_for_reports(self, count: int) -> None:
        while len(self.reports) < count:
            self.reported.clear()
            await self.reported.wait()
        await asyncio.sleep(0.001)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def rig(make_record: MakeRecord, make_artifact: MakeArtifact) -> Rig:
    """A delivery with a deadline of an hour."""
    return Rig(make_record, make_artifact)


pytestmark = pytest.mark.looptime


async def test_an_artifact_is_stored_then_reported_then_removed(rig: Rig) -> None:
    """In this order only; counted once."""
    async with rig.running():
        entry = rig.add()
        await rig.wait_for_reports(1)
    receipt = Receipt(uri=f"s3://{entry.name}", size=entry.artifact.size, sha256=entry.artifact.sha256)
    assert rig.reports == [(0, entry.name, receipt)]
    assert rig.spool.held == {}
    assert rig.sample("profiling_uploads_total", sink="s3") == 1
    assert rig.sample("toe_uploads_total", sink="s3", result="stored") == 1
    assert rig.sample("toe_artifact_bytes_total", sink="s3") == entry.artifact.size
    assert rig.sample("toe_spool_bytes") == 0


async def test_what_was_there_before_the_run_is_delivered_too(rig: Rig) -> None:
    """Entries of a killed process are looked for at the sink first; fresh ones are not."""
    old, new = rig.add("old", recovered=True), rig.add("new")
    async with rig.running():
        await rig.wait_for_reports(2)
    assert {(name, again) for _, name, again in rig.sinks.attempts} == {(old.name, True), (new.name, False)}


async def test_a_sink_that_is_down_for_minutes_loses_nothing_and_is_not_stormed(rig: Rig) -> None:
    """G3: 200 artifacts, two minutes; one probe at a time by the lane's backoff, then all flow within a minute."""
    rig.sinks.rule = rig.sinks.down
    async with rig.running():
        for n in range(200):
            rig.add(f"{n}")
        await asyncio.sleep(120)
        tries = len(rig.sinks.attempts)
        assert tries < 20
        rig.sinks.rule = rig.sinks.good
        await rig.wait_for_reports(200)
    assert all(isinstance(outcome, Receipt) for _, _, outcome in rig.reports)
    assert len({name for _, name, _ in rig.reports}) == 200
    assert rig.reports[-1][0] < 120 + 91
    assert len(rig.sinks.attempts) == tries + 200
    assert rig.sinks.most["all"] == 4
    assert len(rig.retries) == tries


async def test_waits_grow_from_one_second_to_a_minute(rig: Rig) -> None:
    """Initial 1 s, doubled, cap 60 s, up to half of it more as jitter."""
    rig.sinks.rule = rig.sinks.down
    async with rig.running():
        rig.add()
        await asyncio.sleep(600)
    times = [at for at, _, _ in rig.sinks.attempts]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    for n, wait in enumerate(waits):
        base = min(60, 2**n)
        assert base <= wait <= base * 1.5 + 0.01
    assert [again for _, _, again in rig.sinks.attempts] == [False] + [True] * (len(times) - 1)


async def test_retry_after_is_honoured(rig: Rig) -> None:
    """The sink knows better; an absurd wish is bounded."""

    async def busy(entry: SpoolEntry) -> None:
        raise SinkUnavailable("slow down", retry_after=100 if len(rig.sinks.attempts) == 1 else 1e9)

    rig.sinks.rule = busy
    async with rig.running():
        rig.add()
        await asyncio.sleep(800)
    assert [at for at, _, _ in rig.sinks.attempts] == [0, 100, 700]


async def test_at_the_deadline_it_is_given_up_with_the_last_answer(rig: Rig) -> None:
    """Counted from the capture on the wall clock, so that a restart gives no second hour."""
    rig.sinks.rule = rig.sinks.down
    async with rig.running():
        rig.add(age=3000, recovered=True)
        await rig.wait_for_reports(1)
    at, _, outcome = rig.reports[0]
    assert at == pytest.approx(600, abs=1)
    assert outcome == DeliveryFailed(Reason.UPLOAD_FAILED, "not stored within 1h of its capture: the store is down")
    assert rig.spool.held == {}
    assert rig.sample("profiling_errors_total", reason="UploadFailed") == 1
    assert rig.sample("toe_uploads_total", sink="s3", result="failed") == 1


async def test_an_attempt_that_hangs_ends_at_the_deadline(rig: Rig) -> None:
    """No sink can hold an artifact for ever."""

    async def hang(entry: SpoolEntry) -> None:
        await asyncio.Event().wait()

    rig.sinks.rule = hang
    async with rig.running():
        rig.add()
        await rig.wait_for_reports(1)
    assert rig.reports[0][0] == 3600
    assert isinstance(rig.reports[0][2], DeliveryFailed)
    assert rig.sinks.running["all"] == 0


async def test_an_attempt_that_fails_at_the_deadline_is_the_last(rig: Rig) -> None:
    """Its answer is what is told."""

    async def slow(entry: SpoolEntry) -> None:
        try:
            await asyncio.sleep(7200)
        except asyncio.CancelledError:
            raise SinkUnavailable("cut") from None

    rig.sinks.rule = slow
    async with rig.running():
        rig.add()
        await rig.wait_for_reports(1)
        await asyncio.sleep(1000)
    assert rig.reports[0][2] == DeliveryFailed(Reason.UPLOAD_FAILED, "not stored within 1h of its capture: cut")
    assert len(rig.sinks.attempts) == 1


async def test_an_artifact_older_than_its_deadline_is_not_tried(rig: Rig) -> None:
    """After a long stop of the operator."""
    async with rig.running():
        rig.add(age=4000, recovered=True)
        await rig.wait_for_reports(1)
    assert isinstance(rig.reports[0][2], DeliveryFailed)
    assert rig.sinks.attempts == []


async def test_a_refusal_is_final(rig: Rig) -> None:
    """SinkNotAllowed: no waiting changes it."""

    async def refuse(entry: SpoolEntry) -> None:
        raise SinkRefused(Reason.SINK_NOT_ALLOWED, "not listed")

    rig.sinks.rule = refuse
    async with rig.running():
        rig.add()
        await rig.wait_for_reports(1)
    assert rig.reports[0][2] == DeliveryFailed(Reason.SINK_NOT_ALLOWED, "not listed")
    assert len(rig.sinks.attempts) == 1


async def test_a_lost_entry_is_reported_with_its_reason_and_never_sent(rig: Rig) -> None:
    """What a killed process had received in part."""
    async with rig.running():
        rig.add(lost=Lost(Reason.REPLICA_GONE, "the operator stopped"), recovered=True)
        await rig.wait_for_reports(1)
    assert rig.reports[0][2] == DeliveryFailed(Reason.REPLICA_GONE, "the operator stopped")
    assert (rig.sinks.attempts, rig.spool.held) == ([], {})


async def test_a_report_that_fails_is_repeated_and_the_entry_stays_until_then(rig: Rig) -> None:
    """The API server is away: the artifact is not uploaded again, its outcome is told later."""
    rig.report_fails = 5
    async with rig.running():
        entry = rig.add()
        await asyncio.sleep(5)
        assert entry.name in rig.spool.held
        await rig.wait_for_reports(1)
    assert len(rig.sinks.attempts) == 1
    assert rig.spool.held == {}
    assert rig.sample("profiling_uploads_total", sink="s3") == 1


async def test_reports_that_fail_keep_no_place_of_an_upload(rig: Rig) -> None:
    """Twenty outcomes wait to be told; the twenty-first artifact is uploaded at once."""
    rig.report_fails = 60
    async with rig.running():
        for n in range(21):
            rig.add(f"{n}")
        await asyncio.sleep(0.5)
        assert len(rig.sinks.attempts) == 21
        await rig.wait_for_reports(21)


async def test_a_disk_that_refuses_the_removal_does_not_stop_the_others(rig: Rig) -> None:
    """It may come back after a restart and is recognised then."""
    rig.spool.broken = True
    async with rig.running():
        rig.add("a")
        rig.add("b")
        await rig.wait_for_reports(2)
    assert rig.spool.removals == 2


async def test_a_dead_sink_does_not_keep_the_others_waiting(rig: Rig) -> None:
    """Black holes take 60 s an attempt; with three of them another bucket's artifacts pass at once."""

    async def rule(entry: SpoolEntry) -> None:
        assert isinstance(entry.record.sink, S3Ref)
        if entry.record.sink.bucket.startswith("dead"):
            await asyncio.sleep(60)
            raise SinkUnavailable("no answer")

    rig.sinks.rule = rule
    async with rig.running():
        for n in range(30):
            rig.add(f"{n}", s3(f"dead-{n % 3}"))
        await asyncio.sleep(200)  # the first of each has failed, the lanes are known to be in trouble
        at = asyncio.get_running_loop().time()
        for n in range(50):
            rig.add(f"good {n}", s3("alive"))
            await asyncio.sleep(1)
        assert len(rig.reports) == 50
        waited = [told - (at + n) for n, (told, _, _) in enumerate(rig.reports)]
        assert max(waited) < 0.1
    assert rig.sinks.most["all"] <= 4


async def test_sinks_take_turns(rig: Rig) -> None:
    """A config with a thousand artifacts does not starve one with a single one."""

    async def slow(entry: SpoolEntry) -> None:
        await asyncio.sleep(1)

    rig.sinks.rule = slow
    async with rig.running():
        for n in range(100):
            rig.add(f"{n}", s3("busy"))
        await asyncio.sleep(0.5)
        single = rig.add("single", s3("quiet"))
        await asyncio.sleep(3)
        assert single.name in {name for _, name, _ in rig.reports}


async def test_an_error_that_nobody_foresaw_loses_nothing(rig: Rig) -> None:
    """A fault of ours is logged and retried; other artifacts of the sink are not held up."""

    async def broken(entry: SpoolEntry) -> None:
        if len(rig.sinks.attempts) < 3:
            raise KeyError("ours")

    rig.sinks.rule = broken
    async with rig.running():
        rig.add()
        await rig.wait_for_reports(1)
    assert isinstance(rig.reports[0][2], Receipt)
    assert "KeyError" in rig.retries[0][2]


async def test_a_cancelled_run_leaves_the_entries_and_a_new_run_takes_them(rig: Rig) -> None:
    """A graceful stop, and a leader's task that is started again."""

    async def slow(entry: SpoolEntry) -> None:
        await asyncio.sleep(10)

    rig.sinks.rule = slow
    async with rig.running():
        rig.add()
        await asyncio.sleep(5)
    assert (len(rig.spool.held), rig.reports, rig.sinks.running["all"]) == (1, [], 0)
    async with rig.running():
        await rig.wait_for_reports(1)
    assert isinstance(rig.reports[0][2], Receipt)


async def test_a_collector_capture_is_completed_once_with_what_was_stored(rig: Rig) -> None:
    """After the last artifact is settled and the capture is finished, in whichever order that comes."""

    async def rule(entry: SpoolEntry) -> None:
        if entry.artifact.type == "mutex":
            raise SinkRefused(Reason.CONFLICTED, "no")

    rig.sinks.rule = rule
    async with rig.running():
        first = rig.add("late", COLLECTOR, type_="heap")
        await rig.wait_for_reports(1)
        rig.add("late", COLLECTOR, type_="cpu")
        rig.add("late", COLLECTOR, type_="mutex")
        await rig.wait_for_reports(3)
        await asyncio.sleep(10)
        assert rig.sinks.completed == []
        rig.delivery.finished(first.record)
        await asyncio.sleep(1)
        early = rig.add("early", COLLECTOR)
        rig.delivery.finished(early.record)
        await rig.wait_for_reports(4)
        await asyncio.sleep(1)
        assert rig.sinks.completed == [
            (first.record.id, ["cpu.pprof", "heap.pprof"]),
            (early.record.id, ["heap.pprof"]),
        ]


async def test_a_recovered_capture_is_finished_because_nothing_more_can_come(rig: Rig) -> None:
    """Its capture died with the process."""
    entry = rig.add("old", COLLECTOR, recovered=True)
    async with rig.running():
        await rig.wait_for_reports(1)
        await asyncio.sleep(1)
    assert rig.sinks.completed == [(entry.record.id, ["heap.pprof"])]


async def test_completion_is_tried_thrice_and_then_left_to_the_expiry(rig: Rig) -> None:
    """What is stored is safe without it."""
    rig.sinks.completion_fails = 2
    async with rig.running():
        rig.delivery.finished(rig.add("a", COLLECTOR).record)
        await asyncio.sleep(20)
        assert len(rig.sinks.completed) == 1
        rig.sinks.completion_fails = 3
        rig.delivery.finished(rig.add("b", COLLECTOR).record)
        await asyncio.sleep(200)
        assert len(rig.sinks.completed) == 1
        assert rig.sinks.completion_fails == 0


async def test_an_s3_capture_and_one_without_artifacts_need_no_completion(rig: Rig) -> None:
    """Finishing them is harmless."""
    async with rig.running():
        rig.delivery.finished(rig.add("a").record)
        rig.delivery.finished(rig.make_record("nothing", sink=COLLECTOR))
        await asyncio.sleep(5)
    assert rig.sinks.completed == []


async def test_idle_costs_nothing(rig: Rig) -> None:
    """D40: without entries the run waits for ever, without a timer."""
    async with rig.running():
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(36_000)
        assert loop.time() - before == 36_000
        rig.delivery.wake()
        await asyncio.sleep(0)
    assert rig.sinks.attempts == []


async def test_a_probe_is_passed_on(rig: Rig) -> None:
    """The sentence comes from the sink."""
    assert await rig.delivery.probe(s3(), "shop") == "shop may not"
