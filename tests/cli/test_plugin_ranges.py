"""Bytes through the API server: what an answer must say, how pieces shrink and grow, and a library over a client."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.cli.aggregated import Aggregated, Kept, artifact, status, write_kubeconfig
from toe_async.cli.plugin import ranges
from toe_async.cli.plugin.exits import Exit, code_of, together
from toe_async.cli.plugin.progress import Meter, State, clock, line
from toe_async.cli.plugin.ranges import LARGEST_PIECE, SMALLEST_PIECE, Span, next_size, span_of, worth_repeating
from toe_async.cli.plugin.refusals import refused
from toe_async.cli.plugin.remote import RemoteLibrary, plain_name
from toe_async.collector.errors import Refused
from toe_async.collector.library import Library
from toe_async.kube.client import ClientSettings, connect
from toe_async.kube.errors import (
    ApiError,
    ConfigurationError,
    CredentialsError,
    KubeError,
    NotFound,
    TransportError,
    UnexpectedAnswer,
    UntrustedServer,
)

DIGEST = "ab" * 32
ETAG = {"ETag": f'"{DIGEST}"'}


@pytest.mark.parametrize(
    ("code", "headers", "span"),
    [
        (206, {"Content-Range": "bytes 5-9/20"}, Span(5, 10, 20, DIGEST)),
        (206, {"Content-Range": "bytes 0-0/1"}, Span(0, 1, 1, DIGEST)),
        (200, {"Content-Length": "7"}, Span(0, 7, 7, DIGEST)),
        (200, {"Content-Length": "0"}, Span(0, 0, 0, DIGEST)),
    ],
)
def test_an_answer_says_which_bytes_of_which_content_it_holds(code: int, headers: dict[str, str], span: Span) -> None:
    """By Content-Range and ETag, or as a whole."""
    assert span_of(code, {**ETAG, **headers}) == span


@pytest.mark.parametrize(
    ("code", "headers"),
    [
        (206, {}), (206, {"Content-Range": "bytes 5-4/20"}), (206, {"Content-Range": "bytes 5-20/20"}),
        (206, {"Content-Range": "bytes 5-9/*"}),
        (206, {"Content-Range": "bytes */20"}), (206, {"Content-Range": "5-9/20"}),
        (206, {"Content-Range": "bytes 5-9/20, 1-2/20"}), (206, {"Content-Range": f"bytes 5-{9:030d}/20"}), (200, {}),
        (200, {"Content-Length": "-1"}), (200, {"Content-Length": "9" * 40}), (204, {"Content-Length": "0"}),
        (200, {"Content-Length": "7", "ETag": 'W/"x"'}), (200, {"Content-Length": "7", "ETag": DIGEST}),
        (200, {"Content-Length": "7", "ETag": f'"{DIGEST.upper()}"'}),
    ],
)  # fmt: skip
def test_an_answer_that_does_not_say_it_is_not_used(code: int, headers: dict[str, str]) -> None:
    """Nothing is guessed."""
    with pytest.raises(Refused):
        span_of(code, {**ETAG, **headers})


@pytest.mark.parametrize(
    ("size", "seconds", "after"),
    [
        (LARGEST_PIECE, 1.0, LARGEST_PIECE), (LARGEST_PIECE, 21.0, LARGEST_PIECE // 2), (4 << 20, 10.0, 4 << 20),
        (SMALLEST_PIECE, 59.0, SMALLEST_PIECE), (4 << 20, 1.0, 8 << 20), (20 << 20, 1.0, LARGEST_PIECE),
    ],
)  # fmt: skip
def test_pieces_are_sized_so_that_a_request_takes_well_below_a_minute(size: int, seconds: float, after: int) -> None:
    """Halved when slow, doubled when fast, always between the bounds."""
    assert next_size(size, seconds) == after


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TransportError("x"), True), (UntrustedServer("x"), False), (ApiError(429, "", ""), True),
        (ApiError(503, "", ""), True), (ApiError(504, "", ""), True), (ApiError(403, "", ""), False),
        (ApiError(404, "", ""), False), (ApiError(416, "", ""), False), (UnexpectedAnswer("x"), False),
        (CredentialsError("x"), False),
    ],
)  # fmt: skip
def test_what_may_come_when_it_is_asked_for_again_is_asked_for_again(error: KubeError, again: bool) -> None:
    """Lost connections and servers that ask for patience; never a refusal."""
    assert worth_repeating(error) is again


def timed_out() -> TransportError:
    error = TransportError("x")
    error.__cause__ = TimeoutError()
    return error


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (NotFound(404, "Unknown", "m"), "NotServed", Exit.FAILED),
        (NotFound(404, "NotFound", "m"), "NotFound", Exit.FAILED),
        (ApiError(503, "Unknown", "m"), "Unavailable", Exit.FAILED),
        (ApiError(503, "ServiceUnavailable", "m"), "ServiceUnavailable", Exit.FAILED),
        (ApiError(403, "Forbidden", "m"), "Forbidden", Exit.DENIED),
        (ApiError(504, "Timeout", "m"), "Timeout", Exit.TIMED_OUT),
        (CredentialsError("m"), "NoCredentials", Exit.DENIED), (ConfigurationError("m"), "BadKubeconfig", Exit.FAILED),
        (timed_out(), "TimedOut", Exit.TIMED_OUT), (TransportError("m"), "Unreachable", Exit.FAILED),
        (UntrustedServer("m"), "UntrustedServer", Exit.FAILED),
        (UnexpectedAnswer("m"), "UnexpectedAnswer", Exit.FAILED),
    ],
)  # fmt: skip
def test_each_failure_of_the_way_has_its_reason_and_its_exit_code(error: KubeError, reason: str, code: Exit) -> None:
    """Denied and timed out are told apart from failed."""
    assert (refused(error).reason, code_of(refused(error))) == (reason, code)


@pytest.mark.parametrize(
    ("done", "failures", "code"),
    [
        (3, [], Exit.OK), (0, [], Exit.OK), (1, [Exit.DENIED], Exit.PARTIAL), (0, [Exit.DENIED] * 2, Exit.DENIED),
        (0, [Exit.DENIED, Exit.FAILED], Exit.FAILED), (0, [Exit.TIMED_OUT], Exit.TIMED_OUT),
    ],
)  # fmt: skip
def test_several_pieces_of_work_end_in_one_code(done: int, failures: list[Exit], code: Exit) -> None:
    """Partial only when something was done."""
    assert together(done, failures) is code


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="heap.pb.gz"', "heap.pb.gz"),
        ("attachment", ""),
        ("", ""),
        ('attachment; filename=""', ""),
    ],
)
def test_a_proposed_file_name_is_read(disposition: str, name: str) -> None:
    """Empty when there is none."""
    assert plain_name(disposition) == name


@pytest.mark.parametrize("hostile", ["../x", "/etc/passwd", "..", ".bashrc", "a\x1bb", "con", "x" * 250, "\u202e"])
def test_a_proposed_file_name_is_one_plain_segment(hostile: str) -> None:
    """Whatever the answer proposes."""
    name = plain_name(f'attachment; filename="{hostile}"')
    assert name
    assert "/" not in name
    assert not name.startswith(".")
    assert name.isascii()
    assert name.isprintable()


def test_the_progress_line_tells_share_bytes_rate_and_time_left() -> None:
    """One line for all files."""
    state = State(files=5, files_done=2, bytes=400 << 20, bytes_done=100 << 20, rate=10 * (1 << 20), name="a")
    assert line(state) == "[######..................]  25% 2/5 100.0 MiB/400.0 MiB 10.0 MiB/s ETA 0:30 a"
    assert "ETA --:--" in line(State(files=1, files_done=0, bytes=1, bytes_done=0, rate=0, name=""))
    assert "100%" in line(State(files=1, files_done=1, bytes=0, bytes_done=0, rate=0, name=""))
    assert [clock(seconds) for seconds in (4.6, 754, 3723)] == ["0:05", "12:34", "1:02:03"]


def test_the_rate_is_of_bytes_that_came_and_smooth() -> None:
    """What was there already does not count; a burst does not make the whole rate."""
    meter = Meter(files=1, size=1000, now=0.0)
    meter.found(500)
    assert meter.moved("a", 100, 1.0).rate == pytest.approx(100)
    assert meter.moved("a", 400, 2.0).rate == pytest.approx(200)
    assert meter.state().bytes_done == 1000
    meter.lost(1000)
    assert meter.finished().bytes_done == 0


@pytest.fixture
async def library(api: Aggregated, tmp_path: Path) -> AsyncIterator[RemoteLibrary]:
    """The library that pages use, over a real socket."""
    await asyncio.to_thread(write_kubeconfig, tmp_path / "kubeconfig", api.url)
    async with connect(ClientSettings(kubeconfig=str(tmp_path / "kubeconfig")), environ={}) as client:
        yield RemoteLibrary(client, "shop")


async def read(library: Library, first: int = 0, end: int | None = None) -> tuple[bytes, dict[str, str], int]:
    """The bytes, the headers and the promised size."""
    async with library.content("shop", "a", first, end) as body:
        return b"".join([piece async for piece in body.pieces]), body.headers, body.size


async def test_a_part_or_the_whole_can_be_read(api: Aggregated, library: RemoteLibrary) -> None:
    """With what an HTTP answer says of it; the size is that of the part."""
    kept = artifact("a", bytes(range(200)))
    api.put(kept)
    sha256 = kept.item["artifact"]["sha256"]
    whole = {"ETag": f'"{sha256}"', "X-Toe-Sha256": sha256}
    assert await read(library) == (kept.data, whole, 200)
    assert await read(library, 50) == (kept.data[50:], {**whole, "Content-Range": "bytes 50-199/200"}, 150)
    assert await read(library, 0, 7) == (kept.data[:7], {**whole, "Content-Range": "bytes 0-6/200"}, 7)
    assert await read(library, 199, 900) == (kept.data[199:], {**whole, "Content-Range": "bytes 199-199/200"}, 1)
    async with library.content("shop", "a") as body:
        assert (body.content_type, body.filename) == ("application/octet-stream", "heap.pb.gz")
    with pytest.raises(Refused, match="range"):
        await read(library, 200)


async def test_an_empty_artifact_is_no_failure(api: Aggregated, library: RemoteLibrary) -> None:
    """No byte of it can be asked for."""
    api.put(artifact("a", b""))
    assert await read(library) == (b"", {}, 0)


async def test_a_large_one_takes_several_requests_and_survives_a_cut(
    api: Aggregated, library: RemoteLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of the largest size; the one that broke is gone on with."""
    monkeypatch.setattr(ranges, "LARGEST_PIECE", 1 << 20)
    kept, cuts = artifact("a", bytes(5 << 20)), [None, 300_000]
    api.put(kept)
    api.on_content = lambda request, found: api.content(request, found, cut_after=cuts.pop() if cuts else None)
    data, _, size = await read(library)
    assert (data, size) == (kept.data, len(kept.data))
    asked = [request.headers["Range"] for request in api.seen]
    assert asked[:2] == ["bytes=0-1048575", f"bytes={300_000}-{300_000 + (1 << 20) - 1}"]


