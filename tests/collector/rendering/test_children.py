"""Children that hang, flood, lie, fork and die, and viewers that go away."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.collector.rendering.conftest import FOLDED, Artifact, child, children, lives, order
from toe_async.collector.errors import Refused, StoreError
from toe_async.collector.rendering.limits import RenderLimits
from toe_async.collector.rendering.renderer import Renderer, RenderOrder

QUICK = RenderLimits(wall_seconds=0.5)
"""For children that never answer."""

PATIENT = RenderLimits(wall_seconds=30, output_bytes=1 << 20)
"""For children that do, on a machine that may be busy."""

ANSWER = """
import json, os, sys
def answer(body, kind="application/json"):
    head = json.dumps({"content_type": kind, "size": len(body)}).encode()
    sys.stdout.buffer.write(len(head).to_bytes(4, "big") + head + body)
    sys.stdout.buffer.flush()
"""


async def refused(code: str, body: bytes = FOLDED, limits: RenderLimits = PATIENT) -> Refused:
    async with Renderer(limits, command=child(ANSWER + code)) as renderer:
        with pytest.raises(Refused) as raised:
            await renderer.render(order(body))
    return raised.value


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(1000)",
        "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; time.sleep(1000)",
        "while True: pass",
        "while True: os.write(2, b'noise ' * 10_000)",
        "os.write(1, b'\\0\\0\\0\\x09{'); import time; time.sleep(1000)",
    ],
    ids=["sleeps", "ignores signals", "burns", "floods stderr", "half an answer"],
)  # fmt: skip
async def test_a_child_that_does_not_answer_is_ended(code: str) -> None:
    """After the wall time, whatever it is at."""
    error = await refused(code, limits=QUICK)
    assert (error.status, error.reason) == (422, "TimedOut")


@pytest.mark.parametrize(
    "code",
    [
        "print('hello world')",
        "print('{}')",
        "while True: os.write(1, b'x' * 65536)",
        "os.write(1, b'\\0\\0\\0\\2{}' * 10_000)",
        "os.write(1, b'\\0\\0\\0\\2[]')",
        "os.write(1, b'\\0\\0\\0\\0')",
        "os.write(1, b'\\xff\\xff\\xff\\xff')",
        "answer(b'x', 'text/html')",
        "answer(b'x' * ((1 << 20) + 1))",
        "h = b'{\"content_type\": \"application/json\", \"size\": -1}'; os.write(1, len(h).to_bytes(4, 'big') + h)",
        "h = b'{\"refused\": \"Teapot\"}'; os.write(1, len(h).to_bytes(4, 'big') + h)",
        "answer(b'12345', 'text/plain; charset=utf-8')",
        "pass",
        "os.close(1); import time; time.sleep(1000)",
        "sys.exit(3)",
        "os.kill(os.getpid(), 11)",
        "os.kill(os.getpid(), 9)",
        "raise MemoryError",
    ],
)  # fmt: skip
async def test_a_child_that_answers_nonsense_is_not_believed(code: str) -> None:
    """Nothing of it reaches the viewer."""
    error = await refused(code)
    assert (error.status, error.reason) == (422, "TooComplex")
    assert error.message == "the profile could not be rendered; the collector's log says why"


async def test_an_answer_counts_once_it_is_complete() -> None:
    """What a child does afterwards, sleeping or dying, is of no interest."""
    for rest in ("import time; time.sleep(1000)", "os.kill(os.getpid(), 11)"):
        async with Renderer(PATIENT, command=child(f"{ANSWER}\nanswer(b'[1]'); {rest}")) as renderer:
            assert (await renderer.render(order())).body == b"[1]"


async def test_a_refusal_is_shown_without_what_could_harm_a_terminal_or_a_header() -> None:
    """Of the child's words, printable ones of bounded length."""
    code = (
        'h = json.dumps({"refused": "NotAProfile", "sentence": "a\\r\\nb\\x1b[2J\\u202e" + "x" * 9000}).encode()\n'
        'os.write(1, len(h).to_bytes(4, "big") + h)'
    )
    error = await refused(code)
    assert (error.status, error.reason) == (422, "NotAProfile")
    assert error.message.startswith("a??b?[2J?xxx")
    assert error.message.isprintable()
    assert len(error.message) == 500


async def test_what_a_child_says_besides_is_logged_in_part_and_never_shown() -> None:
    """A traceback holds paths."""
    with capture_logs() as logs:
        error = await refused("sys.stderr.write('secret ' * 100_000); sys.exit(1)")
    (said,) = [entry["said"] for entry in logs if "said" in entry]
    assert said.startswith("secret secret")
    assert len(said) <= PATIENT.stderr_bytes
    assert "secret" not in error.message


