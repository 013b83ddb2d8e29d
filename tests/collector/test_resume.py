"""Uploads in pieces: whatever interrupts them, they go on where the collector says, and end with the right digest."""

import asyncio
import fcntl
import json
import random
import termios
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.collector.rig import CAPTURE, PATH, Collector, Start, Wire, head, sha256, wired
from toe_async.collector.settings import Limits

BODY = random.Random(1).randbytes(300_000)
PIECE = 100_000
HURRY = Limits(header_seconds=0.3, body_grace_seconds=0.3, idle_seconds=0.5, linger_seconds=0.1)


@pytest.fixture
async def registered(collector: Collector) -> Collector:
    assert (await collector.register())[0] == 201
    return collector


async def look(collector: Collector, token: str = "", path: str = PATH, **headers: str) -> tuple[int, dict[str, str]]:
    """Ask HEAD; headers are given with `_` for `-`."""
    more = {key.replace("_", "-"): value for key, value in headers.items()}
    async with collector.call("HEAD", path, token or collector.uploader(), headers=more) as reply:
        assert await reply.read() == b""
        return reply.status, dict(reply.headers)


async def offset(collector: Collector, path: str = PATH) -> int:
    status, headers = await look(collector, path=path)
    assert (status, headers["Upload-Complete"]) == (200, "?0")
    return int(headers["Upload-Offset"])


def span(first: int, end: int, total: int | None = None) -> str:
    return f"bytes {first}-{end - 1}/{'*' if total is None else total}"


