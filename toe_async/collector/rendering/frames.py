"""What goes over the two pipes between the collector and its child. Pure.

Both ways a frame is four bytes of length, most significant first, and as many bytes of JSON. The order's frame is
followed by the sources' bytes, back to back; an answer that is no refusal by as many bytes as it says.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from toe_async.collector.rendering.limits import RenderLimits

PREFIX = 4
LARGEST_HEAD = 16 << 10
LONGEST_TEXT = 500
"""Characters of a title, a subtitle, a sample type and a sentence."""

View = Literal["flame", "top", "diff", "folded"]
Word = Literal["NotAProfile", "TooComplex", "BadQuery"]

CONTENT_TYPES: dict[str, str] = {
    "flame": "text/html; charset=utf-8",
    "diff": "text/html; charset=utf-8",
    "top": "application/json",
    "folded": "text/plain; charset=utf-8",
}


class Order(Struct, frozen=True, kw_only=True):
    """What the child is to do. `sizes` are those of the sources; `parent` is the process that it must not outlive."""

    view: View
    title: str
    subtitle: str
    sample: str | None
    sizes: tuple[int, ...]
    parent: int
    limits: RenderLimits


class Answer(Struct, frozen=True, kw_only=True):
    """What came of it: `size` bytes that follow, or a refusal with one sentence for the viewer."""

    content_type: str = ""
    size: int = 0
    refused: Word | None = None
    sentence: str = ""


_orders = msgspec.json.Decoder(Order)
_answers = msgspec.json.Decoder(Answer)


def frame(head: Order | Answer) -> bytes:
    """The bytes of a frame."""
    body = msgspec.json.encode(head)
    return len(body).to_bytes(PREFIX, "big") + body


def head_length(prefix: bytes) -> int:
    """Read a frame's first four bytes.

    Raises:
        ValueError: no frame of ours is that long.
    """
    length = int.from_bytes(prefix, "big")
    if not 0 < length <= LARGEST_HEAD:
        raise ValueError("the frame's length is out of bounds")
    return length


def order(body: bytes) -> Order:
    """Read an order; raises msgspec.MsgspecError."""
    return _orders.decode(body)


def answer(body: bytes) -> Answer:
    """Read an answer, which a process that met hostile bytes wrote.

    Raises:
        ValueError: it is none, or holds what no answer of ours holds.
    """
    try:
        told = _answers.decode(body)
    except msgspec.MsgspecError as bad:
        raise ValueError("the frame is no answer") from bad
    if told.refused is None and (told.size < 0 or told.content_type not in CONTENT_TYPES.values()):
        raise ValueError("the answer has no size or no content type of ours")
    return told


def plain(text: str) -> str:
    """Text that can stand in a frame, a log line and a terminal: printable, and of bounded length."""
    return "".join(char if char.isprintable() else "?" for char in text[:LONGEST_TEXT])
