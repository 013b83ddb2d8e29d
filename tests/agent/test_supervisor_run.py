"""Whole runs: a real supervisor, real tools, the channel over pipes."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from supervised import Supervised, alive, gone, orders, python, state_of

from toe_async.agent.protocol import orders_message

SLEEP = python("import time; print('on', flush=True); time.sleep(60)")
STUBBORN = python(
    "import signal, time\nsignal.signal(15, signal.SIG_IGN); signal.signal(2, signal.SIG_IGN)\n"
    "print('on', flush=True)\nwhile True: time.sleep(60)"
)


def run(folder: Path, argv: tuple[str, ...], **other: Any) -> dict[str, Any]:
    """The result of a run that nobody disturbs."""
    with Supervised(orders(*argv, **other), folder) as one:
        one.order()
        return one.result()


def names(result: dict[str, Any]) -> list[str]:
    return [leaf["name"] for leaf in result["leaves"]]


def test_a_tool_that_ends_well_is_completed_with_its_output(tmp_path: Path) -> None:
    text = "import sys; print('found'); print('words', file=sys.stderr); open(sys.argv[1] + '/x.txt', 'w').write('y')"
    told = orders(*python(text), "{output}", compress="none", keep_seconds=5.0)
    with Supervised(told, tmp_path) as one:
        one.until("ready", capture="capture")
        one.order()
        one.until("accepted")
        result = one.until("result")
        kept = tmp_path / "toe-capture" / "leaves"
        assert {path.name: path.read_text() for path in kept.iterdir()} == {
            "tool.out": "found\n",
            "x.txt": "y",
            "tool.log": "words\n",
        }
        one.tell("cancel")
        assert one.process.wait(10) == 0
    assert (result["outcome"], result["exit_code"], result["signal"]) == ("completed", 0, None)
    assert not (tmp_path / "toe-capture").exists()


def test_the_event_tells_all_leaves_though_the_termination_message_has_room_for_few(tmp_path: Path) -> None:
    text = "import sys\nfor n in range(120): open(f'{sys.argv[1]}/{n:03d}.txt', 'w').write('y')"
    result = run(tmp_path, (*python(text), "{output}"), compress="none")
    assert names(result) == [f"{number:03d}.txt" for number in range(120)]
    assert result["more_leaves"] == 0
    assert 0 < len(json.loads((tmp_path / "termination-log").read_text())["leaves"]) < 60


@pytest.mark.parametrize("code", [1, 124, 137])
def test_a_tool_that_fails_is_failed_with_its_code_and_last_words(tmp_path: Path, code: int) -> None:
    result = run(tmp_path, python(f"import sys; print('some'); print('no device', file=sys.stderr); sys.exit({code})"))
    assert (result["outcome"], result["reason"], result["exit_code"]) == ("failed", "ToolFailed", code)
    assert result["message"] == f"tool exited with {code}: no device"
    assert names(result) == ["tool.out.gz", "tool.log"]


def test_a_tool_that_is_killed_by_somebody_else_is_failed_with_the_signal(tmp_path: Path) -> None:
    result = run(tmp_path, python("import os, signal; print('x', flush=True); os.kill(os.getpid(), 9)"))
    assert (result["outcome"], result["reason"], result["exit_code"], result["signal"]) == (
        "failed",
        "ToolFailed",
        None,
        9,
    )


def test_a_tool_that_leaves_nothing_is_failed(tmp_path: Path) -> None:
    result = run(tmp_path, python("import sys; print('only words', file=sys.stderr)"))
    assert (result["outcome"], result["reason"]) == ("failed", "NoOutput")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("no-such-program-here",), "No such file or directory"),
        (("/",), "Permission denied"),
        (("sh", "-c", "a\0b"), "NUL"),
        (("sh", "\ud800"), "surrogates not allowed"),
    ],
)
def test_a_program_that_cannot_be_started_says_why(tmp_path: Path, argv: tuple[str, ...], words: str) -> None:
    result = run(tmp_path, argv)
    assert (result["outcome"], result["reason"]) == ("failed", "ToolFailed")
    assert words in result["message"]


def test_at_its_time_a_tool_is_ended_and_that_is_success(tmp_path: Path) -> None:
    result = run(tmp_path, SLEEP, duration=0.4)
    assert (result["outcome"], result["signal"]) == ("completed", signal.SIGTERM)
    assert 0.4 <= result["seconds"] < 2


def test_a_tool_that_will_not_end_is_killed_and_has_timed_out(tmp_path: Path) -> None:
    result = run(tmp_path, STUBBORN, duration=0.3, grace=0.3)
    assert (result["outcome"], result["reason"], result["signal"]) == ("failed", "CaptureTimedOut", signal.SIGKILL)
    assert names(result) == ["tool.out.gz"]


def test_a_tool_that_knows_its_duration_gets_the_grace_to_end_by_itself(tmp_path: Path) -> None:
    text = "import sys, time; time.sleep(float(sys.argv[1]) + 0.3); print('written late')"
    result = run(tmp_path, (*python(text), "{duration}"), duration=0.3)
    assert (result["outcome"], result["exit_code"], names(result)) == ("completed", 0, ["tool.out.gz"])


def test_a_tool_that_traces_is_asked_by_sigint_first(tmp_path: Path) -> None:
    text = (
        "import signal, sys, time\n"
        "for n in (2, 15): signal.signal(n, lambda n, _: (print(n, flush=True), n == 15 and sys.exit(0)))\n"
        "print('on', flush=True)\nwhile True: time.sleep(60)"
    )
    told = orders(*python(text), duration=0.3, grace=0.6, throttle="abort", compress="none", keep_seconds=5.0)
    with Supervised(told, tmp_path) as one:
        one.order()
        assert one.until("result")["outcome"] == "completed"
        assert (tmp_path / "toe-capture/leaves/tool.out").read_text() == "on\n2\n15\n"
        one.tell("cancel")
        one.process.wait(10)


def test_the_tool_sees_its_arguments_as_they_are_and_hardly_any_environment(tmp_path: Path) -> None:
    text = (
        "import json, os, sys; json.dump([sys.argv[1:], dict(os.environ), os.getcwd(), os.read(0, 9).decode(),"
        " sorted(os.listdir('/proc/self/fd')), open('/proc/self/oom_score_adj').read(), os.getsid(0) == os.getpid(),"
        " os.nice(0)], open('seen.json', 'w'))"
    )
    argv = (*python(text), "{duration}", "{output}", "$(id)", "{{x}}", "")
    told = orders(*argv, compress="none", keep_seconds=5.0, nice=5)
    with Supervised(told, tmp_path, environment={"TOKEN": "canary", "LANG": "C"}) as one:
        one.order()
        one.until("result", outcome="completed")
        seen = json.loads((tmp_path / "toe-capture/leaves/seen.json").read_text())
        one.tell("cancel")
        one.process.wait(10)
    out = str(tmp_path / "toe-capture/out")
    assert seen[0] == ["10", out, "$(id)", "{x}", ""]
    assert seen[1].keys() <= {"PATH", "LANG", "LC_ALL", "HOME", "TZ", "LD_LIBRARY_PATH", "JAVA_HOME", "LC_CTYPE"}
    assert seen[2:4] == [out, ""]
    assert seen[4] == ["0", "1", "2", "3"], "the fourth is the listing's own"
    assert seen[5] == "1000\n"
    assert seen[6] is True
    assert seen[7] >= 5


def test_nothing_that_the_tool_started_survives_it(tmp_path: Path) -> None:
    text = (
        "import os, signal, sys, time\n"
        "def child(session):\n"
        "    if os.fork(): return\n"
        "    if session: os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        "    signal.signal(15, signal.SIG_IGN)\n"
        "    open(f'{os.getpid()}.pid', 'w').write('x')\n"
        "    time.sleep(60)\n"
        "child(True); child(False)\n"
        "while len(os.listdir('.')) < 2: time.sleep(0.01)\n"
        "print('done')"
    )
    result = run(tmp_path, python(text))
    survivors = [int(name.split(".")[0]) for name in names(result) if ".pid" in name]
    assert result["outcome"] == "completed"
    assert len(survivors) == 2
    assert not any(alive(pid) for pid in survivors)


def test_a_process_that_left_the_group_before_the_deadline_is_ended_too(tmp_path: Path) -> None:
    text = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); open(f'{os.getpid()}.pid', 'w').write('x'); time.sleep(60)\n"
        "time.sleep(60)"
    )
    result = run(tmp_path, python(text), duration=1.0)
    (pid,) = [int(name.split(".")[0]) for name in names(result)]
    assert result["outcome"] == "completed"
    assert not alive(pid)


def test_other_orders_change_nothing_and_the_same_again_tell_the_state(tmp_path: Path) -> None:
    with Supervised(orders(*SLEEP, keep_seconds=5.0), tmp_path) as one:
        one.until("ready")
        one.send(orders_message(orders("sh", "-c", "echo slipped in")))
        one.until("refused", message="the orders are not those that the container's arguments name")
        one.running()
        one.order()
        one.until("accepted")
        one.until("state", phase="running")
        one.send(orders_message(orders("sh", "-c", "echo slipped in")))
        one.until("refused")
        one.tell("heartbeat")
        one.until("state", phase="running")
        one.tell("cancel")
        one.until("result", outcome="cancelled")
        one.order()
        one.until("result", outcome="cancelled")


def test_a_cancelled_run_keeps_what_it_has_collected(tmp_path: Path) -> None:
    with Supervised(orders(*SLEEP), tmp_path) as one:
        pid = one.running()
        one.tell("cancel", capture="another")
        one.until("refused")
        assert alive(pid)
        one.tell("cancel")
        result = one.result()
        assert one.process.returncode == 4
    assert (result["outcome"], result["reason"], names(result)) == ("cancelled", "Cancelled", ["tool.out.gz"])
    assert gone(pid)


def test_a_discarded_run_keeps_nothing(tmp_path: Path) -> None:
    with Supervised(orders(*SLEEP), tmp_path) as one:
        one.running()
        one.tell("cancel", discard=True)
        result = one.result()
    assert (result["outcome"], names(result)) == ("cancelled", [])
    assert os.listdir(tmp_path) == ["termination-log"]


def test_a_cancel_during_the_warm_up_starts_no_tool(tmp_path: Path) -> None:
    with Supervised(orders(*SLEEP, warmup=60.0), tmp_path) as one:
        one.order()
        one.until("state", phase="warmup")
        one.tell("cancel")
        result = one.result()
    assert (result["outcome"], result["seconds"]) == ("cancelled", 0.0)


def test_the_tool_starts_after_its_warm_up(tmp_path: Path) -> None:
    began = time.monotonic()
    result = run(tmp_path, python("print(1)"), warmup=0.5)
    assert result["outcome"] == "completed"
    assert time.monotonic() - began > 0.5
    assert result["seconds"] < 0.5


def test_without_orders_it_ends_after_its_wait_and_says_so(tmp_path: Path) -> None:
    with Supervised(orders("x"), tmp_path, wait=0) as one:
        result = one.result()
        assert one.process.returncode == 3
    assert (result["outcome"], result["reason"]) == ("failed", "NotStarted")


def test_a_silent_operator_ends_a_tool_that_needs_its_heartbeat(tmp_path: Path) -> None:
    result = run(tmp_path, SLEEP, heartbeat_seconds=0.6)
    assert (result["outcome"], result["reason"]) == ("failed", "HeartbeatLost")
    assert 0.5 < result["seconds"] < 3


def test_heartbeats_keep_such_a_tool_alive(tmp_path: Path) -> None:
    with Supervised(orders(*SLEEP, heartbeat_seconds=0.6, duration=1.2), tmp_path) as one:
        one.running()
        for _ in range(6):
            one.tell("heartbeat")
            one.until("state")
            time.sleep(0.15)
        assert one.result()["outcome"] == "completed"


def test_a_tool_without_heartbeat_runs_on_when_the_operator_is_gone(tmp_path: Path) -> None:
    with Supervised(orders(*SLEEP, duration=0.5), tmp_path) as one:
        one.running()
        assert one.process.stdin is not None
        assert one.process.stdout is not None
        one.process.stdin.close()
        one.process.stdout.close()
        assert one.process.wait(10) == 0
        assert json.loads(one.report.read_bytes())["outcome"] == "completed"


def test_output_beyond_its_bound_ends_the_tool_and_is_marked(tmp_path: Path) -> None:
    text = "import time\nfor n in range(5): open(f'{n}.bin', 'wb').write(b'x' * 40_000)\ntime.sleep(60)"
    result = run(tmp_path, python(text), max_output_bytes=50_000)
    assert (result["outcome"], result["reason"]) == ("completed", "Truncated")
    assert "50000 bytes" in result["message"]


def test_a_file_beyond_its_bound_ends_the_tool_and_is_too_large(tmp_path: Path) -> None:
    text = "import signal, os; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\nwhile True: os.write(1, b'x' * 4096)"
    result = run(tmp_path, python(text), max_output_bytes=100_000)
    assert (result["outcome"], result["reason"], result["signal"]) == ("failed", "TooLarge", signal.SIGXFSZ)
    assert names(result) == ["tool.out.gz"]


def test_memory_beyond_its_bound_ends_the_tool(tmp_path: Path) -> None:
    text = "import time; print(1, flush=True); held = bytearray(b'x') * (200 << 20); time.sleep(60)"
    result = run(tmp_path, python(text), memory_bytes=64 << 20)
    assert (result["outcome"], result["reason"]) == ("failed", "HarmGuard")
    assert result["max_rss_bytes"] > 64 << 20
    assert result["seconds"] < 10


def test_a_flood_on_stderr_is_kept_to_its_last_64_kib(tmp_path: Path) -> None:
    text = "import os; print(1)\nfor n in range(30000): os.write(2, b'%09d\\n' % n)"
    told = orders(*python(text), compress="none", keep_seconds=5.0)
    with Supervised(told, tmp_path) as one:
        one.order()
        one.until("result", outcome="completed")
        log = (tmp_path / "toe-capture/leaves/tool.log").read_bytes()
        one.tell("cancel")
        one.process.wait(10)
    assert len(log) == 64 << 10
    assert log.endswith(b"000029999\n")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "toe-capture").symlink_to("/nowhere")
    result = run(tmp_path, SLEEP)
    assert (result["outcome"], result["reason"]) == ("failed", "ContainerFailed")


def test_a_target_that_is_not_here_fails_a_tool_that_needs_it(tmp_path: Path) -> None:
    result = run(tmp_path, ("echo", "{target_pid}"), target_pod_uid="0b3f2c4e-9f6c-4b7e-8d55-2f0c9f1d7a10")
    assert (result["outcome"], result["reason"]) == ("failed", "TargetContainerMissing")


@pytest.mark.parametrize("ids", [{}, {"target_pod_uid": "uid", "target_container_id": "c0ffee"}])
def test_where_there_are_no_namespaces_the_target_is_at_the_process_that_is_named(
    tmp_path: Path, ids: dict[str, str]
) -> None:
    told = orders("echo", "{target_pid}", "{target_root}", compress="none", keep_seconds=5.0, **ids)
    with (
        subprocess.Popen(("sh", "-c", "sleep 60; :"), start_new_session=True) as there,
        Supervised(told, tmp_path, first=there.pid) as one,
    ):
        one.order()
        one.until("result", outcome="completed")
        pid, root = (tmp_path / "toe-capture/leaves/tool.out").read_text().split()
        one.tell("cancel")
        os.killpg(there.pid, signal.SIGKILL)
    assert int(pid) != there.pid, "it is behind the shell"
    assert root == f"/proc/{pid}/root"


def test_orders_whose_output_cannot_be_stored_end_the_tool_at_once(tmp_path: Path) -> None:
    result = run(tmp_path, SLEEP, compress="lzma", duration=60.0)
    assert (result["outcome"], result["reason"]) == ("failed", "InvalidSpec")


def test_a_supervisor_killed_while_it_stores_leaves_word_of_it(tmp_path: Path) -> None:
    told = orders(*python("print('x')"), mode="collector", endpoint="http://127.0.0.1:9", upload_seconds=60.0)
    with Supervised(told, tmp_path) as one:
        one.order()
        one.until("need-token")
        one.process.kill()
        one.process.wait(10)
        said = json.loads(one.report.read_bytes())
    assert (said["outcome"], said["reason"], said["exit_code"]) == ("failed", "UploadFailed", 0)


def test_a_stopped_tool_is_continued_to_be_ended(tmp_path: Path) -> None:
    with Supervised(orders(*SLEEP, duration=0.8), tmp_path) as one:
        pid = one.running()
        os.kill(pid, signal.SIGSTOP)
        while state_of(pid) != "T":
            time.sleep(0.01)
        result = one.result()
    assert (result["outcome"], result["signal"]) == ("completed", signal.SIGTERM)
