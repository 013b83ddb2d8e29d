"""A tool as a child process that is asked to stop in the way it understands, and never outlives its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

PATIENCE = 8.0
"""Seconds between asking a tool to stop and SIGKILL; below the supervisor's own 10, which would take the parent too."""
_PR_SET_PDEATHSIG = 1


class ToolError(Exception):
    """The tool cannot do what is asked. The message is a sentence for the run's status."""


class Stop:
    """Turns SIGTERM and SIGINT into an event, from its creation on and for the rest of the process."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._asked.set()

    @property
    def asked(self) -> bool:
        """Whether somebody asked."""
        return self._asked.is_set()

    def wait(self, seconds: float) -> bool:
        """Return within `seconds`, at once when asked; says whether that is why."""
        return self._asked.wait(seconds)


def start(
    argv: Sequence[str],
    *,
    deaf: bool = False,
    folder: Path | None = None,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int | None = None,
    stderr: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a tool that gets SIGKILL when this process ends, however it ends.

    The supervisor signals the whole process group. One that is `deaf` ignores SIGTERM, for tools that would lose their
    output by it, unless it has a handler of its own. Raises ToolError when there is no such program.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def bind() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.getppid() != parent:
            os._exit(1)  # the parent ended before the line above

    try:
        return subprocess.Popen(
            list(argv),
            cwd=folder,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            preexec_fn=bind,  # noqa: PLW1509  only system calls, and no other thread runs yet
        )
    except OSError as error:
        raise ToolError(f"{argv[0]} cannot be started: {error.strerror}") from error


def until_stopped(child: subprocess.Popen[bytes], stop: Stop, number: int, seconds: float = 0.0) -> int:
    """Wait for the child's end, asking it by signal `number` once `stop` is asked or `seconds` (0: never) are over.

    Returns its exit code as subprocess has it: negative for a signal.
    """
    waited = 0.0
    while child.poll() is None and not (seconds and waited >= seconds) and not stop.wait(0.1):
        waited += 0.1
    if child.poll() is None:
        child.send_signal(number)
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait()


def output_of(argv: Sequence[str], seconds: float = 60.0, most: int = 1 << 20) -> tuple[int, str]:
    """Exit code and all output of a command; raises ToolError when it takes too long or says more than `most` bytes."""
    process = start(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        assert process.stdout is not None
        text = process.stdout.read(most + 1)
        process.stdout.close()
        if len(text) > most:
            process.kill()
            raise ToolError(f"{os.path.basename(argv[0])} answered with more than {most >> 20} MiB")
    finally:
        code = process.wait()
        timer.cancel()
    if late.is_set():
        raise ToolError(f"{os.path.basename(argv[0])} took longer than {seconds:.0f} s")
    return code, text.decode("utf-8", "replace")


def say(message: str) -> None:
    """One line on stderr, which is the run's log."""
    print(message, file=sys.stderr, flush=True)


def exit_code(code: int) -> int:
    """The exit code of a process that stands for one which ended so, as shells count signals."""
    return 128 - code if code < 0 else code


def run(program: Any, arguments: Sequence[str]) -> int:
    """Call `program(arguments, stop)` and turn its ToolError into a sentence on stderr and exit code 1."""
    stop = Stop()
    try:
        return int(program(list(arguments), stop))
    except ToolError as error:
        say(str(error))
        return 1
