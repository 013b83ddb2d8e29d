"""What /proc says of processes. A process that ends while it is read is simply not there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
_LONGEST = 64 << 10


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat. `cpu` is in clock ticks and holds the children that were waited for."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    cpu: int
    started: int
    rss: int  # bytes

    @property
    def dead(self) -> bool:
        """It has ended; only its entry waits for the parent."""
        return self.state in "ZX"


def parse_stat(text: bytes) -> Process:
    """proc(5), /proc/PID/stat: the name stands in brackets and may hold anything, brackets included.

    Raises:
        ValueError: it is no such line.
    """
    head, found, tail = text.rpartition(b")")
    pid, opened, name = head.partition(b" (")
    fields = tail.split()
    if not found or not opened or len(fields) < 22:
        raise ValueError("this is no line of /proc/PID/stat")
    return Process(
        pid=int(pid),
        name=name.decode(errors="replace"),
        state=fields[0].decode(),
        parent=int(fields[1]),
        group=int(fields[2]),
        cpu=sum(int(one) for one in fields[11:15]),
        started=int(fields[19]),
        rss=int(fields[21]) * PAGE,
    )


def read_process(pid: int) -> Process | None:
    """The process as it is now."""
    text = _read(f"/proc/{pid}/stat")
    try:
        return parse_stat(text) if text else None
    except ValueError:
        return None


def processes() -> dict[int, Process]:
    """All that this PID namespace shows."""
    return _table(int(name) for name in os.listdir("/proc") if name.isdigit())


def descendants(root: int) -> dict[int, Process]:
    """All processes below `root`, parents first, by /proc/PID/task/TID/children, or by a full scan without that."""
    found: dict[int, Process] = {}
    todo = _children(root)
    if todo is None:
        return below(processes(), root)
    while todo:
        found.update(_table(one for one in todo if one not in found))
        todo = [pid for one in todo if one in found for pid in _children(one) or () if pid not in found]
    return found


def below(table: dict[int, Process], root: int) -> dict[int, Process]:
    """Those of a table that descend from `root`, parents first, `root` not included."""
    found: dict[int, Process] = {}
    parents = [root]
    while parents:
        children = {one.pid: one for one in table.values() if one.parent in parents and one.pid not in found}
        found.update(children)
        parents = list(children)
    return found


def cgroup(pid: int) -> str:
    """The text of /proc/PID/cgroup, or empty."""
    return _read(f"/proc/{pid}/cgroup").decode(errors="replace")


def command(pid: int) -> tuple[str, ...]:
    """Its arguments; empty for a kernel thread, a dead process, or when we may not look."""
    text = _read(f"/proc/{pid}/cmdline").decode(errors="replace")
    return tuple(text.split("\0")[:-1]) if text.endswith("\0") else tuple(text.split("\0")) if text else ()


def _children(pid: int) -> list[int] | None:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:
                found += [int(one) for one in (file.read(_LONGEST) or b"").split()]
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/task/{thread}"):
                return None
        except OSError:
            continue
    return found


def _table(pids: Iterable[int]) -> dict[int, Process]:
    return {pid: process for pid in pids if (process := read_process(pid)) is not None}


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(_LONGEST) or b""
    except OSError:
        return b""
