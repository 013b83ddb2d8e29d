"""Every effect is there while the tool runs, and gone when it ends, however it ends: SIGTERM, SIGINT or SIGKILL."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from toe_async.agent.chaos.effect import ChaosError
from toe_async.agent.chaos.load import headroom
from toe_async.agent.chaos.main import effect_of
from toe_async.agent.chaos.network import rules

ENDS = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs the rights of root for mounts and packet filters")


class Tool:
    """The tool as its supervisor starts it: a process of its own group whose stdout is read line by line."""

    def __init__(self, *words: str, target: int = 1, seconds: float = 30, prefix: tuple[str, ...] = ()) -> None:
        argv = [*prefix, sys.executable, "-m", "toe_async.agent.chaos"]
        argv += ["--target", str(target), "--seconds", str(seconds), *words]
        self.process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event; the tool's end is a failure that shows what it said."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said: dict[str, Any] = json.loads(line)
            if said["event"] == name:
                return said
        assert self.process.stderr is not None
        raise AssertionError(f"no event {name}: {self.process.stderr.read()}")

    def end(self, number: int) -> None:
        """As a supervisor ends it: the whole group."""
        os.killpg(self.process.pid, number)
        self.process.wait(10)

    def result(self) -> tuple[int, str]:
        """Wait for the end that comes by itself."""
        _, said = self.process.communicate(timeout=20)
        return self.process.returncode, said


@contextmanager
def _tool(*words: str, **more: Any) -> Iterator[Tool]:
    tool = Tool(*words, **more)
    try:
        yield tool
    finally:
        if tool.process.poll() is None:
            os.killpg(tool.process.pid, signal.SIGKILL)
        tool.process.communicate()


@contextmanager
def _target(program: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def _until(what: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _states(pid: int) -> set[str]:
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        found.add(task.joinpath("stat").read_text().rpartition(")")[2].split()[0])
    return found


THREADS = """
import threading, time, sys
for _ in range(3):
    threading.Thread(target=lambda: [time.sleep(0.001) for _ in iter(int, 1)], daemon=True).start()
print("up", flush=True)
while True:
    time.sleep(0.001)
