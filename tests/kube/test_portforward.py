"""A pod's answer through a port-forward: whole, or a stated reason; never a short file called complete."""

import asyncio
import contextlib
import itertools
import random
import resource
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.kube.fakeapi import FakeApi, always, refuse, until
from tests.kube.fakekubelet import OPENING, PORT, Forward, Kubelet, pieces, saying, settled, silence
from toe_async.apis.reasons import Reason
from toe_async.kube import websockets
from toe_async.kube.client import Client
from toe_async.kube.errors import (
    ApiError,
    Forbidden,
    KubeError,
    NotFound,
    PortForwardBroken,
    PortRefused,
    ServerError,
    TransportError,
    Unauthorized,
)
from toe_async.kube.portforward import pod_request

BODY = bytes(range(256)) * 8
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:1], BODY[1:1000], BODY[1000:]))
    + b"0\r\n\r\n"
)
CLOSED = b"HTTP/1.0 200 OK\r\n\r\n" + BODY


async def fetch(client: Client, target: str = "/debug/pprof/heap", *, deadline: float = 5, port: int = PORT) -> bytes:
    """The whole body, whatever its status."""
    async with pod_request(client, "a", "p", port, target, deadline_seconds=deadline) as response:
        body = await pieces(response.chunks())
        assert response.complete
        return body


async def test_the_request_reaches_the_pod_as_plain_http(api: FakeApi, client: Client) -> None:
    """Path and query unchanged, no compression, and the port in the API server's query."""
    kubelet = Kubelet(saying(LENGTH))
    api.answer(kubelet)
    assert await fetch(client, "/debug/pprof/profile?seconds=3") == BODY
    assert api.seen[0].target == f"/api/v1/namespaces/a/pods/p/portforward?ports={PORT}"
    assert api.seen[0].headers["Sec-WebSocket-Protocol"] == "v4.channel.k8s.io"
    head = kubelet.forwards[0].request.decode().split("\r\n")
    assert head[0] == "GET /debug/pprof/profile?seconds=3 HTTP/1.1"
    assert {line.lower() for line in head[1:] if line} == {
        "host: localhost",
        "accept-encoding: identity",
        "connection: close",
    }


async def test_status_and_headers_are_the_pod_s(api: FakeApi, client: Client) -> None:
    """A 404 of the target is an answer, not an error of the transport; an interim answer is passed over."""
    api.answer(
        Kubelet(
            saying(
                b"HTTP/1.1 103 Early Hints\r\n\r\n",
                b"HTTP/1.1 404 Not Found\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 4\r\n\r\nnope",
            )
        )
    )
    async with pod_request(client, "a", "p", PORT, "/x", deadline_seconds=5) as response:
        assert response.status == 404
        assert response.headers == {"x-a": "1, 2", "content-length": "4"}
        whole_before = response.complete
        assert await pieces(response.chunks()) == b"nope"
        assert (whole_before, response.complete, response.length_verified) == (False, True, True)
        assert await pieces(response.chunks()) == b""


@pytest.mark.parametrize(
    "answer", [LENGTH, CHUNKED, b"HTTP/1.1 204 No Content\r\n\r\n"], ids=["length", "chunked", "204"]
)
async def test_the_end_is_where_http_ends_and_the_lingering_websocket_is_not_waited_for(
    api: FakeApi, client: Client, answer: bytes
) -> None:
    """The runtime holds the websocket for a second after a good response: here for ever."""

    async def lingering(forward: Forward) -> None:
        await forward.data(answer)
        await silence(forward)

    kubelet = Kubelet(lingering)
    api.answer(kubelet)
    async with asyncio.timeout(1):
        assert await fetch(client) == (BODY if answer.startswith(b"HTTP/1.1 200") else b"")
    await until(lambda: kubelet.live == 0)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 4000])
@pytest.mark.parametrize(("answer", "verified"), [(LENGTH, True), (CHUNKED, True), (CLOSED, False)])
async def test_any_close_after_a_good_response_is_fine(
    api: FakeApi, client: Client, code: int, answer: bytes, verified: bool
) -> None:
    """The code does not matter; a body that only the close ends is marked as not verified."""
    api.answer(Kubelet(saying(answer), close_code=code))
    async with pod_request(client, "a", "p", PORT, "/", deadline_seconds=5) as response:
        assert await pieces(response.chunks()) == BODY
        assert response.complete
        assert response.length_verified is verified