async def test_another_content_under_the_name_is_not_appended(api: Aggregated, library: RemoteLibrary) -> None:
    """Refused between the pieces."""
    kept, other = artifact("a", bytes(600_000)), artifact("a", b"1" * 600_000)
    api.put(kept)
    first = [True]

    async def cut_then_swapped(request: web.Request, found: Kept) -> web.StreamResponse:
        if first:
            first.clear()
            return await api.content(request, kept, cut_after=300_000)
        return await api.content(request, other)

    api.on_content = cut_then_swapped
    with pytest.raises(Refused) as no:
        await read(library)
    assert (no.value.status, no.value.reason) == (409, "Changed")


async def test_leaving_a_body_early_closes_its_connection(api: Aggregated, library: RemoteLibrary) -> None:
    """Nothing goes on in the background."""
    api.put(artifact("a", bytes(40 << 20)))
    async with library.content("shop", "a") as body:
        assert len(await anext(body.pieces)) > 0
    assert api.sent < 40 << 20


async def test_namespaces_are_those_with_artifacts_that_may_be_listed(api: Aggregated, library: RemoteLibrary) -> None:
    """Forbidden and empty ones are left out; asked for once in a while."""
    api.put(artifact("a"), artifact("b", namespace="bank"), artifact("c", namespace="vault"))

    async def some(request: web.Request) -> web.StreamResponse | None:
        hidden = "vault" in request.path or request.path.endswith("v1alpha1/artifacts")
        return status(403, "Forbidden", "no") if hidden else None

    api.on_any = some
    assert await library.namespaces() == ["bank", "shop"]
    asked = len(api.seen)
    assert await library.namespaces() == ["bank", "shop"]
    assert len(api.seen) == asked == 5