"""


@pytest.mark.parametrize("end", ENDS)
def test_a_suspended_process_stands_still_in_all_its_threads_and_runs_on(end: signal.Signals) -> None:
    with _target(THREADS) as target, _tool("process", "suspend", "30", "1", target=target.pid) as tool:
        assert tool.event("suspended")["threads"] == 4
        assert _states(target.pid) == {"t"}
        tool.end(end)
        assert _until(lambda: not _states(target.pid) & {"t", "T"})


def test_a_suspended_process_runs_by_turns_and_after_the_time() -> None:
    with _target(THREADS) as target, _tool("suspend", "1", "1", target=target.pid, seconds=1.5) as tool:
        tool.event("suspended")
        tool.event("resumed")
        assert not _states(target.pid) & {"t", "T"}
        tool.event("ended")
        assert tool.result()[0] == 0


def test_children_of_the_target_stand_still_too_and_we_do_not() -> None:
    program = "import os, time; os.fork(); print('up', flush=True); time.sleep(60)"
    with _target(program) as target, _tool("suspend", "30", "1", target=target.pid) as tool:
        assert tool.event("suspended")["threads"] == 2
        children = Path(f"/proc/{target.pid}/task/{target.pid}/children").read_text().split()
        assert [_states(int(child)) for child in children] == [{"t"}]
        tool.end(signal.SIGKILL)
        os.kill(int(children[0]), signal.SIGKILL)


def test_the_tool_ends_when_its_supervisor_is_gone() -> None:
    starter = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', 'toe_async.agent.chaos', '--target', "
        "sys.argv[1], '--seconds', '60', 'suspend', '30', '1'], stdout=subprocess.PIPE); "
        "p.stdout.readline(); print(p.pid, flush=True); sys.stdin.read()"
    )
    with _target(THREADS) as target:
        argv = [sys.executable, "-c", starter, str(target.pid)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as supervisor:
            assert supervisor.stdout is not None
            supervisor.stdout.readline()
            assert _until(lambda: _states(target.pid) == {"t"})
            supervisor.kill()
        assert _until(lambda: not _states(target.pid) & {"t", "T"})


def test_a_process_without_a_handler_follows_sigterm() -> None:
    with _target(THREADS) as target, _tool("process", "terminate-graceful", target=target.pid) as tool:
        watcher = _until(lambda: target.poll() is not None)
        assert watcher
        assert tool.event("terminated")["pid"] == target.pid
        assert target.returncode == -signal.SIGTERM


def test_a_process_that_holds_out_against_sigterm_is_killed_by_force() -> None:
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    with _target(program) as target, _tool("terminate-force", target=target.pid) as tool:
        assert _until(lambda: target.poll() is not None)
        assert target.returncode == -signal.SIGKILL
        assert tool.result()[0] == 0


@needs_root
def test_the_first_process_of_a_namespace_is_killed_from_inside() -> None:
    inner = (
        "import subprocess, sys, time; "
        "subprocess.Popen([sys.executable, '-m', 'toe_async.agent.chaos', '--target', '1', '--seconds', '9', "
        "'terminate-force']); time.sleep(60)"
    )
    with subprocess.Popen(["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", inner]) as holder:
        assert holder.wait(20) != 0


@needs_root
def test_a_first_process_that_would_never_see_sigterm_is_told_instead_of_claimed() -> None:
    inner = (
        "import subprocess, sys; "
        "sys.exit(subprocess.run([sys.executable, '-m', 'toe_async.agent.chaos', '--target', '1', '--seconds', '9', "
        "'terminate-graceful']).returncode)"
    )
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", inner],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 1
    assert "use terminate-force" in done.stderr


def test_a_target_that_is_not_there_is_an_error() -> None:
    with _tool("terminate-force", target=2**22 + 1) as tool:
        code, said = tool.result()
        assert code == 1
        assert "is not there" in said


@pytest.mark.parametrize("end", ENDS)
def test_memory_is_memory_and_is_given_back(end: signal.Signals) -> None:
    with _tool("memory", "pressure", "48", "spike") as tool:
        tool.event("begun")
        status = Path(f"/proc/{tool.process.pid}/status")

        def resident() -> int:
            line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
            return int(line.split()[1]) >> 10

        assert _until(lambda: resident() >= 48)
        tool.end(end)


def test_memory_comes_in_the_shape_that_is_asked_for() -> None:
    from toe_async.agent.chaos.load import Memory

    def held(shape: str, at: float) -> int:
        effect = Memory(8, shape, 10.0)
        effect.tick(at)
        count = len(effect._held)
        effect.end()
        return count

    assert [held("linear", at) for at in (0.0, 4.0, 8.0, 10.0)] == [0, 4, 8, 8]
    assert [held("spike", at) for at in (0.0, 9.0)] == [8, 8]
    assert [held("oscillating", at) for at in (0.0, 1.0, 2.0, 3.0)] == [0, 8, 0, 8]


def test_memory_that_would_get_somebody_killed_is_refused() -> None:
    free = headroom()
    assert free is not None
    with _tool("memory", "pressure", str(free >> 20), "spike") as tool:
        code, said = tool.result()
        assert code == 1
        assert "ask for less" in said


@pytest.mark.slow
def test_cpu_is_used_as_asked_within_five_points() -> None:
    with _tool("cpu", "30") as tool:
        tool.event("begun")
        children = Path(f"/proc/{tool.process.pid}/task/{tool.process.pid}/children")
        worker = int(children.read_text().split()[0])

        def used() -> float:
            fields = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        _until(lambda: used() > 0.1)
        first, began = used(), time.monotonic()
        _until(lambda: time.monotonic() - began > 4.0, 5.0)
        assert (used() - first) / (time.monotonic() - began) == pytest.approx(0.30, abs=0.05)
        tool.end(signal.SIGKILL)
        assert _until(lambda: not Path(f"/proc/{worker}").exists())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def _used(path: Path) -> float:
    held = os.statvfs(path)
    return 100 * (1 - held.f_bfree / held.f_blocks)


@needs_root
@pytest.mark.parametrize("end", ENDS)
def test_a_file_system_is_filled_as_far_as_asked_and_freed(end: signal.Signals, small_disk: Path) -> None:
    with _tool("storage", "75", str(small_disk)) as tool:
        tool.event("begun")
        assert _used(small_disk) == pytest.approx(75, abs=1)
        assert list(small_disk.iterdir()) == []
        tool.end(end)
    assert _until(lambda: _used(small_disk) < 1)


@needs_root
def test_a_target_s_own_file_system_is_known_as_the_target_has_it(tmp_path: Path) -> None:
    """A memory volume that only the target has mounted is none of the node's."""
    program = (
        "import subprocess, time; "
        f"subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=16m', 'none', {str(tmp_path)!r}], "
        "check=True); print('up', flush=True); time.sleep(60)"
    )
    argv = ["unshare", "--mount", sys.executable, "-c", program]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as target:
        try:
            assert target.stdout is not None
            target.stdout.readline()
            root = f"/proc/{target.pid}/root"
            with _tool("--root", root, "storage", "50", str(tmp_path)) as tool:
                assert tool.event("filled")["bytes"] == pytest.approx(8 << 20, abs=1 << 20)
                assert _used(Path(root + str(tmp_path))) == pytest.approx(50, abs=1)
        finally:
            target.kill()


