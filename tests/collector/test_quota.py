"""How much may be kept: refused before a body is read, counted with what is under way, never exceeded."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.collector.rig import PATH, READ, Collector, Start, capture_id, head, sha256, wired
from toe_async.collector.reservations import Claim, Reservations
from toe_async.collector.settings import Limits

ONE, TWO, THREE = (capture_id(number) for number in range(3))
KIB = b"x" * 1024


async def registered(collector: Collector, **namespaces: str) -> None:
    for number, namespace in enumerate(namespaces.values() or ["shop"] * 3):
        leaves = ["heap.pprof", "cpu.pprof"]
        status, _ = await collector.register(id=capture_id(number), namespace=namespace, leaves=leaves)
        assert status == 201


async def refused(collector: Collector, capture: str, size: int, leaf: str = "heap.pprof") -> tuple[int, str]:
    """What an upload of this size is answered, before it sends a byte; HEAD says the same."""
    path = f"/v1/captures/{capture}/artifacts/{leaf}"
    async with wired(collector) as wire:
        more = [f"Content-Length: {size}", "Expect: 100-continue"]
        await wire.send(*head(collector, *more, path=path, token=collector.uploader(capture)))
        status, _, body = await wire.answer()
        reason = json.loads(body)["reason"] if body else ""
    headers = {"X-Toe-Size": str(size)}
    async with collector.call("HEAD", path, collector.uploader(capture), headers=headers) as reply:
        said = reply.status, reply.headers.get("X-Toe-Reason", "")
        assert said == ((200, "") if status == 100 else (status, reason))
    return status, reason


async def has_room(collector: Collector, capture: str, size: int) -> bool:
    """Whether HEAD says that such an upload would be taken."""
    path = f"/v1/captures/{capture}/artifacts/heap.pprof"
    async with collector.call("HEAD", path, collector.uploader(capture), headers={"X-Toe-Size": str(size)}) as reply:
        return reply.status == 200


async def chunked(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // len(KIB)):
        yield KIB


async def test_a_namespace_keeps_so_many_bytes_and_no_more(start: Start) -> None:
    """Other namespaces do not count; deleting makes room."""
    async with start(max_namespace_bytes=3000) as collector:
        await registered(collector, one="shop", two="shop", three="bank")
        assert (await collector.put(KIB * 2, capture=ONE))[0] == 201
        assert await refused(collector, TWO, 1024) == (507, "QuotaExceeded")
        assert (await refused(collector, TWO, 3000 - 2048))[0] == 100
        assert (await collector.put(KIB * 2, capture=THREE))[0] == 201
        status, error = await collector.put(chunked(1 << 20), capture=TWO, expect100=True)
        assert (status, error["reason"]) == (507, "QuotaExceeded")
        name = f"{READ}/shop/artifacts/{ONE[:10]}-heap.pprof"
        assert (await collector.ask("DELETE", name, collector.reader))[0] == 200
        assert (await collector.put(KIB * 2, capture=TWO))[0] == 201
        assert not collector.parts()


async def test_a_namespace_keeps_so_many_artifacts(start: Start) -> None:
    """The same one again is none more."""
    async with start(max_namespace_artifacts=2) as collector:
        await registered(collector)
        for capture in (ONE, TWO):
            assert (await collector.put(KIB, capture=capture))[0] == 201
        assert await refused(collector, THREE, 1) == (507, "QuotaExceeded")
        assert (await collector.put(KIB, capture=ONE, headers={"X-Toe-Sha256": sha256(KIB)}))[0] == 200


async def test_a_capture_and_the_store_have_bounds_too(start: Start) -> None:
    """413 for what would never fit, 507 for what may fit another day."""
    async with start(max_capture_bytes=1500, max_store_bytes=3000) as collector:
        await registered(collector, one="shop", two="bank", three="shop")
        assert (await collector.put(KIB, capture=ONE))[0] == 201
        assert await refused(collector, ONE, 1024, "cpu.pprof") == (413, "CaptureTooBig")
        assert (await refused(collector, ONE, 400, "cpu.pprof"))[0] == 100
        assert (await collector.put(KIB, capture=TWO))[0] == 201
        assert await refused(collector, THREE, 1024) == (507, "StoreFull")


async def test_what_is_under_way_counts_as_kept(start: Start) -> None:
    """A declared size is set aside whole, for a while also between two pieces; what is on disk for longer."""
    limits = Limits(reserved_seconds=0.0)
    async with start(max_namespace_bytes=3000, limits=limits) as collector:
        await registered(collector)
        path = PATH.replace(PATH.split("/")[3], ONE)
        async with wired(collector) as wire:
            token = collector.uploader(ONE)
            await wire.send(*head(collector, "Content-Length: 2500", "Expect: 100-continue", path=path, token=token))
            assert (await wire.answer())[0] == 100
            assert await refused(collector, TWO, 1000) == (507, "QuotaExceeded")
        async with asyncio.timeout(5):
            while not await has_room(collector, TWO, 1000):
                await asyncio.sleep(0.01)
        more = {"Content-Range": "bytes 0-1023/*", "X-Toe-Size": "2500"}
        assert (await _piece(collector, path, token, more))[0] == 202
        assert (await refused(collector, TWO, 1000))[0] == 100  # the rest is not kept for it, here for no second
        assert (await refused(collector, TWO, 2000))[0] == 507
    async with start(max_namespace_bytes=3000, limits=limits) as again:
        assert (await refused(again, TWO, 2000))[0] == 507  # what a process before this one left, too
        assert (await again.ask("DELETE", f"/v1/captures/{ONE}", again.operator))[0] == 200
        assert (await refused(again, TWO, 2000))[0] == 100


async def test_the_rest_of_an_upload_in_pieces_stays_set_aside(start: Start) -> None:
    """So what was accepted also fits."""
    async with start(max_namespace_bytes=3000) as collector:
        await registered(collector)
        path, token = PATH.replace(PATH.split("/")[3], ONE), collector.uploader(ONE)
        more = {"Content-Range": "bytes 0-1023/*", "X-Toe-Size": "2048"}
        assert (await _piece(collector, path, token, more))[0] == 202
        assert await refused(collector, TWO, 1024) == (507, "QuotaExceeded")
        assert (await _piece(collector, path, token, {"Content-Range": "bytes 1024-2047/2048"}))[0] == 201
        assert (await refused(collector, TWO, 3000 - 2048))[0] == 100


@pytest.mark.parametrize("how", ["declared", "chunked"])
async def test_a_flood_of_uploads_never_exceeds_a_bound(start: Start, how: str) -> None:
    """Forty at once, each of which would fit alone."""
    async with start(max_namespace_bytes=10 * 1024 + 500) as collector:
        captures = [capture_id(number) for number in range(40)]
        for capture in captures:
            assert (await collector.register(id=capture))[0] == 201

        async def upload(capture: str) -> int:
            data: Any = KIB if how == "declared" else chunked(1024)
            return (await collector.put(data, capture=capture, expect100=True))[0]

        codes = await asyncio.gather(*(upload(capture) for capture in captures))
        assert set(codes) <= {201, 507}
        assert 1 <= codes.count(201) <= 10
        kept = [path for path in collector.root.rglob("*.pprof") if path.is_file()]
        assert len(kept) == codes.count(201)
        for capture in captures:  # nothing is set aside any more
            await collector.put(KIB, capture=capture)
        assert len([path for path in collector.root.rglob("*.pprof") if path.is_file()]) == 10


def test_uploads_of_one_artifact_are_one_artifact() -> None:
    """The largest counts; each counts itself, so its own are left out."""
    all_of_them = Reservations(60.0)
    one, again, other = Claim("shop", ONE, "a", 100), Claim("shop", ONE, "a", 200), Claim("shop", TWO, "a", 50)
    with all_of_them.whole(one), all_of_them.whole(again), all_of_them.whole(other):
        seen = all_of_them.ahead(other, 0.0)
        assert (seen.namespace_artifacts, seen.namespace_bytes, seen.store_bytes) == (1, 200, 200)
        assert seen.unwritten_bytes == 300
        mine = all_of_them.ahead(one, 0.0)
        assert (mine.namespace_artifacts, mine.namespace_bytes, mine.unwritten_bytes) == (1, 50, 250)
    assert all_of_them.ahead(one, 0.0).store_bytes == 0


def test_who_declared_much_and_went_away_holds_it_for_a_minute() -> None:
    """Then only what is on disk counts, until the part is gone."""
    all_of_them = Reservations(60.0)
    claim, other = all_of_them.resumable(ONE, "a"), Claim("shop", TWO, "a")
    claim.namespace, claim.size, claim.written, claim.idle_since = "shop", 1000, 10, 0.0
    assert all_of_them.ahead(other, 60.0).namespace_bytes == 1000
    assert all_of_them.ahead(other, 60.1).namespace_bytes == 10
    assert all_of_them.ahead(other, 60.1).unwritten_bytes == 0
    all_of_them.settle({}, 60.1)
    assert all_of_them.ahead(other, 60.1).namespace_bytes == 0
    assert all_of_them.get(ONE, "a") is None


async def _piece(collector: Collector, path: str, token: str, headers: dict[str, str]) -> tuple[int, Any]:
    async with collector.call("PUT", path, token, data=KIB, headers=headers) as reply:
        return reply.status, await reply.read()
