"""The supervisor's end of the control channel: what comes in is judged, what goes out never holds anybody up."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toe_async.agent.protocol import LONGEST_LINE, Orders, decode_orders, digest

LONGEST_QUEUE = 64 << 10
"""Bytes of events that wait for a reader, beside a result; then the oldest go, results never."""
LONGEST_TOKEN = 16 << 10
_MOST_DIGITS = 20


class Command:
    """What one line asks for."""


@dataclass(frozen=True)
class OrdersCame(Command):
    """Orders that the container's arguments vouch for. `again` when they had been taken before."""

    orders: Orders
    again: bool


@dataclass(frozen=True)
class TokenCame(Command):
    """A token; whether it is good is the collector's to say."""

    token: str


@dataclass(frozen=True)
class Heartbeat(Command):
    """The operator lives and wants to know how it goes."""


@dataclass(frozen=True)
class Cancel(Command):
    """The run is to end. With `discard` nothing of it is stored."""

    discard: bool


@dataclass(frozen=True)
class Refuse(Command):
    """Nothing is changed by this message, for the reason given."""

    message: str


class Desk:
    """Judges messages for one capture. Orders are taken once; the same again are `again`."""

    def __init__(self, capture: str, expected: str) -> None:
        self._capture, self._expected = capture, expected
        self._taken = False

    def judge(self, line: bytes) -> Command:
        """What a line asks for. Never raises, whatever the line."""
        try:
            said = json.loads(line.decode("utf-8"), parse_int=_integer, parse_constant=_no_number)
        except (ValueError, RecursionError):
            return Refuse("the message is no JSON of this channel")
        if not isinstance(said, dict):
            return Refuse("the message is no JSON object")
        if "capture" in said and said["capture"] != self._capture:
            return Refuse("the message is for another capture")
        kind = said.get("type")
        if kind == "orders":
            return self._orders(said.get("orders"))
        if kind == "token":
            return _token(said.get("token"))
        if kind == "heartbeat":
            return Heartbeat()
        if kind == "cancel":
            return Cancel(discard=said.get("discard") is True)
        return Refuse("the message's type is none of orders, token, heartbeat, cancel")

    def _orders(self, body: object) -> Command:
        try:
            orders = decode_orders(body)
            spelled = digest(orders)
        except (ValueError, RecursionError) as error:
            return Refuse(str(error)[:200])
        if orders.capture != self._capture:
            return Refuse("the orders are for another capture")
        if spelled != self._expected:
            return Refuse("the orders are not those that the container's arguments name")
        again, self._taken = self._taken, True
        return OrdersCame(orders, again)


def _token(token: object) -> Command:
    if (
        not isinstance(token, str)
        or not 0 < len(token) <= LONGEST_TOKEN
        or not token.isascii()
        or not token.isprintable()
    ):
        return Refuse("the token is none")
    return TokenCame(token)


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError("a number is too long")  # to read one takes time that grows with its square
    return int(digits)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


class Lines:
    """Cuts a stream into lines of at most LONGEST_LINE bytes and keeps no more than one."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._skipping = False

    def feed(self, piece: bytes) -> Iterator[bytes | None]:
        """The lines that are complete now, without empty ones; None, once, for a line that has become too long."""
        *whole, rest = piece.split(b"\n")
        for part in whole:
            if self._holds(part):
                if line := bytes(self._held).strip():
                    yield line
            elif not self._skipping:
                yield None
            self._held.clear()
            self._skipping = False
        if not self._holds(rest) and not self._skipping:
            self._held.clear()
            self._skipping = True
            yield None

    def _holds(self, part: bytes) -> bool:
        if self._skipping or len(self._held) + len(part) > LONGEST_LINE:
            return False
        self._held += part
        return True


class Outbox:
    """Events on their way out, bounded. The oldest that matter least go first, a result never goes."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[bytes, bool]] = deque()  # with whether it must not be lost
        self._written = 0  # of the first

    @property
    def pending(self) -> int:
        """Bytes that wait."""
        return sum(len(line) for line, _ in self._waiting) - self._written

    def put(self, line: bytes, *, keep: bool = False) -> None:
        """Add one event; the same one is not added while it still waits as a whole."""
        if any(line == waiting for waiting, _ in list(self._waiting)[1 if self._written else 0 :]):
            return
        self._waiting.append((line, keep))
        kept = sum(len(line) for line, must_stay in self._waiting if must_stay)
        while self.pending - kept > LONGEST_QUEUE and (loses := self._oldest()) is not None:
            del self._waiting[loses]

    def write(self, descriptor: int) -> None:
        """Write what goes without waiting; the descriptor does not block.

        Raises:
            OSError: nobody will read this any more; what waits stays.
        """
        while self._waiting:
            line = self._waiting[0][0]
            try:
                self._written += os.write(descriptor, line[self._written : self._written + 4096])
            except BlockingIOError:
                return
            if self._written >= len(line):
                self._waiting.popleft()
                self._written = 0

    def _oldest(self) -> int | None:
        for index, (_, keep) in enumerate(self._waiting):
            if not keep and not (index == 0 and self._written):
                return index
        return None