async def test_a_lost_connection_ends_a_close_delimited_body_too(api: FakeApi, client: Client) -> None:
    """1006, seen after good responses on real clusters; whether the body is whole is for its gzip trailer to say."""

    async def pod(forward: Forward) -> None:
        await forward.data(CLOSED)
        await asyncio.sleep(0.05)  # an abort would overtake what is still in the buffers
        forward.abort()

    api.answer(Kubelet(pod, close_code=None))
    async with pod_request(client, "a", "p", PORT, "/", deadline_seconds=5) as response:
        assert await pieces(response.chunks()) == BODY
        assert not response.length_verified


def interesting(answer: bytes) -> Iterator[int]:
    """Every place of the head and of the framing, and some in the body."""
    end = answer.index(b"\r\n\r\n") + 4
    yield from range(0, end, 5)
    yield from range(end - 5, min(end + 20, len(answer)))
    yield from (len(answer) // 2, *range(len(answer) - 8, len(answer)))


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED], ids=["length", "chunked"])
async def test_a_body_that_falls_short_is_truncated_wherever_it_is_cut(
    api: FakeApi, client: Client, answer: bytes
) -> None:
    """The pod dies: a clean close, no word on the error channel. Only HTTP's framing shows it."""
    head = answer.index(b"\r\n\r\n") + 4
    for cut in interesting(answer):
        api.answer(Kubelet(saying(*[answer[:cut]] if cut else [])))
        with pytest.raises(PortForwardBroken) as caught:
            await fetch(client)
        assert caught.value.reason is (Reason.TRUNCATED if cut >= head else Reason.PORT_FORWARD_FAILED), cut
        assert str(caught.value).startswith(f"port {PORT} of pod a/p: ")


async def test_what_arrived_before_the_cut_was_handed_out(api: FakeApi, client: Client) -> None:
    """The spool keeps it as a partial file; reading on raises the same again."""
    api.answer(Kubelet(saying(LENGTH[:-1])))
    got = b""
    async with pod_request(client, "a", "p", PORT, "/", deadline_seconds=5) as response:
        chunks = response.chunks()
        while len(got) < len(BODY) - 1:
            got += await anext(chunks)
        for _ in range(2):
            with pytest.raises(PortForwardBroken, match="cut"):
                await anext(chunks)
        assert not response.complete
    assert got == BODY[:-1]


async def test_frames_may_be_cut_anywhere(api: FakeApi, client: Client) -> None:
    """A hundred random ways to cut opening, head and body into messages, seeded."""
    rng = random.Random(3)
    for _ in range(100):
        stream = OPENING + rng.choice([LENGTH, CHUNKED])
        cuts = sorted({0, len(stream), *(rng.randrange(len(stream)) for _ in range(rng.randint(0, 12)))})
        messages = [b"\x00" + stream[a:b] for a, b in itertools.pairwise(cuts)]
        messages.insert(rng.randrange(len(messages) + 1), b"\x01" + OPENING)

        async def pod(forward: Forward, rest: list[bytes] = messages) -> None:
            for message in rest:
                await forward.ws.send_bytes(message)

        api.answer(Kubelet(pod, opening=()))
        assert await fetch(client) == BODY


@pytest.mark.parametrize(
    "opening",
    [
        (b"\x00" + (PORT + 1).to_bytes(2, "little"),),
        (b"\x00" + PORT.to_bytes(2, "big"),),
        (b"\x02" + OPENING,),
        (b"",),
        (b"HTTP/1.1 200 OK\r\n\r\n",),
    ],
)
async def test_a_wrong_first_frame_is_an_error(api: FakeApi, client: Client, opening: tuple[bytes, ...]) -> None:
    """Bytes of another port, or of something that is no port-forward, are never taken for a body."""
    api.answer(Kubelet(saying(LENGTH), opening=opening))
    with pytest.raises(PortForwardBroken, match="breaks its protocol") as caught:
        await fetch(client)
    assert caught.value.reason is Reason.PORT_FORWARD_FAILED


async def test_a_text_message_is_an_error(api: FakeApi, client: Client) -> None:
    """The protocol is binary."""

    async def pod(forward: Forward) -> None:
        await forward.ws.send_str("hello")

    api.answer(Kubelet(pod))
    with pytest.raises(PortForwardBroken, match="TEXT"):
        await fetch(client)


