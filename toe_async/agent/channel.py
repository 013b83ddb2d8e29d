"""All waiting of the supervisor's main thread: for messages, for room to write events, for signals and the worker.

One poll(2) over at most four descriptors. A turn ends when something has happened; nothing in it blocks or spins: an
input that ended is looked at again at intervals, an input that floods is read at a bounded rate, and a reader that does
not read costs the oldest events.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import Any

from toe_async.agent.control import Command, Desk, Lines, Outbox, Refuse
from toe_async.agent.protocol import message

_PIECE = 64 << 10
_BETWEEN_PIECES = 0.05
_LOOK_AGAIN = (0.5, 5.0)  # seconds before an ended input is read again: first, and at most
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Tail:
    """The end of what a tool writes to stderr, read so slowly at most that a flood costs the tool and not us."""

    _KEPT = 64 << 10
    _PAUSE = 0.01

    def __init__(self) -> None:
        self._read, self.write_end = os.pipe()
        os.set_blocking(self._read, False)
        self._kept = bytearray()
        self._not_before = 0.0
        self.open = True

    @property
    def kept(self) -> bytes:
        """At most 64 KiB."""
        return bytes(self._kept)

    def descriptor(self, now: float) -> int | None:
        """What to wait for, or None while there is nothing to read."""
        return self._read if self.open and now >= self._not_before else None

    def take(self, now: float) -> None:
        """Read once."""
        with contextlib.suppress(BlockingIOError):
            piece = os.read(self._read, _PIECE)
            if not piece:
                self.close()
            self._kept = (self._kept + piece)[-self._KEPT :]
            self._not_before = now + (self._PAUSE if len(piece) > 4096 else 0)

    def due(self, now: float) -> float | None:
        """When it may be read again."""
        return self._not_before if self.open and self._not_before > now else None

    def finish(self, now: float) -> None:
        """Read what is there and close."""
        for _ in range(4):
            if self.open:
                self.take(now)
        self.close()

    def close(self) -> None:
        """Read no more."""
        if self.open:
            self.open = False
            os.close(self._read)


class Channel:
    """Standard input and output as the control channel, and the signals of the process."""

    def __init__(self, stdin: int, stdout: int, desk: Desk) -> None:
        self._stdin, self._stdout, self._desk = stdin, stdout, desk
        self._lines, self._outbox = Lines(), Outbox()
        self._read_at, self._pause = 0.0, _LOOK_AGAIN[0]
        self._write_at = 0.0
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)
        for end in (stdin, stdout):
            with contextlib.suppress(OSError):
                os.set_blocking(end, False)
        self.signalled: int | None = None
        """The signal that asks us to end."""
        self.tail: Tail | None = None

    def take_signals(self) -> None:
        """Turn signals into wake-ups, for the rest of the process."""
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in _ENDING:
            signal.signal(number, self._note)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)

    def drop_signals(self) -> None:
        """All is done: a signal may not change the exit code any more, not even while the interpreter ends."""
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)

    def wake(self) -> None:
        """End the turn of the main thread; from any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"w")

    def say(self, kind: str, **fields: Any) -> None:
        """Send an event as soon as somebody reads."""
        self._outbox.put(message(kind, **fields))

    def say_last(self, line: bytes) -> None:
        """Send a line that is never dropped while we live."""
        self._outbox.put(line, keep=True)

    def turn(self, until: float) -> list[Command]:
        """Wait until something happens, or until `until` (monotonic); return the messages that came."""
        now = time.monotonic()
        poll, tail = select.poll(), self.tail
        poll.register(self._woken, select.POLLIN)
        for at, descriptor, events in (
            (self._read_at, self._stdin, select.POLLIN),
            (self._write_at if self._outbox.pending else None, self._stdout, select.POLLOUT),
        ):
            if at is None:
                continue
            if at <= now:
                poll.register(descriptor, events)
            else:
                until = min(until, at)
        if tail is not None:
            if (descriptor_or_none := tail.descriptor(now)) is not None:
                poll.register(descriptor_or_none, select.POLLIN)
            until = min(until, tail.due(now) or until)
        ready = {descriptor for descriptor, _ in poll.poll(max(0.0, until - now) * 1000 + 0.5)}
        now = time.monotonic()
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if tail is not None and tail.descriptor(now) in ready:
            tail.take(now)
        if self._stdout in ready and self._outbox.pending:
            self._write(now)
        return self._read(now) if self._stdin in ready and self._read_at <= now else []

    def drain(self, until: float) -> None:
        """Send what waits, no longer than until then or until it is known that nobody reads."""
        self._read_at, self._write_at = until, 0.0
        while self._outbox.pending and not self._write_at and time.monotonic() < until:
            self.turn(until)

    def _write(self, now: float) -> None:
        try:
            self._outbox.write(self._stdout)
        except OSError:  # nobody reads any more; somebody may later
            self._write_at = now + 1.0

    def _read(self, now: float) -> list[Command]:
        try:
            piece = os.read(self._stdin, _PIECE)
        except BlockingIOError:
            return []
        except OSError:
            piece = b""
        if not piece:
            self._read_at = now + self._pause
            self._pause = min(self._pause * 2, _LOOK_AGAIN[1])
            return []
        self._read_at, self._pause = now + (_BETWEEN_PIECES if len(piece) > 4096 else 0), _LOOK_AGAIN[0]
        return [
            Refuse("the message is too long") if line is None else self._desk.judge(line)
            for line in self._lines.feed(piece)
        ]

    def _note(self, number: int, _frame: object) -> None:
        self.signalled = number
