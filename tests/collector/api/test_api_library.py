"""The library that pages use: the same rights as the API's, and cells and names for people."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from tests.collector.api.shelf import BASE, SHOP, FixedClock, Shelf, on_disk, put_on_disk
from tests.collector.rig import outage
from toe_async.apis.core import UserInfo
from toe_async.collector.api.local import LocalLibrary
from toe_async.collector.api.options import DeleteOptions
from toe_async.collector.api.rights import Rights
from toe_async.collector.api.tables import age, size
from toe_async.collector.captures import Manifest
from toe_async.collector.disk import Directory, Disk
from toe_async.collector.errors import Refused
from toe_async.collector.library import Library
from toe_async.collector.storage import DirectoryStore

NAME = "aaaaaaaaaa-heap.pprof"


def library(shelf: Shelf, user: str = "ada") -> Library:
    return shelf.library(user)


async def test_a_viewer_sees_the_namespaces_whose_artifacts_may_be_listed(full: Shelf) -> None:
    """Those that hold something, in order, and no others."""
    for number, namespace in enumerate(("shop", "bank", "mall")):
        await full.keep(number, namespace=namespace)
    full.reviewer.grant("ada", "mall", "list")
    full.reviewer.grant("ada", "empty", "list")
    full.reviewer.grant("ada", "bank", "get")
    assert await library(full).namespaces() == ["mall", "shop"]
    assert await library(full, "eve").namespaces() == []
    full.reviewer.grant("root", "", "list")
    assert await library(full, "root").namespaces() == ["bank", "mall", "shop"]


async def test_of_many_namespaces_some_are_asked_for_and_some_shown(full: Shelf) -> None:
    """At most 500 questions for 200 answers, believed for ten seconds."""
    names = [f"ns-{number:04d}" for number in range(600)]
    clock = Minutes()
    rights, user = Rights(full.gate, clock, 10.0), UserInfo(username="ada")
    before = full.reviewer.access_reviews
    assert await rights.listable(user, names, 200) == []
    assert full.reviewer.access_reviews - before == 501
    assert await rights.listable(user, names, 200) == []
    assert full.reviewer.access_reviews - before == 501
    clock.seconds = 11
    full.reviewer.grants |= {("ada", "list", name, "artifacts") for name in names[100:]}
    assert await rights.listable(user, names, 200) == names[100:300]
    assert full.reviewer.access_reviews - before < 501 + 330


async def test_what_one_may_list_is_not_believed_of_another(full: Shelf) -> None:
    """Nor of the same name with other groups."""
    rights = Rights(full.gate, FixedClock(), 10.0)
    root = UserInfo(username="ada", groups=("system:masters",))
    assert await rights.listable(root, ["bank", "shop"], 200) == ["bank", "shop"]
    assert await rights.listable(UserInfo(username="ada"), ["bank", "shop"], 200) == ["shop"]


async def test_when_rights_cannot_be_asked_nothing_is_shown(full: Shelf) -> None:
    """An empty list would be a lie."""
    await full.keep(0)
    await full.keep(1, namespace="bank")
    full.reviewer.down = outage()
    for asked in (library(full).namespaces(), library(full).list("shop", {}), library(full).get("shop", NAME)):
        with pytest.raises(Refused) as refused:
            await asked
        assert refused.value.status == 503


async def test_a_right_that_is_taken_away_is_gone_at_once(full: Shelf) -> None:
    """Only the list of namespaces may be some seconds old."""
    await full.keep(0)
    assert (await library(full).get("shop", NAME))["metadata"]["name"] == NAME
    full.reviewer.grants.clear()
    with pytest.raises(Refused) as refused:
        await library(full).get("shop", NAME)
    assert refused.value.status == 403


async def test_bytes_come_from_the_middle_on(full: Shelf) -> None:
    """As a download goes on; the part says where it is from."""
    held = await full.keep(0, b"0123456789")
    async with library(full).content("shop", NAME, 4, 7) as body:
        assert b"".join([piece async for piece in body.pieces]) == b"456"
        assert (body.size, body.filename, body.content_type) == (3, "heap.pprof", "application/octet-stream")
        assert body.headers["Content-Range"] == "bytes 4-6/10"
        assert body.headers["X-Toe-Sha256"] == held.sha256
    async with library(full).content("shop", NAME) as body:
        assert b"".join([piece async for piece in body.pieces]) == b"0123456789"
        assert "Content-Range" not in body.headers
    async with library(full).content("shop", NAME, 10) as body:
        assert b"".join([piece async for piece in body.pieces]) == b""


@pytest.mark.parametrize(("first", "end"), [(11, None), (-1, None), (5, 4), (0, 11)])
async def test_bytes_that_are_not_there_are_416(full: Shelf, first: int, end: int | None) -> None:
    """The refusal knows the size."""
    await full.keep(0, b"0123456789")
    with pytest.raises(Refused) as refused:
        async with library(full).content("shop", NAME, first, end):
            pass
    assert (refused.value.status, refused.value.size) == (416, 10)


async def test_a_hold_is_set_and_released(full: Shelf) -> None:
    """With the right to patch."""
    await full.keep(0)
    assert (await library(full).hold("shop", NAME, "case 1"))["metadata"]["annotations"] == {"toe.run/hold": "case 1"}
    with pytest.raises(Refused) as refused:
        await library(full).delete("shop", NAME)
    assert refused.value.status == 409
    assert "annotations" not in (await library(full).hold("shop", NAME, ""))["metadata"]
    with pytest.raises(Refused) as refused:
        await library(full).hold("shop", NAME, "two\nlines")
    assert refused.value.status == 422
    with pytest.raises(Refused) as refused:
        await library(full, "eve").hold("shop", NAME, "mine")
    assert refused.value.status == 403


@pytest.mark.parametrize("many", [False, True])
async def test_a_hold_that_the_catalog_has_not_heard_of_keeps_an_artifact(full: Shelf, many: bool) -> None:
    """Another process took it, or the index could not be written after the store was."""
    held = await full.keep(0)
    put_on_disk(full.root, replace(held, hold="case 1"), b"bytes 0")
    ada = full.library()
    with pytest.raises(Refused, match="case 1"):
        await (ada.delete_all("shop", {}, DeleteOptions()) if many else ada.delete("shop", NAME))
    assert on_disk(full.root) == [held.file]
    put_on_disk(full.root, held, b"bytes 0")
    await full.library().delete("shop", NAME)
    assert (on_disk(full.root), await full.names()) == ([], [])


async def test_an_upload_that_comes_again_right_after_its_deletion_is_listed(full: Shelf) -> None:
    """The catalog hears of both in either order."""
    gone = await full.keep(0)
    again = replace(gone, stored_at=gone.stored_at + timedelta(hours=1))

    class Reborn(DirectoryStore):
        async def delete(self, manifest: Manifest) -> None:
            await super().delete(manifest)
            await asyncio.to_thread(put_on_disk, full.root, again, b"bytes 0")
            await full.holdings.catalog.add([again])

    disk = Disk()
    with Directory.root(full.root) as root:
        artifacts = Reborn(root, disk)
        await LocalLibrary(UserInfo(username="ada"), replace(full.holdings, artifacts=artifacts)).delete("shop", NAME)
        await disk.close()
    assert await full.names() == [NAME]


async def test_all_namespaces_are_for_lists_alone(full: Shelf) -> None:
    """An empty namespace is no way around a namespace's right."""
    full.reviewer.allow_all("ada", "")
    await full.keep(0)
    assert len((await library(full).list("", {}))["items"]) == 1
    for asked in (library(full).get("", NAME), library(full).delete("", NAME), library(full).hold("", NAME, "x")):
        with pytest.raises(Refused) as refused:
            await asked
        assert refused.value.status == 400