async def test_a_child_that_reads_nothing_holds_no_memory_of_ours() -> None:
    """The artifact is read as far as the pipe takes it."""
    artifact = Artifact(b"x" * (50 << 20))
    async with Renderer(QUICK, command=child("import time; time.sleep(1000)")) as renderer:
        with pytest.raises(Refused):
            await renderer.render(RenderOrder("top", "", None, (artifact,)))
    assert artifact.reads <= 4


async def test_a_child_that_answers_before_it_has_read_all_is_believed() -> None:
    """As one that refuses by the first bytes."""
    async with Renderer(PATIENT, command=child(f"{ANSWER}\nanswer(b'[]')")) as renderer:
        assert (await renderer.render(order(b"x" * (20 << 20)))).body == b"[]"


@pytest.mark.parametrize("leave", ["answer(str(grandchild).encode())", "os.write(1, b'x' * 100)", "os._exit(1)"])
async def test_a_process_that_a_child_started_dies_with_it(leave: str, tmp_path: Path) -> None:
    """Also one that holds the pipes open."""
    noted = tmp_path / "pid"
    code = f"""{ANSWER}
import time
ready, go = os.pipe()
grandchild = os.fork()
if grandchild == 0:
    open({str(noted)!r}, "w").write(str(os.getpid()))
    os.write(go, b"x")
    time.sleep(1000)
os.read(ready, 1)
{leave}
"""
    async with Renderer(RenderLimits(wall_seconds=60), command=child(code)) as renderer:
        with contextlib.suppress(Refused):
            await renderer.render(order())
    pid = int(await asyncio.to_thread(noted.read_text))
    async with asyncio.timeout(2):
        while await asyncio.to_thread(lives, pid):
            await asyncio.sleep(0)


async def test_a_viewer_that_goes_away_takes_the_child_along(tmp_path: Path) -> None:
    """At once and at any moment: before it runs, while it reads, while it works; none is left, not even a zombie."""
    before = await asyncio.to_thread(children)
    code = "import sys, time; sys.stdin.buffer.read(100_000); time.sleep(1000)"
    async with Renderer(RenderLimits(), command=child(code)) as renderer:
        for turns in (0, 1, 2, 3, 5, 8, 13, 50, 500):
            viewing = asyncio.get_running_loop().create_task(renderer.render(order(b"x" * (1 << 20))))
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns == 500:
                while not await asyncio.to_thread(children) - before:
                    await asyncio.sleep(0)
            viewing.cancel()
            async with asyncio.timeout(2):
                with pytest.raises(asyncio.CancelledError):
                    await viewing
            assert await asyncio.to_thread(children) == before
        async with asyncio.timeout(2):  # the places are free again
            with pytest.raises(Refused, match="as must be one of"):
                await renderer.render(order(as_="picture"))


async def test_a_source_that_fails_is_told_as_it_is() -> None:
    """The store's error reaches the caller, not a word about the profile."""

    class Broken(Artifact):
        async def read(self, offset: int, size: int) -> bytes:
            if offset:
                raise StoreError("the disk is gone")
            return await super().read(offset, size)

    class Short(Artifact):
        @property
        def size(self) -> int:
            return 1 << 20

    async with Renderer() as renderer:
        with pytest.raises(StoreError, match="the disk is gone"):
            await renderer.render(RenderOrder("top", "", None, (Broken(b"x" * (1 << 20)),)))
        with pytest.raises(StoreError, match="became shorter"):
            await renderer.render(RenderOrder("top", "", None, (Short(b"x" * 1000),)))


async def test_a_missing_program_is_our_fault_and_frees_its_place() -> None:
    """Not the viewer's."""
    async with Renderer(RenderLimits(children=1), command=("/nonexistent/python",)) as renderer:
        for _ in range(3):
            with pytest.raises(FileNotFoundError):
                await renderer.render(order())


_WALLS = (
    ANSWER
    + """
import socket, time
from toe_async.collector.rendering import frames
from toe_async.collector.rendering.confine import confine
source = sys.stdin.buffer
told = frames.order(source.read(frames.head_length(source.read(4))))
confine(told.limits, told.parent)
found = {"cwd": os.getcwd(), "env": sorted(os.environ), "sid": os.getsid(0) == os.getpid()}
def tried(name, step):
    try:
        step()
        found[name] = "done"
    except Exception as error:
        found[name] = type(error).__name__
tried("open", lambda: open("/etc/hostname").read())
tried("write", lambda: open(sys.argv[1], "w").write("x"))
tried("socket", lambda: socket.socket())
tried("pipe", os.pipe)
tried("more memory", lambda: bytearray(told.limits.address_space))
tried("raise a limit", lambda: __import__("resource").setrlimit(7, (100, 100)) if os.geteuid() else open("/dev/null"))
status = dict(line.split(":\\t", 1) for line in os.read(0, 0).decode().splitlines())
answer(json.dumps(found).encode())
"""
)


