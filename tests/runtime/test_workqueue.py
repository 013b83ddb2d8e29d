"""The work queue as workers and watches use it, under virtual time."""

import asyncio
from collections.abc import Callable

import pytest

from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner
from toe_async.runtime.workqueue import QueueShutDownError, WorkQueue
from toe_async.telemetry.metrics import OperatorMetrics

pytestmark = pytest.mark.looptime

Value = Callable[..., float]


@pytest.fixture
def queue(clock: Clock, metrics: OperatorMetrics) -> WorkQueue[str]:
    """An empty queue."""
    return WorkQueue("q", clock=clock, metrics=metrics)


def unheard(name: str, error: BaseException) -> None:
    raise AssertionError(f"{name}: {error!r}")


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_worker_that_waits_gets_the_key_at_once(queue: WorkQueue[str], clock: Clock) -> None:
    """No polling: not a moment passes."""
    async with TaskOwner(unheard) as owner:
        worker = owner.start(queue.get(), name="worker")
        await settle()
        queue.add("a")
        assert await worker == "a"
    assert clock.monotonic() == 0


async def test_waiting_workers_are_served_in_turn(queue: WorkQueue[str]) -> None:
    """And each key goes to one of them."""
    async with TaskOwner(unheard) as owner:
        workers = []
        for name in ("first", "second"):
            workers.append(owner.start(queue.get(), name=name))
            await settle()
        queue.add("a")
        queue.add("b")
        assert [await worker for worker in workers] == ["a", "b"]


async def test_a_cancelled_worker_loses_no_key(queue: WorkQueue[str]) -> None:
    """Also when the key and the cancellation arrive in the same turn of the loop."""
    async with TaskOwner(unheard) as owner:
        first = owner.start(queue.get(), name="first")
        second = owner.start(queue.get(), name="second")
        await settle()
        queue.add("a")  # wakes the first
        first.cancel()
        assert await second == "a"
        assert first.cancelled()


async def test_delayed_keys_come_at_their_time(queue: WorkQueue[str], clock: Clock) -> None:
    """A later call with an earlier time moves the timer."""
    queue.add_after("late", 30)
    queue.add_after("soon", 10)
    queue.add_after("late", 20)
    assert (await queue.get(), clock.monotonic()) == ("soon", 10)
    assert (await queue.get(), clock.monotonic()) == ("late", 20)
    queue.add_after("now", 0)
    queue.add_after("past", -5)
    assert (await queue.get(), await queue.get(), clock.monotonic()) == ("now", "past", 20)


async def test_a_failing_key_comes_back_slower_and_slower(queue: WorkQueue[str], clock: Clock) -> None:
    """Until it is forgotten."""
    gaps = []
    for _ in range(6):
        started = clock.monotonic()
        queue.add_rate_limited("a")
        key = await queue.get()
        gaps.append(clock.monotonic() - started)
        queue.done(key)
    assert gaps == pytest.approx([0.005, 0.01, 0.02, 0.04, 0.08, 0.16], abs=1e-5)  # looptime has a grid of 1 us
    assert queue.failures("a") == 6
    queue.forget("a")
    started = clock.monotonic()
    queue.add_rate_limited("a")
    await queue.get()
    assert clock.monotonic() - started == pytest.approx(0.005)


async def test_a_bad_key_is_tried_at_most_18_times_in_ten_minutes(queue: WorkQueue[str], clock: Clock) -> None:
    """The target for hot failure loops."""
    tries = 0
    async with TaskOwner(unheard) as owner:

        async def work() -> None:
            nonlocal tries
            while True:
                key = await queue.get()
                tries += 1
                queue.add_rate_limited(key)
                queue.done(key)

        owner.start(work(), name="worker")
        queue.add("bad")
        await asyncio.sleep(600)
    assert tries <= 18


async def test_the_shut_down_ends_those_who_wait_and_forgets_what_waits(queue: WorkQueue[str]) -> None:
    """Whoever asks afterwards gets the rest and then the end."""
    async with TaskOwner(unheard) as owner:
        waiting = owner.start(_end_of(queue), name="waiting")
        queue.add_after("later", 10)
        await settle()
        queue.shut_down()
        assert await waiting == []
    queue.add("x")
    queue.add_after("y", 0)
    await asyncio.sleep(100)
    assert len(queue) == 0
    assert queue.shutting_down


async def _end_of(queue: WorkQueue[str]) -> list[str]:
    got: list[str] = []
    try:
        while True:
            got.append(await queue.get())
            queue.done(got[-1])
    except QueueShutDownError:
        return got


async def test_what_was_queued_before_the_shut_down_is_still_given_out(queue: WorkQueue[str]) -> None:
    """An event that was heard is acted on."""
    queue.add("a")
    queue.add("b")
    queue.shut_down()
    assert await _end_of(queue) == ["a", "b"]


async def test_draining_waits_for_the_work_in_progress(queue: WorkQueue[str], clock: Clock) -> None:
    """And for nothing else."""
    queue.add("a")
    queue.add("b")
    await queue.get()
    await queue.get()

    async def finish() -> None:
        for key, seconds in (("a", 5), ("b", 5)):
            await asyncio.sleep(seconds)
            queue.done(key)

    async with TaskOwner(unheard) as owner:
        owner.start(finish(), name="worker")
        await queue.drain()
        assert clock.monotonic() == 10
    await queue.drain()  # nothing in progress: returns at once
    assert clock.monotonic() == 10


async def test_the_figures_carry_client_gos_names(queue: WorkQueue[str], value: Value) -> None:
    """And read right at every moment, without anybody updating them."""
    for name in ("workqueue_depth", "workqueue_adds_total", "workqueue_retries_total"):
        assert value(name, name="q") == 0
    queue.add("a")
    queue.add("a")
    queue.add("b")
    queue.add_after("c", 2)
    assert value("workqueue_depth", name="q") == 2
    assert value("workqueue_adds_total", name="q") == 2
    assert value("workqueue_retries_total", name="q") == 1
    await asyncio.sleep(3)
    assert value("workqueue_adds_total", name="q") == 3
    await queue.get()
    await queue.get()
    assert value("workqueue_queue_duration_seconds_sum", name="q") == 6
    await asyncio.sleep(4)
    assert value("workqueue_unfinished_work_seconds", name="q") == 8
    assert value("workqueue_longest_running_processor_seconds", name="q") == 4
    queue.done("a")
    assert value("workqueue_work_duration_seconds_sum", name="q") == 4
    assert value("workqueue_work_duration_seconds_count", name="q") == 1
    assert value("workqueue_unfinished_work_seconds", name="q") == 4


async def test_an_idle_queue_costs_no_timer(queue: WorkQueue[str]) -> None:
    """Two cores serve many queues."""
    loop = asyncio.get_running_loop()
    queue.add_after("a", 5)
    await queue.get()
    queue.done("a")
    await settle()
    assert not [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]


async def test_many_changes_of_a_few_keys_are_a_few_pieces_of_work(queue: WorkQueue[str]) -> None:
    """A storm of events costs as much as its number of objects."""
    for number in range(10_000):
        queue.add(f"pod-{number % 7}")
    assert len(queue) == 7
