"""What the pages answer over HTTP: lists, artifacts, drawings, changes, refusals, and the headers of all of them."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from structlog.testing import capture_logs

from tests.collector.pages.conftest import Connect
from tests.collector.pages.shelf import Shelf, Viewer, busy_night, many, stacks
from toe_async.apis.core import UserInfo
from toe_async.collector.errors import Refused, StoreError
from toe_async.collector.library import Body
from toe_async.collector.pages.viewers import OneViewer, ProxyAccess
from toe_async.profiles.page import CSP

SAME = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def library(shelf: Shelf) -> Viewer:
    return Viewer(shelf)


@pytest.fixture
async def client(connect: Connect, library: Viewer) -> AsyncIterator[aiohttp.ClientSession]:
    """Somebody who is in."""
    access = OneViewer(library, "k" * 43, name="ada")
    async with connect(access) as opened:
        assert (await opened.get(access.first_path, allow_redirects=False)).status == 303
        yield opened


async def text(client: aiohttp.ClientSession, path: str, status: int = 200) -> str:
    reply = await client.get(path)
    assert reply.status == status
    return await reply.text()


def hrefs(page: str, word: str) -> list[str]:
    """Addresses of the links whose visible text is this word."""
    found = re.findall(rf'<a [^>]*?href="([^"]*)"[^>]*>{re.escape(word)}</a>', page)
    return [one.replace("&amp;", "&") for one in found]


async def form(client: aiohttp.ClientSession, path: str) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', await text(client, path))
    assert found is not None
    return found[1]


# -- lists


async def test_the_first_page_shows_all_that_may_be_seen(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """Newest first, under their days, each capture once."""
    busy_night(shelf)
    page = await text(client, "/")
    assert page.count("<article") == 15
    assert page.count('class="artifact"') == 25
    assert page.index("Saturday, 24 January 2026") < page.index("Friday, 23 January 2026")
    assert "payments" in page
    assert page.index("03:10:47") < page.index("02:33:47")


async def test_someone_with_one_namespace_is_there_at_once(
    client: aiohttp.ClientSession, shelf: Shelf, library: Viewer
) -> None:
    """No choice is asked for where there is none."""
    library.namespaces_seen = frozenset({"shop"})
    shelf.put()
    shelf.put(namespace="payments", pod="secret-pod")
    page = await text(client, "/")
    assert "cpu.folded" in page
    assert "payments" not in page
    assert "secret-pod" not in page


async def test_someone_with_some_namespaces_chooses_one(
    client: aiohttp.ClientSession, shelf: Shelf, library: Viewer
) -> None:
    """Those alone are named."""
    library.namespaces_seen = frozenset({"shop", "payments"})
    for name in ("shop", "payments", "hidden"):
        shelf.put(namespace=name)
    page = await text(client, "/")
    assert hrefs(page, "shop") == ["/?namespace=shop"]
    assert hrefs(page, "payments") == ["/?namespace=payments"]
    assert "hidden" not in page.replace("hidden>", "").replace('type="hidden"', "")


async def test_someone_without_any_namespace_may_name_one(
    client: aiohttp.ClientSession, shelf: Shelf, library: Viewer
) -> None:
    """And is told in one sentence when it is not theirs."""
    library.namespaces_seen = frozenset()
    shelf.put()
    assert 'name="namespace"' in await text(client, "/")
    assert "you may not list" in (await text(client, "/?namespace=shop", 403)).lower()


async def test_filters_and_search_reach_the_library(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """And only what fits is shown, with each filter to take away again."""
    busy_night(shelf)
    page = await text(client, "/?namespace=shop&pod=checkout-0&leaf=heap.pb.gz&q=88+%25&last=24h")
    asked = shelf.asked[-1]
    assert asked["fieldSelector"] == "artifact.pod=checkout-0,artifact.leaf=heap.pb.gz"
    assert (asked["q"], asked["since"], asked["namespace"]) == ("88 %", "24h", "shop")
    assert page.count('class="artifact"') == 1
    assert len(re.findall("Remove the filter", page)) == 4
    assert "<details open" in page


async def test_a_list_goes_on_where_the_last_page_ended(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """Every artifact is shown once; the pages know of each other."""
    many(shelf, 250)
    seen: list[str] = []
    path = "/?namespace=shop&q=web"
    for _ in range(3):
        page = await text(client, path)
        seen += re.findall(r'name="pick" value="([^"]+)"', page)
        older = re.findall(r'href="([^"]+)" class="button older"', page)
        path = older[0].replace("&amp;", "&") if older else ""
    assert path == ""
    assert len(seen) == len(set(seen)) == 250
    assert 'class="button newest"' in page


async def test_two_thousand_artifacts_are_put_on_one_page(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """In as few calls as the library's own bound allows."""
    many(shelf, 2100)
    page = await text(client, "/?namespace=shop&limit=2000")
    assert page.count('class="artifact"') == 2000
    assert [one["limit"] for one in shelf.asked] == ["2000", "1500", "1000", "500"]
    assert "100 more" in page


