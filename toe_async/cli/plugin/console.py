"""Where words go: data to stdout, everything else to stderr, and progress only when a person is looking."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from toe_async.cli.plugin.exits import Usage
from toe_async.cli.plugin.text import clean

_REDRAW_SECONDS = 0.1


class Console:
    """One run's output. Every text is cleaned here, so a caller cannot forget it."""

    def __init__(self, out: TextIO, err: TextIO, environ: Mapping[str, str]) -> None:
        self._out, self._err = out, err
        self.interactive = err.isatty()
        self._colour = self.interactive and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self._drawn, self._drawn_at = False, 0.0

    def data(self, line: str) -> None:
        """One line of what was asked for."""
        self._wipe()
        print(clean(line), file=self._out)

    def table(self, lines: list[str]) -> None:
        """Lines that are aligned and clean already."""
        self._wipe()
        for line in lines:
            print(line, file=self._out)

    def note(self, line: str) -> None:
        """Something worth knowing that is not the result."""
        self._wipe()
        print(clean(line), file=self._err)

    def error(self, line: str) -> None:
        """What went wrong."""
        self._wipe()
        word = "\x1b[31merror:\x1b[0m" if self._colour else "error:"
        print(word, clean(line), file=self._err, flush=True)

    def progress(self, line: str, *, last: bool = False) -> None:
        """A line that the next one replaces, at most ten times a second unless it is a last one; only on a terminal."""
        now = time.monotonic()
        if self.interactive and (last or now - self._drawn_at >= _REDRAW_SECONDS):
            self._drawn, self._drawn_at = True, now
            columns = os.get_terminal_size(self._err.fileno()).columns or 80
            print("\r" + clean(line)[: columns - 1], end="\x1b[K", file=self._err, flush=True)

    def flush(self) -> None:
        """Hand over what is buffered; raises BrokenPipeError when the reader has gone."""
        self._wipe()
        self._out.flush()

    async def confirm(self, about: list[str], question: str) -> bool:
        """Ask on the terminal, after some lines about what; only `y` and `yes` are a yes.

        Raises:
            Usage: there is no terminal to ask on.
        """
        if not (sys.stdin.isatty() and self.interactive):
            raise Usage("there is no terminal to ask on; say -y to do it without a question")
        for line in about:
            self.note(f"- {line}")
        print(clean(question), "[y/N]", end=" ", file=self._err, flush=True)
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[str] = loop.create_future()
        # A terminal hands over whole lines, so that reading one does not block once there is something to read.
        loop.add_reader(sys.stdin.fileno(), _readline, answered)
        try:
            return (await answered).strip().lower() in {"y", "yes"}
        finally:
            loop.remove_reader(sys.stdin.fileno())

    def _wipe(self) -> None:
        if self._drawn:
            self._drawn = False
            print("\r\x1b[K", end="", file=self._err, flush=True)


def _readline(answered: "asyncio.Future[str]") -> None:
    if not answered.done():
        answered.set_result(sys.stdin.readline())
