"""What `perf script` prints, folded: one line a stack, `command;caller;function COUNT`. Pure.

perf prints one block a sample, blocks apart by an empty line:

    COMMAND PID/TID [CPU] TIME: [PERIOD] EVENT:
    <tab>ADDRESS SYMBOL+0xOFFSET (OBJECT)      the function first, then its callers

As perf's own stackcollapse does, kernel functions get `_[k]`, and what has no symbol is named by its object.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from os.path import basename

FIELDS = "comm,pid,tid,time,event,ip,sym,dso"
"""What to ask of `perf script -F`."""
DEEPEST = 512
"""Frames of one stack; what is beyond is the outermost part, which is left out."""
_HEAD = re.compile(r"^(?P<command>\S.*?)\s+\d+(/\d+)?\s+(\[\d+\]\s+)?\d+\.\d+:")
_FRAME = re.compile(r"^\s+(?P<address>[0-9a-f]+)\s+(?P<symbol>.*?)(?:\+0x[0-9a-f]+)?(?:\s+\((?P<object>.*)\))?\s*$")
_SEPARATORS = str.maketrans({";": ":", "\r": " "})


def fold(lines: Iterable[str]) -> Counter[str]:
    """How often each stack occurs, root first. Lines of no known form are passed over."""
    stacks: Counter[str] = Counter()
    command, frames = "", list[str]()
    for line in lines:
        if not line.strip():
            _count(stacks, command, frames)
            command, frames = "", []
        elif command and (frame := _FRAME.match(line)):
            if len(frames) < DEEPEST:
                frames.append(_name(frame["symbol"], frame["object"] or ""))
        elif head := _HEAD.match(line):
            _count(stacks, command, frames)
            command, frames = head["command"].translate(_SEPARATORS), []
    _count(stacks, command, frames)
    return stacks


def text(stacks: Counter[str]) -> str:
    """The folded file, sorted, so that equal profiles are equal files."""
    return "".join(f"{stack} {count}\n" for stack, count in sorted(stacks.items()))


def _count(stacks: Counter[str], command: str, frames: list[str]) -> None:
    if command:
        stacks[";".join([command, *reversed(frames)])] += 1


def _name(symbol: str, origin: str) -> str:
    kernel = origin.startswith("[kernel") or origin.endswith((".ko", ".ko.xz", ".ko.zst"))
    if symbol in ("", "[unknown]"):
        symbol = f"[{basename(origin).strip('[]') or 'unknown'}]"
    return symbol.translate(_SEPARATORS) + ("_[k]" if kernel else "")
