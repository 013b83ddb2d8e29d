"""Making the index whole while the store goes on changing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.collector.catalog.catalogrig import Memory, listed, manifest, whole
from toe_async.collector.captures import Manifest
from toe_async.collector.catalog import Catalog, Query
from toe_async.collector.catalog.building import Marks
from toe_async.collector.errors import StoreError


async def test_what_is_missing_is_added_what_has_changed_is_taken_over_and_what_is_gone_is_forgotten(
    catalog: Catalog,
) -> None:
    """What is as it was keeps its version."""
    await catalog.add([manifest("same", 1), manifest("held", 2), manifest("gone", 3)])
    same = await catalog.get("shop", "same")
    store = Memory(manifest("same", 1), manifest("held", 2, hold="case 7"), manifest("new", 4, namespace="bank"))
    await catalog.build(store)
    assert await listed(catalog) == ["new", "held", "same"]
    assert await catalog.get("shop", "same") == same
    held = await catalog.get("shop", "held")
    assert held is not None
    assert held.manifest.hold == "case 7"
    assert (await catalog.usage()).artifacts == 3


@given(before=st.sets(st.integers(0, 40)), stored=st.sets(st.integers(0, 40)), batch=st.integers(1, 50))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_the_index_held_it_holds_the_store_afterwards(
    catalog: Catalog, before: set[int], stored: set[int], batch: int
) -> None:
    """And the counts are right."""
    await catalog.add(manifest(f"n{number}", number) for number in before)
    store = Memory(*(manifest(f"n{number}", number) for number in stored))
    store.batches = batch
    await catalog.build(store)
    assert await listed(catalog) == [f"n{number}" for number in sorted(stored, reverse=True)]
    assert (await catalog.usage("shop")).artifacts == len(stored)


class Paused(Memory):
    """A store that stops in its listing until it is told to go on."""

    def __init__(self, *held: Manifest) -> None:
        super().__init__(*held)
        self.read, self.go_on = asyncio.Event(), asyncio.Event()

    async def manifests(self) -> AsyncIterator[list[Manifest]]:
        found = list(self.held.values())
        self.read.set()
        await self.go_on.wait()
        yield found


async def test_what_is_deleted_committed_or_held_during_a_build_is_not_undone_by_it(catalog: Catalog) -> None:
    """The build has read of them before; nothing of that is true any more."""
    old, forgotten, stays = manifest("old", 1), manifest("forgotten", 2), manifest("stays", 3)
    evidence = manifest("evidence", 0)
    store = Paused(old, forgotten, stays, evidence)
    await catalog.add([forgotten, evidence])
    async with asyncio.TaskGroup() as tasks:
        building = tasks.create_task(catalog.build(store))
        await store.read.wait()
        assert not whole(catalog)
        await store.delete(old)
        await catalog.remove("shop", "old")
        entry = await catalog.get("shop", "forgotten")
        assert entry is not None
        await store.delete(forgotten)
        await catalog.forget(entry)
        store.put(manifest("new", 4), manifest("evidence", 0, hold="case 7"))
        await catalog.add([manifest("new", 4), manifest("evidence", 0, hold="case 7")])
        store.go_on.set()
        await building
    assert await listed(catalog) == ["new", "stays", "evidence"]
    held = await catalog.get("shop", "evidence")
    assert held is not None
    assert held.manifest.hold == "case 7"
    assert whole(catalog)


async def test_an_artifact_that_a_listing_passed_over_is_looked_for_before_it_is_forgotten(catalog: Catalog) -> None:
    """A folder that changes while it is read may hide what it holds."""

    class Hiding(Memory):
        async def manifests(self) -> AsyncIterator[list[Manifest]]:
            yield []

    await catalog.add([manifest("hidden", 1)])
    await catalog.build(Hiding(manifest("hidden", 1)))
    assert await listed(catalog) == ["hidden"]


async def test_a_build_that_fails_half_way_leaves_the_index_incomplete_and_forgets_nothing(catalog: Catalog) -> None:
    """Half a listing says nothing about what is gone."""
    store = Memory(manifest("a", 1), manifest("b", 2))
    store.batches, store.broken = 1, StoreError("the file system answered EIO")
    await catalog.add([manifest("c", 3)])
    with pytest.raises(StoreError, match="EIO"):
        await catalog.build(store)
    assert not whole(catalog)
    assert "c" in await listed(catalog)
    store.broken = None
    await catalog.build(store)
    assert whole(catalog)
    assert await listed(catalog) == ["b", "a"]


@pytest.mark.looptime
async def test_keeping_tries_again_after_an_error_and_looks_again_every_six_hours(catalog: Catalog) -> None:
    """Other machines may write to the same store."""
    store = Memory(manifest("a", 1))
    store.broken = StoreError("the file system answered EIO")
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(catalog.keep(store))
        await asyncio.sleep(30)
        assert not whole(catalog)
        store.broken = None
        await asyncio.sleep(150)
        assert whole(catalog)
        store.put(manifest("from elsewhere", 2))
        await asyncio.sleep(5 * 3600)
        assert await listed(catalog) == ["a"]
        await asyncio.sleep(2 * 3600)
        assert await listed(catalog, Query(namespace="shop")) == ["from elsewhere", "a"]
        keeping.cancel()


async def test_a_build_that_is_cancelled_can_be_done_again(catalog: Catalog) -> None:
    """As a stop in the middle of a start."""
    store = Paused(manifest("a", 1))
    building = asyncio.get_running_loop().create_task(catalog.build(store))
    await store.read.wait()
    building.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await building
    assert not whole(catalog)
    store.go_on.set()
    await catalog.build(store)
    assert await listed(catalog) == ["a"]


@given(st.sets(st.integers(0, 1 << 52)), st.integers(0, 1 << 52))
def test_marks_are_a_set(marked: set[int], other: int) -> None:
    """Wherever the numbers lie."""
    marks = Marks()
    for one in marked:
        marks.add(one)
    assert all(one in marks for one in marked)
    assert (other in marks) is (other in marked)
    assert all((one + 1 in marks) is (one + 1 in marked) for one in marked)
