"""The raw client against a server that answers, refuses, stalls and breaks off."""

import asyncio
import contextlib
import resource
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

from tests.kube.fakeapi import FakeApi, Kubeconfig, always, exec_credential, fine, refuse, reset, serving, until
from toe_async.apis.kinds import PODS
from toe_async.kube import client as client_module
from toe_async.kube import requests
from toe_async.kube.client import Client, connect
from toe_async.kube.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    NotFound,
    ServerError,
    TooManyRequests,
    TransportError,
    Unauthorized,
    UnexpectedAnswer,
)
from toe_async.kube.requests import Request

GET = requests.get(PODS, "a", "p", timeout=5)
LIST = requests.list_(PODS, "a", label_selector="a=b", timeout=5)
CREATE = requests.create(PODS, "a", b'{"x":1}', timeout=5)


async def hang(request: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_request_says_who_asks_and_what_it_takes(api: FakeApi, client: Client) -> None:
    """Token, user agent, JSON, no compression; the query as it was quoted."""
    assert await client.send(LIST) == b'{"ok": true}'
    (seen,) = api.seen
    assert (seen.method, seen.target) == ("GET", "/api/v1/namespaces/a/pods?labelSelector=a%3Db")
    assert seen.headers["Authorization"] == "Bearer t0"
    assert seen.headers["User-Agent"] == "toe-async/test"
    assert seen.headers["Accept"] == "application/json"
    assert seen.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("request_", "content_type"),
    [
        (CREATE, "application/json"),
        (requests.merge_patch(PODS, "a", "p", b'{"x":1}'), "application/merge-patch+json"),
        (requests.apply(PODS, "a", "p", b'{"x":1}', field_manager="m"), "application/apply-patch+yaml"),
        (requests.replace(PODS, "a", "p", b'{"x":1}'), "application/json"),
    ],
)
async def test_a_body_goes_out_as_it_is(api: FakeApi, client: Client, request_: Request, content_type: str) -> None:
    """Byte for byte, under its own type."""
    await client.send(request_)
    assert api.seen[0].method == request_.method
    assert api.seen[0].body == b'{"x":1}'
    assert api.seen[0].headers["Content-Type"] == content_type


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [(404, "NotFound", NotFound), (409, "Conflict", Conflict), (409, "AlreadyExists", AlreadyExists)],
)
async def test_a_refusal_is_raised_and_not_repeated(
    api: FakeApi, client: Client, code: int, reason: str, expected: type[ApiError]
) -> None:
    """With the request's line in front of the server's words."""
    api.answer(refuse(code, reason, "the words"))
    with pytest.raises(expected, match=f"GET /api/v1/namespaces/a/pods/p: {code} {reason}: the words"):
        await client.send(GET)
    assert len(api.seen) == 1


