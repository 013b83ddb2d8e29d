"""What passes between a client and an aggregated API: headers, streams and limits that a real server has, too."""

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from tests.contract.backends import APISERVICES, CONTENT, Backend, available, backend, register
from tests.contract.clusters import Server, sandbox_server
from toe_async.sandbox.cluster import SandboxSettings
from toe_async.sandbox.proxying import identity, incoming, is_long_running, outgoing
from toe_async.sandbox.rbac import User

PIECE = bytes(1 << 18)
BUFFERS = 32 << 20
"""More bytes than all sockets and transports between client and backend hold."""


@asynccontextmanager
async def proxied(settings: SandboxSettings | None = None) -> AsyncIterator[tuple[Server, Backend]]:
    async with sandbox_server(settings) as server, backend(server) as held:
        await register(server, held)
        yield server, held


@contextmanager
def waking(stalled: asyncio.Event) -> Iterator[None]:
    """Set an event when what is inside takes half a second."""
    watch = asyncio.get_running_loop().call_later(0.5, stalled.set)
    try:
        yield
    finally:
        watch.cancel()


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Server, Backend]]:
    async with proxied() as held:
        yield held


@pytest.mark.parametrize(
    ("verb", "subresource", "expected"),
    [
        ("get", "", False),
        ("list", "", False),
        ("get", "content", False),
        ("get", "logs", False),
        ("watch", "", True),
        ("get", "log", True),
        ("get", "log/1", True),
        ("create", "exec", True),
        ("create", "attach", True),
        ("get", "portforward", True),
        ("get", "proxy/a/b", True),
    ],
)
def test_only_watches_and_some_subresources_have_no_limit(verb: str, subresource: str, expected: bool) -> None:
    assert is_long_running(verb, subresource) is expected


def test_a_user_is_told_in_one_header_a_group_and_with_escaped_keys() -> None:
    user = User("eve", "u-1", ("a", "b, c"), {"x/y%": ["1", "2"], "scopes": ["all"], "ö": ["3"]})
    assert sorted(identity(user).items()) == [
        ("X-Remote-Extra-%c3%b6", "3"),
        ("X-Remote-Extra-Scopes", "all"),
        ("X-Remote-Extra-X%2fy%25", "1"),
        ("X-Remote-Extra-X%2fy%25", "2"),
        ("X-Remote-Group", "a"),
        ("X-Remote-Group", "b, c"),
        ("X-Remote-Uid", "u-1"),
        ("X-Remote-User", "eve"),
    ]


def test_credentials_claims_and_hop_by_hop_headers_are_taken_out() -> None:
    sent = {
        "Authorization": "Bearer secret", "x-remote-user": "root", "X-REMOTE-GROUP": "system:masters",
        "X-Remote-Uid": "0", "x-remote-extra-a": "b", "Impersonate-User": "eve", "Impersonate-Extra-a": "b",
        "Connection": "close, X-Hop", "X-Hop": "1", "Keep-Alive": "1", "TE": "trailers", "Trailer": "x",
        "Transfer-Encoding": "chunked", "Proxy-Authorization": "x", "Upgrade": "h2c", "Host": "h", "Expect": "x",
        "X-Remote-Users": "kept", "Accept": "kept", "X-Forwarded-For": "10.0.0.1",
    }  # fmt: skip
    kept = outgoing(CIMultiDictProxy(CIMultiDict(sent)), User("me"), "127.0.0.1")
    assert dict(kept) == {
        "X-Remote-Users": "kept",
        "Accept": "kept",
        "X-Forwarded-For": "10.0.0.1, 127.0.0.1",
        "X-Remote-User": "me",
    }


def test_an_answer_keeps_its_own_headers_but_for_hop_by_hop_and_other_origins() -> None:
    said = [
        ("Content-Length", "3"), ("Set-Cookie", "a"), ("Set-Cookie", "b"), ("Access-Control-Allow-Origin", "*"),
        ("Transfer-Encoding", "chunked"), ("Connection", "X-Hop"), ("X-Hop", "1"), ("Cache-Control", "private"),
    ]  # fmt: skip
    assert list(incoming(CIMultiDictProxy(CIMultiDict(said))).items()) == [
        ("Cache-Control", "no-cache, private"),
        ("Content-Length", "3"),
        ("Set-Cookie", "a"),
        ("Set-Cookie", "b"),
        ("Cache-Control", "private"),
    ]


async def test_a_request_is_cut_at_its_limit_and_a_log_is_not() -> None:
    async with (
        asyncio.timeout(10),
        proxied(SandboxSettings(request_seconds=0.6)) as (server, things),
        server.stream(things.things(server.namespace, "one", "log")) as log,
    ):
        assert await log.content.readexactly(6) == b"first "
        for query in ("", "?sized=1"):
            async with server.stream(things.things(server.namespace, "one", "slow") + query) as cut:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await cut.content.read()
        things.go_on.set()
        assert await log.content.read() == b"second"


async def test_no_answer_within_the_limit_is_a_timeout() -> None:
    ended = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async with proxied(SandboxSettings(request_seconds=0.6)) as (server, things), asyncio.timeout(10):
        things.more["silent"] = silent
        answer = await server.call("GET", things.things(server.namespace, "one", "silent"))
        assert (answer.status, answer.body["reason"]) == (504, "Timeout")
        assert answer.message == "Timeout: request did not complete within the allotted timeout"
        await ended.wait()


