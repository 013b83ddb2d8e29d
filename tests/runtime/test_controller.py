"""Reconciles: kept apart, bounded, counted; under virtual time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from toe_async.kube.errors import TransportError
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner, cancel_and_wait
from toe_async.runtime.controller import Controller, Result
from toe_async.runtime.errors import NotLeadingError, TerminalError, TransientError
from toe_async.runtime.keys import Key
from toe_async.runtime.workqueue import WorkQueue
from toe_async.telemetry.metrics import OperatorMetrics

pytestmark = pytest.mark.looptime

Value = Callable[..., float]
Reconcile = Callable[[Key], Awaitable[Result]]
A, B = Key("ns", "a"), Key("ns", "b")


class Rig:
    """A controller around whatever a test wants to happen."""

    def __init__(self, clock: Clock, metrics: OperatorMetrics) -> None:
        self.clock, self.metrics = clock, metrics
        self.queue: WorkQueue[Key] = WorkQueue("c", clock=clock, metrics=metrics)
        self.calls: list[tuple[str, float]] = []

    def controller(self, reconcile: Reconcile, *, workers: int = 2, timeout: float = 60) -> Controller[Key]:
        async def noted(key: Key) -> Result:
            self.calls.append((key.name, self.clock.monotonic()))
            return await reconcile(key)

        return Controller(
            "c", self.queue, noted, clock=self.clock, metrics=self.metrics, workers=workers, timeout=timeout
        )

    @asynccontextmanager
    async def running(self, reconcile: Reconcile, **options: float) -> AsyncIterator[Controller[Key]]:
        controller = self.controller(reconcile, **options)  # type: ignore[arg-type]
        async with TaskOwner(unheard) as owner:
            owner.start(controller.run(), name="controller")
            yield controller


def unheard(name: str, error: BaseException) -> None:
    raise AssertionError(f"{name}: {error!r}")


@pytest.fixture
def rig(clock: Clock, metrics: OperatorMetrics) -> Rig:
    """A queue and its clock."""
    return Rig(clock, metrics)


async def test_every_figure_is_there_before_anything_happens(rig: Rig, value: Value) -> None:
    """A dashboard must not have a hole until the first error."""

    async def nothing(key: Key) -> Result:
        return Result()

    rig.controller(nothing, workers=3)
    for result in ("success", "requeue_after", "requeue", "error"):
        assert value("controller_runtime_reconcile_total", controller="c", result=result) == 0
    for name in (
        "controller_runtime_reconcile_errors_total",
        "controller_runtime_terminal_reconcile_errors_total",
        "controller_runtime_reconcile_panics_total",
        "controller_runtime_reconcile_time_seconds_count",
        "controller_runtime_active_workers",
    ):
        assert value(name, controller="c") == 0
    assert value("controller_runtime_max_concurrent_reconciles", controller="c") == 3


async def test_success_is_counted_and_forgets_earlier_failures(rig: Rig, value: Value) -> None:
    """The next failure of that key is its first."""
    outcomes = iter([TransientError("later"), TransientError("later"), None])

    async def work(key: Key) -> Result:
        if (error := next(outcomes)) is not None:
            raise error
        await asyncio.sleep(2)
        return Result()

    async with rig.running(work):
        rig.queue.add(A)
        await asyncio.sleep(10)
    assert [moment for _, moment in rig.calls] == pytest.approx([0, 0.005, 0.015])
    assert rig.queue.failures(A) == 0
    assert value("controller_runtime_reconcile_total", controller="c", result="success") == 1
    assert value("controller_runtime_reconcile_total", controller="c", result="error") == 2
    assert value("controller_runtime_reconcile_errors_total", controller="c") == 2
    assert value("controller_runtime_reconcile_time_seconds_sum", controller="c") == pytest.approx(2)


async def test_a_look_that_was_asked_for_comes_in_time(rig: Rig, value: Value) -> None:
    """Again and again, without any event."""

    async def work(key: Key) -> Result:
        return Result(requeue_after=30)

    async with rig.running(work):
        rig.queue.add(A)
        await asyncio.sleep(100)
    assert rig.calls == [("a", 0), ("a", 30), ("a", 60), ("a", 90)]
    assert value("controller_runtime_reconcile_total", controller="c", result="requeue_after") == 4


async def test_a_terminal_error_is_not_tried_again_until_something_changes(rig: Rig, value: Value) -> None:
    """An event brings it back at once."""

    async def work(key: Key) -> Result:
        raise TerminalError("the spec names no such tool")

    async with rig.running(work):
        rig.queue.add(A)
        await asyncio.sleep(3600)
        assert len(rig.calls) == 1
        rig.queue.add(A)
        await asyncio.sleep(1)
    assert [moment for _, moment in rig.calls] == [0, 3600]
    assert value("controller_runtime_terminal_reconcile_errors_total", controller="c") == 2
    assert value("controller_runtime_reconcile_errors_total", controller="c") == 2


@pytest.mark.parametrize(
    ("error", "panics"),
    [
        (TransientError("x"), 0),
        (TransportError("connection reset"), 0),
        (TimeoutError(), 0),
        (NotLeadingError("somebody else"), 0),
        (KeyError("bug"), 1),
        (ZeroDivisionError(), 1),
        (RecursionError(), 1),
    ],
    ids=repr,
)
async def test_any_other_error_is_tried_again_and_told_apart_from_bugs(
    rig: Rig, value: Value, error: Exception, panics: int
) -> None:
    """A bug that one object triggers is counted as a panic and costs the others nothing."""

    async def work(key: Key) -> Result:
        if key == A:
            raise error
        return Result()

    async with rig.running(work, workers=1):
        rig.queue.add(A)
        rig.queue.add(B)
        await asyncio.sleep(0.006)
    assert [name for name, _ in rig.calls] == ["a", "b", "a"]
    assert value("controller_runtime_reconcile_panics_total", controller="c") == 2 * panics
    assert value("controller_runtime_reconcile_total", controller="c", result="success") == 1


async def test_a_reconcile_that_hangs_is_ended_and_tried_again(rig: Rig, value: Value) -> None:
    """After its timeout; the other worker goes on meanwhile."""

    async def work(key: Key) -> Result:
        if key == A:
            await asyncio.Event().wait()
        return Result(requeue_after=20)

    with capture_logs() as logs:
        async with rig.running(work, timeout=60):
            rig.queue.add(A)
            rig.queue.add(B)
            await asyncio.sleep(61)
    assert [call for call in rig.calls if call[0] == "a"] == [("a", 0), ("a", pytest.approx(60.005))]
    assert [call for call in rig.calls if call[0] == "b"] == [("b", 0), ("b", 20), ("b", 40), ("b", 60)]
    assert value("controller_runtime_reconcile_panics_total", controller="c") == 0
    assert logs[0]["error"] == "not finished within 60 s"


async def test_a_key_is_never_reconciled_twice_at_a_time(rig: Rig) -> None:
    """However many workers there are and however often it changes."""
    active: dict[Key, int] = {}
    most = 0

    async def work(key: Key) -> Result:
        nonlocal most
        active[key] = active.get(key, 0) + 1
        most = max(most, active[key])
        await asyncio.sleep(1)
        active[key] -= 1
        return Result()

    async with rig.running(work, workers=8):
        for _ in range(20):
            rig.queue.add(A)
            rig.queue.add(B)
            await asyncio.sleep(0.3)
    assert most == 1
    assert {name for name, _ in rig.calls} == {"a", "b"}


async def test_workers_work_side_by_side(rig: Rig, value: Value) -> None:
    """As many as there are, no more."""

    async def work(key: Key) -> Result:
        await asyncio.sleep(10)
        return Result()

    async with rig.running(work, workers=2):
        for number in range(4):
            rig.queue.add(Key("ns", str(number)))
        await asyncio.sleep(5)
        assert value("controller_runtime_active_workers", controller="c") == 2
        assert len(rig.calls) == 2
        await asyncio.sleep(16)
    assert [moment for _, moment in rig.calls] == [0, 0, 10, 10]
    assert value("controller_runtime_active_workers", controller="c") == 0


async def test_draining_ends_the_work_in_progress_and_starts_none(rig: Rig, clock: Clock) -> None:
    """The workers end by themselves then."""
    ended = []

    async def work(key: Key) -> Result:
        await asyncio.sleep(10)
        ended.append(key)
        return Result(requeue_after=1)

    async with TaskOwner(unheard) as owner:
        controller = rig.controller(work)
        running = owner.start(controller.run(), name="controller")
        rig.queue.add(A)
        await asyncio.sleep(1)
        await controller.drain()
        assert (ended, clock.monotonic()) == ([A], 10)
        rig.queue.add(B)
        await running
    assert [name for name, _ in rig.calls] == ["a"]


async def test_a_reconcile_that_was_cut_off_is_done_by_the_next_run(rig: Rig) -> None:
    """A lease is lost and won again: nothing is forgotten in between."""

    async def work(key: Key) -> Result:
        await asyncio.sleep(10)
        return Result()

    controller = rig.controller(work)
    async with TaskOwner(unheard) as owner:
        first = owner.start(controller.run(), name="first term")
        rig.queue.add(A)
        await asyncio.sleep(1)
        await cancel_and_wait(first)
        assert len(rig.queue) == 1
        owner.start(controller.run(), name="second term")
        await asyncio.sleep(20)
    assert [moment for _, moment in rig.calls] == [0, 1]


async def test_each_reconcile_has_an_id_and_names_its_object_in_the_log(rig: Rig) -> None:
    """So that the lines of one reconcile can be found."""

    async def work(key: Key) -> Result:
        raise TransientError("not now")

    import structlog

    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        async with rig.running(work):
            rig.queue.add(A)
            await asyncio.sleep(0.006)
    assert [(one["namespace"], one["name"], one["controller"], one["reconcileID"]) for one in logs] == [
        ("ns", "a", "c", 1),
        ("ns", "a", "c", 2),
    ]
    assert logs[0]["error"] == "not now"
    assert structlog.contextvars.get_contextvars() == {}
