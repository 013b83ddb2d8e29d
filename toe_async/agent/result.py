"""How a run ended, decided from what happened, and told in at most 4 KiB."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from toe_async.agent.process import Ended
from toe_async.agent.protocol import LONGEST_RESULT, Leaf, Result

_LONGEST_MESSAGE = 600


@dataclass(frozen=True)
class Stop:
    """Why the supervisor ended the tool. `reason` is empty where that is the tool's proper end: its time is over."""

    reason: str = ""
    message: str = ""


TIME_IS_OVER = Stop()
TRUNCATED = "Truncated"


@dataclass(frozen=True)
class Course:
    """What happened. `stop` is None when the tool ended by itself; `killed` when it had to be by SIGKILL.

    `fault` is what kept the tool from starting, or its output from where it belongs.
    `note` is to be told when all is well.
    """

    tool: str
    ended: Ended | None = None
    stop: Stop | None = None
    killed: bool = False
    last_words: str = ""
    leaves: tuple[Leaf, ...] = ()
    fault: Stop | None = None
    note: str = ""

    @property
    def well(self) -> bool:
        """The tool has done its work."""
        by_itself = self.stop is None and self.ended is not None and self.ended.code == 0
        return by_itself or (self.stop == TIME_IS_OVER and not self.killed)


def judge(course: Course) -> tuple[str, str, str]:
    """Outcome, reason and message. The first that went wrong is the reason.

    A tool that we ended at its time has done its work however it exits, unless it had to be killed; 124 is a failure
    like every other code.
    """
    if course.stop is not None and course.stop.reason == "Cancelled":
        return "cancelled", "Cancelled", course.stop.message
    if course.ended is None:
        fault = course.fault or Stop("ToolFailed", "the tool was not started")
        return "failed", fault.reason, fault.message
    stop, name = course.stop, course.tool
    if stop is not None and stop.reason == TRUNCATED and course.killed:
        return "failed", "TooLarge", stop.message
    if stop is not None and stop.reason not in ("", TRUNCATED):
        return "failed", stop.reason, stop.message
    if stop is not None and course.killed:
        return "failed", "CaptureTimedOut", f"{name} did not end when its time was over and had to be killed"
    if stop is None and (course.ended.code != 0):
        return "failed", "ToolFailed", _how(course)
    if course.fault is not None:
        return "failed", course.fault.reason, course.fault.message
    if not any(leaf.name != f"{name}.log" and not leaf.name.startswith(f"{name}.log.") for leaf in course.leaves):
        return (
            "failed",
            "NoOutput",
            f"{name} ended well but left nothing; its last words: {course.last_words or 'none'}",
        )
    if stop is not None and stop.reason == TRUNCATED:
        return "completed", TRUNCATED, stop.message
    return "completed", "", course.note


def _how(course: Course) -> str:
    assert course.ended is not None
    if course.ended.signal is not None:
        hint = ", maybe for want of memory" if course.ended.signal == 9 else ""
        how = f"{course.tool} was ended by signal {course.ended.signal}{hint}"
    else:
        how = f"{course.tool} exited with {course.ended.code}"
    return f"{how}: {course.last_words}" if course.last_words else how


def encode_result(result: Result, longest: int = LONGEST_RESULT) -> bytes:
    """One JSON object of at most so many bytes, whatever is in it. Leaves that do not fit are counted."""
    leaves, message = list(result.leaves), result.message[:_LONGEST_MESSAGE]
    while True:
        cut = len(result.leaves) - len(leaves) + result.more_leaves
        body = asdict(replace(result, leaves=tuple(leaves), message=message, more_leaves=cut))
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=True).encode()
        if len(text) <= longest:
            return text
        if leaves:
            leaves.pop()
        else:
            message = message[: len(message) // 2]


def last_words(stderr: bytes) -> str:
    """The last line that a tool wrote to stderr, printable and at most 200 characters."""
    for line in reversed(stderr[-4096:].splitlines()):
        text = "".join(one if one.isprintable() else " " for one in line.decode(errors="replace")).strip()
        if text:
            return text[:200]
    return ""
