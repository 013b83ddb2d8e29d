"""Order of start and stop, under virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner, cancel_and_wait
from toe_async.runtime.manager import Manager, Part, PartFailedError, Run

pytestmark = pytest.mark.looptime


class Story:
    """What happened, in order, and parts that tell it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lines: list[str] = []
        self.stop = asyncio.Event()

    def tell(self, line: str) -> None:
        self.lines.append(line)

    def part(
        self,
        name: str,
        *,
        ready_after: float | None = None,
        drain: float | None = None,
        fails_after: float | None = None,
        ends_after: float | None = None,
    ) -> Part:
        ready = asyncio.Event()

        async def run() -> None:
            self.tell(f"{name} starts")
            try:
                if fails_after is not None:
                    await asyncio.sleep(fails_after)
                    raise ValueError(f"{name} is broken")
                if ready_after is not None:
                    await asyncio.sleep(ready_after)
                    ready.set()
                await asyncio.sleep(1e6 if ends_after is None else ends_after)
            finally:
                self.tell(f"{name} stops")

        async def drained() -> None:
            self.tell(f"{name} drains")
            await asyncio.sleep(drain or 0)
            self.tell(f"{name} drained")

        return Part(
            name,
            run,
            drain=None if drain is None else drained,
            ready=None if ready_after is None else ready.wait,
        )


