"""A channel that anybody with the right to attach may write to, or refuse to read from."""

import json
import os
import random
import time
from pathlib import Path

from supervised import Supervised, gone, orders, python

from toe_async.agent.protocol import message

SLEEP = python("import time; print('on', flush=True); time.sleep(60)")


def memory(pid: int) -> int:
    """The most that it ever held, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def ticks(pid: int) -> int:
    """Hundredths of a second of CPU so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_garbage_of_every_kind_is_refused_in_bounded_memory_and_the_run_goes_on(tmp_path: Path) -> None:
    noise = random.Random(5).randbytes(200_000)
    with Supervised(orders(*SLEEP, duration=2.5), tmp_path) as one:
        one.until("ready")
        before = memory(one.process.pid)
        one.send(b"not json\n" * 50 + noise.replace(b"\n", b"") + b"\n")
        one.send(b'{"type":"orders","orders":' + b"[" * 100_000 + b"\n")
        one.send(b"x" * 2_000_000 + b"\n" + message("token", token="t", capture="other"))
        for words in ("the message is no JSON of this channel", "the message is too long"):
            one.until("refused", message=words)
        one.until("refused", message="the message is for another capture")
        one.running()
        grown = memory(one.process.pid) - before
        result = one.result()
    assert result["outcome"] == "completed"
    assert grown < 12 << 10


def test_a_flood_costs_little_cpu(tmp_path: Path) -> None:
    with Supervised(orders(*SLEEP), tmp_path) as one:
        one.until("ready")
        assert one.process.stdin is not None
        os.set_blocking(one.process.stdin.fileno(), False)
        before, began = ticks(one.process.pid), time.monotonic()
        while time.monotonic() - began < 1.0:
            try:
                os.write(one.process.stdin.fileno(), b'{"type":"heartbeat","capture":"other"}\n' * 1000)
            except BlockingIOError:
                time.sleep(0.005)
        spent = ticks(one.process.pid) - before
    assert spent <= 60, "hundredths of a second in one second"


def test_a_reader_who_does_not_read_holds_nothing_up_and_still_gets_the_result(tmp_path: Path) -> None:
    with Supervised(orders(*python("import time; time.sleep(1); print('x')")), tmp_path) as one:
        one.order()
        for _ in range(5000):
            one.tell("heartbeat")
        one.process.wait(15)
        assert json.loads(one.report.read_bytes())["outcome"] == "completed"
        assert one.result()["outcome"] == "completed"
        assert len(one.events) < 5000


def test_the_end_of_stdin_means_nothing_and_is_waited_out_quietly(tmp_path: Path) -> None:
    with Supervised(orders(*SLEEP, duration=1.6), tmp_path) as one:
        one.running()
        assert one.process.stdin is not None
        one.process.stdin.close()
        before = ticks(one.process.pid)
        time.sleep(1.0)
        spent = ticks(one.process.pid) - before
        assert one.result()["outcome"] == "completed"
    assert spent <= 10, "hundredths of a second in one second"


def test_a_named_pipe_that_is_opened_again_is_read_again(tmp_path: Path) -> None:
    pipe = tmp_path / "stdin"
    os.mkfifo(pipe)
    with Supervised(orders(*SLEEP), tmp_path, stdin=pipe) as one:
        pipe.write_bytes(message("heartbeat"))
        one.until("state", phase="waiting")
        pipe.write_bytes(message("heartbeat") + message("cancel"))
        assert one.result()["outcome"] == "cancelled"


def test_a_token_is_asked_for_when_an_upload_needs_one_and_a_cancel_ends_the_wait(tmp_path: Path) -> None:
    told = orders(*python("print('x')"), mode="collector", endpoint="http://127.0.0.1:9", upload_seconds=60.0)
    with Supervised(told, tmp_path) as one:
        one.order()
        one.until("need-token")
        one.tell("cancel", discard=True)
        result = one.result()
    assert (result["outcome"], result["reason"]) == ("cancelled", "Cancelled")


def test_a_token_appears_in_nothing_that_is_said_or_seen(tmp_path: Path) -> None:
    canary = "eyJ-canary-0123456789"
    told = orders(*SLEEP, mode="collector", endpoint="http://127.0.0.1:9", upload_seconds=0.5, duration=0.8)
    with Supervised(told, tmp_path) as one:
        one.order()
        one.tell("token", token=canary)
        tool = one.running()
        seen = [
            Path(f"/proc/{pid}/{name}").read_bytes()
            for pid in (one.process.pid, tool)
            for name in ("cmdline", "environ")
        ]
        one.tell("token", token=canary, capture="other")
        result = one.result()
    assert canary not in json.dumps([result, one.events])
    assert canary.encode() not in b"".join(seen)
    assert gone(tool)
    assert result["leaves"][0]["state"] == "lost"