async def test_patience_is_kept_for_as_long_as_the_server_asks(
    api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """429 with Retry-After, then 503 with the details' seconds, then an answer; the waits are never shorter."""
    waits = record_waits(monkeypatch)
    api.answer(
        refuse(429, "TooManyRequests", retry_after="3"),
        refuse(503, "ServiceUnavailable", retryAfterSeconds=2),
        refuse(503, "ServiceUnavailable"),
        fine(),
    )
    assert await client.send(requests.get(PODS, "a", "p", timeout=60)) == b'{"ok": true}'
    assert [3.2 <= waits[0] <= 3.4, 2.4 <= waits[1] <= 2.8, 0.8 <= waits[2] <= 1.6] == [True] * 3
    assert len(waits) == 3


def record_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make the client's pauses free, and note them."""
    waits: list[float] = []
    real = asyncio.sleep

    async def sleep(delay: float) -> None:
        waits.append(delay)
        await real(0)

    class Asyncio:
        def __getattr__(self, name: str) -> object:
            return sleep if name == "sleep" else getattr(asyncio, name)

    monkeypatch.setattr(client_module, "asyncio", Asyncio())
    return waits


async def test_the_last_attempt_raises_what_it_met(
    api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four attempts, then the server's own error."""
    record_waits(monkeypatch)
    api.answer(refuse(429, "TooManyRequests"))
    with pytest.raises(TooManyRequests):
        await client.send(GET)
    assert len(api.seen) == 4


async def test_a_wait_that_would_outlast_the_deadline_is_not_begun(api: FakeApi, client: Client) -> None:
    """Retry-After 60 within a timeout of 5 seconds: the refusal comes at once."""
    api.answer(refuse(429, "TooManyRequests", retry_after="60"))
    with pytest.raises(TooManyRequests) as caught:
        await client.send(GET)
    assert caught.value.retry_after == 60
    assert len(api.seen) == 1


@pytest.mark.parametrize("answer", [refuse(429, "TooManyRequests"), refuse(503, "X"), reset])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_what_may_have_acted_is_never_sent_twice(
    api: FakeApi, client: Client, answer: Callable[[web.Request], Awaitable[web.StreamResponse]], method: str
) -> None:
    """A lost answer to a create could mean that the object exists."""
    api.answer(answer)
    request = CREATE if method == "POST" else requests.merge_patch(PODS, "a", "p", b"{}", timeout=5)
    with pytest.raises((ApiError, TransportError)):
        await client.send(request)
    assert [seen.method for seen in api.seen] == [method]


async def test_a_lost_answer_to_a_read_is_asked_for_again(
    api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reset before the answer, then cut in mid-body, then whole. aiohttp itself repeats the first."""
    record_waits(monkeypatch)
    api.answer(reset, cut_in_the_body, fine())
    assert await client.send(GET) == b'{"ok": true}'
    assert len(api.seen) == 3


async def cut_in_the_body(request: web.Request) -> web.StreamResponse:
    """Promise 100 bytes, send 10, drop the connection."""
    response = web.StreamResponse(headers={"Content-Length": "100", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"items":[')
    assert request.transport is not None
    request.transport.abort()
    return response


async def test_a_create_goes_out_again_when_nobody_was_there(
    kubeconfig: Kubeconfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection: nothing was sent, so even a create is safe. The server starts during the first wait."""
    api = FakeApi(script=[fine()])
    async with serving(api):
        port = api.port
    async with connect(kubeconfig.write(api.url), environ={}) as client:
        with pytest.raises(TransportError, match="no connection") as caught:
            await client.send(requests.create(PODS, "a", b"{}", timeout=0.1))
        assert not caught.value.sent
        sending = asyncio.get_running_loop().create_task(client.send(CREATE))
        await asyncio.sleep(0.05)
        async with serving(api, port=port):
            assert await sending == b'{"ok": true}'
    assert [seen.method for seen in api.seen] == ["POST"]


async def test_silence_ends_at_the_request_s_own_deadline(api: FakeApi, client: Client) -> None:
    """A server that accepts and never answers."""
    api.answer(hang)
    with pytest.raises(TransportError, match=r"GET .*: no whole answer"):
        await client.send(requests.get(PODS, "a", "p", timeout=0.1))
    await until(lambda: api.busy == 0)


@pytest.mark.parametrize("code", [200, 201])
async def test_a_login_page_is_no_answer(api: FakeApi, client: Client, code: int) -> None:
    """HTML under a good status is an error that names the type."""
    api.answer(always(lambda: web.Response(status=code, text="<html>secret</html>", content_type="text/html")))
    with pytest.raises(UnexpectedAnswer, match="answered with text/html where application/json was asked") as caught:
        await client.send(GET)
    assert "secret" not in str(caught.value)


async def test_a_proxy_s_error_page_is_a_server_error(api: FakeApi, client: Client) -> None:
    """502 from something in between, not repeated in words."""
    api.answer(always(lambda: web.Response(status=502, text="<html>secret</html>", content_type="text/html")))
    with pytest.raises(ServerError, match="no Kubernetes Status") as caught:
        await client.send(GET)
    assert caught.value.status == 502
    assert "secret" not in str(caught.value)


async def test_a_redirect_is_not_followed(api: FakeApi, client: Client) -> None:
    """The token must not travel to wherever an answer points."""
    api.answer(always(lambda: web.Response(status=307, headers={"Location": api.url + "/elsewhere"})))
    with pytest.raises(ApiError) as caught:
        await client.send(GET)
    assert caught.value.status == 307
    assert len(api.seen) == 1


async def test_plain_text_is_fine_where_it_was_asked_for(api: FakeApi, client: Client) -> None:
    """Health endpoints and logs are no JSON."""
    api.answer(always(lambda: web.Response(text="ok")))
    assert await client.send(Request("GET", "/readyz", accept="text/plain")) == b"ok"


async def test_a_body_beyond_the_bound_is_refused_without_reading_it(
    api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer without end costs the bound and no more."""
    monkeypatch.setattr(client_module, "LARGEST_ANSWER", 1 << 20)
    api.answer(endless)
    with pytest.raises(UnexpectedAnswer, match="larger than 1048576 bytes"):
        await client.send(GET)
    await until(lambda: api.busy == 0)


async def endless(request: web.Request) -> web.StreamResponse:
    """JSON that never ends."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" " * 65536)


async def test_a_refusal_without_end_is_still_a_refusal(api: FakeApi, client: Client) -> None:
    """The body of an error is read up to a bound too."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)

    api.answer(handler)
    with pytest.raises(ServerError):
        await client.send(GET)
    await until(lambda: api.busy == 0)


async def test_a_head_that_drips_ends_at_the_deadline(kubeconfig: Kubeconfig) -> None:
    """Each byte restarts the socket's own timer; the request's deadline is what holds, for streams too."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"y")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()

    request = requests.get(PODS, "a", "p", timeout=0.2)
    async with await asyncio.start_server(drip, "127.0.0.1") as server:
        host, port = server.sockets[0].getsockname()
        async with connect(kubeconfig.write(f"http://{host}:{port}"), environ={}) as client, asyncio.timeout(5):
            with pytest.raises(TransportError, match=r"within 0\.2 s"):
                await client.send(request)
            with pytest.raises(TransportError, match=r"within 0\.2 s"):
                await drain(client, request, lambda chunk: None)
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)


async def test_no_cookie_is_kept(api: FakeApi, kubeconfig: Kubeconfig) -> None:
    """A load balancer's stickiness cookie is nothing to us, and nothing of one user reaches another."""
    api.answer(always(lambda: web.json_response({}, headers={"Set-Cookie": "a=b; Path=/"})))
    async with connect(kubeconfig.write(api.url.replace("127.0.0.1", "localhost")), environ={}) as client:
        await client.send(GET)
        await client.send(GET)
    assert "Cookie" not in api.seen[1].headers


async def test_the_process_environment_s_proxy_is_not_picked_up_behind_our_back(
    api: FakeApi, kubeconfig: Kubeconfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only kube.proxies decides; here it was handed an environment without a proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with connect(kubeconfig.write(api.url), environ={}) as client:
        assert await client.send(GET) == b'{"ok": true}'


async def test_cancelling_a_request_drops_its_connection(api: FakeApi, client: Client) -> None:
    """The server sees the end at once, and the next request works."""
    api.answer(hang, fine())
    task = asyncio.get_running_loop().create_task(client.send(GET))
    await until(lambda: api.busy == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: api.busy == 0)
    assert await client.send(GET) == b'{"ok": true}'


async def test_every_attempt_is_counted_with_its_code(
    api: FakeApi, kubeconfig: Kubeconfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good, refused, lost: as rest_client_requests_total wants them."""
    record_waits(monkeypatch)
    counted: list[tuple[str, str, str]] = []
    observe = lambda *labels: counted.append(labels)  # noqa: E731
    async with connect(kubeconfig.write(api.url), environ={}, observer=observe) as client:
        api.answer(refuse(503, "X"), reset, reset, fine())
        await client.send(GET)
        api.answer(reset)
        with pytest.raises(TransportError):
            await client.send(CREATE)
        api.answer(refuse(404, "NotFound"))
        with pytest.raises(NotFound):
            async with client.websocket("/x"):
                pass
    host = api.url.removeprefix("http://")
    assert counted == [
        ("GET", host, "503"),
        ("GET", host, "<error>"),
        ("GET", host, "200"),
        ("POST", host, "<error>"),
        ("GET", host, "404"),
    ]


async def test_a_client_is_of_no_use_after_its_end(api: FakeApi, kubeconfig: Kubeconfig) -> None:
    """It would open connections that nobody closes."""
    async with connect(kubeconfig.write(api.url), environ={}) as client:
        pass
    with pytest.raises(RuntimeError, match="has been closed"):
        await client.send(GET)


class TestSigningIn:
    """What happens when the server says 401."""

    async def test_a_rotated_token_file_is_read_and_the_request_repeated_once(
        self, api: FakeApi, kubeconfig: Kubeconfig, tmp_path: Path
    ) -> None:
        """Even a create: a refused sign-in did nothing."""
        (tmp_path / "token").write_text("old\n")
        settings = kubeconfig.write(api.url, {"tokenFile": "token"})
        api.answer(refuse(401, "Unauthorized"), fine())
        async with connect(settings, environ={}) as client:
            (tmp_path / "token").write_text("new\n")
            assert await client.send(CREATE) == b'{"ok": true}'
        assert [seen.headers["Authorization"] for seen in api.seen] == ["Bearer old", "Bearer new"]
        assert [seen.body for seen in api.seen] == [b'{"x":1}'] * 2

    async def test_nothing_newer_means_no_second_try(self, api: FakeApi, client: Client) -> None:
        """The same token would be refused again."""
        api.answer(refuse(401, "Unauthorized"))
        with pytest.raises(Unauthorized):
            await client.send(GET)
        assert len(api.seen) == 1

    async def test_a_fresh_token_that_is_refused_too_ends_it(
        self, api: FakeApi, kubeconfig: Kubeconfig, tmp_path: Path
    ) -> None:
        """Once, not in a circle."""
        (tmp_path / "token").write_text("old")
        api.answer(refuse(401, "Unauthorized"))
        async with connect(kubeconfig.write(api.url, {"tokenFile": "token"}), environ={}) as client:
            (tmp_path / "token").write_text("new")
            with pytest.raises(Unauthorized):
                await client.send(GET)
        assert len(api.seen) == 2

    async def test_streams_and_websockets_sign_in_afresh_too(
        self, api: FakeApi, kubeconfig: Kubeconfig, tmp_path: Path
    ) -> None:
        """A watch is opened with what the plugin of a rotated session gives."""

        async def accept(request: web.Request) -> web.StreamResponse:
            ws = web.WebSocketResponse()
            await ws.prepare(request)
            await ws.close()
            return ws

        (tmp_path / "token").write_text("1")
        async with connect(kubeconfig.write(api.url, {"tokenFile": "token"}), environ={}) as client:
            (tmp_path / "token").write_text("2")
            api.answer(refuse(401, "Unauthorized"), fine())
            async with client.stream(LIST) as chunks:
                assert b"".join([chunk async for chunk in chunks]) == b'{"ok": true}'
            (tmp_path / "token").write_text("3")
            api.answer(refuse(401, "Unauthorized"), accept)
            async with client.websocket("/x"):
                pass
        assert [seen.headers["Authorization"][-1] for seen in api.seen] == ["1", "2", "2", "3"]

    async def test_an_exec_plugin_gives_the_token(self, api: FakeApi, kubeconfig: Kubeconfig, tmp_path: Path) -> None:
        """From the kubeconfig to the header; a plugin beside the kubeconfig is found."""
        plugin = tmp_path / "plugin"
        plugin.write_text(f"#!/bin/sh\ncat <<'END'\n{exec_credential(token='from-plugin')}\nEND\n")
        plugin.chmod(0o755)
        spec = {"command": "./plugin", "apiVersion": "client.authentication.k8s.io/v1"}
        async with connect(kubeconfig.write(api.url, {"exec": spec}), environ={"PATH": "/usr/bin:/bin"}) as client:
            await client.send(GET)
        assert api.seen[0].headers["Authorization"] == "Bearer from-plugin"


async def drain(client: Client, request: Request, write: Callable[[bytes], object]) -> None:
    """Read a stream to its end."""
    async with client.stream(request) as chunks:
        async for chunk in chunks:
            write(chunk)


class TestStreams:
    """Answers that are read piece by piece."""

    async def test_pieces_come_as_they_are_sent(self, api: FakeApi, client: Client) -> None:
        """A line is there before the stream ends."""
        go = asyncio.Event()

        async def handler(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            await response.write(b"one\n")
            await go.wait()
            await response.write(b"two\n")
            return response

        api.answer(handler)
        async with client.stream(LIST) as chunks:
            assert await anext(chunks) == b"one\n"
            go.set()
            assert await anext(chunks) == b"two\n"
            with pytest.raises(StopAsyncIteration):
                await anext(chunks)

    @pytest.mark.parametrize("chunked", [True, False])
    async def test_a_stream_that_is_cut_is_no_end(self, api: FakeApi, client: Client, chunked: bool) -> None:
        """Both by chunks and by Content-Length."""

        async def handler(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            if not chunked:
                response.content_length = 1000
            await response.prepare(request)
            await response.write(b'{"type":"ADDED"')
            assert request.transport is not None
            request.transport.close()
            return response

        api.answer(handler)
        got: list[bytes] = []
        with pytest.raises(TransportError, match="no whole answer"):
            await drain(client, LIST, got.append)
        assert b"".join(got) == b'{"type":"ADDED"'

    async def test_a_silent_stream_is_given_up(
        self, api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A half-open connection shows itself only by silence."""
        monkeypatch.setattr(client_module, "STREAM_SILENCE", 0.1)

        async def handler(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            await response.write(b"one\n")
            return await hang(request)

        api.answer(handler)
        got: list[bytes] = []
        with pytest.raises(TransportError):
            await drain(client, requests.watch(PODS, timeout_seconds=300), got.append)
        assert got == [b"one\n"]
        await until(lambda: api.busy == 0)

    async def test_a_stream_s_own_deadline_bounds_it_as_a_whole(self, api: FakeApi, client: Client) -> None:
        """Even when bytes never stop coming."""
        api.answer(endless)
        async with asyncio.timeout(5):
            with pytest.raises(TransportError, match="TimeoutError"):
                await drain(client, requests.list_(PODS, timeout=0.2), lambda chunk: None)
        await until(lambda: api.busy == 0)

    async def test_a_refused_stream_raises_at_its_start(self, api: FakeApi, client: Client) -> None:
        """410 at the opening of a watch; and it is not repeated, the informer has its own pace."""
        api.answer(refuse(503, "ServiceUnavailable"))
        with pytest.raises(ServerError):
            async with client.stream(LIST):
                raise AssertionError
        assert len(api.seen) == 1

    async def test_the_reader_s_own_errors_stay_as_they_are(self, api: FakeApi, client: Client) -> None:
        """A full disk while writing a chunk is not the network's fault."""

        def write(chunk: bytes) -> None:
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full") as caught:
            await drain(client, LIST, write)
        assert not isinstance(caught.value, TransportError)

    async def test_leaving_early_ends_the_stream_at_the_server(self, api: FakeApi, client: Client) -> None:
        """break, or a cancelled reader: no connection goes on."""
        api.answer(endless)
        async with client.stream(LIST) as chunks:
            await anext(chunks)
        await until(lambda: api.busy == 0)

    async def test_a_reader_that_pauses_makes_the_server_wait(self, api: FakeApi, client: Client) -> None:
        """What is in flight stays bounded by the buffers, whatever the server has to say."""
        sent = 0

        async def handler(request: web.Request) -> web.StreamResponse:
            nonlocal sent
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            while True:
                await response.write(bytes(1 << 16))
                sent += 1 << 16

        api.answer(handler)
        async with client.stream(LIST) as chunks:
            await anext(chunks)
            seen = -1
            while sent != seen:  # the writer has come to a halt
                seen = sent
                await asyncio.sleep(0.05)
            assert sent < 32 << 20
        await until(lambda: api.busy == 0)

    @pytest.mark.slow
    async def test_a_gibibyte_passes_in_flat_memory(self, api: FakeApi, client: Client) -> None:
        """The peak grows by less than 16 MiB over its value after the first megabytes."""
        block, blocks = bytes(1 << 20), 1024

        async def handler(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            for _ in range(blocks):
                await response.write(block)
            return response

        api.answer(handler)
        got, before = 0, 0
        async with client.stream(requests.list_(PODS)) as chunks:
            async for chunk in chunks:
                got += len(chunk)
                if not before and got > 8 << 20:
                    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert got == len(block) * blocks
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10


async def hang_after_headers(request: web.Request) -> web.StreamResponse:
    """Begin a stream and say nothing."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    return await hang(request)


async def test_streams_do_not_use_up_the_requests_connections(api: FakeApi, client: Client) -> None:
    """A hundred open watches, and a request still gets through at once."""
    api.answer(hang_after_headers)
    async with AsyncExitStack() as stack:
        for _ in range(100):
            await stack.enter_async_context(client.stream(requests.watch(PODS, timeout_seconds=300)))
        api.answer(fine())
        assert await client.send(GET) == b'{"ok": true}'
    await until(lambda: api.busy == 0)
