"""What a pass of the janitor removes, and what it leaves alone."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.collector.catalog.catalogrig import T0, Memory, SetClock, listed, manifest
from toe_async.collector.captures import Manifest
from toe_async.collector.catalog import Catalog, Entry, Query, Usage, open_catalog
from toe_async.collector.catalog.janitor import Janitor, Swept
from toe_async.collector.catalog.policy import Policies
from toe_async.collector.catalog.retention import Retention, RetentionPolicy, plan
from toe_async.collector.disk import Disk
from toe_async.collector.errors import StoreError

DAY = timedelta(days=1)


def policies(default: RetentionPolicy, **namespaces: RetentionPolicy) -> Policies:
    made = Policies(None)
    made.current = Retention(default, namespaces)
    return made


async def built(catalog: Catalog, store: Memory) -> None:
    await catalog.build(store)


async def test_an_artifact_cannot_be_read_one_pass_after_its_age(catalog: Catalog, clock: SetClock) -> None:
    """H25: not in the store, not by name, not in a list; a moment earlier it was there."""
    secret, later = manifest("secret", 0), manifest("later", 60)
    store = Memory(secret, later)
    await built(catalog, store)
    janitor = Janitor(catalog, store, policies(RetentionPolicy(age=7 * DAY)), clock)
    clock.time = T0 + 7 * DAY - timedelta(microseconds=1)
    assert await janitor.sweep() == Swept()
    clock.time = T0 + 7 * DAY
    assert await janitor.sweep() == Swept(removed=1, bytes=10)
    assert await store.find(secret.directory, secret.file) is None
    assert await catalog.get("shop", "secret") is None
    assert await listed(catalog) == ["later"]


async def test_each_namespace_has_its_own_limits(catalog: Catalog, clock: SetClock) -> None:
    """Age, count and bytes, the default where there is nothing else."""
    store = Memory(
        *(manifest(f"{namespace}{number}", number, namespace=namespace)
          for namespace in ("bank", "shop", "till", "yard") for number in range(4))
    )  # fmt: skip
    await built(catalog, store)
    clock.time = T0 + timedelta(seconds=62)
    limits = policies(
        RetentionPolicy(count=3), bank=RetentionPolicy(), shop=RetentionPolicy(bytes=25),
        till=RetentionPolicy(age=timedelta(seconds=61)),
    )  # fmt: skip
    swept = await Janitor(catalog, store, limits, clock).sweep()
    assert await listed(catalog, Query(namespace="bank")) == ["bank3", "bank2", "bank1", "bank0"]
    assert await listed(catalog, Query(namespace="shop")) == ["shop3", "shop2"]
    assert await listed(catalog, Query(namespace="till")) == ["till3", "till2"]
    assert await listed(catalog, Query(namespace="yard")) == ["yard3", "yard2", "yard1"]
    assert swept == Swept(removed=5, bytes=50)
    assert await catalog.usage() == Usage(11, 110)


_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["bank", "shop"]), st.integers(0, 9), st.integers(0, 50),
        st.none() | st.integers(1, 12), st.sampled_from(["", "", "case 7"]),
    ),
    max_size=20,
)  # fmt: skip
_POLICIES = st.builds(
    RetentionPolicy,
    age=st.none() | st.integers(1, 10).map(timedelta),
    count=st.none() | st.integers(1, 8),
    bytes=st.none() | st.integers(1, 200),
)


@given(rows=_ROWS, policy=_POLICIES)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_pass_removes_exactly_what_the_rules_name(
    catalog: Catalog, clock: SetClock, rows: list[tuple[str, int, int, int | None, str]], policy: RetentionPolicy
) -> None:
    """Though it looks at what may be due alone, a batch at a time, and the rules look at everything."""
    clock.time = T0 + 10 * DAY
    held = [
        manifest(f"n{number}", (10 - age) * 86_400, namespace=namespace, size=size, retention_days=days, hold=hold)
        for number, (namespace, age, size, days, hold) in enumerate(rows)
    ]
    store = Memory(*held)
    await built(catalog, store)
    going = set[str]()
    for namespace in ("bank", "shop"):
        known = [Entry(one, number) for number, one in enumerate(held) if one.namespace == namespace]
        going |= {one.manifest.name for one in plan(known, policy, clock.time)}
    swept = await Janitor(catalog, store, policies(policy), clock).sweep()
    assert {one.name for one in held} - set(await listed(catalog)) == going
    assert {one.name for one in store.held.values()} == {one.name for one in held} - going
    assert (swept.removed, swept.kept_by_hold) == (len(going), sum(bool(one.hold) for one in held))


async def test_more_than_a_batch_goes_in_one_pass(catalog: Catalog, clock: SetClock) -> None:
    """Many of each kind: by age, by days of their own, by count."""
    store = Memory(
        *(manifest(f"aged{number}", number) for number in range(450)),
        *(manifest(f"own{number}", 86_400 + number, retention_days=2) for number in range(450)),
        *(manifest(f"new{number}", 4 * 86_400 + number) for number in range(450)),
    )
    await built(catalog, store)
    clock.time = T0 + 5 * DAY
    swept = await Janitor(catalog, store, policies(RetentionPolicy(age=3 * DAY, count=10)), clock).sweep()
    assert swept == Swept(removed=1340, bytes=13_400)
    assert await listed(catalog) == [f"new{number}" for number in range(449, 439, -1)]


class Slow(Memory):
    """A store whose deletions take a second each, of the loop's time."""

    async def delete(self, manifest: Manifest) -> None:
        await asyncio.sleep(1)
        await super().delete(manifest)


