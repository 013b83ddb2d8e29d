"""Caps on real processes that do nothing but use CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from supervised import Supervised, orders, python

from toe_async.agent.protocol import encode_orders

BUSY = "print('on', flush=True)\nwhile True: pass"
FOUR = "import os; os.fork(); os.fork(); print('on', flush=True)\nwhile True: pass"
LEFT = "import os\nif os.fork() == 0: os.setsid()\nprint('on', flush=True)\nwhile True: pass"


def run(folder: Path, text: str, **other: Any) -> dict[str, Any]:
    with Supervised(orders(*python(text), **other), folder) as one:
        one.order()
        return one.result(40)


def to_be_had() -> float:
    """The share of a core that this machine gives to somebody busy just now."""
    began, used = time.monotonic(), time.process_time()
    while time.monotonic() - began < 0.5:
        pass
    return (time.process_time() - used) / 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("text", "percent"), [(BUSY, 10.0), (BUSY, 60.0), (FOUR, 25.0), (LEFT, 30.0)])
def test_a_busy_tool_uses_its_share_within_five_points(tmp_path: Path, text: str, percent: float) -> None:
    before = to_be_had()
    result = run(tmp_path, text, cpu_percent=percent, duration=8.0)
    share = result["cpu_seconds"] / result["seconds"] * 100
    assert result["outcome"] == "completed"
    assert share <= percent + 5
    if min(before, to_be_had()) > 0.9:  # on a busy machine nobody gets his share
        assert share >= percent - 5
        assert result["throttled_seconds"] > 1


def test_a_tool_that_may_not_be_stopped_is_ended_when_it_uses_too_much(tmp_path: Path) -> None:
    result = run(tmp_path, BUSY, cpu_percent=10.0, throttle="abort")
    assert (result["outcome"], result["reason"], result["signal"]) == ("failed", "HarmGuard", signal.SIGINT)
    assert "more than the 10% that it may" in result["message"]
    assert result["seconds"] < 5
    assert result["throttled_seconds"] == 0
    assert result["leaves"], "what it had collected is kept"


METER = """
import json, sys, time
from toe_async.agent import kernel
from toe_async.agent.metering import Meter
from toe_async.agent.process import ToolProcess
from toe_async.agent.protocol import decode_orders
told = decode_orders(json.loads(sys.argv[1]))
kernel.become_subreaper()
tool = ToolProcess(told.argv, env={}, folder="/", stdout=2, stderr=2, nice=0, largest=0)
began = time.monotonic()
meter = Meter(tool, told, int(sys.argv[2]), began)
while not meter.harm and time.monotonic() < began + told.duration:
    time.sleep(max(0, meter.look(time.monotonic()) - time.monotonic()))
tool.signal(9, strays=True)
while tool.ended() is None or tool.survivors(): time.sleep(0.01)
meter.finish()
print(json.dumps([meter.cpu_seconds, meter.overhead, meter.harm]))
"""


def metered(told: Any) -> tuple[float, float, str]:
    """CPU seconds, overhead and harm of a tool beside a target that is busy for about a third of its time."""
    third = (
        "import time\nwhile True:\n    e = time.process_time() + 0.03\n    while time.process_time() < e: pass\n"
        "    time.sleep(0.06)"
    )
    with subprocess.Popen(python(third)) as target:
        try:
            arguments = [sys.executable, "-c", METER, encode_orders(told).decode(), str(target.pid)]
            done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=dict(os.environ))
        finally:
            target.kill()
    cpu, overhead, harm = json.loads(done.stdout)
    return cpu, overhead, harm


@pytest.mark.slow
def test_a_tool_is_held_to_its_share_of_the_targets_own_cpu() -> None:
    cpu, overhead, harm = metered(orders(*python(BUSY), overhead_percent=30.0, duration=8.0))
    assert harm == ""
    assert cpu > 0.1
    assert overhead <= 40


@pytest.mark.slow
def test_a_tool_that_may_not_be_stopped_is_ended_for_its_share_of_the_targets_cpu() -> None:
    _, overhead, harm = metered(orders(*python(BUSY), overhead_percent=30.0, throttle="abort", duration=20.0))
    assert "of the target's CPU, more than the 30.0% it may" in harm
    assert overhead > 30
