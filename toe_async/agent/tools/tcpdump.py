"""tcpdump with a default filter, a filter that is compiled before anything is captured, and files that say their order.

    tcpdump [--default-filter EXPRESSION] [--ring MEGABYTES FILES] [--write FILE.pcap] OPTION... EXPRESSION...

The words behind these go to tcpdump. When none of them is an expression, the default one is appended. A ring of so
many files of so many millions of bytes bounds what is kept: the latest. One file is called FILE.pcap, more of them
FILE-1.pcap (the oldest), FILE-2.pcap, ... How many packets were dropped is on stderr, as tcpdump writes it.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

from toe_async.agent.tools import child

PROGRAM = "tcpdump"
SNAPLEN = 96
"""Bytes of a packet that are kept unless an option says otherwise: headers, and next to nothing of what they carry."""
_WITH_VALUE = frozenset("BcCDEFGijmMrQsTVwWyzZ")  # tcpdump(1), version 4.99: options that take the next word
_WRITING = frozenset("CEFGMrVwWzZ")  # those that read or write files or run programs, which are this module's to set


def main(arguments: list[str]) -> int:
    """tcpdump's exit code; 0 when it was told to stop and closed its file."""
    return child.run(_run, arguments)


def _run(arguments: list[str], stop: child.Stop) -> int:
    own, words = _own(arguments)
    options, expression = split(words)
    expression = expression or [own.default_filter]
    compiled(options, expression)
    megabytes, files = own.ring
    bounds = ["-C", str(megabytes), "-W", str(files), "-w", str(own.write), "-s", str(SNAPLEN)]
    process = child.start([PROGRAM, "-n", "-U", "-Z", "root", *bounds, *options, "--", *expression])
    code = child.until_stopped(process, stop, signal.SIGTERM)
    put_in_order(own.write)
    # Where the signal came before tcpdump had its handler there is no file either, so the supervisor finds no output.
    return 0 if stop.asked and code == -signal.SIGTERM else child.exit_code(code)


def _own(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """This module's own options, which come first, and the rest, in which nothing is looked for."""
    parser = argparse.ArgumentParser(prog=PROGRAM, allow_abbrev=False)
    parser.add_argument("--default-filter", default="tcp or udp or icmp or icmp6")
    parser.add_argument("--ring", type=int, nargs=2, default=[100, 2])
    parser.add_argument("--write", type=Path, default=Path("capture.pcap"))
    at, widths = 0, {"--default-filter": 2, "--ring": 3, "--write": 2}
    while at < len(arguments) and arguments[at] in widths:
        at += widths[arguments[at]]
    return parser.parse_args(arguments[:at]), arguments[at:]


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