@pytest.mark.looptime
async def test_a_pass_ends_after_half_a_minute_and_the_next_goes_on_with_the_next_namespace(
    catalog: Catalog, clock: SetClock
) -> None:
    """So that one namespace with much to remove does not keep the others waiting."""
    store = Slow(
        *(manifest(f"n{number}", number, namespace=namespace)
          for namespace in ("bank", "shop", "till") for number in range(400))
    )  # fmt: skip
    await built(catalog, store)
    clock.time = T0 + 5 * DAY
    janitor = Janitor(catalog, store, policies(RetentionPolicy(age=DAY)), clock)
    left = []
    for _ in range(3):
        begin = asyncio.get_running_loop().time()
        swept = await janitor.sweep()
        assert asyncio.get_running_loop().time() - begin <= 30 + 200 / 4
        assert not swept.finished
        left.append([(await catalog.usage(namespace)).artifacts for namespace in ("bank", "shop", "till")])
    assert left == [[200, 400, 400], [200, 200, 400], [200, 200, 200]]


async def test_what_cannot_be_removed_stays_known_and_is_tried_again(catalog: Catalog, clock: SetClock) -> None:
    """And does not keep another namespace from its turn."""
    store = Memory(manifest("stuck", 1), manifest("x", 1, namespace="till"))
    store.failing.add("stuck")
    await built(catalog, store)
    clock.time = T0 + 5 * DAY
    janitor = Janitor(catalog, store, policies(RetentionPolicy(age=DAY)), clock)
    assert await janitor.sweep() == Swept(removed=1, bytes=10, failed=1, finished=False)
    assert await listed(catalog) == ["stuck"]
    store.failing.clear()
    assert await janitor.sweep() == Swept(removed=1, bytes=10)


async def test_a_hold_that_the_catalog_does_not_know_of_yet_wins(catalog: Catalog, clock: SetClock) -> None:
    """Another process has just written it into the manifest."""
    known = manifest("evidence", 1)
    store = Memory(known)
    await built(catalog, store)
    await store.rewrite(replace(known, hold="case 7"))
    clock.time = T0 + 5 * DAY
    swept = await Janitor(catalog, store, policies(RetentionPolicy(age=DAY)), clock).sweep()
    assert (swept.removed, swept.kept_by_hold) == (0, 1)
    assert await store.find(known.directory, known.file) is not None
    entry = await catalog.get("shop", "evidence")
    assert entry is not None
    assert entry.manifest.hold == "case 7"


