"""Which processes belong to the target's container: those in the control group of its first process."""

from __future__ import annotations

from pathlib import Path

MOST = 4096
"""Processes that are counted as the target's; a container with more is seen in part."""


def family(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """The process and all others of its control group that can be seen from here, ascending; [] when it is gone.

    A control group is told by the text of /proc/PID/cgroup, which is the same for all of a container and, seen from one
    cgroup namespace, for nobody else.
    """
    group = _group(proc / str(pid))
    if not group:
        return []
    entries = sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())
    return [each for each in entries if each == pid or _group(proc / str(each)) == group][:MOST]


def _group(process: Path) -> bytes:
    try:
        return (process / "cgroup").read_bytes()
    except OSError:
        return b""
