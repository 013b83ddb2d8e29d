"""take() over real sockets: every way a profile can come, fail to come, or come wrong."""

import asyncio
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest

from toe_async.apis.profilingconfig import ProfileType
from toe_async.apis.reasons import Reason
from toe_async.capture import pprof
from toe_async.capture.pprof import CaptureFailed, Taken, deadline_seconds, request_path, take
from toe_async.capture.targets import PprofTarget
from toe_async.kube.client import Client, ClientSettings, connect
from toe_async.profiles.pprof import decode
from toe_async.profiles.top import top

HEAP, CPU, TRACE = ProfileType.HEAP, ProfileType.CPU, ProfileType.TRACE
BODY = gzip.compress(b"\x0a\x00" + os.urandom(3000), mtime=0)
RUN = b"go 1.23 trace\0\0\0" + os.urandom(100)


class FakePod(Protocol):
    """The part of conftest's pod that is used here."""

    port: int
    requests: list[str]
    sent: int
    refusal: tuple[int, str] | None
    cut_after: int | None
    closed: asyncio.Event
    script: Callable[[asyncio.StreamWriter], Awaitable[None]] | None

    @property
    def target(self) -> PprofTarget: ...
    def answers(self, raw: bytes) -> None: ...
    async def send(self, writer: asyncio.StreamWriter, data: bytes) -> None: ...


def head(status: str = "200 OK", *headers: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode()


def by_length(body: bytes, claimed: int | None = None) -> bytes:
    return head("200 OK", f"Content-Length: {len(body) if claimed is None else claimed}") + body


def by_chunks(body: bytes, *, ended: bool = True) -> bytes:
    middle = len(body) // 2
    chunks = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (body[:middle], body[middle:]) if part)
    return head("200 OK", "Transfer-Encoding: chunked") + chunks + (b"0\r\n\r\n" if ended else b"")


def by_close(body: bytes) -> bytes:
    return head() + body


class Sink:
    """Collects what is written."""

    def __init__(self) -> None:
        self.data = bytearray()

    async def __call__(self, piece: bytes) -> None:
        self.data += piece


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (ProfileType.HEAP, "/debug/pprof/heap"),
        (ProfileType.ALLOCS, "/debug/pprof/allocs"),
        (ProfileType.GOROUTINE, "/debug/pprof/goroutine"),
        (ProfileType.MUTEX, "/debug/pprof/mutex"),
        (ProfileType.BLOCK, "/debug/pprof/block"),
        (ProfileType.THREADCREATE, "/debug/pprof/threadcreate"),
        (ProfileType.CPU, "/debug/pprof/profile?seconds=7"),
        (ProfileType.TRACE, "/debug/pprof/trace?seconds=7"),
    ],
)
def test_each_type_has_its_one_path(kind: ProfileType, path: str) -> None:
    """PR8: a closed list; only CPU profiles and traces have a length."""
    assert request_path(PprofTarget("n", "p", "u", "c", 6060, "/debug/pprof"), kind, 7) == path


def test_a_recording_is_given_its_seconds_on_top_of_the_time_that_any_profile_has() -> None:
    """The bound that a claim is made with."""
    assert deadline_seconds(CPU, 30) == deadline_seconds(HEAP, 30) + 30


@pytest.mark.parametrize(
    ("kind", "raw", "body", "verified"),
    [
        pytest.param(HEAP, by_length(BODY), BODY, True, id="gzip by length"),
        pytest.param(CPU, by_chunks(BODY), BODY, True, id="gzip in chunks"),
        pytest.param(HEAP, by_close(BODY), BODY, True, id="gzip ended by close, its trailer checks"),
        pytest.param(HEAP, by_close(BODY[:-3]), BODY[:-3], False, id="gzip ended by close within its trailer is kept"),
        pytest.param(HEAP, by_close(BODY[:90]), BODY[:90], False, id="gzip ended by close in the middle is kept"),
        pytest.param(TRACE, by_chunks(RUN), RUN, True, id="trace in chunks"),
        pytest.param(TRACE, by_close(RUN), RUN, False, id="trace ended by close"),
    ],
)
async def test_a_profile_is_streamed_counted_and_hashed(
    kind: ProfileType, raw: bytes, body: bytes, verified: bool, pod: FakePod, client: Client
) -> None:
    """D14: what tells the end decides whether it counts as verified."""
    pod.answers(raw)
    sink = Sink()
    taken = await take(client, pod.target, kind, 5, sink, max_bytes=1 << 20)
    assert taken == Taken(len(body), hashlib.sha256(body).hexdigest(), verified)
    assert bytes(sink.data) == body
    assert pod.requests == [f"GET {request_path(pod.target, kind, 5)} HTTP/1.1"]