async def piece(
    collector: Collector, first: int, end: int, total: int | None = None, body: bytes = BODY, **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Send one piece of a body: status, headers, decoded answer."""
    more = {"Content-Range": span(first, end, total)} | {k.replace("_", "-"): v for k, v in headers.items()}
    async with collector.call("PUT", PATH, collector.uploader(), data=body[first:end], headers=more) as reply:
        text = await reply.read()
        return reply.status, dict(reply.headers), json.loads(text) if text else None


async def finish(collector: Collector, body: bytes = BODY) -> tuple[int, Any]:
    """Go on from where the collector says, in pieces, until it is stored."""
    while True:
        first = await offset(collector)
        end = min(first + PIECE, len(body))
        if first == len(body):
            more = {"Content-Range": f"bytes */{len(body)}", "X-Toe-Sha256": sha256(body)}
            async with collector.call("PUT", PATH, collector.uploader(), headers=more) as reply:
                return reply.status, await reply.json()
        status, _, answer = await piece(collector, first, end, len(body) if end == len(body) else None, body)
        if status != 202:
            return status, answer


# -- how it goes when nothing goes wrong ------------------------------------------------------------------------------


async def test_pieces_become_one_artifact(registered: Collector) -> None:
    """202 with the offset for each, 201 with the receipt for the last; then HEAD says that it is complete."""
    assert await offset(registered) == 0
    assert not registered.parts()
    for first in (0, PIECE):
        status, headers, _ = await piece(registered, first, first + PIECE)
        assert (status, headers["Upload-Offset"]) == (202, str(first + PIECE))
        assert await offset(registered) == first + PIECE
        assert not registered.files()
    status, _, receipt = await piece(registered, 2 * PIECE, len(BODY), len(BODY), X_Toe_Sha256=sha256(BODY))
    assert (status, receipt["size"], receipt["sha256"]) == (201, len(BODY), sha256(BODY))
    assert (registered.root / receipt["path"]).read_bytes() == BODY
    assert not registered.parts()
    status, headers = await look(registered)
    assert (status, headers["Upload-Complete"], headers["Upload-Offset"]) == (200, "?1", str(len(BODY)))
    assert headers["X-Toe-Sha256"] == sha256(BODY)


async def test_an_artifact_that_is_stored_needs_no_pieces(registered: Collector) -> None:
    """The same digest is 200 at once, another is 409; without one, the whole is compared at the end."""
    assert (await registered.put(BODY))[0] == 201
    assert (await piece(registered, 0, PIECE, X_Toe_Sha256=sha256(BODY)))[0] == 200
    assert (await piece(registered, 0, PIECE, X_Toe_Sha256="0" * 64))[0] == 409
    assert (await piece(registered, 0, len(BODY), len(BODY)))[0] == 200
    other = BODY[:-1] + b"!"
    assert (await piece(registered, 0, len(BODY), len(BODY), other))[0] in {201, 409}
    status, _, error = await piece(registered, 0, len(BODY), len(BODY), bytes(len(BODY)))
    assert (status, error["reason"]) == (409, "Taken")
    assert not registered.parts()


async def test_the_collectors_offset_is_the_truth(registered: Collector) -> None:
    """A piece that begins elsewhere is 416 with the offset, before and after it; nothing changes."""
    assert (await piece(registered, 0, PIECE))[0] == 202
    for first in (0, PIECE - 1, PIECE + 1, 2 * PIECE):
        status, headers, error = await piece(registered, first, first + PIECE)
        assert (status, headers["Upload-Offset"], error["reason"]) == (416, str(PIECE), "WrongOffset")
    assert await offset(registered) == PIECE
    status, headers, _ = await piece(registered, 5, 10, body=b"y" * 10)
    assert status == 416
    assert (await finish(registered))[0] == 201


async def test_a_first_piece_that_does_not_begin_at_0_leaves_nothing(registered: Collector) -> None:
    """Neither a part nor a reservation."""
    assert (await piece(registered, 5, 10))[0] == 416
    assert not registered.parts()


async def test_a_piece_needs_its_length(registered: Collector) -> None:
    """411 for a chunked one; a whole artifact may be chunked."""

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 10

    headers = {"Content-Range": "bytes 0-9/*"}
    status, error = await registered.put(body(), headers=headers, expect100=True)
    assert (status, error["reason"]) == (411, "LengthRequired")


async def test_a_wrong_digest_or_size_begins_again(registered: Collector) -> None:
    """What is there cannot become right any more."""
    assert (await piece(registered, 0, PIECE))[0] == 202
    status, _, error = await piece(registered, PIECE, len(BODY), len(BODY), X_Toe_Sha256="0" * 64)
    assert (status, error["reason"]) == (400, "DigestMismatch")
    assert await offset(registered) == 0
    assert not registered.parts()
    assert (await finish(registered))[0] == 201


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({"X_Toe_Size": "1048577"}, 413, "TooBig"),
        ({"X_Toe_Size": str(1 << 49)}, 413, "TooBig"),
        ({"X_Toe_Size": "0"}, 400, "Empty"),
        ({"X_Toe_Size": "-1"}, 400, "BadSize"),
        ({"X_Toe_Size": "1" * 20}, 400, "BadSize"),
        ({"X_Toe_Sha256": "nonsense"}, 400, "BadDigest"),
    ],
)
async def test_head_says_what_an_upload_would_be_answered(
    registered: Collector, headers: dict[str, str], status: int, reason: str
) -> None:
    """Before a byte of the body exists; a HEAD has no body, so the word is in a header."""
    got, answered = await look(registered, **headers)
    assert (got, answered["X-Toe-Reason"]) == (status, reason)


async def test_head_tells_who_may_not_upload(registered: Collector) -> None:
    """The same codes as for an upload: no token, another capture's, no such leaf, not registered, closed."""
    other = "b" * 32
    async with registered.call("HEAD", PATH) as reply:
        assert reply.status == 401
    assert (await look(registered, registered.uploader(other)))[0] == 401
    assert (await look(registered, registered.api.token("eve", f"toe-collector/{CAPTURE}")))[0] == 403
    assert (await look(registered, path=PATH + "x"))[1]["X-Toe-Reason"] == "LeafNotRegistered"
    path = f"/v1/captures/{other}/artifacts/heap.pprof"
    assert (await look(registered, registered.uploader(other), path))[0] == 404
    assert (await piece(registered, 0, PIECE))[0] == 202
    assert (await registered.put(BODY, leaf="cpu.pprof"))[0] == 201
    cpu = PATH.replace("heap", "cpu")
    assert (await look(registered, path=cpu, X_Toe_Sha256="0" * 64))[1]["X-Toe-Reason"] == "Taken"
    assert (await registered.ask("DELETE", f"/v1/captures/{CAPTURE}", registered.operator))[0] == 200
    assert (await look(registered))[1]["X-Toe-Reason"] == "Cancelled"
    assert not registered.parts()


@pytest.mark.parametrize("leaf", ["%00", "..%2Fheap.pprof", "a" * 300, "x"])
async def test_a_leaf_that_is_not_registered_never_reaches_the_disk(registered: Collector, leaf: str) -> None:
    """403 for HEAD and for a piece, whatever the name is."""
    path = f"/v1/captures/{CAPTURE}/artifacts/{leaf}"
    for method in ("HEAD", "PUT"):
        async with wired(registered) as wire:
            lines = head(registered, "Content-Range: bytes 0-0/*", "Content-Length: 1", method=method, path=path)
            await wire.send(*lines, body=b"x")
            assert (await wire.reader.readuntil(b"\r\n")).split()[1] == b"403"
    assert not registered.parts()


# -- the seven ways in which a piece is interrupted -------------------------------------------------------------------


async def begin(collector: Collector, wire: Wire, first: int, end: int, total: int | None, send: int) -> None:
    """Send the head of a piece and `send` bytes of it."""
    lines = head(
        collector, f"Content-Range: {span(first, end, total)}", f"Content-Length: {end - first}", "Expect: 100-continue"
    )
    await wire.send(*lines)
    assert (await wire.answer())[0] == 100
    wire.writer.write(BODY[first : first + send])
    await wire.writer.drain()


async def settled(collector: Collector, at_least: int) -> int:
    """The offset, once the interrupted request has put everything on disk that came."""
    async with asyncio.timeout(5):
        while (now := await offset(collector)) < at_least:
            await asyncio.sleep(0.01)
    return now


@pytest.mark.parametrize("sent", [1, 70_000, 250_000])
@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
async def test_a_lost_connection_keeps_what_came(registered: Collector, how: str, sent: int) -> None:
    """Closed or reset in the middle of a piece; no byte is sent twice."""
    async with wired(registered) as wire:
        await begin(registered, wire, 0, len(BODY), len(BODY), sent)
        # What was sent must be read before a reset throws it away on both sides.
        async with asyncio.timeout(5):
            while sum(path.stat().st_size for path in (registered.root / ".toe/parts").iterdir()) < sent - (256 << 10):
                await asyncio.sleep(0.01)
        if how == "reset":
            wire.writer.transport.abort()
        elif how == "half-close":
            wire.writer.write_eof()
            await wire.closed()
    here = await offset(registered)
    if how != "reset":
        here = await settled(registered, sent)
        assert here == sent
    assert not registered.files()
    assert (await finish(registered))[0] == 201


async def test_a_slow_piece_times_out_and_keeps_what_came(start: Start) -> None:
    """408, and the next request goes on."""
    async with start(limits=HURRY) as collector:
        await collector.register()
        async with wired(collector) as wire:
            await begin(collector, wire, 0, len(BODY), len(BODY), 1000)
            status, _, body = await wire.answer()
            assert (status, json.loads(body)["reason"]) == (408, "TooSlow")
        assert await offset(collector) == 1000
        assert (await finish(collector))[0] == 201


async def test_a_newcomer_ends_the_request_before_it_and_goes_on(start: Start) -> None:
    """A client that lost its connection without a word waits for no timeout; also when one upload may run at a time."""
    async with start(limits=Limits(uploads_per_capture=1)) as collector:
        await collector.register()
        async with wired(collector) as wire:
            await begin(collector, wire, 0, len(BODY), len(BODY), 1000)
            async with asyncio.timeout(5):  # less than any timeout of the body
                assert await settled(collector, 1) == 1000
                status, _, body = await wire.answer()
            assert (status, json.loads(body)["reason"]) == (409, "Superseded")
        async with wired(collector) as wire:
            await begin(collector, wire, 1000, len(BODY), len(BODY), 1000)
            async with collector.call(
                "PUT", PATH, collector.uploader(), data=b"x", headers={"Content-Range": "bytes 0-0/*"}
            ) as reply:
                assert reply.status == 416
                assert int(reply.headers["Upload-Offset"]) >= 1000
            assert (await wire.answer())[0] == 409
        assert (await finish(collector))[0] == 201


async def test_many_writers_of_pieces_end_with_one_artifact(registered: Collector) -> None:
    """Each tries until it is stored; every request gets an answer that says what to do."""

    async def client() -> int:
        while True:
            status, headers = await look(registered)
            if status == 409:
                continue  # another came after it
            if headers["Upload-Complete"] == "?1":
                return 200
            first = int(headers["Upload-Offset"])
            status, _, _ = await piece(registered, first, len(BODY), len(BODY), X_Toe_Sha256=sha256(BODY))
            assert status in {200, 201, 409, 416}
            if status < 300:
                return status

    codes = await asyncio.gather(*(client() for _ in range(8)))
    assert codes.count(201) == 1
    (file,) = [name for name in registered.files() if not name.endswith(".manifest.json")]
    assert (registered.root / file).read_bytes() == BODY
    assert not registered.parts()


async def test_of_many_that_come_at_once_one_waits(registered: Collector) -> None:
    """The others are told at once, so that nobody makes a queue of people who wait for each other's silence."""
    token = registered.uploader()
    async with wired(registered) as wire:
        await begin(registered, wire, 0, len(BODY), len(BODY), 1000)
        async with asyncio.timeout(5):
            codes = await asyncio.gather(*(look(registered, token) for _ in range(30)))
        assert (await wire.answer())[0] == 409
    assert {status for status, _ in codes} <= {200, 409}
    assert codes[0][0] == 409
    assert any(headers.get("Upload-Offset") == "1000" for _, headers in codes)


async def test_more_bytes_than_the_piece_said_are_not_taken(registered: Collector) -> None:
    """They are the next request, and none that can be read."""
    async with wired(registered) as wire:
        await begin(registered, wire, 0, PIECE, None, PIECE)
        assert (await wire.answer())[0] == 202
        wire.writer.write(b"surplus\r\n\r\n")
        assert (await wire.answer())[0] == 400
        assert await wire.closed()
    assert await offset(registered) == PIECE
    assert (await finish(registered))[0] == 201


@pytest.mark.parametrize("drain", [0.05, 5.0])
async def test_a_stop_of_the_collector_keeps_what_came(start: Start, drain: float) -> None:
    """Drained or cut off: the next process goes on from the file and reads its digest again."""
    running = start(limits=Limits(drain_seconds=drain))
    first = await running.__aenter__()
    await first.register()
    async with wired(first) as wire:
        await begin(first, wire, 0, PIECE, None, 50_000)
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(running.__aexit__(None, None, None))
            if drain > 1:
                wire.writer.write(BODY[50_000:PIECE])
                assert (await wire.answer())[0] == 202
            await stopping
    async with start() as second:
        here = await offset(second)
        assert here == (PIECE if drain > 1 else 50_000)
        status, receipt = await finish(second)
        assert (status, receipt["sha256"]) == (201, sha256(BODY))


async def test_when_only_the_last_answer_was_lost_no_byte_is_sent_again(start: Start) -> None:
    """Everything is on disk and nothing is stored: `bytes */total` ends it."""
    async with start() as first:
        await first.register()
        assert (await piece(first, 0, len(BODY)))[0] == 202
    async with start() as second:
        assert await offset(second) == len(BODY)
        assert (await finish(second))[0] == 201


# -- what becomes of parts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["cancel", "complete", "expire", "restart after expiry", "stored whole"])
async def test_parts_end_with_their_capture(start: Start, end: str) -> None:
    """Nothing is left of an upload that nobody can go on with."""
    async with start() as collector:
        await collector.register()
        assert (await piece(collector, 0, PIECE))[0] == 202
        assert len(collector.parts()) == 1
        match end:
            case "cancel":
                await collector.ask("DELETE", f"/v1/captures/{CAPTURE}", collector.operator)
            case "complete":
                path = f"/v1/captures/{CAPTURE}/complete"
                status, _ = await collector.ask("POST", path, collector.uploader(), json={"artifacts": []})
                assert status == 200
            case "stored whole":
                assert (await collector.put(BODY))[0] == 201
            case _:
                (file,) = (collector.root / ".toe" / "captures").iterdir()
                record = json.loads(file.read_bytes())
                record["registration"]["expires"] = record["registration"]["triggeredAt"]
                file.write_text(json.dumps(record))
        if end in {"cancel", "complete", "stored whole"}:
            assert not collector.parts()
        if end == "expire":
            status, headers = await look(collector)
            assert (status, headers["X-Toe-Reason"]) == (403, "Expired")
    async with start() as again:
        assert not again.parts()


async def test_an_artifact_is_never_written_to_as_a_part(start: Start) -> None:
    """A crash may leave the part's name on a committed file; whoever goes on with it begins a new one."""
    async with start() as collector:
        await collector.register()
        _, receipt = await finish(collector)
        stored = collector.root / receipt["path"]
        named = collector.root / ".toe" / "parts" / f"{CAPTURE}-heap.pprof.part"
        named.hardlink_to(stored)
        (stored.parent / f"{stored.name}.manifest.json").unlink()  # so that nothing says that it is stored
        assert await offset(collector) == 0
        assert (await piece(collector, 0, 10, body=b"y" * 10))[0] == 202
        assert stored.read_bytes() == BODY
        assert named.read_bytes() == b"y" * 10


async def test_two_collectors_on_one_volume_share_an_upload(start: Start) -> None:
    """As in a rolling update: pieces through both in turn, digest right; two writers at once do not mix."""
    async with start() as one, start() as two:
        await one.register()
        assert (await piece(one, 0, 1000))[0] == 202
        assert (await piece(two, 1000, 2000))[0] == 202
        assert (await piece(one, 2000, 3000))[0] == 202
        async with wired(one) as wire:
            await begin(one, wire, 3000, len(BODY), len(BODY), 1000)
            status, headers, error = await piece(two, await offset(two), 4000, body=b"z" * len(BODY))
            assert (status, error["reason"]) in {(503, "Busy"), (416, "WrongOffset")}
        await settled(one, 4000)
        status, receipt = await finish(two)
        assert (status, receipt["sha256"]) == (201, sha256(BODY))
        status, headers = await look(one)
        assert headers["Upload-Complete"] == "?1"


# -- random cuts ------------------------------------------------------------------------------------------------------


async def acknowledged(wire: Wire) -> None:
    """Wait until the other side's kernel has every byte: what is thrown away before that was never on the wire."""
    sock = wire.writer.get_extra_info("socket")
    while wire.writer.transport.get_write_buffer_size() or fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4) != b"\0" * 4:
        await asyncio.sleep(0.001)