@needs_root
def test_a_file_system_that_is_as_full_already_is_an_error(small_disk: Path) -> None:
    (small_disk / "held").write_bytes(bytes(10 << 20))
    with _tool("storage", "50", str(small_disk)) as tool:
        code, said = tool.result()
        assert code == 1
        assert "already" in said


def test_the_nodes_own_disk_is_never_filled(tmp_path: Path) -> None:
    from toe_async.agent.chaos.storage import Fill

    class Small(Fill):
        taken = 0

        def _take(self, size: int) -> None:
            type(self).taken = size

    held = os.statvfs(tmp_path)
    used = 100 * (1 - held.f_bfree / held.f_blocks)
    if used >= 79:
        with pytest.raises(ChaosError, match="already"):
            Small("/", str(tmp_path), 95).begin()
        return
    effect = Small("/", str(tmp_path), 95)
    effect.begin()
    effect.end()
    after = used + 100 * Small.taken / (held.f_blocks * held.f_frsize)
    assert after <= 80.5
    assert Small.taken <= held.f_bavail * held.f_frsize - (512 << 20)


def test_a_link_is_not_followed_out_of_the_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    with _tool("--root", str(tmp_path), "storage", "5", "/link") as tool:
        code, said = tool.result()
        assert code == 1
        assert "not a link" in said


BLOCK = """
import json, socket, subprocess, sys, signal, os
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
server = socket.create_server(("127.0.0.1", 0)); port = server.getsockname()[1]
other = socket.create_server(("127.0.0.1", 0)); free = other.getsockname()[1]

def reached(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.3).close()
        return True
    except OSError:
        return False

argv = [sys.executable, "-m", "toe_async.agent.chaos", "--target", "1", "--seconds", "30"]
tool = subprocess.Popen([*argv, "network", "connectivity", "127.0.0.1", str(port)], stdout=subprocess.PIPE,
                        start_new_session=True)
before = reached(free)
said = json.loads(tool.stdout.readline())
during = (said["event"], reached(port), reached(free))
os.killpg(tool.pid, int(sys.argv[1])) if sys.argv[2] == "group" else os.kill(tool.pid, int(sys.argv[1]))
tool.wait()
deadline = __import__("time").monotonic() + 5
while not (after := reached(port)) and __import__("time").monotonic() < deadline:
    pass
tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
print(json.dumps([before, during, after, tables]))
"""


@needs_root
@pytest.mark.skipif(not (shutil.which("nft") and shutil.which("ip")), reason="needs the programs nft and ip")
@pytest.mark.slow
@pytest.mark.parametrize("whom", ["group", "tool alone"])
@pytest.mark.parametrize("end", ENDS)
def test_one_port_is_out_of_reach_and_back(end: signal.Signals, whom: str) -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", BLOCK, str(int(end)), whom],
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, ["blocked", False, True], True, ""]


def test_rules_name_each_address_in_its_family() -> None:
    text = rules("t", ["10.0.0.1", "fd00::1"], 80)
    assert "ip daddr 10.0.0.1 tcp dport 80 drop" in text
    assert "ip6 daddr fd00::1 udp dport 80 drop" in text
    assert text.startswith("add table inet t { flags owner; }\n")


@pytest.mark.parametrize(
    "words",
    [
        "nonsense",
        "process cpu 5",
        "process",
        "cpu",
        "cpu x[$(id)]",
        "cpu 5 5",
        "cpu 0",
        "cpu 100000",
        "memory 5",
        "memory pressure 5 sideways",
        "memory pressure 0",
        "network connectivity example.org",
        "network connectivity example.org 70000",
        "storage 96 /tmp",
        "storage 50 tmp",
        "storage 50 /a/../b",
        "suspend 5",
        "suspend 0 5",
        "terminate-force 1",
        "exec id",
    ],
)
def test_words_that_are_no_effect_are_refused(words: str) -> None:
    with pytest.raises(ChaosError):
        effect_of(words.split(), 1, "/", 10.0)


def test_wrong_words_end_with_usage_and_code_two() -> None:
    with _tool("nonsense") as tool:
        code, said = tool.result()
        assert code == 2
        assert "memory pressure MIB" in said


@needs_root
@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("effect", ["suspend", "storage", "memory"])
def test_whenever_the_tool_is_killed_its_target_is_as_before(effect: str, small_disk: Path) -> None:
    """Twenty instants from its first moment on, each of the three signals in turn."""
    words = {
        "suspend": ("suspend", "30", "1"),
        "storage": ("storage", "75", str(small_disk)),
        "memory": ("memory", "pressure", "16", "spike"),
    }[effect]
    for point in range(20):
        with _target(THREADS) as target, _tool(*words, target=target.pid) as tool:
            time.sleep(point * 0.02)
            tool.end(ENDS[point % len(ENDS)])
            assert _until(lambda pid=target.pid: not _states(pid) & {"t", "T"})  # type: ignore[misc]
            assert _until(lambda: _used(small_disk) < 1)