@pytest.mark.parametrize(
    ("kind", "raw", "reason", "retry", "words"),
    [
        pytest.param(HEAP, head("404 Not Found"), Reason.PROFILE_MISSING, False, "serves none", id="404"),
        pytest.param(CPU, head("500 Busy"), Reason.PROFILER_BUSY, True, "somebody else", id="500 on cpu"),
        pytest.param(TRACE, head("500 Busy"), Reason.PROFILER_BUSY, True, "somebody else", id="500 on trace"),
        pytest.param(HEAP, head("500 Oops"), Reason.TARGET_ERROR, False, "answered 500", id="500 on heap"),
        pytest.param(HEAP, head("503 Later"), Reason.TARGET_ERROR, True, "answered 503", id="503"),
        pytest.param(CPU, head("400 Bad"), Reason.TARGET_ERROR, False, "WriteTimeout", id="400 on cpu has a hint"),
        pytest.param(HEAP, head("400 Bad"), Reason.TARGET_ERROR, False, "answered 400$", id="400 on heap"),
        pytest.param(HEAP, head("401 No"), Reason.TARGET_ERROR, False, "answered 401", id="a target that asks who"),
        pytest.param(
            HEAP, head("302 Found", "Location: http://x/"), Reason.TARGET_ERROR, False, "answered 302", id="a redirect"
        ),
        pytest.param(HEAP, by_length(BODY, len(BODY) + 9), Reason.TRUNCATED, True, "cut", id="length falls short"),
        pytest.param(HEAP, by_chunks(BODY, ended=False), Reason.TRUNCATED, True, "cut", id="chunks fall short"),
        pytest.param(HEAP, by_length(BODY[:-3]), Reason.TRUNCATED, False, "early", id="whole by length, gzip cut"),
        pytest.param(TRACE, by_length(RUN[:9]), Reason.TRUNCATED, False, "early", id="a trace without its header"),
        pytest.param(HEAP, by_length(b""), Reason.NOT_A_PROFILE, False, "empty", id="nothing"),
        pytest.param(HEAP, by_length(b"heap profile: 1"), Reason.NOT_A_PROFILE, False, "not compressed", id="text"),
        pytest.param(HEAP, by_length(b"\x1f"), Reason.TRUNCATED, False, "early", id="half a magic number"),
        pytest.param(
            HEAP,
            head("200 OK", "Content-Type: text/html; charset=utf-8") + BODY,
            Reason.NOT_A_PROFILE,
            False,
            "web page",
            id="a web page, compressed",
        ),
        pytest.param(
            HEAP,
            by_length(BODY[:-8] + bytes([BODY[-8] ^ 1]) + BODY[-7:]),
            Reason.NOT_A_PROFILE,
            False,
            "damaged",
            id="gzip with a wrong checksum",
        ),
        pytest.param(HEAP, by_length(BODY + b"x"), Reason.NOT_A_PROFILE, False, "follow", id="bytes behind it"),
        pytest.param(
            HEAP, by_length(gzip.compress(BODY)), Reason.NOT_A_PROFILE, False, "twice", id="compressed once more"
        ),
        pytest.param(TRACE, by_length(BODY), Reason.NOT_A_PROFILE, False, "no Go execution trace", id="not a trace"),
        pytest.param(HEAP, by_length(BODY, 1 << 40), Reason.TOO_LARGE, False, "64.0 KiB", id="too large by its length"),
        pytest.param(
            HEAP,
            by_chunks(gzip.compress(os.urandom(70_000))),
            Reason.TOO_LARGE,
            False,
            "--max-capture-bytes",
            id="too large in chunks",
        ),
        pytest.param(HEAP, b"SSH-2.0-x\r\n\r\n", Reason.PORT_FORWARD_FAILED, True, "HTTP", id="another protocol"),
        pytest.param(HEAP, b"", Reason.PORT_FORWARD_FAILED, True, "closed before", id="closed without a word"),
    ],
)
async def test_what_a_target_does_wrong_has_a_reason(
    kind: ProfileType, raw: bytes, reason: Reason, retry: bool, words: str, pod: FakePod, client: Client
) -> None:
    """D13, U8, PR9: a stable word, whether to try again, and a sentence that names the pod."""
    pod.answers(raw)
    with pytest.raises(CaptureFailed, match=words) as failed:
        await take(client, pod.target, kind, 5, Sink(), max_bytes=64 << 10)
    assert (failed.value.reason, failed.value.retry) == (reason, retry)
    assert "shop/web-1" in failed.value.message
    assert len(failed.value.message) <= 512