async def test_behind_its_walls_a_child_can_open_nothing(tmp_path: Path) -> None:
    """No file to read or write, no socket, no pipe, no environment; memory ends at its limit."""
    async with Renderer(command=child(_WALLS, str(tmp_path / "file"))) as renderer:
        found = json.loads((await renderer.render(order(b""))).body)
    assert found == {
        "cwd": "/",
        "env": ["LC_CTYPE"] if "LC_CTYPE" in found["env"] else [],
        "sid": True,
        "open": "OSError",
        "write": "OSError",
        "socket": "OSError",
        "pipe": "OSError",
        "more memory": "MemoryError",
        "raise a limit": "ValueError" if os.geteuid() else "OSError",
    }


_STATUS = (
    ANSWER
    + """
from toe_async.collector.rendering import frames
from toe_async.collector.rendering.confine import confine
source = sys.stdin.buffer
told = frames.order(source.read(frames.head_length(source.read(4))))
status = open("/proc/self/status")
limits = open("/proc/self/limits")
score = open("/proc/self/oom_score_adj")
confine(told.limits, told.parent)
answer(json.dumps([status.read(), limits.read(), score.read()]).encode())
"""
)


async def test_the_kernel_confirms_the_walls() -> None:
    """As /proc shows them."""
    async with Renderer(command=child(_STATUS)) as renderer:
        status, limits, score = json.loads((await renderer.render(order(b""))).body)
    assert "NoNewPrivs:\t1" in status
    rows = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()}
    assert rows["Max core file size"] == rows["Max file size"] == rows["Max processes"] == ["0", "0"]
    assert rows["Max open files"] == ["3", "3"]
    assert rows["Max cpu time"] == ["10", "11"]
    assert rows["Max address space"] == [str(384 << 20)] * 2
    assert score.strip() == "1000"


async def test_a_child_that_computes_for_ever_is_ended_by_the_kernel() -> None:
    """Its time of the processor is limited apart from the wall's."""
    burning = _WALLS.partition("found = ")[0] + "\nwhile True: pass"
    error = await refused(burning, b"", RenderLimits(cpu_seconds=1, wall_seconds=30))
    assert (error.status, error.reason) == (422, "TooComplex")
    assert error.message == "the profile could not be rendered within the time that one may take"


_PARENT = """
import asyncio, sys
from toe_async.collector.rendering.renderer import Renderer, RenderOrder
class Nothing:
    size = 0
async def main():
    async with Renderer(command=(sys.executable, "-I", "-c", sys.argv[1])) as renderer:
        await renderer.render(RenderOrder("top", "", None, (Nothing(),)))
asyncio.run(main())
"""


async def test_a_child_does_not_outlive_a_killed_collector(tmp_path: Path) -> None:
    """Not even one that looks at nothing any more."""
    noted = tmp_path / "pid"
    os.mkfifo(noted)
    code = _WALLS.partition("confine(told")[0]
    code += f"out = open({str(noted)!r}, 'w')\nconfine(told.limits, told.parent)\n"
    code += "out.write(str(os.getpid())); out.close()\ntime.sleep(1000)"

    def run() -> int:
        parent = subprocess.Popen([sys.executable, "-c", _PARENT, code])
        try:
            return int(noted.read_text())
        finally:
            parent.send_signal(signal.SIGKILL)
            parent.wait()

    pid = await asyncio.to_thread(run)
    async with asyncio.timeout(5):
        while await asyncio.to_thread(lives, pid):
            await asyncio.sleep(0)


def test_the_faster_loop_serves_as_well() -> None:
    """uvloop has transports of its own kind; a small order, a large one, a child that hangs."""
    uvloop = pytest.importorskip("uvloop")
    before = children()

    async def orders() -> list[str]:
        told = []
        async with Renderer() as renderer:
            told.append((await renderer.render(order())).content_type)
            with pytest.raises(Refused) as raised:
                await renderer.render(order(b"x" * (20 << 20)))
            told.append(raised.value.reason)
        async with Renderer(QUICK, command=child("import time; time.sleep(1000)")) as renderer:
            with pytest.raises(Refused) as raised:
                await renderer.render(order(b"x" * (20 << 20)))
            told.append(raised.value.reason)
        return told

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(orders()) == ["application/json", "NotAProfile", "TimedOut"]
    assert children() <= before