async def test_a_token_of_another_list_is_a_page_with_a_way_out(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """Such as one that was kept for days."""
    shelf.put()
    page = await text(client, "/?namespace=shop&continue=bm9uZQ", 410)
    assert "This page has expired" in page
    assert hrefs(page, "All captures") == ["/"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/?namespace=shop", "Nothing has been captured in shop yet"),
        ("/?namespace=shop&q=x", "No capture in shop fits these filters"),
        ("/", "Nothing has been captured in any namespace yet"),
    ],
)
async def test_an_empty_list_says_why_it_is_empty(client: aiohttp.ClientSession, path: str, said: str) -> None:
    """And how to see more."""
    assert said in await text(client, path)


async def test_objects_that_cannot_be_read_are_counted(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """And hide nothing."""
    shelf.put()
    shelf.odd.append({"kind": "Artifact"})
    assert "1 object could not be read" in await text(client, "/")


async def test_sizes_over_time_are_drawn_and_said(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """One line for a series, one mark for each row, in words for who does not see it."""
    for hours, size in enumerate((1024, 4096, 2048)):
        shelf.put(ago=timedelta(hours=hours), size=size)
    page = await text(client, "/")
    assert page.count("<symbol ") == 1
    assert page.count('href="#s0"') == 3
    assert "Size over 3 captures: 1.00 KiB to 4.00 KiB, this one 2.00 KiB" in page


# -- one artifact


async def test_an_artifact_tells_all_that_is_known(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """Its facts, its siblings, its like over time with a comparison each."""
    earlier = shelf.put(ago=timedelta(hours=2))
    held = shelf.put(hold="INC-7", retentionDays=30, details={"argv": "dump <all>", "imageDigest": "sha256:77"})
    shelf.put("heap.pb.gz")
    page = await text(client, f"/ui/artifacts/shop/{held.name}")
    for fact in (
        held.facts["sha256"],
        "node-3",
        "app=web",
        "INC-7",
        "30 days",
        "CPU 93 % of its limit",
        "uid-of-hot-web",
        "dump &lt;all&gt;",
        "Image digest",
    ):
        assert fact in page
    assert "From the same capture" in page
    assert "heap.pb.gz" in page
    assert hrefs(page, "Compare") == [f"/ui/artifacts/shop/{held.name}/diff?base=shop/{earlier.name}"]
    assert "Delete this artifact" not in page


async def test_an_artifact_is_shown_to_who_may_get_but_not_list(
    client: aiohttp.ClientSession, shelf: Shelf, library: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, then."""
    held = shelf.put()
    shelf.put("heap.pb.gz")

    async def refuse(namespace: str, query: object) -> dict[str, object]:
        raise Refused(403, "Forbidden", "you may not list artifacts")

    monkeypatch.setattr(library, "list", refuse)
    assert "heap.pb.gz" not in await text(client, f"/ui/artifacts/shop/{held.name}")


async def test_bytes_are_an_attachment_that_nothing_interprets(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """Whatever they are."""
    body = b"<script>alert(1)</script>" * 100
    held = shelf.put("page.html", content=body)
    reply = await client.get(f"/ui/artifacts/shop/{held.name}/content")
    assert await reply.read() == body
    assert reply.headers["Content-Type"] == "application/octet-stream"
    assert reply.headers["Content-Disposition"] == 'attachment; filename="page.html"'
    assert "sandbox" in reply.headers["Content-Security-Policy"]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["ETag"] == f'"{held.facts["sha256"]}"'


@pytest.mark.parametrize(
    "leaf", ['a"; filename="b.html', "a\r\nSet-Cookie: x=y", "../../etc/passwd", "", "é.bin", "." * 300]
)
async def test_a_file_name_that_lies_is_not_repeated(client: aiohttp.ClientSession, shelf: Shelf, leaf: str) -> None:
    """The library promises plain names; pages do not rest on it."""
    held = shelf.put("x.bin")
    held.facts["leaf"] = leaf
    reply = await client.get(f"/ui/artifacts/shop/{held.name}/content")
    assert reply.headers["Content-Disposition"] == 'attachment; filename="artifact"'
    assert "x=y" not in str(reply.cookies)


@pytest.mark.parametrize(
    ("asked", "status", "first", "end"),
    [
        ("bytes=0-9", 206, 0, 10), ("bytes=10-", 206, 10, None), ("bytes=-5", 206, -5, None),
        ("bytes=0-", 200, 0, None), ("bytes=5-999999", 206, 5, None), ("bytes=0-1,5-6", 200, 0, None),
        ("lines=0-1", 200, 0, None), ("bytes=-", 200, 0, None),
    ],
)  # fmt: skip
async def test_a_part_of_the_bytes_can_be_had(
    client: aiohttp.ClientSession, shelf: Shelf, asked: str, status: int, first: int, end: int | None
) -> None:
    """So that a browser resumes a long download."""
    held = shelf.put(content=bytes(range(256)))
    reply = await client.get(f"/ui/artifacts/shop/{held.name}/content", headers={"Range": asked})
    part = held.content[first:end]
    assert (reply.status, await reply.read()) == (status, part)
    if status == 206:
        start = held.content.index(part)
        assert reply.headers["Content-Range"] == f"bytes {start}-{start + len(part) - 1}/256"


async def test_a_part_that_is_not_there_or_of_something_else_is_told(
    client: aiohttp.ClientSession, shelf: Shelf
) -> None:
    """416 for the one; the whole of what is there now for the other."""
    held = shelf.put(content=b"0123456789")
    path = f"/ui/artifacts/shop/{held.name}/content"
    missing = await client.get(path, headers={"Range": "bytes=10-"})
    assert (missing.status, missing.headers["Content-Range"]) == (416, "bytes */10")
    changed = await client.get(path, headers={"Range": "bytes=5-", "If-Range": '"another"'})
    assert (changed.status, await changed.read()) == (200, b"0123456789")


# -- drawings


async def test_a_drawing_is_shut_in_a_sandbox(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """Under the policy that it was made for."""
    base, held = shelf.put(ago=timedelta(hours=1)), shelf.put()
    for path in (f"{held.name}/flame", f"{held.name}/flame?sample=samples", f"{held.name}/diff?base=shop/{base.name}"):
        reply = await client.get(f"/ui/artifacts/shop/{path}")
        assert reply.status == 200
        assert reply.headers["Content-Security-Policy"] == CSP
        assert "sandbox allow-scripts" in CSP
        assert "allow-same-origin" not in CSP
        assert "Cross-Origin-Opener-Policy" not in reply.headers
        assert reply.content_type == "text/html"


async def test_what_cannot_be_drawn_is_a_page_and_not_a_blank(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """With the way back to the artifact."""
    held = shelf.put(content=b"\x00\x01 no profile")
    for view in ("flame", "top"):
        page = await text(client, f"/ui/artifacts/shop/{held.name}/{view}", 422)
        assert "Cannot be drawn" in page
        assert f'href="/ui/artifacts/shop/{held.name}" class="button"' in page


async def test_the_top_is_sorted_and_searched_by_links_and_a_form(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """What costs most by itself first, unless asked otherwise."""
    held = shelf.put(content=stacks())
    path = f"/ui/artifacts/shop/{held.name}/top"

    def functions(page: str) -> list[str]:
        return re.findall(r'class="function">([^<]+)<', page)

    page = await text(client, path)
    assert functions(page)[:2] == ["math/big.(*Int).Exp", "encoding/json.Marshal"]
    assert hrefs(page, "Cumulative") == [path + "?by=cumulative"]
    assert functions(await text(client, path + "?by=cumulative"))[0] in {
        "main",
        "main.handle",
        "net/http.(*conn).serve",
    }
    assert functions(await text(client, path + "?q=JSON")) == ["encoding/json.Marshal"]
    assert "No function fits" in await text(client, path + "?q=nothing")


async def test_two_that_are_ticked_are_compared_from_the_earlier(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """In whatever order they were ticked, across namespaces too."""
    early = shelf.put(ago=timedelta(hours=3), namespace="payments")
    late = shelf.put(ago=timedelta(hours=1))
    picks = [f"pick=payments/{early.name}", f"pick=shop/{late.name}"]
    for order in (picks, picks[::-1]):
        reply = await client.get("/ui/compare?" + "&".join(order), allow_redirects=False)
        assert reply.status == 303
        found = urlsplit(reply.headers["Location"])
        assert found.path == f"/ui/artifacts/shop/{late.name}/diff"
        assert parse_qs(found.query) == {"base": [f"payments/{early.name}"]}
        assert (await client.get(reply.headers["Location"])).status == 200


@pytest.mark.parametrize("picks", [[], ["a"], ["a", "a"], ["a", "b", "c"]])
async def test_a_comparison_takes_two(client: aiohttp.ClientSession, picks: list[str]) -> None:
    """Neither fewer nor more, and the same twice is one."""
    page = await text(client, "/ui/compare?" + "&".join(f"pick=shop/{one}" for one in picks), 400)
    assert f"and {len(set(picks))} are ticked" in page


# -- changes


async def test_an_artifact_is_held_and_released(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """By forms alone."""
    held = shelf.put()
    path = f"/ui/artifacts/shop/{held.name}"
    token = await form(client, path)
    for reason in ("INC-9", ""):
        reply = await client.post(
            path + "/hold", data={"csrf": token, "reason": reason}, headers=SAME, allow_redirects=False
        )
        assert (reply.status, reply.headers["Location"], held.hold) == (303, path, reason)


async def test_an_artifact_is_deleted_after_one_more_question(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """A link alone deletes nothing."""
    held = shelf.put()
    path = f"/ui/artifacts/shop/{held.name}/delete"
    token = await form(client, path)
    assert held in shelf.held
    reply = await client.post(path, data={"csrf": token}, headers=SAME, allow_redirects=False)
    assert (reply.status, reply.headers["Location"]) == (303, "/?namespace=shop")
    assert held not in shelf.held
    assert (await client.post(path, data={"csrf": token}, headers=SAME)).status == 404


async def test_a_held_artifact_is_not_deleted(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """The page offers no way, and the way without it is refused."""
    held = shelf.put(hold="INC-7")
    path = f"/ui/artifacts/shop/{held.name}/delete"
    page = await text(client, path)
    assert "Delete for good" not in page
    assert "INC-7" in page
    reply = await client.post(path, data={"csrf": await form(client, path)}, headers=SAME)
    assert reply.status == 409
    assert "INC-7" in await reply.text()


@pytest.mark.parametrize(
    ("headers", "good_token"),
    [
        (SAME, False), ({}, True), ({"Sec-Fetch-Site": "cross-site"}, True), ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Sec-Fetch-Site": "none"}, True), ({"Origin": "null"}, True), ({"Origin": "https://evil.example"}, True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("what", ["hold", "delete"])
async def test_a_change_that_was_not_asked_for_here_is_refused(
    client: aiohttp.ClientSession, shelf: Shelf, headers: dict[str, str], good_token: bool, what: str
) -> None:
    """By where it comes from, or by its form's token."""
    held = shelf.put()
    path = f"/ui/artifacts/shop/{held.name}"
    token = await form(client, path) if good_token else "0" * 64
    reply = await client.post(f"{path}/{what}", data={"csrf": token, "reason": "x"}, headers=headers)
    assert (reply.status, held in shelf.held, held.hold) == (403, True, "")


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (b"{}", "application/json", 400), (b"reason=%ff", "application/x-www-form-urlencoded", 400),
        ("reason=ä".encode(), "application/x-www-form-urlencoded", 400),
        (b"a=b&" * 20, "application/x-www-form-urlencoded", 400),
        (b"a=" + b"x" * 70_000, "application/x-www-form-urlencoded", 413),
        (b"", "application/x-www-form-urlencoded", 403),
    ],
)  # fmt: skip
async def test_what_is_no_form_of_ours_is_refused(
    client: aiohttp.ClientSession, shelf: Shelf, data: bytes, kind: str, status: int
) -> None:
    """Small or not read at all."""
    held = shelf.put()
    headers = SAME | {"Content-Type": kind}
    reply = await client.post(f"/ui/artifacts/shop/{held.name}/hold", data=data, headers=headers)
    assert (reply.status, held.hold) == (status, "")


async def test_who_may_only_read_is_told_so(client: aiohttp.ClientSession, shelf: Shelf, library: Viewer) -> None:
    """By the library, in its words, with the way back."""
    held = shelf.put()
    library.read_only = True
    path = f"/ui/artifacts/shop/{held.name}"
    reply = await client.post(path + "/hold", data={"csrf": await form(client, path), "reason": "x"}, headers=SAME)
    page = await reply.text()
    assert reply.status == 403
    assert "ou may not patch artifacts in namespace shop" in page
    assert hrefs(page, "Back") == [path]


# -- refusals and headers


async def test_every_page_carries_the_policy(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """Refusals too; none of it may be kept by a cache or be framed."""
    held = shelf.put()
    for path in ("/", f"/ui/artifacts/shop/{held.name}", "/ui/artifacts/shop/none", "/ui/what", "/ui/compare"):
        headers = (await client.get(path)).headers
        policy = headers["Content-Security-Policy"].split("; ")
        assert policy[0] == "default-src 'none'"
        assert {"frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "script-src 'self'"} <= set(policy)
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"


async def test_assets_stay_for_ever_at_their_digest(connect: Connect, shelf: Shelf) -> None:
    """And are given to anybody, since nothing of anybody is in them."""
    access = ProxyAccess(lambda request: UserInfo(username="ada"), lambda user: Viewer(shelf))
    async with connect(access) as client:
        page = await text(client, "/")
        found = re.findall(r'(?:href|src)="(/ui/assets/[^"]+)"', page)
        assert sorted({one.rpartition(".")[2] for one in found}) == ["css", "js", "svg"]
    nobody = ProxyAccess(lambda request: None, lambda user: Viewer(shelf))
    async with connect(nobody) as client:
        for path in found:
            reply = await client.get(path)
            assert reply.status == 200
            assert "immutable" in reply.headers["Cache-Control"]
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            assert b"http://" not in (await reply.read()).replace(b"http://www.w3.org/2000/svg", b"")


@pytest.mark.parametrize("path", ["/ui/nothing", "/ui/artifacts/shop/none", "/ui/artifacts/shop/none/flame", "/ui/%00"])
async def test_what_is_not_there_is_a_page_with_a_way_out(client: aiohttp.ClientSession, path: str) -> None:
    """One sentence, and a link to the list."""
    page = await text(client, path, 404)
    assert hrefs(page, "All captures") == ["/"]
    assert 'role="alert"' in page


async def test_a_failing_store_and_a_bug_are_pages_too(
    client: aiohttp.ClientSession, shelf: Shelf, library: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the words of either."""
    for failure in (StoreError("/secret/path: EIO"), RuntimeError("secret detail")):

        async def fail(namespace: str, query: object, failure: Exception = failure) -> dict[str, object]:
            raise failure

        monkeypatch.setattr(library, "list", fail)
        with capture_logs() as logs:
            page = await text(client, "/?namespace=shop", 500)
        assert len(logs) >= 1
        assert "secret" not in page
        assert hrefs(page, "Try again") == ["/?namespace=shop"]


@pytest.mark.parametrize("failure", [StoreError("EIO"), RuntimeError("a fault of ours")])
async def test_bytes_that_began_to_come_are_never_gone_on_with_by_a_page(
    client: aiohttp.ClientSession, shelf: Shelf, library: Viewer, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """The download breaks; an error page must not become a part of the file."""
    held = shelf.put(content=bytes(1 << 20))

    @asynccontextmanager
    async def content(namespace: str, name: str, first: int = 0, end: int | None = None) -> AsyncIterator[Body]:
        async def pieces() -> AsyncIterator[bytes]:
            yield bytes(1000)
            raise failure

        yield Body(
            content_type="application/octet-stream", size=1 << 20, filename="heap.pprof", headers={}, pieces=pieces()
        )

    monkeypatch.setattr(library, "content", content)
    with capture_logs():
        async with client.get(f"/ui/artifacts/shop/{held.name}/content") as reply:
            assert reply.status == 200
            assert await reply.content.readexactly(1000) == bytes(1000)
            with pytest.raises(aiohttp.ClientPayloadError):
                await reply.content.read(1)


async def test_no_answer_is_cut_short_by_a_head_request(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    """Monitors ask for heads."""
    shelf.put()
    reply = await client.head("/")
    assert reply.status == 200
    assert int(reply.headers["Content-Length"]) > 1000
