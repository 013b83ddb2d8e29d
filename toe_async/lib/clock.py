"""Time as a thing that is handed in.

Two clocks with different promises. ``now`` is the wall clock: it names instants that other machines read and may jump.
``monotonic`` only ever advances and is the only one that measures durations; it is the running event loop's clock, so a
test that runs on a virtual loop moves both waits and measurements together.
"""

import asyncio
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What logic may ask about time."""

    def now(self) -> datetime:
        """Return the wall-clock instant, aware and in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences have a meaning."""


class SystemClock:
    """The machine's clocks. ``monotonic`` needs a running event loop."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def rfc3339(instant: datetime, *, micro: bool = False) -> str:
    """Write an instant as Kubernetes does: ``2026-01-24T20:44:08Z``, with ``micro`` the six digits of MicroTime."""
    utc = instant.astimezone(UTC)
    return utc.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def parse_rfc3339(text: str) -> datetime:
    """Read an RFC 3339 instant, nanoseconds cut to microseconds.

    Raises:
        ValueError: the text is no instant, or names no zone.
    """
    head, dot, tail = text.partition(".")
    if dot:  # Go writes up to nine digits, datetime reads at most six
        digits = len(tail) - len(tail.lstrip("0123456789"))
        text = f"{head}.{tail[: min(digits, 6)]:0<6}{tail[digits:]}"
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"the instant {text[:40]!r} names no time zone; write it like 2026-01-24T20:44:08Z")
    return instant.astimezone(UTC)
