"""Two thousand slow clients at once, in every way in which a client can be slow, and good uploads all the while."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.collector.rig import CAPTURE, READ, Collector, Start, capture_id
from toe_async.collector.settings import Limits

LARGE = 8 << 20
CONTENT = f"{READ}/shop/artifacts/{CAPTURE[:10]}-heap.pprof/content"


async def slow(
    collector: Collector, turn: asyncio.Semaphore, number: int, opening: bytes, more: bytes, every: float
) -> float:
    """Open a connection, send what it begins with and then a little now and then, reading nothing.

    The `turn` to connect leaves the collector time to accept: what overflows the kernel's queue is dropped there, and a
    client that sends nothing never hears of it.

    Returns how many seconds passed until the collector ended it.
    """
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        # One address may not have them all: every tenth part comes from another one.
        sock.bind((f"127.0.0.{2 + number % 10}", 0))
        began = loop.time()
        with contextlib.suppress(ConnectionError):
            async with turn:
                await loop.sock_connect(sock, (collector.served.host, collector.served.port))
                began = loop.time()
                await asyncio.sleep(0.05)
            await loop.sock_sendall(sock, opening)
            while not await ended(sock, every if more else every / 4):
                if more:
                    await loop.sock_sendall(sock, more)
    return loop.time() - began


async def ended(sock: socket.socket, within: float) -> bool:
    """Whether the other side ended the connection, without reading what it sent."""
    await asyncio.sleep(within)
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return info[0] != ESTABLISHED


ESTABLISHED = 1


def openings(collector: Collector) -> list[tuple[bytes, bytes]]:
    """Slow headers, slow bodies (declared, chunked, in pieces), slow readers: how each begins and goes on."""
    uploader = f"Host: x\r\nAuthorization: Bearer {collector.uploader()}\r\n"
    reader = f"Host: x\r\nAuthorization: Bearer {collector.reader}\r\n"
    put = f"PUT /v1/captures/{CAPTURE}/artifacts/cpu.pprof HTTP/1.1\r\n{uploader}"
    return [
        (b"", b""),
        (b"PUT / HTTP/1.1\r\nX-Slow: ", b"y"),
        (f"GET /healthz HTTP/1.1\r\n{reader}".encode(), b"X: y\r\n"),
        (f"{put}Content-Length: 100000\r\n\r\n".encode(), b"x"),
        (f"{put}Transfer-Encoding: chunked\r\n\r\n".encode(), b"1\r\nx\r\n"),
        (f"{put}Content-Length: 100000\r\nContent-Range: bytes 0-99999/*\r\n\r\n".encode(), b"x"),
        (f"GET {CONTENT} HTTP/1.1\r\n{reader}\r\n".encode(), b""),
        (f"GET {CONTENT} HTTP/1.1\r\n{reader}\r\n".encode(), b""),
    ]


async def large() -> AsyncIterator[bytes]:
    for _ in range(LARGE >> 16):
        yield bytes(1 << 16)


@pytest.mark.parametrize(
    ("count", "limits", "within"),
    [
        pytest.param(160, Limits(header_seconds=0.5, body_grace_seconds=0.5, idle_seconds=1.0), 20.0, id="hurried"),
        pytest.param(2000, Limits(), 45.0, id="two thousand", marks=[pytest.mark.nightly, pytest.mark.timeout(180)]),
    ],
)
@pytest.mark.slow
async def test_slow_clients_are_ended_and_good_uploads_go_on(
    start: Start, count: int, limits: Limits, within: float
) -> None:
    """Every slow one is closed in time; 99 of 100 good uploads succeed, whatever their connections meet."""
    async with start(limits=limits) as collector:
        await collector.register(maxBytes=LARGE)
        good = capture_id(1)
        await collector.register(id=good)
        assert (await collector.put(large(), expect100=True))[0] == 201
        ways, every = openings(collector), limits.idle_seconds / 8
        token, answers = collector.uploader(good), [0, 0]

        async def upload_until(done: asyncio.Event) -> None:
            while not done.is_set():
                try:
                    status, _ = await collector.put(b"good", capture=good, token=token)
                except aiohttp.ClientError:
                    status = 0
                answers[status in {200, 201}] += 1
                await asyncio.sleep(0.05)

        done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(upload_until(done))
            turn = asyncio.Semaphore(100)
            clients = [
                group.create_task(slow(collector, turn, number, *ways[number % len(ways)], every))
                for number in range(count)
            ]
            await asyncio.wait(clients)
            done.set()
        each = [max(client.result() for client in clients[way :: len(ways)]) for way in range(len(ways))]
        longest = max(each)
        seconds = [round(one, 1) for one in each]
        print(f"{count} slow clients ended after {seconds} s; {answers[1]} of {sum(answers)} uploads good")
        assert longest < within
        assert answers[1] >= 20
        assert answers[1] >= 0.99 * sum(answers)
