"""aperf for as long as the run lasts, its archive where the run's output goes.

    aperf --output FOLDER --duration SECONDS [--interval SECONDS] [--cpu] [--memory]

aperf always records all of its classes of data, so `--cpu` and `--memory`, which manifests have, choose nothing: both
are in every archive. It ends by itself two seconds before the run does, and so has time to pack.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from toe_async.agent.tools import child

PROGRAM = "aperf"
RUN = "aperf"


def main(arguments: list[str]) -> int:
    """aperf's exit code; 1 when it left no archive."""
    return child.run(_run, arguments)


def _run(arguments: list[str], stop: child.Stop) -> int:
    parser = argparse.ArgumentParser(prog=PROGRAM, allow_abbrev=False)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--duration", required=True, type=float)
    parser.add_argument("--interval", type=int, default=1)
    for chosen in ("--cpu", "--memory"):
        parser.add_argument(chosen, action="store_true")
    wanted = parser.parse_args(arguments)
    period = max(wanted.interval + 1, int(wanted.duration) - 2)
    argv = [PROGRAM, "record", "-r", RUN, "-i", str(wanted.interval), "-p", str(period)]
    process = child.start(argv, deaf=True, folder=wanted.output)
    code = child.exit_code(child.until_stopped(process, stop, signal.SIGINT))
    if not code and not any(wanted.output.glob("*.tar.gz")):
        raise child.ToolError("aperf ended without an archive")
    return code
