"""How a run of ``kubectl toe`` ends, and which code that is for a script."""

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toe_async.collector.errors import Refused


class Exit(IntEnum):
    """Exit codes. INTERRUPTED is what shells use for a program that Ctrl-C ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DENIED = 3
    TIMED_OUT = 4
    PARTIAL = 5
    INTERRUPTED = 130


class Usage(Exception):  # noqa: N818 -- it names what is wrong
    """The arguments do not fit together; the message is one sentence."""


class Stopped(Exception):  # noqa: N818
    """The verb cannot do what was asked on this machine (a file, a port, a browser); the message is one sentence."""


def code_of(refused: "Refused") -> Exit:
    """401 and 403 are denied, 408 and 504 timed out, everything else has failed."""
    if refused.status in (401, 403):
        return Exit.DENIED
    return Exit.TIMED_OUT if refused.status in (408, 504) else Exit.FAILED


def together(done: int, failures: "Sequence[Exit]") -> Exit:
    """The code of several pieces of work: partial when some are done, else what all the failures have in common."""
    if not failures:
        return Exit.OK
    if done:
        return Exit.PARTIAL
    return failures[0] if len(set(failures)) == 1 else Exit.FAILED
