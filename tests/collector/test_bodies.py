"""Bodies and requests as bytes on a socket: what refusals cost, what slowness gets, what broken HTTP gets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from tests.collector.rig import PATH, READ, Collector, Start, head, wired
from toe_async.collector.settings import Limits

HURRY = Limits(header_seconds=0.3, body_grace_seconds=0.3, idle_seconds=0.5, linger_seconds=0.1)


# -- what a refusal costs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "token", "status"),
    [
        (["Content-Length: 1099511627776"], "", 413),
        (["Content-Length: 1048577"], "", 413),
        (["Content-Length: 10"], "made.up.token", 401),
        (["Transfer-Encoding: chunked", "Content-Encoding: gzip"], "", 400),
        (["Content-Length: 10", f"X-Toe-Sha256: {'z' * 64}"], "", 400),
    ],
)
async def test_a_refusal_comes_before_100_continue(
    collector: Collector, more: list[str], token: str, status: int
) -> None:
    """So a client that waits for it sends no body at all, and the connection ends."""
    await collector.register()
    async with wired(collector) as wire:
        await wire.send(*head(collector, "Expect: 100-continue", *more, token=token))
        got, headers, body = await wire.answer()
        assert (got, headers["connection"]) == (status, "close")
        assert set(json.loads(body)) == {"error", "reason"}
        assert await wire.closed()
    assert not collector.files()


async def test_100_continue_comes_when_every_check_has_passed(collector: Collector) -> None:
    """And the answer after the body."""
    await collector.register()
    async with wired(collector) as wire:
        await wire.send(*head(collector, "Expect: 100-continue", "Content-Length: 5"))
        assert (await wire.answer())[0] == 100
        wire.writer.write(b"hello")
        assert (await wire.answer())[0] == 201
        await wire.send(*head(collector, method="GET", path="/healthz"))
        assert (await wire.answer())[0] == 200


async def test_a_digest_that_is_stored_already_needs_no_body(collector: Collector) -> None:
    """200 in place of 100, or 409."""
    await collector.register()
    _, receipt = await collector.put(b"hello")
    for digest, status in ((receipt["sha256"], 200), ("0" * 64, 409)):
        async with wired(collector) as wire:
            await wire.send(*head(collector, "Expect: 100-continue", "Content-Length: 5", f"X-Toe-Sha256: {digest}"))
            assert (await wire.answer())[0] == status


async def test_who_sends_a_refused_body_all_the_same_is_cut_off(collector: Collector) -> None:
    """A second of it is read, so that the answer gets through, and no more."""
    await collector.register()
    async with wired(collector) as wire:
        await wire.send(*head(collector, "Content-Length: 1099511627776"))
        assert (await wire.answer())[0] == 413
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                while True:
                    wire.writer.write(b"x" * 65536)
                    await wire.writer.drain()


async def test_an_endless_chunked_body_is_cut_at_the_limit(collector: Collector) -> None:
    """No more than a mebibyte above it is taken off the wire, and nothing is left of it."""
    await collector.register()
    sent = 0
    async with wired(collector) as wire:
        await wire.send(*head(collector, "Expect: 100-continue", "Transfer-Encoding: chunked"))
        assert (await wire.answer())[0] == 100
        answered = asyncio.get_running_loop().create_task(wire.answer())
        with contextlib.suppress(ConnectionError):
            while not answered.done():
                wire.writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sent += 65536
                await asyncio.sleep(0)
                await wire.writer.drain()
        assert (await answered)[0] in {413, 0}
    async with asyncio.timeout(5):
        while collector.parts():
            await asyncio.sleep(0.01)
    assert not collector.files()
    assert sent > 1 << 20


# -- slowness ---------------------------------------------------------------------------------------------------------


async def test_a_client_that_sends_no_or_half_a_header_is_closed(start: Start) -> None:
    """Ten seconds by default, however its bytes are spread; also after a first request."""
    async with (
        start(limits=HURRY) as collector,
        wired(collector) as silent,
        wired(collector) as half,
        wired(collector) as second,
        asyncio.timeout(5),
    ):
        half.writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        await second.send("GET /healthz HTTP/1.1", "Host: x")
        assert (await second.answer())[0] == 200
        second.writer.write(b"GET / HT")
        assert await silent.closed()
        assert await half.closed()
        assert await second.closed()


@pytest.mark.parametrize("gap", [None, 0.02])
@pytest.mark.parametrize("how", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_a_slow_body_is_408_and_leaves_nothing(start: Start, gap: float | None, how: str) -> None:
    """Silence after the first byte, or a byte now and then: both are below the rate."""
    async with start(limits=HURRY) as collector:
        await collector.register()
        async with wired(collector) as wire:
            await wire.send(*head(collector, how))
            byte = b"x" if "Length" in how else b"1\r\nx\r\n"
            async with asyncio.TaskGroup() as group:
                answer = group.create_task(wire.answer())
                wire.writer.write(byte)
                while gap is not None and not answer.done():
                    wire.writer.write(byte)
                    await asyncio.sleep(gap)
            status, _, body = answer.result()
            assert (status, json.loads(body)["reason"]) == (408, "TooSlow")
        assert not collector.files()
        assert not collector.parts()


async def test_slow_clients_do_not_hold_up_good_ones(start: Start) -> None:
    """Two hundred of them, half-way through headers or bodies, while fifty uploads go through."""
    async with start(limits=Limits(connections_per_address=1000)) as collector, contextlib.AsyncExitStack() as stack:
        await collector.register()
        for number in range(200):
            wire = await stack.enter_async_context(wired(collector))
            if number % 2:
                await wire.send(*head(collector, "Content-Length: 1000"), body=b"x")
            else:
                wire.writer.write(b"GET /healthz HTTP/1.1\r\nHost")
        token = collector.uploader()
        answers = [await collector.put(b"good", token=token) for _ in range(50)]
        assert [status for status, _ in answers] == [201] + [200] * 49


@pytest.mark.slow
async def test_a_reader_that_reads_nothing_is_ended(start: Start) -> None:
    """Its connection is aborted once it has taken nothing for the idle time; sweeps come every two seconds."""
    size = 24 << 20
    async with start(limits=Limits(idle_seconds=0.2)) as collector:
        await collector.register(maxBytes=size)

        async def body() -> AsyncIterator[bytes]:
            for _ in range(size >> 20):
                yield b"\0" * (1 << 20)

        assert (await collector.put(body(), expect100=True))[0] == 201
        path = f"{READ}/shop/artifacts/abcdefghij-heap.pprof/content"
        async with wired(collector) as wire:
            await wire.send(*head(collector, method="GET", path=path, token=collector.reader))
            await wire.reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(3)
            received = 0
            with contextlib.suppress(ConnectionError):
                while piece := await wire.reader.read(1 << 20):
                    received += len(piece)
            assert received < size


@pytest.mark.parametrize("how", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_a_body_that_ends_early_leaves_nothing(collector: Collector, how: str) -> None:
    """The connection is lost in the middle, by close and by reset."""
    await collector.register()
    for reset in (False, True):
        async with wired(collector) as wire:
            await wire.send(*head(collector, how, "Expect: 100-continue"))
            assert (await wire.answer())[0] == 100
            wire.writer.write(b"x" * 10 if "Length" in how else b"a\r\nxxxxxxxxxx\r\n5\r\nxx")
            await wire.writer.drain()
            if reset:
                wire.writer.transport.abort()
    async with asyncio.timeout(5):
        while collector.parts():
            await asyncio.sleep(0.01)
    assert not collector.files()


# -- connections ------------------------------------------------------------------------------------------------------


async def test_one_address_has_so_many_connections_and_no_more(start: Start) -> None:
    """The surplus is turned away at once; when others end there is room again."""
    async with start(limits=Limits(connections_per_address=4)) as collector:
        await collector.http.close()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(4):
                wire = await stack.enter_async_context(wired(collector))
                await wire.send("GET /healthz HTTP/1.1", "Host: x")
                status = (await wire.answer())[0]
                if status == 0:
                    break  # the session that made the collector ready may not have gone yet
            async with wired(collector) as surplus, asyncio.timeout(5):  # half of what a silent one is given
                assert await surplus.closed()
        async with asyncio.timeout(5):
            while True:
                async with wired(collector) as wire:
                    await wire.send("GET /healthz HTTP/1.1", "Host: x")
                    if (await wire.answer())[0] == 200:
                        break


@pytest.mark.parametrize("limits", [Limits(uploads=1), Limits(uploads_per_capture=1)])
async def test_uploads_at_a_time_are_bounded(start: Start, limits: Limits) -> None:
    """429 with the time to wait; other captures go on while there is room, and who has no token holds no place."""
    async with start(limits=limits) as collector:
        await collector.register(id="b" * 32)
        await collector.register()
        async with wired(collector) as wire:
            await wire.send(*head(collector, "Expect: 100-continue", "Content-Length: 5"))
            assert (await wire.answer())[0] == 100
            async with collector.call("PUT", PATH, collector.uploader(), data=b"hello") as reply:
                assert (reply.status, reply.headers["Retry-After"]) == (429, "5")
            assert (await collector.put(b"hello", token="no.such.token"))[0] == 401
            assert (await collector.put(b"hello", capture="b" * 32))[0] == (429 if limits.uploads == 1 else 201)
            wire.writer.write(b"hello")
            assert (await wire.answer())[0] == 201


# -- broken HTTP ------------------------------------------------------------------------------------------------------

SMUGGLING = [
    ["Content-Length: 5", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: chunked", "Content-Length: 5"],
    ["Content-Length: 5", "Content-Length: 6"],
    ["Content-Length: 5, 6"],
    ["Content-Length: +5"],
    ["Content-Length: -5"],
    ["Content-Length: 0x5"],
    ["Content-Length: 5 5"],
    ["Content-Length: \xd9\xa5"],
    ["Transfer-Encoding: xchunked"],
    ["Transfer-Encoding: chunked, identity"],
    ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    ["Transfer-Encoding : chunked"],
    ["Transfer-Encoding:\x0bchunked"],
    ["Transfer-Encoding: gzip, chunked, chunked"],
    ["X: y", " folded: z"],
    ["X: a\x00b"],
    ["X: a\nb: c"],
    ["X\x01: y"],
    ["No-Colon"],
    ["X: " + "y" * 20_000],
    [*(f"X-{number}: y" for number in range(200))],
]


@pytest.mark.parametrize("lines", SMUGGLING, ids=range(len(SMUGGLING)))
async def test_a_request_that_two_readers_could_read_in_two_ways_is_refused(
    collector: Collector, lines: list[str]
) -> None:
    """One error at most, then the connection ends: what follows is never taken for a second request."""
    await collector.register()
    async with wired(collector) as wire:
        hidden = f"GET {READ}/hidden/artifacts HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        await wire.send(*head(collector, *lines), body=b"5\r\nhello\r\n0\r\n\r\n" + hidden)
        status, _, body = await wire.answer()
        assert status in {0, 400}, body
        if status:
            assert set(json.loads(body)) == {"error", "reason"}
        assert await wire.closed()
    assert not collector.files()


@pytest.mark.parametrize(
    "line", ["GET / HTTP/1.1\n\nX", "\x16\x03\x01\x02\x00", "GET", "GET / HTTP/9.9", "ÿÿÿÿ / HTTP/1.1"]
)
async def test_what_is_no_http_gets_an_error_or_an_end(collector: Collector, line: str) -> None:
    """TLS on the plain port among it."""
    async with wired(collector) as wire:
        wire.writer.write(line.encode("latin-1") + b"\r\n\r\n")
        wire.writer.write_eof()
        assert await wire.closed()


async def test_nothing_that_was_sent_is_echoed_in_headers_or_errors(collector: Collector) -> None:
    """Not the path, not the query, not a name. (The read API names in its Status what was asked for, as an API server
    does: in JSON alone, and see test_api_verbs for that.)"""
    marker = "m4rk3r"
    paths = [f"/{marker}", f"/v1/captures/{marker}/complete"]
    async with collector.call("GET", f"{READ}/{marker}/artifacts", collector.reader) as reply:
        assert (reply.status, marker in str(reply.headers)) == (403, False)
    for path in paths:
        async with collector.call("GET", f"{path}?{marker}=%0d%0aX-Injected:%20{marker}", collector.reader) as reply:
            assert reply.status >= 400
            assert marker not in str(reply.headers) + await reply.text()
