"""The process that parses what strangers wrote: an order comes in by the first pipe, an answer goes out by the second.

It is one order old and then ends. Whatever kills it, the collector finds a missing answer and says so.
"""

import os
import sys
from typing import BinaryIO

from toe_async.collector.rendering import frames
from toe_async.collector.rendering.confine import confine
from toe_async.collector.rendering.frames import Answer, Order
from toe_async.collector.rendering.kinds import WHAT_CAN, describe
from toe_async.collector.rendering.views import render
from toe_async.profiles.model import Profile, ProfileError
from toe_async.profiles.parse import parse

_TOO_COMPLEX = Answer(
    refused="TooComplex", sentence="the profile needs more memory than a rendering may have; take its bytes as they are"
)


def main() -> None:
    """Serve the one order on standard input."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    order = frames.order(_exactly(source, frames.head_length(_exactly(source, frames.PREFIX))))
    confine(order.limits, order.parent)
    try:
        told, body = answer(order, source)
    except (MemoryError, RecursionError):
        told, body = _TOO_COMPLEX, b""
    sink.write(frames.frame(told))
    sink.write(body)
    sink.flush()
    # No destructors: freeing a large profile piece by piece takes longer than drawing it.
    os._exit(0)


def answer(order: Order, source: BinaryIO) -> tuple[Answer, bytes]:
    """Read the sources one after the other, and draw them."""
    profiles = list[Profile]()
    for size in order.sizes:
        raw = _exactly(source, size)
        try:
            profiles.append(parse(raw))
        except ProfileError as bad:
            return _refused_source(raw, bad), b""
    try:
        body = render(order, profiles)
    except ProfileError as bad:
        return Answer(refused="BadQuery", sentence=frames.plain(str(bad))), b""
    if len(body) > order.limits.output_bytes:
        sentence = (
            f"the answer has {len(body)} bytes and at most {order.limits.output_bytes} are shown; as=top is smaller"
        )
        return Answer(refused="TooComplex", sentence=sentence), b""
    return Answer(content_type=frames.CONTENT_TYPES[order.view], size=len(body)), body


def _refused_source(raw: bytes, bad: ProfileError) -> Answer:
    instead = describe(raw)
    if instead is not None:
        return Answer(refused="NotAProfile", sentence=f"the artifact is {instead}; {WHAT_CAN}")
    return Answer(refused="NotAProfile", sentence=frames.plain(f"{str(bad)[:300]}; {WHAT_CAN}"))


def _exactly(source: BinaryIO, count: int) -> bytes:
    found = source.read(count)
    if len(found) != count:
        sys.exit("the order ended early")
    return found


if __name__ == "__main__":
    main()
