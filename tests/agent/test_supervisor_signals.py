"""Killed at any moment: the tool is gone, and a result is there whenever there was time to write one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from supervised import Supervised, gone, orders, python

from toe_async.agent.main import main

POINTS = [point * 0.06 for point in range(20)]
SAMPLE = [POINTS[0], POINTS[6], POINTS[13]]
BUSY = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); print('on', flush=True)\nwhile True: pass"


def interrupted(folder: Path, number: int, delay: float) -> None:
    """One run with a busy tool that is stopped most of the time, and the supervisor signalled after `delay`."""
    noted = folder / "pid"
    with Supervised(orders(*python(BUSY), str(noted), cpu_percent=10.0, duration=0.7, grace=0.5), folder) as one:
        one.until("ready")
        one.order()
        time.sleep(delay)
        one.process.send_signal(number)
        one.process.wait(15)
        if number != signal.SIGKILL:
            said = json.loads(one.report.read_bytes())
            assert said["outcome"] in {"cancelled", "completed"}
            assert one.process.returncode == {"cancelled": 4, "completed": 0}[said["outcome"]]
        if noted.exists() and (text := noted.read_text()):
            assert gone(int(text)), "the tool outlived its supervisor"


@pytest.mark.parametrize("delay", SAMPLE)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_the_supervisor_leaves_no_tool_behind(tmp_path: Path, number: int, delay: float) -> None:
    interrupted(tmp_path, number, delay)


@pytest.mark.nightly
@pytest.mark.parametrize("delay", POINTS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_at_every_point_leaves_no_tool_behind(tmp_path: Path, number: int, delay: float) -> None:
    interrupted(tmp_path, number, delay)


def test_the_end_of_the_pod_is_quick_whatever_the_grace(tmp_path: Path) -> None:
    text = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True)\nwhile True: time.sleep(9)"
    with Supervised(orders(*python(text), grace=0.4, upload_seconds=600.0), tmp_path) as one:
        one.running()
        began = time.monotonic()
        one.process.terminate()
        result = one.result()
    assert (result["outcome"], result["signal"]) == ("cancelled", signal.SIGKILL)
    assert [leaf["name"] for leaf in result["leaves"]] == ["tool.out.gz"]
    assert time.monotonic() - began < 5


def test_a_signal_ends_the_keeping_and_the_result_stays_what_it_was(tmp_path: Path) -> None:
    with Supervised(orders(*python("print('x')"), keep_seconds=600.0), tmp_path) as one:
        one.order()
        one.until("state", phase="keeping")
        one.process.terminate()
        assert one.process.wait(10) == 0
    assert not (tmp_path / "toe-capture").exists()


def test_the_commands_that_fetch_work_beside_a_run_that_keeps(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    root = ["--state-root", str(tmp_path)]
    with Supervised(orders(*python("print('x' * 9)"), keep_seconds=600.0, compress="none"), tmp_path) as one:
        assert main(["list", *root]) == 1
        one.order()
        one.until("state", phase="keeping")
        capfdbinary.readouterr()
        assert main(["list", *root]) == 0
        assert json.loads(capfdbinary.readouterr().out)["leaves"][0]["name"] == "tool.out"
        assert main(["fetch", "../stdout", *root]) == 1
        assert main(["fetched", *root]) == 0
        assert one.process.wait(10) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["walk"],
        ["run"],
        ["run", "--capture", "../x", "--orders", "a" * 64, "--wait", "1"],
        ["run", "--capture", "x", "--orders", "A" * 64, "--wait", "1"],
        ["run", "--capture", "x", "--orders", "a" * 64, "--wait", "-1"],
        ["run", "--capture"],
        ["fetch"],
        ["fetch", "a", "b"],
        ["fetch", "a", "--offset", "-1"],
        ["list", "--offset", "1"],
    ],
)
def test_a_wrong_command_line_is_usage_and_does_nothing(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "run --capture ID" in capsys.readouterr().err


def test_nobody_of_our_own_user_may_read_the_supervisors_memory() -> None:
    if os.getuid() != 0:
        pytest.skip("only root may become somebody else to try")
    text = (
        "import ctypes, os\nfrom toe_async.agent import kernel\n"
        "os.setuid(65534); ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"
        "def seen():\n"
        "    if (pid := os.fork()) == 0:\n"
        "        try: open(f'/proc/{os.getppid()}/environ').read(); os._exit(1)\n"
        "        except PermissionError: os._exit(0)\n"
        "    return os.waitpid(pid, 0)[1]\n"
        "before = seen(); print(before != 0, kernel.hide_memory(), seen())"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, check=True, text=True)
    assert done.stdout == "True True 0\n"


def test_the_supervisor_offers_itself_before_its_target_when_memory_is_short(tmp_path: Path) -> None:
    with Supervised(orders(*python("print(1)")), tmp_path) as one:
        one.until("ready")
        assert Path(f"/proc/{one.process.pid}/oom_score_adj").read_text() == "1000\n"
