"""What a supervisor says, out of what its container writes. Pure.

The container may write anything, so nothing raises: a line that is no event of this capture is no event.
"""

from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from toe_async.agent.control import Lines
from toe_async.agent.protocol import LONGEST_LINE
from toe_async.kube.errors import clip

MOST_LEAVES: Final = 256
_LONGEST_MESSAGE: Final = 400

# Whatever passes here can be written into a status, also as the sum over all leaves of all targets.
_Size = Annotated[int, Meta(ge=0, lt=1 << 44)]
_Code = Annotated[int, Meta(ge=0, lt=256)]
_Uri = Annotated[str, Meta(max_length=1600, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
_Word = Annotated[str, Meta(pattern=r"^[A-Za-z]{0,40}\Z")]
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]


class ToolLeaf(Struct, frozen=True, kw_only=True):
    """One file of output: stored, kept or lost. One that was lost before it was hashed has no `sha256`."""

    name: _Name
    size: _Size
    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")]
    state: str
    uri: _Uri = ""

    def __post_init__(self) -> None:
        if not self.sha256 and self.state != "lost":
            raise ValueError("only what is lost has no hash")


class ToolResult(Struct, frozen=True, kw_only=True):
    """The supervisor's last word: `agent.protocol.Result`, as far as it is believed."""

    capture: str
    outcome: str
    reason: _Word = ""
    message: str = ""
    exit_code: _Code | None = None
    signal: _Code | None = None
    size: _Size = 0
    leaves: Annotated[tuple[ToolLeaf, ...], Meta(max_length=MOST_LEAVES)] = ()
    more_leaves: _Size = 0
    port: Annotated[int, Meta(ge=0, lt=1 << 16)] = 0

    @property
    def words(self) -> str:
        """Its message as one printable line."""
        return clip(self.message, _LONGEST_MESSAGE)


class Ready(Struct, frozen=True, tag_field="type", tag="ready"):
    """Started; waits for orders."""

    capture: str = ""


class Accepted(Struct, frozen=True, tag_field="type", tag="accepted"):
    """Orders were taken."""

    digest: str = ""


class Refused(Struct, frozen=True, tag_field="type", tag="refused"):
    """A message was not understood, or was not for this capture. Whoever attaches can cause it."""

    message: str = ""


class State(Struct, frozen=True, tag_field="type", tag="state"):
    """How it goes."""

    phase: str = ""
    bytes: _Size = 0


class NeedToken(Struct, frozen=True, tag_field="type", tag="need-token"):
    """An upload waits for a token."""


class _Result(ToolResult, frozen=True, kw_only=True, tag_field="type", tag="result"):
    pass


Event = Ready | Accepted | Refused | State | NeedToken | ToolResult
_events = msgspec.json.Decoder(Ready | Accepted | Refused | State | NeedToken | _Result)
_results = msgspec.json.Decoder(ToolResult)


class Events:
    """Cuts one attached process's output into events of one capture."""

    def __init__(self, capture: str) -> None:
        self._capture, self._lines = capture, Lines()

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that are complete now. At most one line of `LONGEST_LINE` bytes is held."""
        for line in self._lines.feed(chunk):
            event = None if line is None else self._event(line)
            if event is not None:
                yield event

    def _event(self, line: bytes) -> Event | None:
        try:
            event: Event = _events.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if isinstance(event, _Result | Ready) and event.capture != self._capture:
            return None
        return event


def read_result(message: str, capture: str) -> ToolResult | None:
    """The result in a termination message; None when there is none of this capture."""
    if len(message) > LONGEST_LINE:
        return None
    try:
        result = _results.decode(message)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return result if result.capture == capture else None