async def test_each_decision_and_each_read_leaves_a_record(full: Shelf) -> None:
    """Who, what, where, and how it ended; of bytes also how many and of which digest. Never a token."""
    held = await full.keep(0, b"0123456789")
    eve = full.reviewer.token("eve")
    with structlog.testing.capture_logs() as records:
        async with full.call("GET", f"{SHOP}/{NAME}/content", headers={"Range": "bytes=2-5"}) as reply:
            assert await reply.read() == b"2345"
        await full.ask("GET", f"{SHOP}/{NAME}", eve)
        await full.ask("GET", f"{BASE}/artifacts")
        await full.ask("DELETE", f"{SHOP}/{NAME}")
    told: list[dict[str, Any]] = [dict(record) for record in records]

    def of(event: str) -> list[dict[str, Any]]:
        return [one for one in told if one["event"] == event]

    allowed, refused = of("reading allowed"), of("reading refused")
    assert [(one["user"], one["verb"], one["subresource"], one["name"]) for one in allowed] == [
        ("ada", "get", "content", NAME),
        ("ada", "delete", "", NAME),
    ]
    assert [(one["user"], one["verb"], one["namespace"], one["status"]) for one in refused] == [
        ("eve", "get", "shop", 403),
        ("ada", "list", "", 403),
    ]
    (read,) = of("artifact read")
    assert (read["user"], read["first"], read["bytes"], read["sha256"]) == ("ada", 2, 4, held.sha256)
    (deleted,) = of("artifact deleted")
    assert (deleted["user"], deleted["name"], deleted["captureID"]) == ("ada", NAME, held.capture)
    assert eve not in str(told)
    assert full.ada not in str(told)


class Minutes(FixedClock):
    """A monotonic clock that is set by hand, or that moves by itself with every look."""

    seconds = 0.0
    step = 0.0

    def monotonic(self) -> float:
        self.seconds += self.step
        return self.seconds


async def test_deleting_very_much_ends_in_time_and_asks_to_be_sent_again(full: Shelf) -> None:
    """Before the API server gives up waiting; what is done is done."""
    for number in range(5):
        await full.keep(number)
    clock = Minutes()
    clock.step = 11.0
    hurried = LocalLibrary(UserInfo(username="ada"), replace(full.holdings, clock=clock))
    with pytest.raises(Refused) as refused:
        await hurried.delete_all("shop", {}, DeleteOptions())
    assert (refused.value.status, refused.value.retry_after) == (504, 1)
    assert "3 are deleted" in refused.value.message
    assert len(await full.names()) == 2


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (1536, "1.5KiB"), (1048524, "1023.9KiB"), (1048525, "1MiB"),
     (64 << 20, "64MiB"), ((1 << 30) + 1, "1GiB"), (1 << 50, "1024TiB")],
)  # fmt: skip
def test_sizes_are_short(count: int, shown: str) -> None:
    """At most one digit after the point, and never 1024 of a unit that has a next one."""
    assert size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-2, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (121, "2m1s"), (599, "9m59s"),
     (600, "10m"), (10799, "179m"), (10800, "3h"), (10860, "3h1m"), (28799, "7h59m"), (28800, "8h"), (172799, "47h"),
     (172800, "2d"), (176400, "2d1h"), (691199, "7d23h"), (691200, "8d"), (63071999, "729d"), (63072000, "2y"),
     (63158400, "2y1d"), (252288000, "8y")],
)  # fmt: skip
def test_ages_are_what_kubectl_writes(seconds: float, shown: str) -> None:
    """The server's column and the client's own look alike."""
    assert age(seconds) == shown