async def test_a_port_where_nothing_listens_is_port_refused(pod: FakePod, client: Client) -> None:
    """The kubelet tells it on the error channel; asking again at once is no use."""
    unused = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = unused.sockets[0].getsockname()[1]
    unused.close()
    await unused.wait_closed()
    with pytest.raises(CaptureFailed) as failed:
        await take(client, PprofTarget("shop", "web-1", "u", "app", port, ""), HEAP, 5, Sink(), max_bytes=1 << 20)
    assert (failed.value.reason, failed.value.retry) == (Reason.PORT_REFUSED, False)


@pytest.mark.parametrize(
    ("refusal", "reason", "retry", "words"),
    [
        pytest.param(
            (403, "Forbidden"),
            Reason.NOT_AUTHORIZED,
            False,
            "verbs get and create on pods/portforward in namespace shop",
            id="forbidden",
        ),
        pytest.param((401, "Unauthorized"), Reason.NOT_AUTHORIZED, False, "pods/portforward", id="unauthorized"),
        pytest.param((404, "NotFound"), Reason.POD_GONE, False, "pod is gone", id="no such pod"),
        pytest.param((400, "BadRequest"), Reason.PORT_FORWARD_FAILED, False, "words", id="bad request"),
        pytest.param((429, "TooManyRequests"), Reason.PORT_FORWARD_FAILED, True, "words", id="throttled"),
        pytest.param((500, "InternalError"), Reason.PORT_FORWARD_FAILED, True, "words", id="node not reached"),
    ],
)
async def test_what_the_api_server_refuses_has_a_reason(
    refusal: tuple[int, str], reason: Reason, retry: bool, words: str, pod: FakePod, client: Client
) -> None:
    """Each answer to the upgrade."""
    pod.refusal = refusal
    with pytest.raises(CaptureFailed, match=words) as failed:
        await take(client, pod.target, HEAP, 5, Sink(), max_bytes=1 << 20)
    assert (failed.value.reason, failed.value.retry) == (reason, retry)


async def test_an_api_server_that_is_away_may_be_tried_again(pod: FakePod, tmp_path: Path) -> None:
    """A transport error costs a try, not the operator."""
    kubeconfig = tmp_path / "away"
    kubeconfig.write_text(
        '{"clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:9"}}],"users":[{"name":"u","user":{}}],'
        '"contexts":[{"name":"x","context":{"cluster":"c","user":"u"}}],"current-context":"x"}'
    )
    async with connect(ClientSettings(kubeconfig=str(kubeconfig)), environ={}) as away:
        with pytest.raises(CaptureFailed) as failed:
            await take(away, pod.target, HEAP, 5, Sink(), max_bytes=1 << 20)
    assert (failed.value.reason, failed.value.retry) == (Reason.PORT_FORWARD_FAILED, True)


async def test_a_websocket_that_breaks_in_the_middle_is_truncated(pod: FakePod, client: Client) -> None:
    """D14: the close's code does not matter, the missing bytes do."""
    pod.answers(by_length(gzip.compress(os.urandom(1 << 20))))
    pod.cut_after = 200_000
    with pytest.raises(CaptureFailed) as failed:
        await take(client, pod.target, HEAP, 5, Sink(), max_bytes=2 << 20)
    assert (failed.value.reason, failed.value.retry) == (Reason.TRUNCATED, True)


