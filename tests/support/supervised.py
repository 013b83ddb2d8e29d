"""A supervisor as a process of its own, driven over its standard streams as attach does."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import toe_async
from toe_async.agent.protocol import Orders, digest, message, orders_message

CAPTURE = "capture"
ROOT = str(Path(toe_async.__file__).parents[1])


def orders(*argv: str, **other: Any) -> Orders:
    """Orders for a run that ends soon and keeps its result for hardly any time."""
    known: dict[str, Any] = {
        "capture": CAPTURE,
        "tool": "tool",
        "argv": argv,
        "duration": 10.0,
        "mode": "ephemeral",
        "max_bytes": 1 << 20,
        "max_output_bytes": 1 << 20,
        "upload_seconds": 5.0,
        "keep_seconds": 0.1,
        "grace": 2.0,
    }
    return Orders(**{**known, **other})


def python(text: str) -> tuple[str, ...]:
    """A tool that is this Python program."""
    return (sys.executable, "-I", "-S", "-c", text.replace("{", "{{").replace("}", "}}"))


class Supervised:
    """The supervisor for these orders. A context manager: on leaving, nothing of it is left."""

    def __init__(
        self,
        told: Orders,
        folder: Path,
        *,
        wait: int = 5,
        environment: dict[str, str] | None = None,
        stdin: Path | None = None,
        first: int = 1,
    ) -> None:
        """`stdin` is a named pipe to read instead of one of our own, `first` the target's first process."""
        self.orders, self.folder = told, folder
        self.report = folder / "termination-log"
        arguments = [
            "--capture",
            told.capture,
            "--orders",
            digest(told),
            "--wait",
            str(wait),
            "--target-pid",
            str(first),
        ]
        places = ["--termination-log", str(self.report), "--state-root", str(folder)]
        source = subprocess.PIPE if stdin is None else os.open(stdin, os.O_RDONLY | os.O_NONBLOCK)
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-m", "toe_async.agent", "run", *arguments, *places],
            stdin=source,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": ROOT, **(environment or {})},
        )
        if stdin is not None:
            os.close(source)
        self.events: list[dict[str, Any]] = []
        self._held = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def send(self, line: bytes) -> None:
        """Write to its stdin, all of it."""
        assert self.process.stdin is not None
        left = memoryview(line)
        while left:
            left = left[self.process.stdin.write(left) or 0 :]

    def tell(self, kind: str, **fields: Any) -> None:
        """Send one message."""
        self.send(message(kind, **fields))

    def order(self) -> None:
        """Send the orders."""
        self.send(orders_message(self.orders))

    def until(self, kind: str, seconds: float = 10.0, **fields: Any) -> dict[str, Any]:
        """The next event of this type with these fields."""
        deadline = time.monotonic() + seconds
        while True:
            event = self._next(deadline)
            assert event is not None, f"no {kind} {fields} came; there were {self.events}"
            if event["type"] == kind and fields.items() <= event.items():
                return event

    def result(self, seconds: float = 20.0) -> dict[str, Any]:
        """The result event; afterwards the process has ended, and its termination message said the same, as
        far as it had room."""
        event = self.until("result", seconds)
        while self._next(time.monotonic() + seconds) is not None:
            pass
        self.process.wait(seconds)
        written = self.report.read_bytes()
        assert len(written) <= 4096
        message = json.loads(written)
        leaves, fits = event["leaves"], len(message["leaves"])
        assert message == {
            **{key: value for key, value in event.items() if key != "type"},
            "leaves": leaves[:fits],
            "more_leaves": len(leaves) - fits,
        }
        return event

    def running(self) -> int:
        """Give the orders and wait until the tool has written to its stdout; its PID."""
        self.order()
        self.until("state", phase="running")
        stdout, deadline = self.folder / f"toe-{CAPTURE}" / "stdout", time.monotonic() + 10
        while not stdout.stat().st_size:
            assert time.monotonic() < deadline, "the tool says nothing"
            time.sleep(0.01)
        return self.children()[0]

    def children(self) -> list[int]:
        """Its direct children."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(one) for one in text.split()]

    def _next(self, deadline: float) -> dict[str, Any] | None:
        assert self.process.stdout is not None
        with selectors.PollSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._held:
                if not ready.select(max(0.0, deadline - time.monotonic())):
                    return None
                piece = os.read(self.process.stdout.fileno(), 65536)
                if not piece:
                    return None
                self._held += piece
        line, _, self._held = self._held.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        self.events.append(event)
        return event


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether it is gone within so many seconds."""
    deadline = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return False
        time.sleep(0.01)
    return True


def state_of(pid: int) -> str:
    """The letter of its state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