async def test_a_hold_being_taken_is_waited_for(catalog: Catalog, clock: SetClock) -> None:
    """Whoever holds has the artifact to itself from the decision to the end."""
    known = manifest("evidence", 1)
    store = Memory(known)
    await built(catalog, store)
    clock.time = T0 + 5 * DAY
    janitor = Janitor(catalog, store, policies(RetentionPolicy(age=DAY)), clock)
    async with asyncio.TaskGroup() as tasks:
        async with catalog.changing("shop", "evidence"):
            sweeping = tasks.create_task(janitor.sweep())
            for _ in range(20):  # the pass needs two steps of the disk to come here
                await catalog.usage()
            assert store.held
            held = replace(known, hold="case 7")
            await store.rewrite(held)
            await catalog.add([held])
        assert (await sweeping).removed == 0
    assert await store.find(known.directory, known.file) == held


async def test_an_artifact_that_is_gone_already_is_forgotten(catalog: Catalog, clock: SetClock) -> None:
    """Deleted by another process, or by hand."""
    store = Memory(manifest("a", 1))
    await built(catalog, store)
    store.held.clear()
    clock.time = T0 + 5 * DAY
    assert (await Janitor(catalog, store, policies(RetentionPolicy(age=DAY)), clock).sweep()).finished
    assert await listed(catalog) == []


async def test_an_artifact_stored_again_while_its_old_one_goes_stays_known(catalog: Catalog, clock: SetClock) -> None:
    """The same upload once more, the moment after the deletion."""
    again = manifest("a", 5 * 86_400)

    class Racing(Memory):
        async def delete(self, manifest: Manifest) -> None:
            await super().delete(manifest)
            self.put(again)
            await catalog.add([again])

    store = Racing(manifest("a", 1))
    await built(catalog, store)
    clock.time = T0 + 5 * DAY
    await Janitor(catalog, store, policies(RetentionPolicy(age=DAY)), clock).sweep()
    entry = await catalog.get("shop", "a")
    assert entry is not None
    assert entry.manifest == again


async def test_count_and_bytes_wait_until_everything_is_known_and_age_does_not(
    tmp_path: Path, disk: Disk, clock: SetClock
) -> None:
    """The oldest of a part need not be the oldest; too old is too old."""
    async with open_catalog(tmp_path / "other.sqlite", disk, clock) as catalog:
        store = Memory(manifest("old", 1), manifest("a", 86_400), manifest("b", 86_401))
        await catalog.add(store.held.values())
        clock.time = T0 + 2 * DAY
        janitor = Janitor(catalog, store, policies(RetentionPolicy(age=1.5 * DAY, count=1)), clock)
        assert (await janitor.sweep()).removed == 1
        assert await listed(catalog) == ["b", "a"]
        await catalog.build(store)
        assert (await janitor.sweep()).removed == 1
        assert await listed(catalog) == ["b"]


async def test_what_a_backend_leaves_behind_is_swept_too_and_its_failure_is_told(
    catalog: Catalog, clock: SetClock
) -> None:
    """Once a pass."""

    class Leftovers:
        def __init__(self) -> None:
            self.found: list[int | StoreError] = [3, StoreError("the file system answered EIO"), 0]

        async def sweep(self) -> int:
            found = self.found.pop(0)
            if isinstance(found, StoreError):
                raise found
            return found

    janitor = Janitor(catalog, Memory(), policies(RetentionPolicy()), clock, Leftovers())
    assert await janitor.sweep() == Swept(orphans=3)
    assert await janitor.sweep() == Swept(failed=1, finished=False)
    assert await janitor.sweep() == Swept()


async def test_a_pass_that_is_cancelled_leaves_catalog_and_store_in_step(catalog: Catalog, clock: SetClock) -> None:
    """As at a stop: what was not removed is removed later."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    class Stopping(Memory):
        async def delete(self, manifest: Manifest) -> None:
            reached.set()
            await go_on.wait()
            await super().delete(manifest)

    store = Stopping(*(manifest(f"n{number}", number) for number in range(20)))
    await built(catalog, store)
    clock.time = T0 + 5 * DAY
    janitor = Janitor(catalog, store, policies(RetentionPolicy(age=DAY)), clock)
    sweeping = asyncio.get_running_loop().create_task(janitor.sweep())
    await reached.wait()
    sweeping.cancel()
    await asyncio.wait([sweeping])
    assert sweeping.cancelled()
    assert len(await listed(catalog)) == 20 == len(store.held)
    go_on.set()
    assert (await janitor.sweep()).removed == 20
    assert await listed(catalog) == []
