"""The sandbox's undertaker: a process that outlives it for a moment and leaves no process of any pod behind.

Run as a file by a bare interpreter with the sandbox's marker and directory as arguments; stdin is a pipe that only the
sandbox holds. However the sandbox ends, SIGKILL included, the pipe closes; then every process whose environment carries
the marker is killed until none is left. Children of pods' processes inherit the marker, so daemons that left their
session are found too.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

MARKER = "TOE_SANDBOX"
"""The environment variable that says which sandbox a process belongs to."""

_ROUNDS = 50


def marked(marker: str) -> list[int]:
    """PIDs of all processes of a sandbox, oneself excepted."""
    wanted = f"{MARKER}={marker}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:  # gone meanwhile, or somebody else's
                continue
            if wanted in environment.split(b"\0"):
                found.append(int(entry.name))
    return found


def kill_all(marker: str) -> None:
    """SIGKILL a sandbox's processes until a look finds none; bounded, since a zombie may stay visible."""
    for _ in range(_ROUNDS):
        pids = marked(marker)
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def main() -> None:
    """Wait for the end of stdin, then kill and remove the pods' directory."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the sandbox is our only cue
    sys.stdin.buffer.read()
    kill_all(sys.argv[1])
    shutil.rmtree(sys.argv[2], ignore_errors=True)


if __name__ == "__main__":
    main()