async def test_a_message_beyond_the_bound_is_an_error(api: FakeApi, client: Client) -> None:
    """Servers send 32 KiB; a message of any size would be memory of any size."""

    async def pod(forward: Forward) -> None:
        await forward.data(bytes(websockets.LARGEST_MESSAGE))

    api.answer(Kubelet(pod))
    with pytest.raises(PortForwardBroken):
        await fetch(client)


async def test_a_port_where_nobody_listens_is_refused(api: FakeApi, client: Client) -> None:
    """101, both channels open, then words on the error channel and a clean close."""

    async def pod(forward: Forward) -> None:
        await forward.error(b"error forwarding port 6060 to pod x: connection refused")

    api.answer(Kubelet(pod))
    with pytest.raises(PortRefused, match="connection refused") as caught:
        await fetch(client)
    assert caught.value.reason is Reason.PORT_REFUSED


@pytest.mark.parametrize(
    ("before", "reason"), [(LENGTH[:5], Reason.PORT_FORWARD_FAILED), (LENGTH[:-5], Reason.TRUNCATED)]
)
async def test_an_error_after_the_first_byte_is_no_refused_port(
    api: FakeApi, client: Client, before: bytes, reason: Reason
) -> None:
    """The kind is told by when the runtime speaks, never by its words."""

    async def pod(forward: Forward) -> None:
        await forward.data(before)
        await forward.error(b"connection refused")
        await silence(forward)

    api.answer(Kubelet(pod))
    with pytest.raises(PortForwardBroken, match="the runtime reports") as caught:
        await fetch(client)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000]
)
async def test_a_port_that_does_not_speak_http_is_told(api: FakeApi, client: Client, answer: bytes) -> None:
    """SSH, TLS, or a head without end; none hangs and none grows."""

    async def pod(forward: Forward) -> None:
        await forward.data(answer)
        await silence(forward)

    api.answer(Kubelet(pod))
    with pytest.raises(PortForwardBroken, match="does not speak HTTP"):
        await fetch(client)


