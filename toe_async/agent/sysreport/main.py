"""The program: records until it is told to stop, then makes the page.

sysreport --pid PID --root /proc/PID/root --output FOLDER [--interval 1s]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from toe_async.agent.sysreport import page
from toe_async.agent.sysreport.recorder import record
from toe_async.agent.sysreport.sample import Sampler
from toe_async.agent.tools import child
from toe_async.lib.durations import parse_duration

SHORTEST, LONGEST = 0.2, 60.0


def main(arguments: list[str]) -> int:
    """0 when record and page are there."""
    return child.run(_run, arguments)


def _run(arguments: list[str], stop: child.Stop) -> int:
    parser = argparse.ArgumentParser(prog="sysreport", allow_abbrev=False)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--interval", default="1s")
    wanted = parser.parse_args(arguments)
    try:
        interval = parse_duration(wanted.interval).total_seconds()
    except ValueError as error:
        raise child.ToolError(str(error)) from error
    if not SHORTEST <= interval <= LONGEST:
        raise child.ToolError(f"the interval {wanted.interval[:20]} is not between 200ms and 1m")
    series = record(Sampler(wanted.pid, wanted.root), interval, wanted.output / "sysreport.jsonl", stop)
    (wanted.output / "sysreport.html").write_text(page.make(series), encoding="utf-8")
    return 0
