"""Attach and exec: whole output and how it ended, or a stated reason; never a hang and never anything left behind."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSCloseCode, WSMsgType, web

from tests.kube.fakeapi import FakeApi, always, refuse, until
from tests.kube.fakekubelet import settled
from toe_async.kube import remotecommand, websockets
from toe_async.kube.channels import ChannelError
from toe_async.kube.client import Client
from toe_async.kube.errors import ApiError, Forbidden, KubeError, RemoteCommandBroken, ServerError
from toe_async.kube.remotechannels import LARGEST_FRAME, STDERR, STDOUT, V4, V5, Ended, RemoteChannels
from toe_async.kube.remotecommand import Stream, attach, exec_

SUCCESS = json.dumps({"metadata": {}, "status": "Success"}).encode()
FAILURE = json.dumps(
    {
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": "command terminated with exit code 3",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    }
).encode()


# -- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "received"),
    [
        (b"", None),
        (b"\x00", None),
        (b"\x01", None),
        (b"\x01out", (STDOUT, b"out")),
        (b"\x02err", (STDERR, b"err")),
        (b"\x03{", None),
        (b"\xff\x01", None),
    ],
)
def test_a_message_is_output_or_nothing(message: bytes, received: tuple[int, bytes] | None) -> None:
    """Empty ones open a channel; the Status comes by another way."""
    assert RemoteChannels(V5).receive(message) == received


@pytest.mark.parametrize(("protocol", "message"), [(V5, b"\x00in"), (V5, b"\x04{}"), (V4, b"\xff\x00"), (V5, b"x")])
def test_a_channel_that_is_none_is_an_error(protocol: str, message: bytes) -> None:
    """Stdin from the server, resizes, and the end of one channel where v4 has none."""
    with pytest.raises(ChannelError, match="a message for channel"):
        RemoteChannels(protocol).receive(message)


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        (b"", None),
        (b"{", None),
        (b"\xff", None),
        (b"[" * 30_000, None),
        (SUCCESS, Ended(success=True, exit_code=0)),
        (FAILURE, Ended(False, "NonZeroExitCode", "command terminated with exit code 3", 3)),
        (b'{"status":"Failure","message":"gone"}', Ended(False, "", "gone", None)),
        (b'{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"-1"}]}}', Ended(False)),
        (b'{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"9999999"}]}}', Ended(False)),
        (b'{"status":null,"details":null}', Ended(False)),
    ],
)
def test_the_status_tells_how_it_ended(status: bytes, ended: Ended | None) -> None:
    """In whatever pieces it comes, and however bad it is."""
    for size in (1, 7, 1 << 16):
        channels = RemoteChannels(V5)
        for at in range(0, len(status), size):
            channels.receive(b"\x03" + status[at : at + size])
        assert channels.ended() == ended


def test_a_status_without_end_is_an_error() -> None:
    """Nobody is kept reading one for ever."""
    channels = RemoteChannels(V5)
    for _ in range(65):
        channels.receive(b"\x03" + bytes(1000))
    with pytest.raises(ChannelError, match="a status of more than"):
        channels.receive(b"\x03" + bytes(1000))


def test_what_is_sent_is_cut_into_frames() -> None:
    """Of a size that a kubelet reads at once; nothing to send is no message."""
    frames = RemoteChannels(V4).frames(bytes(2 * LARGEST_FRAME + 1))
    assert [len(frame) for frame in frames] == [LARGEST_FRAME + 1, LARGEST_FRAME + 1, 2]
    assert {frame[:1] for frame in frames} == {b"\x00"}
    assert RemoteChannels(V4).frames(b"") == []


# -- over a socket ----------------------------------------------------------------------------------------------------


@dataclass
class Process:
    """What an attached process sees and says."""

    ws: web.WebSocketResponse
    stdin: bytes = b""
    ended: bool = False

    async def say(self, data: bytes, channel: int = STDOUT) -> None:
        await self.ws.send_bytes(bytes([channel]) + data)

    async def hear(self) -> bytes:
        """The next message's bytes; empty at the end of stdin or of the connection."""
        message = await self.ws.receive()
        if message.type is not WSMsgType.BINARY or message.data == b"\xff\x00":
            self.ended = True
            return b""
        assert message.data[:1] == b"\x00"
        self.stdin += message.data[1:]
        return bytes(message.data[1:])

    def abort(self) -> None:
        assert self.ws._req is not None
        assert self.ws._req.transport is not None
        self.ws._req.transport.abort()


