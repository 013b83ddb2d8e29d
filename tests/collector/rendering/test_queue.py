"""Who gets a child next, and what is not rendered twice."""

import asyncio
from typing import ClassVar

import pytest

from tests.collector.rendering.conftest import FOLDED, Artifact, children, order
from toe_async.collector.errors import Refused
from toe_async.collector.rendering.cache import Finished, Rendered
from toe_async.collector.rendering.limits import RenderLimits
from toe_async.collector.rendering.places import NoPlace, Places
from toe_async.collector.rendering.renderer import Renderer, RenderOrder
from toe_async.lib.clock import SystemClock


class Visitors:
    """Tasks that take a place and keep it until they are told to go."""

    def __init__(self, places: Places) -> None:
        self.places, self.came = places, list[str]()
        self._go = dict[str, asyncio.Event]()
        self._tasks = dict[str, asyncio.Task[None]]()

    async def come(self, name: str) -> None:
        self._go[name] = asyncio.Event()
        self._tasks[name] = asyncio.get_running_loop().create_task(self._visit(name))
        await self.turns()

    async def go(self, name: str) -> None:
        self._go[name].set()
        await self._tasks[name]
        await self.turns()

    async def give_up(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.wait([self._tasks[name]])

    async def turns(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def _visit(self, name: str) -> None:
        async with self.places.take(name[0]):
            self.came.append(name)
            await self._go[name].wait()


@pytest.mark.looptime
async def test_viewers_take_turns() -> None:
    """One with many orders waits behind everybody else's first."""
    crowd = Visitors(Places(1, 10, 5, 1000))
    for name in ("a1", "a2", "a3", "a4", "b1", "c1", "b2"):
        await crowd.come(name)
    for _ in range(7):
        await crowd.go(crowd.came[-1])
    assert crowd.came == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


@pytest.mark.looptime
async def test_the_queue_is_bounded_for_all_and_for_each() -> None:
    """The next one is told at once."""
    crowd = Visitors(Places(1, 3, 2, 1000))
    for name in ("a1", "a2", "a3"):
        await crowd.come(name)
    with pytest.raises(NoPlace):
        async with crowd.places.take("a"):
            pass
    await crowd.come("b1")
    with pytest.raises(NoPlace):
        async with crowd.places.take("c"):
            pass
    for name in ("a1", "a2", "b1", "a3"):
        await crowd.go(name)
    assert crowd.came == ["a1", "a2", "b1", "a3"]


@pytest.mark.looptime
async def test_nobody_waits_longer_than_said() -> None:
    """And the place of one that gave up goes to the next."""
    places = Places(1, 10, 5, 30.0)
    crowd = Visitors(places)
    await crowd.come("a1")
    before = asyncio.get_running_loop().time()
    with pytest.raises(NoPlace):
        async with places.take("b"):
            pass
    assert asyncio.get_running_loop().time() - before == pytest.approx(30)
    await crowd.come("c1")
    await crowd.come("c2")
    await crowd.give_up("c1")
    await crowd.go("a1")
    await crowd.go("c2")
    assert crowd.came == ["a1", "c2"]


@pytest.mark.looptime
async def test_a_place_given_to_one_that_just_left_is_not_lost() -> None:
    """Its turn and its cancellation fall into one moment."""
    crowd = Visitors(Places(1, 10, 5, 1000))
    async with crowd.places.take("a"):
        await crowd.come("b1")
        await crowd.come("c1")
    # Leaving gave the place to b1, whose task has not run since.
    await crowd.give_up("b1")
    await crowd.turns()
    await crowd.go("c1")
    async with crowd.places.take("d"):
        pass
    assert crowd.came == ["c1"]


@pytest.mark.looptime
async def test_what_is_kept_is_bounded_in_bytes_and_time() -> None:
    """The least recently used goes first; a large one is not kept at all."""
    kept = Finished(100, 60.0, SystemClock())
    for name in "abcd":
        kept.put(name, Rendered("text/plain", b"x" * 25))
    assert kept.get("a") is not None
    kept.put("e", Rendered("text/plain", b"x" * 25))
    assert [name for name in "abcde" if kept.get(name)] == ["a", "c", "d", "e"]
    kept.put("large", Rendered("text/plain", b"x" * 26))
    assert kept.get("large") is None
    kept.put("a", Rendered("text/html", b"y"))
    assert kept.get("a") == Rendered("text/html", b"y")
    await asyncio.sleep(59)
    assert kept.get("c") is not None
    await asyncio.sleep(1)
    assert [name for name in "abcde" if kept.get(name)] == []


async def test_a_finished_page_is_not_made_twice() -> None:
    """The same digests, view, title and sample type; the artifact is not even read again. A refusal is not kept."""
    async with Renderer() as renderer:
        artifact = Artifact(FOLDED)

        async def asked(as_: str = "top", title: str = "t", digest: str = "d", sample: str | None = None) -> int:
            before = artifact.reads
            await renderer.render(RenderOrder(as_, title, sample, (artifact,), digests=(digest,)))
            return artifact.reads - before

        assert await asked() == 1
        assert await asked() == 0
        for other in ({"as_": "folded"}, {"title": "u"}, {"digest": "e"}, {"sample": "samples"}):
            assert await asked(**other) == 1
            assert await asked(**other) == 0
        for _ in range(2):
            await renderer.render(RenderOrder("top", "t", None, (artifact,)))
        assert artifact.reads == 7
        for _ in range(2):
            with pytest.raises(Refused):
                await renderer.render(RenderOrder("top", "t", "none", (artifact,), digests=("d",)))
        assert artifact.reads == 9


class Watched(Artifact):
    """Counts the children that came while it is read; `before` are those of other tests' servers."""

    before: ClassVar[set[int]] = set()
    seen: ClassVar[list[int]] = []

    async def read(self, offset: int, size: int) -> bytes:
        self.seen.append(len(await asyncio.to_thread(children) - self.before))
        return await super().read(offset, size)


async def test_of_twenty_orders_at_once_two_run_at_a_time() -> None:
    """All are answered, each with its own."""
    Watched.before, Watched.seen = await asyncio.to_thread(children), []
    limits = RenderLimits(children=2, waiting=18, waiting_per_viewer=18)
    async with Renderer(limits) as renderer:
        bodies = [f"main;f{n} {n}\n".encode() for n in range(1, 21)]
        done = await asyncio.gather(
            *(renderer.render(RenderOrder("folded", "", None, (Watched(body),))) for body in bodies)
        )
    assert [one.body for one in done] == bodies
    assert len(Watched.seen) == 20
    assert max(Watched.seen) == 2


async def test_beyond_the_queue_an_order_is_told_to_come_again() -> None:
    """429 with the seconds to wait; those in the queue are served."""
    limits = RenderLimits(children=1, waiting=2, waiting_per_viewer=2)
    async with Renderer(limits) as renderer:
        told = await asyncio.gather(*(renderer.render(order()) for _ in range(5)), return_exceptions=True)
    refused = [one for one in told if isinstance(one, Refused)]
    assert [(one.status, one.reason, one.retry_after) for one in refused] == [(429, "Busy", 5)] * 2
    assert sum(isinstance(one, Rendered) for one in told) == 3