async def test_who_may_list_all_artifacts_sees_those_of_namespaces_that_are_gone(
    api: Aggregated, library: RemoteLibrary
) -> None:
    """Page by page, without a question for each namespace."""
    api.put(*(artifact(f"a-{number}", namespace="gone" if number == 5 else "shop") for number in range(6)))
    api.page = 2

    async def none(request: web.Request) -> web.StreamResponse | None:
        return status(403, "Forbidden", "no") if request.path == "/api/v1/namespaces" else None

    api.on_any = none
    assert await library.namespaces() == ["gone", "shop"]
    assert len(api.seen) == 3
    assert all("/namespaces/" not in target for target in api.targets())


async def test_of_very_many_artifacts_the_oldest_namespaces_are_asked_for(
    api: Aggregated, library: RemoteLibrary
) -> None:
    """Pages are bounded, and nothing that the cluster knows is left out for that."""
    api.put(*(artifact(f"a-{number}") for number in range(30)), artifact("z", namespace="bank"))
    api.page = 2
    assert await library.namespaces() == ["bank", "shop"]
    assert len(api.seen) == 10 + 1 + 1


async def test_who_may_not_list_namespaces_gets_the_context_s_own(api: Aggregated, library: RemoteLibrary) -> None:
    """When its artifacts may be listed."""
    api.put(artifact("a"), artifact("b", namespace="bank"))

    async def no_namespaces(request: web.Request) -> web.StreamResponse | None:
        everywhere = request.path == "/api/v1/namespaces" or request.path.endswith("v1alpha1/artifacts")
        return status(403, "Forbidden", "no") if everywhere else None

    api.on_any = no_namespaces
    assert await library.namespaces() == ["shop"]


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_a_name_that_is_none_is_never_sent(api: Aggregated, library: RemoteLibrary, name: str) -> None:
    """It would be read as another path."""
    for call in (
        library.get("shop", name),
        library.delete("shop", name),
        library.hold("shop", name, ""),
        library.get(name, "a"),
    ):
        with pytest.raises(Refused, match="no name"):
            await call
    assert api.seen == []


async def test_a_busy_renderer_is_asked_again(api: Aggregated, library: RemoteLibrary) -> None:
    """429 with a bounded patience."""
    api.put(artifact("a"))
    api.rendered["top"] = ("application/json", b"{}")
    busy = [True, True]

    async def first(request: web.Request) -> web.StreamResponse | None:
        return status(429, "TooManyRequests", "busy") if busy and busy.pop() else None

    api.on_any = first
    assert await library.render("shop", "a", {"as": "top"}) == ("application/json", b"{}")
    assert len(api.seen) == 3
