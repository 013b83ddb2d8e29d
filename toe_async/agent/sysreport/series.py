"""A record of any length as time series of bounded size, made while it is recorded. Pure.

Time is cut into at most `SLOTS` slots; when they are full, two become one. Peaks are kept as they were.

Charts of more lines than `LINES` keep those that are largest on average and say how many were left out; processes
beyond `PROCESSES` different ones are left out. So a page has a size that does not depend on how long was recorded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from toe_async.agent.sysreport import rates

SLOTS = 600
LINES = 12
MOST_LINES = 256
PROCESSES = 500
TOP = 8


class Chart(NamedTuple):
    """What a chart is called and how its numbers are written. Stacked ones are parts of a whole."""

    section: str
    title: str
    unit: str
    stacked: bool = False


CHARTS = {
    "group-cpu": Chart("Container", "Processor time", "cores"),
    "group-throttled": Chart("Container", "Held back by its CPU limit", "%"),
    "group-memory": Chart("Container", "Memory", "bytes"),
    "group-faults": Chart("Container", "Page faults", "/s"),
    "group-io": Chart("Container", "Disk traffic", "bytes/s"),
    "group-pressure": Chart("Container", "Time in which some of its tasks waited for", "%"),
    "group-tasks": Chart("Container", "Tasks", ""),
    "process-cpu": Chart("Processes", "Processor time of the busiest", "cores"),
    "process-memory": Chart("Processes", "Resident memory of the busiest", "bytes"),
    "cpu": Chart("Processors", "Processor time of the node", "%", stacked=True),
    "processors": Chart("Processors", "Busy, each processor", "%"),
    "load": Chart("Processors", "Tasks that run or would run", ""),
    "pressure": Chart("Processors", "Time in which tasks waited for", "%"),
    "switches": Chart("Processors", "Context switches and interrupts", "/s"),
    "forks": Chart("Processors", "New tasks", "/s"),
    "softirqs": Chart("Processors", "Soft interrupts by kind", "/s"),
    "interrupts": Chart("Processors", "Interrupts by kind", "/s"),
    "memory": Chart("Memory", "Memory of the node", "bytes"),
    "dirty": Chart("Memory", "Not yet on the disk", "bytes"),
    "faults": Chart("Memory", "Page faults", "/s"),
    "reclaim": Chart("Memory", "Looking for free memory", "/s"),
    "disk-bytes": Chart("Disks", "Traffic", "bytes/s"),
    "disk-operations": Chart("Disks", "Operations", "/s"),
    "disk-busy": Chart("Disks", "Busy", "%"),
    "disk-wait": Chart("Disks", "Time of an operation", "ms"),
    "network-bytes": Chart("Network", "Traffic of the pod", "bytes/s"),
    "network-packets": Chart("Network", "Packets", "/s"),
    "network-faults": Chart("Network", "Errors and drops", "/s"),
    "tcp": Chart("Network", "TCP segments", "/s"),
    "tcp-events": Chart("Network", "TCP and UDP events", "/s"),
    "connections": Chart("Network", "TCP connections", ""),
    "udp": Chart("Network", "UDP datagrams", "/s"),
}


class _Line:
    __slots__ = ("counts", "peak", "sums", "total", "weight")

    def __init__(self) -> None:
        self.sums = [0.0] * SLOTS
        self.counts = [0] * SLOTS
        self.peak = 0.0
        self.total = 0.0
        self.weight = 0

    def add(self, slot: int, value: float) -> None:
        self.sums[slot] += value
        self.counts[slot] += 1
        self.peak = max(self.peak, value)
        self.total += value
        self.weight += 1

    def merge(self) -> None:
        empty = SLOTS // 2
        self.sums = [self.sums[at] + self.sums[at + 1] for at in range(0, SLOTS, 2)] + [0.0] * empty
        self.counts = [self.counts[at] + self.counts[at + 1] for at in range(0, SLOTS, 2)] + [0] * empty

    def shown(self, name: str, slots: int) -> dict[str, Any]:
        values = [_short(self.sums[at] / self.counts[at]) if self.counts[at] else None for at in range(slots)]
        return {"name": name, "values": values, "average": _short(self.total / self.weight), "peak": _short(self.peak)}


class _Process:
    def __init__(self, pid: int, command: str) -> None:
        self.pid = pid
        self.command = command
        self.cpu = _Line()
        self.memory = _Line()
        self.threads = 0
        self.files: int | None = None
        self.switches = [0, 0]


class Series:
    """Takes samples as they come. Costs about 0.3 ms a sample, and at most some 10 MB."""

    def __init__(self, header: dict[str, Any]) -> None:
        self._header = header
        self._ticks = header["ticks"]
        self._width = float(header["interval"])
        self._charts: dict[str, dict[str, _Line]] = {}
        self._processes: dict[tuple[int, int], _Process] = {}
        self._seen: dict[tuple[int, int], list[Any]] = {}
        self._kinds: dict[str, Any] = {}
        self._count = 0
        self.first: dict[str, Any] = {}
        self.last: dict[str, Any] = {}

    def add(self, sample: dict[str, Any]) -> None:
        """Take the next sample."""
        before = self.last
        self.first, self.last = self.first or sample, sample
        self._count += 1
        while sample["t"] >= self._width * SLOTS:
            self._width *= 2
            for line in self._all():
                line.merge()
        if "softirqs" in sample:
            if self._kinds:
                self._fill(self._kinds["t"], sample["t"], rates.kinds(self._kinds, sample))
            self._kinds = sample
        if before:
            self._fill(before["t"], sample["t"], rates.figures(before, sample))
        self._add_processes(before.get("t", 0.0), sample)

    def report(self) -> dict[str, Any]:
        """The data of the page, `findings` excepted."""
        seconds = self.last.get("t", 0.0)
        slots = self._slot(seconds) + 1
        processes = sorted(self._processes.values(), key=lambda one: (-one.cpu.total, -one.memory.peak))
        charts = dict(self._charts)
        for kind, lines in (("process-cpu", "cpu"), ("process-memory", "memory")):
            shown = {f"{one.command} ({one.pid})": getattr(one, lines) for one in processes[:TOP]}
            charts[kind] = {name: line for name, line in shown.items() if line.weight}
        return {
            "header": self._header,
            "seconds": _short(seconds),
            "width": self._width,
            "samples": self._count,
            "slots": slots,
            "charts": [chart for key in CHARTS if (chart := _chart(key, charts.get(key, {}), slots))],
            "processes": [_row(one, seconds) for one in processes[:100]],
        }

    def _all(self) -> Iterable[_Line]:
        for lines in self._charts.values():
            yield from lines.values()
        for one in self._processes.values():
            yield one.cpu
            yield one.memory

    def _slot(self, instant: float) -> int:
        return min(SLOTS - 1, max(0, int(instant / self._width)))

    def _fill(self, start: float, end: float, found: Iterable[rates.Figure]) -> None:
        first, last = self._slot(start), self._slot(end)
        if last - first <= 1:  # the usual case, a value a slot: it belongs to where most of its time is
            first = last = self._slot((start + end) / 2)
        for chart, name, value in found:
            lines = self._charts.setdefault(chart, {})
            line = lines.get(name)
            if line is None:
                if len(lines) >= MOST_LINES:
                    continue
                line = lines[name] = _Line()
            for slot in range(first, last + 1):
                line.add(slot, value)

    def _add_processes(self, before: float, sample: dict[str, Any]) -> None:
        seconds = sample["t"] - before
        seen: dict[tuple[int, int], list[Any]] = {}
        for row in sample.get("processes", ()):
            pid, started, command, ticks, resident, threads, files, wanted, forced = row
            key = (pid, started)
            seen[key] = row
            then = self._seen.get(key)
            known = self._processes.get(key)
            if known is None:
                if len(self._processes) >= PROCESSES:
                    continue
                known = self._processes[key] = _Process(pid, command)
            known.command = command  # exec gives a process another one
            slot = self._slot(sample["t"])
            known.memory.add(slot, resident)
            known.threads = max(known.threads, threads)
            known.files = files if known.files is None else max(known.files, files or 0)
            if then is not None and seconds > 0:
                known.cpu.add(slot, max(0, ticks - then[3]) / self._ticks / seconds)
                known.switches[0] += max(0, wanted - then[7])
                known.switches[1] += max(0, forced - then[8])
        self._seen = seen


def _chart(key: str, lines: dict[str, _Line], slots: int) -> dict[str, Any] | None:
    if not any(line.peak for line in lines.values()):
        return None  # nothing happened, and an empty chart would hide those in which something did
    kept = sorted(lines.items(), key=lambda item: -item[1].total)[:LINES]
    order = {name: at for at, name in enumerate(lines)}
    kept.sort(key=lambda item: order[item[0]])
    about = CHARTS[key]
    return {
        "key": key,
        "section": about.section,
        "title": about.title,
        "unit": about.unit,
        "stacked": about.stacked,
        "more": len(lines) - len(kept),
        "lines": [line.shown(name, slots) for name, line in kept],
    }


def _row(one: _Process, seconds: float) -> dict[str, Any]:
    per_second = [_short(count / seconds) if seconds else 0 for count in one.switches]
    return {
        "pid": one.pid,
        "command": one.command,
        "cpu": _short(one.cpu.total / one.cpu.weight) if one.cpu.weight else 0,
        "peak": _short(one.cpu.peak),
        "memory": int(one.memory.peak),
        "threads": one.threads,
        "files": one.files,
        "switches": per_second[0],
        "forced": per_second[1],
    }


def _short(value: float) -> float | int:
    """Four significant digits: what a page can show, at half the size."""
    if value == int(value) and abs(value) < 10_000:
        return int(value)
    return float(f"{value:.4g}")