@pytest.mark.parametrize(
    ("limit", "start"),
    [("HEAD_SECONDS", b""), ("SILENCE_SECONDS", by_length(BODY)[:-200]), ("BODY_SECONDS", by_length(BODY)[:-200])],
    ids=["no answer", "silence in the body", "slow as a whole"],
)
async def test_a_target_that_falls_silent_costs_one_bounded_wait(
    limit: str, start: bytes, pod: FakePod, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PR3: each of the three limits ends it, and the pod's connection is closed."""

    async def script(writer: asyncio.StreamWriter) -> None:
        await pod.send(writer, start)
        await asyncio.Event().wait()

    pod.script = script
    monkeypatch.setattr(pprof, limit, 0.3)
    with pytest.raises(CaptureFailed) as failed:
        await take(client, pod.target, HEAP, 5, Sink(), max_bytes=1 << 20)
    assert (failed.value.reason, failed.value.retry) == (Reason.CAPTURE_TIMED_OUT, False)
    await asyncio.wait_for(pod.closed.wait(), 5)


@pytest.mark.parametrize("error", [TimeoutError("spool"), OSError("disk"), RuntimeError("full")], ids=repr)
async def test_what_the_writer_raises_passes_through(error: Exception, pod: FakePod, client: Client) -> None:
    """A full spool is not the target's fault, and must not be reported as if it were."""
    pod.answers(by_length(BODY))

    async def write(piece: bytes) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        await take(client, pod.target, HEAP, 5, write, max_bytes=1 << 20)
    assert raised.value is error


def stored(size: int) -> Iterator[bytes]:
    """A gzip stream that holds `size` incompressible bytes, in pieces of a mebibyte."""
    block = os.urandom(1 << 20)
    packer = zlib.compressobj(0, zlib.DEFLATED, 31)
    for _ in range(size >> 20):
        yield packer.compress(block)
    yield packer.flush()


async def test_a_slow_writer_holds_back_the_pod(pod: FakePod, client: Client) -> None:
    """D15 from the other side: nothing piles up between the pod and a writer that stands still."""
    digest = hashlib.sha256()
    allowed, stuck = asyncio.Event(), asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        await pod.send(writer, head())
        for piece in stored(96 << 20):
            digest.update(piece)
            await pod.send(writer, piece)

    async def write(piece: bytes) -> None:
        stuck.set()
        await allowed.wait()

    pod.script = script
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(take(client, pod.target, HEAP, 5, write, max_bytes=1 << 30))
        await stuck.wait()
        before = -1
        while before != pod.sent:  # until the sockets' buffers are full
            before = pod.sent
            await asyncio.sleep(0.1)
        assert pod.sent < 32 << 20
        allowed.set()
    assert taking.result().sha256 == digest.hexdigest()


async def test_cancelling_closes_the_connection_into_the_pod(pod: FakePod, client: Client) -> None:
    """PR4: a capture that is no longer wanted stops at once; the task check at the end finds nothing left."""
    begun = asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        await pod.send(writer, head())
        with suppress(ConnectionError):
            for piece in stored(1 << 30):
                await pod.send(writer, piece)

    async def write(piece: bytes) -> None:
        begun.set()

    pod.script = script
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(take(client, pod.target, HEAP, 5, write, max_bytes=2 << 30))
        await begun.wait()
        taking.cancel()
    assert taking.cancelled()
    await asyncio.wait_for(pod.closed.wait(), 5)
    assert pod.sent < 1 << 30


async def test_a_gzip_bomb_is_received_without_being_inflated_to_its_end(pod: FakePod, client: Client) -> None:
    """H12: 2 GiB of zeros in 2 MB cost the time of 64 MiB; HTTP vouches for the length, the trailer is not reached."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    piece = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    repeated = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    body = piece + repeated * 2047
    pod.answers(by_length(body))
    assert (await take(client, pod.target, HEAP, 5, Sink(), max_bytes=1 << 30)).verified
    pod.answers(by_close(body))
    assert not (await take(client, pod.target, HEAP, 5, Sink(), max_bytes=1 << 30)).verified


def high_water() -> int:
    """VmHWM of this process in bytes."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split(maxsplit=1)[0]) << 10


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from Linux's /proc")
async def test_a_gibibyte_passes_in_flat_memory_and_the_loop_keeps_turning(pod: FakePod, client: Client) -> None:
    """PR13, G8: 1 GiB incompressible as heap costs <= 32 MiB over 1 MiB; no turn of the loop takes 50 ms of ours.

    The pod and the API server run in this process too, so that the figure is an upper bound.
    """
    digest = hashlib.sha256()
    size = 1 << 20

    async def script(writer: asyncio.StreamWriter) -> None:
        await pod.send(writer, head())
        for piece in stored(size):
            digest.update(piece)
            await pod.send(writer, piece)

    async def write(piece: bytes) -> None:
        pass

    pod.script = script
    await take(client, pod.target, HEAP, 5, write, max_bytes=2 << 30)
    await asyncio.to_thread(Path("/proc/self/clear_refs").write_text, "5")
    before = high_water()
    size, digest = 1 << 30, hashlib.sha256()
    clock = asyncio.get_running_loop().time
    lags: list[float] = []

    async def watch() -> None:
        while True:
            begun = clock()
            await asyncio.sleep(0.005)
            lags.append(clock() - begun - 0.005)

    begun = clock()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        taken = await take(client, pod.target, HEAP, 5, write, max_bytes=2 << 30)
        watching.cancel()
    took = clock() - begun
    lags.sort()
    grown = high_water() - before
    print(
        f"1 GiB in {took:.1f} s, peak +{grown / (1 << 20):.1f} MiB, "
        f"loop lag p99 {lags[len(lags) * 99 // 100] * 1000:.1f} ms, worst {lags[-1] * 1000:.1f} ms"
    )
    assert taken.sha256 == digest.hexdigest()
    assert taken.verified
    assert grown <= 32 << 20
    assert lags[len(lags) * 99 // 100] < 0.05


PROGRAM = """
package main

import (
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
)

//go:noinline
func burn() {
	for sum := 1; ; sum = sum*31 + 7 {
		if sum == 0 {
			fmt.Println(sum)
		}
	}
}

func main() {
	listener, _ := net.Listen("tcp", "127.0.0.1:0")
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	os.Stdout.Sync()
	go burn()
	http.Serve(listener, nil)
}
"""


@pytest.fixture
async def go_port(tmp_path: Path) -> AsyncIterator[int]:
    """The port of a Go process that burns CPU and serves net/http/pprof."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("there is no go command to build a real target with; install Go to run this test")
    (tmp_path / "main.go").write_text(PROGRAM)
    await asyncio.to_thread(
        subprocess.run, [go, "build", "-o", "victim", "main.go"], cwd=tmp_path, check=True, timeout=300
    )
    process = await asyncio.create_subprocess_exec(tmp_path / "victim", stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.slow
async def test_every_type_is_taken_from_a_real_go_process(go_port: int, client: Client) -> None:
    """net/http/pprof itself: all eight are whole; the burning function is on top; two CPU profiles collide."""
    target = PprofTarget("shop", "web-1", "u", "app", go_port, "/debug/pprof")
    for kind in ProfileType:
        sink = Sink()
        taken = await take(client, target, kind, 1, sink, max_bytes=64 << 20)
        assert taken.verified
        assert taken.size == len(sink.data)
        if kind is ProfileType.TRACE:
            assert re.match(rb"go 1\.\d+ trace", bytes(sink.data))
        else:
            profile = decode(bytes(sink.data))
            if kind is ProfileType.CPU:
                assert top(profile).rows[0].function == "main.burn"
    with pytest.raises(CaptureFailed) as missing:
        await take(
            client, PprofTarget("shop", "web-1", "u", "app", go_port, "/other"), HEAP, 1, Sink(), max_bytes=1 << 20
        )
    assert missing.value.reason is Reason.PROFILE_MISSING
    outcomes = await asyncio.gather(
        *(take(client, target, CPU, 1, Sink(), max_bytes=1 << 20) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in outcomes) == ["CaptureFailed", "Taken"]
    busy = next(one for one in outcomes if isinstance(one, CaptureFailed))
    assert (busy.reason, busy.retry) == (Reason.PROFILER_BUSY, True)