async def upload_with_cuts(collector: Collector, body: bytes, cuts: int, rng: random.Random) -> int:
    """Upload over connections that break at random; returns how many bytes were sent."""
    sent, token = 0, collector.uploader()
    at = sorted(rng.randrange(len(body)) for _ in range(cuts))
    while True:
        async with collector.call("HEAD", PATH, token) as reply:
            assert reply.status == 200
            if reply.headers["Upload-Complete"] == "?1":
                assert reply.headers["X-Toe-Sha256"] == sha256(body)
                return sent
            first = int(reply.headers["Upload-Offset"])
        end = min(first + (8 << 20), len(body))
        total = len(body) if end == len(body) else None
        async with wired(collector) as wire:
            more = [f"Content-Range: {span(first, end, total)}", f"Content-Length: {end - first}"]
            await wire.send(*head(collector, *more, token=token))
            while at and at[0] <= first:
                at.pop(0)  # cut as soon as it had begun
            stop = at.pop(0) if at and at[0] < end else end
            wire.writer.write(body[first:stop])
            await wire.writer.drain()
            sent += stop - first
            if stop < end:
                await acknowledged(wire)
                if rng.random() < 0.5:
                    wire.writer.transport.abort()
                continue
            status, _, answer = await wire.answer()
            assert status in {201, 202}, answer


@pytest.mark.parametrize(
    "cuts", [pytest.param(25, marks=pytest.mark.slow), pytest.param(500, marks=pytest.mark.nightly)]
)
@pytest.mark.timeout(300)
async def test_64_mib_survive_random_cuts(start: Start, cuts: int) -> None:
    """Right digest, and no more than a tenth sent twice."""
    rng = random.Random(cuts)
    body = rng.randbytes(64 << 20)
    async with start() as collector:
        await collector.register(maxBytes=len(body))
        sent = await upload_with_cuts(collector, body, cuts, rng)
        assert sent <= 1.1 * len(body)
        print(f"{cuts} cuts: {sent / len(body):.3f} of the bytes sent")


async def test_a_few_mib_survive_random_cuts(registered: Collector) -> None:
    """The same, quickly."""
    rng = random.Random(7)
    body = rng.randbytes(1 << 20)
    assert await upload_with_cuts(registered, body, 10, rng) <= 1.1 * len(body)