@dataclass
class Kubelet:
    """A handler for a FakeApi: upgrades, opens the channels as a kubelet does, runs `body`, closes."""

    body: Callable[[Process], Awaitable[None]]
    protocols: tuple[str, ...] = (V5, V4)
    status: bytes = SUCCESS
    close_code: int | None = WSCloseCode.OK
    processes: list[Process] = field(default_factory=list)
    live: int = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(protocols=self.protocols, autoclose=False, timeout=0.2)
        await ws.prepare(request)
        process = Process(ws)
        self.processes.append(process)
        self.live += 1
        try:
            await ws.send_bytes(b"\x00")
            await self.body(process)
            if self.status:
                await process.say(self.status, 3)
            if self.close_code is not None:
                await ws.close(code=self.close_code)
        except (ConnectionError, TypeError):
            pass  # the client has gone: not an error of a server
        finally:
            self.live -= 1
        return ws


async def echo(process: Process) -> None:
    """Give back every line until the end of stdin."""
    while data := await process.hear():
        await process.say(data)


async def output(stream: Stream) -> dict[int, bytes]:
    found: dict[int, bytearray] = {}
    async for channel, data in stream:
        found.setdefault(channel, bytearray()).extend(data)
    return {channel: bytes(data) for channel, data in found.items()}


async def test_attach_talks_both_ways(api: FakeApi, client: Client) -> None:
    """Stdin and stdout of one container, no terminal, no redirect; v5 is asked for before v4."""

    async def body(process: Process) -> None:
        await process.say(await process.hear())
        await process.hear()

    kubelet = Kubelet(body)
    api.answer(kubelet)
    async with attach(client, "a", "p", "toe-x") as stream:
        await stream.send(b"one\n")
        assert await anext(stream) == (STDOUT, b"one\n")
        early = stream.status
        await stream.send(b"enough")
        assert await output(stream) == {}
        assert (early, stream.status) == (None, Ended(success=True, exit_code=0))
        assert await output(stream) == {}
    assert api.seen[0].method == "GET"
    assert api.seen[0].target == "/api/v1/namespaces/a/pods/p/attach?container=toe-x&stdin=true&stdout=true"
    assert api.seen[0].headers["Sec-WebSocket-Protocol"].replace(" ", "") == f"{V5},{V4}"
    await until(lambda: kubelet.live == 0)


async def test_an_old_server_speaks_v4(api: FakeApi, client: Client) -> None:
    """What is said and heard is the same there."""

    async def body(process: Process) -> None:
        await process.say(await process.hear())
        await process.say(await process.hear())

    api.answer(Kubelet(body, protocols=(V4,)))
    async with attach(client, "a", "p", "c") as stream:
        await stream.send(b"one")
        await stream.send(b"two")
        assert await output(stream) == {STDOUT: b"onetwo"}
        assert stream.status is not None


async def test_exec_tells_the_exit_code(api: FakeApi, client: Client) -> None:
    """Both outputs apart; each word of the command in its place, whatever is in it."""

    async def body(process: Process) -> None:
        await process.say(b"out")
        await process.say(b"err", STDERR)
        await process.say(b"put")

    api.answer(Kubelet(body, status=FAILURE))
    async with exec_(client, "a", "p", "c", ["/opt/toe/supervisor", "fetch", "a b&c=d"]) as stream:
        assert await output(stream) == {STDOUT: b"output", STDERR: b"err"}
        assert stream.status is not None
        assert stream.status.exit_code == 3
    assert api.seen[0].target == (
        "/api/v1/namespaces/a/pods/p/exec?command=%2Fopt%2Ftoe%2Fsupervisor&command=fetch&command=a%20b%26c%3Dd"
        "&container=c&stdout=true&stderr=true"
    )


@pytest.mark.parametrize("code", [1000, 1001, 1011])
async def test_an_end_without_a_status_says_nothing_about_the_process(api: FakeApi, client: Client, code: int) -> None:
    """Whoever closes, the output that came stays."""

    async def body(process: Process) -> None:
        await process.say(b"x")

    api.answer(Kubelet(body, status=b"", close_code=code))
    async with attach(client, "a", "p", "c") as stream:
        assert await output(stream) == {STDOUT: b"x"}
        assert stream.status is None


async def test_a_lost_connection_is_told_from_an_end(api: FakeApi, client: Client) -> None:
    """A kubelet that is restarted; but 1006 after a Status is how real ones end."""

    async def cut(process: Process) -> None:
        await process.say(b"x")
        process.abort()

    async def told(process: Process) -> None:
        await process.say(SUCCESS, 3)
        process.abort()

    api.answer(Kubelet(cut))
    async with attach(client, "a", "p", "c") as stream:
        assert await anext(stream) == (STDOUT, b"x")
        with pytest.raises(RemoteCommandBroken, match="attach to a/p/c: the connection was lost"):
            await anext(stream)
        with pytest.raises(RemoteCommandBroken, match="nothing could be sent"):
            await stream.send(b"x")
    api.answer(Kubelet(told))
    async with attach(client, "a", "p", "c") as stream:
        assert await output(stream) == {}
        assert stream.status is not None