@pytest.mark.parametrize("sized", [True, False])
async def test_an_answer_that_breaks_off_is_no_whole_answer(pair: tuple[Server, Backend], sized: bool) -> None:
    server, things = pair

    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "12"} if sized else None)
        await response.prepare(request)
        await response.write(b"first ")
        assert request.transport is not None
        await things.go_on.wait()
        request.transport.abort()
        return response

    things.more["broken"] = broken
    async with asyncio.timeout(10), server.stream(things.things(server.namespace, "one", "broken")) as response:
        assert await response.content.readexactly(6) == b"first "
        things.go_on.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    assert (await server.call("GET", things.things(server.namespace, "one"))).status == 200


async def test_a_reader_that_takes_nothing_stops_the_backend_and_leaving_ends_it(pair: tuple[Server, Backend]) -> None:
    """Nothing in between takes in what is not asked for."""
    server, things = pair
    stalled, ended = asyncio.Event(), asyncio.Event()
    sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                sent += len(PIECE)
                with waking(stalled):
                    await response.write(PIECE)
                # While TLS says goodbye a write waits for nothing, and this would let nobody else run.
                await asyncio.sleep(0)
        finally:
            ended.set()

    things.more["flood"] = flood
    async with asyncio.timeout(20):
        async with server.stream(things.things(server.namespace, "one", "flood")) as response:
            assert await response.content.readany()
            await stalled.wait()
            assert sent < BUFFERS
            read = 0
            while read < BUFFERS:
                piece = await response.content.readany()
                assert piece, "the answer ended by itself"
                read += len(piece)
            response.close()
        await ended.wait()


async def test_a_backend_that_takes_nothing_stops_the_sender(pair: tuple[Server, Backend]) -> None:
    server, things = pair
    digest, sent, total = hashlib.sha256(), 0, 0
    stalled = asyncio.Event()

    async def sink(request: web.Request) -> web.StreamResponse:
        nonlocal total
        await things.go_on.wait()
        async for piece in request.content.iter_any():
            total += len(piece)
            digest.update(piece)
        return web.json_response({"sha256": digest.hexdigest()})

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 2 * BUFFERS:
            sent += len(PIECE)
            with waking(stalled):
                yield PIECE

    things.more["sink"] = sink
    path = things.things(server.namespace, "one", "sink")
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        upload = group.create_task(server.send(path, pieces()))
        await stalled.wait()
        assert sent < BUFFERS
        things.go_on.set()
        answer = await upload
    assert (answer.status, total) == (200, 2 * BUFFERS)
    assert answer.body["sha256"] == hashlib.sha256(PIECE * (2 * BUFFERS // len(PIECE))).hexdigest()


async def test_packed_bodies_stay_packed(pair: tuple[Server, Backend]) -> None:
    server, things = pair
    packed = gzip.compress(CONTENT)

    async def answer_packed(request: web.Request) -> web.StreamResponse:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    things.more["packed"] = answer_packed
    down = await server.call("GET", things.things(server.namespace, "one", "packed"))
    assert (down.headers["Content-Encoding"], down.headers["Content-Length"]) == ("gzip", str(len(packed)))
    assert down.raw == CONTENT
    path = things.things(server.namespace, "one", "content")
    up = await server.call("POST", path, packed, content_type="x/y", headers={"Content-Encoding": "gzip"})
    assert up.body["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert things.of_users()[-1].headers["Content-Length"] == str(len(packed))


async def test_an_early_answer_to_an_upload_gets_through(pair: tuple[Server, Backend]) -> None:
    server, things = pair

    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=413, text="too big")

    things.more["small"] = refuse
    answer = await server.call("POST", things.things(server.namespace, "one", "small"), CONTENT, content_type="x/y")
    assert (answer.status, answer.raw) == (413, b"too big")


async def test_an_upgrade_is_refused(pair: tuple[Server, Backend]) -> None:
    server, things = pair
    headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
    answer = await server.call("GET", things.things(server.namespace, "one", "log"), headers=headers)
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    assert things.of_users() == []


async def test_a_bundle_without_a_certificate_makes_no_connection(pair: tuple[Server, Backend]) -> None:
    server, things = pair
    await server.merge(f"{APISERVICES}/{things.apiservice}", {"spec": {"caBundle": "bm90aGluZw=="}})
    await available(server, things, "FailedDiscoveryCheck")
    answer = await server.call("GET", things.things(server.namespace, "one"))
    assert (answer.status, answer.raw) == (503, b"service unavailable\n")


async def test_an_aggregated_api_works_without_tls_in_front() -> None:
    async with proxied(SandboxSettings(tls=False)) as (server, things):
        assert (await server.call("GET", things.things(server.namespace, "one"))).status == 200
        assert things.of_users()[-1].certified == "front-proxy-client"


async def test_a_check_that_hangs_holds_up_no_other_one() -> None:
    hangs = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        hangs.set()
        await slow.go_on.wait()
        return web.Response(status=500)

    async with sandbox_server() as server, backend(server) as slow:
        slow.discovery = hang
        await register(server, slow, reason="")
        await hangs.wait()
        async with asyncio.timeout(3):
            await server.make_cluster_wide(APISERVICES, {
                "metadata": {"name": "v1.nobody.toe.run"},
                "spec": {"group": "nobody.toe.run", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
                         "service": {"namespace": "default", "name": "nobody"}},
            })  # fmt: skip
            await server.until(f"{APISERVICES}/v1.nobody.toe.run", lambda one: "ServiceNotFound" in str(one))
        slow.go_on.set()