class OneTerm:
    """An elector that wins at once, and again after `lost` was set."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.lost = asyncio.Event()

    async def run(self, lead: Run) -> None:
        try:
            while True:
                self.story.tell("elected")
                async with TaskOwner(lambda name, error: None) as owner:
                    work = owner.start(lead(), name="work")
                    lost = owner.start(self.lost.wait(), name="lost")
                    await asyncio.wait({lost, work}, return_when=asyncio.FIRST_COMPLETED)
                    await cancel_and_wait(work)
                self.lost.clear()
        finally:
            self.story.tell("lease given up")


@pytest.fixture
async def story(clock: Clock) -> Story:
    """An empty one; it needs a running loop."""
    return Story(clock)


@asynccontextmanager
async def running(manager: Manager, story: Story) -> AsyncIterator["asyncio.Task[None]"]:
    async with TaskOwner(lambda name, error: None) as owner:
        yield owner.start(manager.run(story.stop), name="manager")


def whole(story: Story, clock: Clock, elector: OneTerm | None = None, **options: Any) -> Manager:
    manager = Manager(clock=clock, elector=elector, **options)
    manager.add_leading(story.part("controller", drain=3))
    manager.add_source(story.part("informer", ready_after=5))
    manager.add_service(story.part("recorder", drain=2))
    return manager


async def test_everything_starts_in_order_and_stops_in_reverse(story: Story, clock: Clock) -> None:
    """Whatever the order in which the parts were added."""
    manager = whole(story, clock, OneTerm(story))
    async with running(manager, story) as task:
        await asyncio.sleep(60)
        story.tell("stop")
        story.stop.set()
        await task
    assert story.lines == [
        "recorder starts",
        "informer starts",
        "elected",
        "controller starts",
        "stop",
        "controller drains",
        "controller drained",
        "controller stops",
        "lease given up",
        "informer stops",
        "recorder drains",
        "recorder drained",
        "recorder stops",
    ]
    assert clock.monotonic() == 65


async def test_leadership_is_not_sought_before_the_sources_are_ready(story: Story, clock: Clock) -> None:
    """An empty cache would look like a cluster without pods; readiness says what is waited for."""
    manager = whole(story, clock, OneTerm(story))
    assert manager.not_ready() == "waiting for start"
    async with running(manager, story) as task:
        await asyncio.sleep(4.9)
        assert "elected" not in story.lines
        assert manager.not_ready() == "waiting for informer"
        await asyncio.sleep(0.2)
        assert "elected" in story.lines
        assert manager.not_ready() is None
        story.stop.set()
        await task
    assert manager.not_ready() == "waiting for stop"


async def test_without_an_elector_the_work_starts_when_the_sources_are_ready(story: Story, clock: Clock) -> None:
    """A single replica needs no lease."""
    manager = whole(story, clock)
    async with running(manager, story) as task:
        await asyncio.sleep(6)
        assert story.lines[-1] == "controller starts"
        story.stop.set()
        await task
    assert story.lines[-5:] == [
        "controller stops",
        "informer stops",
        "recorder drains",
        "recorder drained",
        "recorder stops",
    ]


async def test_a_lost_lease_cancels_the_work_without_draining_and_it_starts_again_later(
    story: Story, clock: Clock
) -> None:
    """Somebody else may begin in seconds; informers and services go on."""
    elector = OneTerm(story)
    manager = whole(story, clock, elector)
    async with running(manager, story) as task:
        await asyncio.sleep(10)
        before = len(story.lines)
        elector.lost.set()
        await asyncio.sleep(1)
        assert story.lines[before:] == ["controller stops", "elected", "controller starts"]
        story.stop.set()
        await task


@pytest.mark.parametrize("kind", ["service", "source", "leading"])
async def test_a_part_that_fails_stops_everything_and_is_named(story: Story, clock: Clock, kind: str) -> None:
    """Half a process that looks alive is worse than a restart."""
    manager = whole(story, clock, OneTerm(story))
    getattr(manager, f"add_{kind}")(story.part("bad", fails_after=7))
    async with running(manager, story) as task:
        with pytest.raises(PartFailedError, match="bad failed: ValueError: bad is broken") as failure:
            await task
    assert isinstance(failure.value.__cause__, ValueError)
    assert {"controller stops", "informer stops", "recorder drained", "recorder stops"} <= set(story.lines)


@pytest.mark.parametrize("kind", ["service", "source", "leading"])
async def test_a_part_that_ends_by_itself_stops_everything_too(story: Story, clock: Clock, kind: str) -> None:
    """It was to run until the stop."""
    manager = whole(story, clock, OneTerm(story))
    getattr(manager, f"add_{kind}")(story.part("short", ends_after=7))
    async with running(manager, story) as task:
        with pytest.raises(PartFailedError, match="short ended by itself"):
            await task


async def test_an_elector_that_fails_stops_everything(story: Story, clock: Clock) -> None:
    """Without it nobody works."""

    class Broken:
        async def run(self, lead: Run) -> None:
            raise ValueError("no lease")

    manager = Manager(clock=clock, elector=Broken())
    manager.add_service(story.part("recorder", drain=1))
    async with running(manager, story) as task:
        with pytest.raises(PartFailedError, match="leadership failed: ValueError: no lease"):
            await task
    assert story.lines[-1] == "recorder stops"


async def test_the_stop_is_bounded_although_parts_do_not_finish(story: Story, clock: Clock) -> None:
    """Half of the grace for the work, the rest for the services; then everything is cut off."""
    manager = Manager(clock=clock, elector=OneTerm(story), grace=20)
    manager.add_leading(story.part("controller", drain=1000))
    manager.add_service(story.part("recorder", drain=1000))
    async with running(manager, story) as task:
        await asyncio.sleep(1)
        story.stop.set()
        await task
    assert clock.monotonic() == pytest.approx(21, abs=0.1)
    assert "controller drained" not in story.lines
    assert story.lines[-2:] == ["recorder drains", "recorder stops"]


async def test_a_part_that_cannot_drain_does_not_hold_up_the_others(story: Story, clock: Clock) -> None:
    """Its error is logged, the stop goes on."""

    async def broken() -> None:
        raise ValueError("no")

    async def forever() -> None:
        await asyncio.sleep(1e6)

    manager = whole(story, clock)
    manager.add_service(Part("bad", forever, drain=broken))
    async with running(manager, story) as task:
        await asyncio.sleep(6)
        story.stop.set()
        await task
    assert "recorder drained" in story.lines


@pytest.mark.parametrize("moment", [0.0, 2.0, 4.999, 5.0, 6.0])
async def test_a_stop_at_any_moment_of_the_start_leaves_nothing_running(
    story: Story, clock: Clock, moment: float
) -> None:
    """What was started is stopped, what was not is never started."""
    manager = whole(story, clock, OneTerm(story))
    async with running(manager, story) as task:
        await asyncio.sleep(moment)
        story.stop.set()
        await task
    for name in ("recorder", "informer", "controller"):
        assert story.lines.count(f"{name} starts") == story.lines.count(f"{name} stops"), name


async def test_a_stop_before_the_start_does_no_work(story: Story, clock: Clock) -> None:
    """Two signals may come early."""
    manager = whole(story, clock, OneTerm(story))
    story.stop.set()
    async with running(manager, story) as task:
        await task
    assert "elected" not in story.lines


async def test_cancelling_stops_in_order_too(story: Story, clock: Clock) -> None:
    """Ctrl-C must leave nothing behind either."""
    manager = whole(story, clock, OneTerm(story))
    async with running(manager, story) as task:
        await asyncio.sleep(10)
        await cancel_and_wait(task)
    assert story.lines[-7:] == [
        "controller drained",
        "controller stops",
        "lease given up",
        "informer stops",
        "recorder drains",
        "recorder drained",
        "recorder stops",
    ]
    assert task.cancelled()
