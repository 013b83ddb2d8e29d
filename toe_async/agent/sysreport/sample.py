"""One moment: everything that can be read of the node, the target's container and its processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from toe_async.agent.sysreport import groups, kernelfiles
from toe_async.agent.sysreport.groups import text
from toe_async.agent.tools.processes import family

MOST_PROCESSES = 100
"""Processes of a sample; of more, the first to have been started."""
SLOW_SECONDS = 5.0
"""How often what is dear to read is read: who is in the container, and the interrupts, a column for each processor."""


class Sampler:
    """Reads samples. Costs about 2 ms of processor time a sample with ten processes."""

    def __init__(self, pid: int, root: Path, proc: Path = Path("/proc")) -> None:
        self._pid = pid
        self._proc = proc
        self._group = groups.find(root, text(proc / str(pid) / "cgroup"))
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._members: list[int] = []
        self._slow_at = float("-inf")
        network = proc / str(pid) / "net"
        self._network = network if text(network / "dev") else proc / "net"

    def header(self, interval: float, started: str) -> dict[str, Any]:
        """The first line of the record. `started` is an instant in RFC 3339."""
        missing = [name for name, content in (
            ("interrupts by kind", text(self._proc / "interrupts")),
            ("pressure", text(self._proc / "pressure/cpu")),
            ("disks", text(self._proc / "diskstats")),
        ) if not content]  # fmt: skip
        if self._group is None:
            missing.append("the target's control group")
        if _descriptors(self._proc / str(self._pid)) is None:
            missing.append("open files of the target's processes")
        return {
            "version": 1,
            "started": started,
            "interval": interval,
            "ticks": os.sysconf("SC_CLK_TCK"),
            "kernel": text(self._proc / "sys/kernel/osrelease").strip(),
            "cgroup": self._group.version if self._group else 0,
            "missing": missing,
        }

    def take(self, now: float) -> dict[str, Any]:
        """A sample at `now` seconds since the start. What cannot be read is not in it; never raises OSError."""
        proc = self._proc
        found: dict[str, Any] = {
            "t": round(now, 3),
            "cpu": kernelfiles.cpu(text(proc / "stat")),
            "load": kernelfiles.load(text(proc / "loadavg")),
            "memory": kernelfiles.memory(text(proc / "meminfo")),
            "virtual": kernelfiles.counters(text(proc / "vmstat")),
            "disks": kernelfiles.disks(text(proc / "diskstats")),
            "network": kernelfiles.network(text(self._network / "dev")),
            "protocols": kernelfiles.protocols(text(self._network / "snmp"), text(self._network / "netstat")),
            "pressure": {
                kind: waits
                for kind in ("cpu", "memory", "io")
                if (waits := kernelfiles.pressure(text(proc / "pressure" / kind)))
            },
        }
        if self._group:
            found["group"] = self._group.read()
        if now - self._slow_at >= SLOW_SECONDS:
            self._slow_at = now
            self._members = family(self._pid, proc)[:MOST_PROCESSES]
            found["softirqs"] = kernelfiles.per_kind(text(proc / "softirqs"))
            found["interrupts"] = kernelfiles.per_kind(text(proc / "interrupts"))
        found["processes"] = [one for pid in self._members if (one := self._process(pid)) is not None]
        return found

    def _process(self, pid: int) -> list[Any] | None:
        """[PID, start in ticks, command, ticks, resident bytes, threads, open files or null, switches, forced ones]."""
        folder = self._proc / str(pid)
        known = kernelfiles.process(text(folder / "stat"))
        if known is None:
            return None
        command, _, ticks, threads, started, pages = known
        wanted, forced = kernelfiles.switches(text(folder / "status"))
        return [pid, started, command, ticks, pages * self._page, threads, _descriptors(folder), wanted, forced]


def _descriptors(process: Path) -> int | None:
    try:
        return len(os.listdir(process / "fd"))
    except OSError:
        return None