async def test_garbage_between_chunks_is_told(api: FakeApi, client: Client) -> None:
    """A chunk length that is none."""
    api.answer(Kubelet(saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")))
    with pytest.raises(PortForwardBroken, match="does not speak HTTP"):
        await fetch(client)


async def test_the_deadline_bounds_head_and_body(api: FakeApi, client: Client) -> None:
    """A pod that never answers, and one that never ends."""

    async def dripping(forward: Forward) -> None:
        await forward.data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await forward.data(b"1\r\nx\r\n")
            await asyncio.sleep(0.01)

    for pod in (silence, dripping):
        kubelet = Kubelet(pod)
        api.answer(kubelet)
        with pytest.raises(PortForwardBroken, match=r"not done within 0\.2 s") as caught:
            await fetch(client, deadline=0.2)
        assert caught.value.reason is Reason.DEADLINE_EXCEEDED
        await until(lambda kubelet=kubelet: kubelet.live == 0)  # type: ignore[misc]


async def test_the_deadline_bounds_the_handshake(api: FakeApi, client: Client) -> None:
    """An API server that accepts the connection and says nothing."""

    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    api.answer(hang)
    with pytest.raises(PortForwardBroken, match="not done within"):
        await fetch(client, deadline=0.1)
    await until(lambda: api.busy == 0)


async def test_a_peer_that_answers_no_pings_is_given_up(
    api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-open: the API server's machine has gone. Long before the deadline of a long capture."""
    monkeypatch.setattr(websockets, "HEARTBEAT", 0.05)
    monkeypatch.setattr(websockets, "SILENCE", 0.2)

    async def deaf(forward: Forward) -> None:
        await asyncio.Event().wait()

    api.answer(Kubelet(deaf))
    with pytest.raises(PortForwardBroken, match="silent"):
        await fetch(client, deadline=30)
    await until(lambda: api.busy == 0)


async def test_a_silent_profile_is_kept_alive_by_pings(
    api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """profile?seconds=60 says nothing for a minute; the answers to our pings show that all is well."""
    monkeypatch.setattr(websockets, "HEARTBEAT", 0.05)
    monkeypatch.setattr(websockets, "SILENCE", 0.2)

    async def pod(forward: Forward) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.8):
                await forward.ws.receive()  # answers pings meanwhile
        await forward.data(LENGTH)

    api.answer(Kubelet(pod))
    assert await fetch(client) == BODY


def large(megabytes: int) -> tuple[Kubelet, bytes]:
    """A pod with a body of this size in frames of 32 KiB, and the frame it repeats."""
    block = random.Random(5).randbytes(32 << 10)

    async def pod(forward: Forward) -> None:
        await forward.data(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (megabytes << 20))
        for _ in range(megabytes * 32):
            await forward.data(block)

    return Kubelet(pod), block


async def test_a_reader_that_pauses_makes_the_pod_wait_and_is_not_taken_for_dead(
    api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spool's disk hangs for longer than any heartbeat: what is in flight stays bounded, and nothing is lost."""
    monkeypatch.setattr(websockets, "HEARTBEAT", 0.02)
    monkeypatch.setattr(websockets, "SILENCE", 0.1)
    kubelet, _ = large(64)
    api.answer(kubelet)
    got = 0
    async with pod_request(client, "a", "p", PORT, "/", deadline_seconds=30) as response:
        chunks = response.chunks()
        got += len(await anext(chunks))
        in_flight = await settled(lambda: kubelet.forwards[0].sent)
        assert in_flight < 24 << 20  # kernel buffers for the most part
        await asyncio.sleep(0.5)
        assert kubelet.forwards[0].sent == in_flight
        async for chunk in chunks:
            got += len(chunk)
    assert got == 64 << 20


@pytest.mark.slow
async def test_a_gibibyte_passes_whole_in_flat_memory(api: FakeApi, client: Client) -> None:
    """The peak grows by less than 16 MiB over its value after the first megabytes; the sums agree."""
    kubelet, block = large(1024)
    api.answer(kubelet)
    got, before, sum_ = 0, 0, 0
    async with pod_request(client, "a", "p", PORT, "/", deadline_seconds=50) as response:
        async for chunk in response.chunks():
            got += len(chunk)
            sum_ = zlib.crc32(chunk, sum_)
            if not before and got > 8 << 20:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    expected = 0
    for _ in range(1024 * 32):
        expected = zlib.crc32(block, expected)
    assert (got, sum_) == (1 << 30, expected)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (401, "Unauthorized", Unauthorized),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (500, "InternalError", ServerError),
    ],
)
async def test_a_refused_handshake_keeps_the_server_s_words(
    api: FakeApi, client: Client, code: int, reason: str, expected: type[ApiError]
) -> None:
    """With the Status, which aiohttp's own error loses."""
    api.answer(refuse(code, reason, "no create on pods/portforward"))
    with pytest.raises(expected, match="no create on pods/portforward") as caught:
        await fetch(client)
    assert (caught.value.status, caught.value.reason) == (code, reason)
    await until(lambda: api.busy == 0)


async def test_a_refusal_without_end_is_not_read_to_its_end(api: FakeApi, client: Client) -> None:
    """Its first 64 KiB are enough, and its connection is dropped."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=403)
        await response.prepare(request)
        while True:
            await response.write(bytes(1 << 16))

    api.answer(endless)
    async with asyncio.timeout(5):
        with pytest.raises(Forbidden):
            await fetch(client)
        await until(lambda: api.busy == 0)


@pytest.mark.parametrize("code", [301, 302, 307, 308])
async def test_a_redirected_handshake_is_refused(api: FakeApi, client: Client, code: int) -> None:
    """No second connection, nowhere: the credentials would travel with it."""
    api.answer(always(lambda: web.Response(status=code, headers={"Location": api.url + "/elsewhere"})))
    with pytest.raises(ApiError) as caught:
        await fetch(client)
    assert caught.value.status == code
    assert len(api.seen) == 1


@pytest.mark.parametrize("code", [200, 204, 400, 502])
async def test_anything_but_101_is_an_error(api: FakeApi, client: Client, code: int) -> None:
    """Also a friendly 200 of a proxy that knows no websockets."""
    api.answer(always(lambda: web.Response(status=code, text="<html>" if code != 204 else None)))
    with pytest.raises(ApiError) as caught:
        await fetch(client)
    assert caught.value.status == code


@pytest.mark.parametrize("protocols", [(), ("v5.channel.k8s.io",)])
async def test_another_subprotocol_is_an_error(api: FakeApi, client: Client, protocols: tuple[str, ...]) -> None:
    """Frames mean something else there."""

    async def handler(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(protocols=protocols)
        await ws.prepare(request)
        await ws.receive()
        return ws

    api.answer(handler)
    with pytest.raises(PortForwardBroken, match="where only v4"):
        await fetch(client)


async def test_a_server_that_is_not_there(api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server went away: not the pod's fault, so not a PortForwardError."""

    async def reset(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    api.answer(reset)
    with pytest.raises(TransportError):
        await fetch(client)


@pytest.mark.parametrize("target", ["", "/a b", "/\r\nX: y", "/\x00"])
async def test_a_target_that_is_none_opens_no_connection(api: FakeApi, client: Client, target: str) -> None:
    """A path from an annotation cannot smuggle a header or a second request."""
    with pytest.raises(ValueError, match="no request target"):
        await fetch(client, target)
    assert api.seen == []


@pytest.mark.parametrize("port", [0, -1, 65536])
async def test_a_port_that_is_none_opens_no_connection(api: FakeApi, client: Client, port: int) -> None:
    """Two bytes carry it."""
    with pytest.raises(ValueError, match="no TCP port"):
        await fetch(client, port=port)
    assert api.seen == []


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_cancelling_at_any_moment_leaves_nothing_behind(api: FakeApi, client: Client) -> None:
    """Before the handshake, before the head, in the body, while it is closed: no task, no descriptor, a free server."""
    kubelet, _ = large(64)
    api.answer(kubelet)
    await asyncio.gather(*(fetch(client, deadline=0.05) for _ in range(2)), return_exceptions=True)
    await until(lambda: kubelet.live == api.busy == 0)
    before = await settled(descriptors)
    loop = asyncio.get_running_loop()
    for turns in (*range(24), 40, 80, 160):
        task = loop.create_task(fetch(client))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: kubelet.live == api.busy == 0)
    assert await settled(descriptors) <= before
    assert [task for task in asyncio.all_tasks() if "heartbeat" in task.get_name()] == []


async def test_leaving_a_stream_without_end_does_not_read_on(api: FakeApi, client: Client) -> None:
    """A reader that has enough (TooLarge) is not kept by a pod that goes on sending."""

    async def endless(forward: Forward) -> None:
        await forward.data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await forward.data(b"8000\r\n" + bytes(32768) + b"\r\n")

    kubelet = Kubelet(endless)
    api.answer(kubelet)
    async with asyncio.timeout(2), pod_request(client, "a", "p", PORT, "/", deadline_seconds=60) as response:
        await anext(response.chunks())
    await until(lambda: kubelet.live == 0)


async def test_the_reader_s_own_errors_stay_as_they_are(api: FakeApi, client: Client) -> None:
    """A full spool is told as such, and the port-forward is closed."""
    kubelet, _ = large(8)
    api.answer(kubelet)

    async def store() -> None:
        async with pod_request(client, "a", "p", PORT, "/", deadline_seconds=5) as response:
            async for _ in response.chunks():
                raise TimeoutError("the disk hangs")

    with pytest.raises(TimeoutError, match="the disk hangs"):
        await store()
    await until(lambda: kubelet.live == 0)


@pytest.mark.parametrize("rounds", [100, pytest.param(1000, marks=pytest.mark.slow)])
async def test_fuzzed_forwards_end_in_time_and_leave_nothing(api: FakeApi, client: Client, rounds: int) -> None:
    """Forwards that go wrong at a random place in a random way, seeded: never a hang, never a leak."""
    rng = random.Random(34)
    stream = CHUNKED
    ends = ("close", "abort", "error", "text", "channel")

    async def pod(forward: Forward) -> None:
        data = bytearray(stream[: rng.randrange(len(stream) + 1)])
        for _ in range(rng.choice([0, 0, 1, 3])):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        for start in range(0, len(data), size := rng.choice([1 << 10, 50, 7])):
            await forward.data(bytes(data[start : start + size]))
        match rng.choice(ends):
            case "abort":
                forward.abort()
            case "error":
                await forward.error(rng.randbytes(rng.randrange(40)))
            case "text":
                await forward.ws.send_str("x")
            case "channel":
                await forward.ws.send_bytes(rng.randbytes(rng.randrange(4)))

    kubelet = Kubelet(pod)
    api.answer(kubelet)
    before = 0
    outcomes: Counter[str] = Counter()
    for round_ in range(rounds):
        try:
            async with asyncio.timeout(10):
                outcomes["whole" if await fetch(client) == BODY else "altered"] += 1
        except KubeError as error:
            outcomes[type(error).__name__] += 1
        if round_ == 50:
            before = await settled(descriptors)
    await until(lambda: kubelet.live == api.busy == 0)
    assert await settled(descriptors) <= before
    assert outcomes["PortForwardBroken"] > rounds / 3