@pytest.mark.parametrize("bad", [b"\x00in", b"\x09x"])
async def test_a_peer_that_leaves_the_protocol_is_told(api: FakeApi, client: Client, bad: bytes) -> None:
    """And a text message, which no kubelet sends."""

    async def body(process: Process) -> None:
        await process.ws.send_bytes(bad)

    async def text(process: Process) -> None:
        await process.ws.send_str("x")

    for one in (body, text):
        api.answer(Kubelet(one))
        async with attach(client, "a", "p", "c") as stream:
            with pytest.raises(RemoteCommandBroken):
                await anext(stream)


@pytest.mark.parametrize("protocols", [(), ("v4.base64.channel.k8s.io",)])
async def test_a_protocol_that_was_not_offered_is_an_error(
    api: FakeApi, client: Client, protocols: tuple[str, ...]
) -> None:
    """Frames mean something else there."""

    async def handler(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(protocols=protocols)
        await ws.prepare(request)
        await ws.receive()
        return ws

    api.answer(handler)
    with pytest.raises(RemoteCommandBroken, match="the server chose the protocol"):
        async with attach(client, "a", "p", "c"):
            raise AssertionError
    await until(lambda: api.busy == 0)


@pytest.mark.parametrize(("code", "expected"), [(403, Forbidden), (400, ApiError), (500, ServerError)])
async def test_a_refused_handshake_keeps_the_server_s_words(
    api: FakeApi, client: Client, code: int, expected: type[ApiError]
) -> None:
    """With the Status."""
    api.answer(refuse(code, "BadRequest", "container c is not valid for pod p"))
    with pytest.raises(expected, match="container c is not valid for pod p"):
        async with attach(client, "a", "p", "c"):
            raise AssertionError


@pytest.mark.parametrize("code", [200, 301, 302, 307, 308])
async def test_anything_but_101_is_an_error_and_redirects_lead_nowhere(api: FakeApi, client: Client, code: int) -> None:
    """The credentials would travel with a redirect (CVE-2018-1002105 and its like)."""
    api.answer(always(lambda: web.Response(status=code, headers={"Location": api.url + "/elsewhere"})))
    with pytest.raises(ApiError) as caught:
        async with attach(client, "a", "p", "c"):
            raise AssertionError
    assert caught.value.status == code
    assert len(api.seen) == 1


async def test_a_handshake_without_an_answer_is_bounded(
    api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API server that waits for a kubelet that is gone."""
    monkeypatch.setattr(remotecommand, "OPEN_SECONDS", 0.1)

    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    api.answer(hang)
    with pytest.raises(RemoteCommandBroken, match=r"no handshake within 0\.1 s"):
        async with attach(client, "a", "p", "c"):
            raise AssertionError
    await until(lambda: api.busy == 0)


async def test_silence_is_told_from_patience(api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool says nothing for an hour and answers pings; a dead machine does not."""
    monkeypatch.setattr(websockets, "HEARTBEAT", 0.05)
    monkeypatch.setattr(websockets, "SILENCE", 0.2)

    async def quiet(process: Process) -> None:
        try:
            async with asyncio.timeout(0.7):
                await process.hear()
        except TimeoutError:
            await process.say(b"done")

    async def deaf(process: Process) -> None:
        await asyncio.Event().wait()

    api.answer(Kubelet(quiet))
    async with attach(client, "a", "p", "c") as stream:
        assert await output(stream) == {STDOUT: b"done"}
    api.answer(Kubelet(deaf))
    async with attach(client, "a", "p", "c") as stream:
        with pytest.raises(RemoteCommandBroken, match="silent"):
            await anext(stream)
    await until(lambda: api.busy == 0)


async def test_a_peer_that_takes_nothing_is_given_up(
    api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process whose stdin is full."""
    monkeypatch.setattr(remotecommand, "SEND_SECONDS", 0.3)

    async def deaf(process: Process) -> None:
        await asyncio.Event().wait()

    api.answer(Kubelet(deaf))
    async with attach(client, "a", "p", "c") as stream:
        with pytest.raises(RemoteCommandBroken, match=r"takes nothing for 0\.3 s"):
            await stream.send(bytes(64 << 20))


async def test_a_reader_that_pauses_makes_the_process_wait(api: FakeApi, client: Client) -> None:
    """What is in flight stays bounded by the sockets' buffers, and nothing is lost."""
    sent = 0

    async def flood(process: Process) -> None:
        nonlocal sent
        for _ in range(64 * 32):
            await process.say(bytes(LARGEST_FRAME))
            sent += LARGEST_FRAME

    api.answer(Kubelet(flood))
    async with attach(client, "a", "p", "c") as stream:
        await anext(stream)
        in_flight = await settled(lambda: sent)
        assert in_flight < 24 << 20
        assert len((await output(stream))[STDOUT]) == (64 << 20) - LARGEST_FRAME


async def test_leaving_is_quick_whatever_the_peer_does(api: FakeApi, client: Client) -> None:
    """One that goes on sending, and one that never answers a close."""

    async def endless(process: Process) -> None:
        while True:
            await process.say(bytes(LARGEST_FRAME))

    async def deaf(process: Process) -> None:
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    for body in (endless, deaf):
        kubelet = Kubelet(body)
        api.answer(kubelet)
        async with attach(client, "a", "p", "c"):
            began = loop.time()
        assert loop.time() - began < 0.6
    await until(lambda: api.busy == 0)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_cancelling_at_any_moment_leaves_nothing_behind(api: FakeApi, client: Client) -> None:
    """In the handshake, while reading, while sending, while closing: no task, no descriptor, a free server."""
    kubelet = Kubelet(echo)
    api.answer(kubelet)

    async def talk() -> None:
        async with attach(client, "a", "p", "c") as stream:
            while True:
                await stream.send(b"x" * 100)
                await anext(stream)

    loop = asyncio.get_running_loop()
    before = 0
    for turns in (*range(24), 40, 80, 160):
        task = loop.create_task(talk())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if turns == 3:
            before = await settled(descriptors)
    await until(lambda: kubelet.live == api.busy == 0)
    assert await settled(descriptors) <= before + 1
    assert [task for task in asyncio.all_tasks() if "heartbeat" in task.get_name()] == []


async def fuzzed_handshake(rng: random.Random, request: web.Request) -> web.StreamResponse:
    """An answer to an upgrade that is none, or a broken one."""
    assert request.transport is not None
    match rng.randrange(4):
        case 0:
            request.transport.abort()
            return web.Response()
        case 1:
            return web.Response(status=rng.choice([200, 204, 301, 400, 403, 404, 409, 429, 500, 503]), body=b"{" * 9)
        case 2:
            raw = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            request.transport.write(raw + b"Sec-WebSocket-Accept: " + rng.randbytes(8).hex().encode() + b"\r\n\r\n")
        case _:
            request.transport.write(rng.randbytes(60))
    await asyncio.sleep(0)
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("rounds", [150, pytest.param(1000, marks=pytest.mark.slow)])
async def test_fuzzed_attaches_end_in_time_and_leave_nothing(api: FakeApi, client: Client, rounds: int) -> None:
    """Broken handshakes, frames cut anywhere, lost connections, foreign channels: never a hang, never a leak (H34)."""
    rng = random.Random(34)
    expected = bytes(range(256)) * 4

    async def body(process: Process) -> None:
        frames = b"".join(bytes([STDOUT]) + expected[at : at + 64] for at in range(0, len(expected), 64))
        data = bytearray(frames)
        if rng.random() < 0.4:
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.4:
            size = rng.choice([1, 7, 65])
            for start in range(0, rng.randrange(1, len(data)), size):
                await process.ws.send_bytes(bytes(data[start : start + size]))
        else:
            for start in range(0, len(data), 65):
                await process.ws.send_bytes(bytes(data[start : start + 65]))
        match rng.randrange(5):
            case 0:
                process.abort()
            case 1:
                await process.say(rng.randbytes(30), 3)
            case 2:
                await process.ws.send_str("x")

    kubelet = Kubelet(body, status=b"")

    async def handler(request: web.Request) -> web.StreamResponse:
        if rng.random() < 0.3:
            return await fuzzed_handshake(rng, request)
        kubelet.protocols = rng.choice([(V5, V4), (V4,), (V5,), ()])
        return await kubelet(request)

    api.answer(handler)
    before, outcomes = 0, Counter[str]()
    for round_ in range(rounds):
        try:
            async with asyncio.timeout(10), attach(client, "a", "p", "c") as stream:
                found: Any = (await output(stream)).get(STDOUT)
                outcomes["whole" if found == expected else "altered"] += 1
        except KubeError as error:
            outcomes[type(error).__name__] += 1
        if round_ == 50:
            before = await settled(descriptors)
    await until(lambda: kubelet.live == api.busy == 0)
    assert await settled(descriptors) <= before + 1
    assert [task for task in asyncio.all_tasks() if "heartbeat" in task.get_name()] == []
    assert outcomes["RemoteCommandBroken"] > rounds / 5
    assert outcomes["whole"] > rounds / 20
