"""tcpdump with a default filter, a filter that is compiled before anything is captured, and files that say their order.

    tcpdump --default-filter EXPRESSION --ring MEGABYTES FILES --write FILE.pcap OPTION... EXPRESSION...

The words behind `--write` go to tcpdump. When none of them is an expression, the default one is appended. A ring of so
many files of so many millions of bytes bounds what is kept: the latest. One file is called FILE.pcap, more of them
FILE-1.pcap (the oldest), FILE-2.pcap, ... How many packets were dropped is on stderr, as tcpdump writes it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from toe_async.agent.tools import child

PROGRAM = "tcpdump"
_WITH_VALUE = frozenset("BcCDEFGijmMrQsTVwWyzZ")  # tcpdump(1), version 4.99: options that take the next word
_WRITING = frozenset("CEFGMrVwWzZ")  # those that read or write files or run programs, which are this module's to set


def main(arguments: list[str]) -> int:
    """tcpdump's exit code; 0 when it was told to stop and closed its file."""
    return child.run(_run, arguments)


def _run(arguments: list[str], stop: child.Stop) -> int:
    default, megabytes, files, target, words = _own(arguments)
    options, expression = split(words)
    expression = expression or [default]
    compiled(options, expression)
    argv = [PROGRAM, "-n", "-U", "-Z", "root", "-C", megabytes, "-W", files, "-w", str(target), *options, "--"]
    process = child.start([*argv, *expression])
    code = child.until_stopped(process, stop, signal.SIGTERM)
    put_in_order(target)
    # Where the signal came before tcpdump had its handler there is no file either, so the supervisor finds no output.
    return 0 if stop.asked and code == -signal.SIGTERM else child.exit_code(code)


def _own(arguments: list[str]) -> tuple[str, str, str, Path, list[str]]:
    if len(arguments) < 7 or [arguments[at] for at in (0, 2, 5)] != ["--default-filter", "--ring", "--write"]:
        raise child.ToolError("the configuration's defaultArgs are not --default-filter F --ring MB N --write FILE")
    return arguments[1], arguments[3], arguments[4], Path(arguments[6]), arguments[7:]


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """Options with their values, and the words of the expression.

    Raises ToolError for an option that would make tcpdump read, write or run something of its own.
    """
    options: list[str] = []
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        word = words[at]
        letters = word[1:]
        for index, letter in enumerate(letters):
            if letter in _WRITING or letter == "-":
                raise child.ToolError(f"{word[:40]} is not for this tool: where it reads and writes is its own matter")
            if letter in _WITH_VALUE:
                if index + 1 == len(letters):
                    at += 1
                break
        if at >= len(words):
            raise child.ToolError(f"{word[:40]} needs a value")
        options = words[: at + 1]
        at += 1
    return options, words[at + 1 :] if words[at : at + 1] == ["--"] else words[at:]


def compiled(options: list[str], expression: list[str]) -> None:
    """Have tcpdump compile the filter for the interface; raises ToolError with its words when it cannot."""
    code, text = child.output_of([PROGRAM, "-d", *options, "--", *expression], seconds=20)
    if code:
        said = [line for line in text.splitlines() if "data link type" not in line]
        lines = [line for line in said if line.startswith("tcpdump:")] or said[-1:]
        raise child.ToolError(f"tcpdump does not start: {' '.join(lines).replace('tcpdump: ', '')[:500]}")


def put_in_order(target: Path) -> None:
    """Give tcpdump's ring (target0, target1, ...; the oldest anywhere in it) names in the order of time."""
    parts = [part for part in target.parent.glob(f"{target.name}?*") if part.name[len(target.name) :].isdigit()]
    parts.sort(key=lambda part: (os.stat(part).st_mtime_ns, part.name))
    for number, part in enumerate(parts, 1):
        part.rename(target if len(parts) == 1 else target.with_name(f"{target.stem}-{number}{target.suffix}"))
