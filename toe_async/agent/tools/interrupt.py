"""A program whose own way to end well is SIGINT, such as py-spy, which loses its profile on SIGTERM.

interrupt PROGRAM ARGUMENTS...

What it says on stdout is about itself and goes to stderr, which is the run's log.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from toe_async.agent.tools import child


def main(arguments: list[str]) -> int:
    """The program's exit code; 128 and the signal's number when one ended it."""
    return child.run(_run, arguments)


def _run(arguments: list[str], stop: child.Stop) -> int:
    if not arguments:
        raise child.ToolError("the configuration's defaultArgs name no program to run")
    if "--pid" in arguments[:-1]:
        traceable(Path("/proc") / arguments[arguments.index("--pid") + 1])
    process = child.start(arguments, deaf=True, stdout=sys.stderr.fileno())
    return child.exit_code(child.until_stopped(process, stop, signal.SIGINT))


def traceable(process: Path) -> None:
    """Raise ToolError where the kernel keeps this container from a process, which its root folder shows as well.

    What Yama forbids beyond that is left to the tool's own words.
    """
    try:
        (process / "root").stat()
    except PermissionError as error:
        raise child.ToolError(
            f"the kernel does not let this container look into process {process.name} of the target: it needs the "
            "capability SYS_PTRACE, or the target's own user and group and no fewer capabilities than the target"
        ) from error
    except OSError as error:
        raise child.ToolError(f"process {process.name} of the target is gone") from error
