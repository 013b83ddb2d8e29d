"""A program whose own way to end well is SIGINT, such as py-spy, which loses its profile on SIGTERM.

interrupt PROGRAM ARGUMENTS...

What it says on stdout is about itself and goes to stderr, which is the run's log.
"""

from __future__ import annotations

import signal
import sys

from toe_async.agent.tools import child


def main(arguments: list[str]) -> int:
    """The program's exit code; 128 and the signal's number when one ended it."""
    return child.run(_run, arguments)


def _run(arguments: list[str], stop: child.Stop) -> int:
    if not arguments:
        raise child.ToolError("the configuration's defaultArgs name no program to run")
    process = child.start(arguments, deaf=True, stdout=sys.stderr.fileno())
    return child.exit_code(child.until_stopped(process, stop, signal.SIGINT))
