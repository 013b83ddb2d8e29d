"""Two samples, one after the other, as the figures of the time between them. Pure.

A figure is (chart, line, value), its unit that of the chart in `series.CHARTS`. A counter that went back, as after a
container's restart, gives no figure; neither does anything that one of the samples does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Figure = tuple[str, str, float]
_STATES = (("user", (0, 1)), ("system", (2,)), ("interrupts", (5, 6)), ("waiting for disks", (4,)), ("stolen", (7,)))
_IDLE = 3
_MANY = 16
"""Processors up to which each has a line of its own."""


def figures(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Figure]:
    """All figures but those of processes and of interrupts by kind, which not every sample has."""
    seconds = after["t"] - before["t"]
    if seconds <= 0:
        return
    yield from _processors(before.get("cpu", {}), after.get("cpu", {}), seconds)
    if after.get("load"):
        yield "load", "average of a minute", after["load"][0]
    for kind, waits in after.get("pressure", {}).items():
        for scope, value in _deltas(before.get("pressure", {}).get(kind, {}), waits):
            if (kind, scope) != ("cpu", "full"):  # zero by definition for a whole node
                yield "pressure", f"{kind}, {'some' if scope == 'some' else 'all'}", value / seconds / 1e4
    yield from _memory(before, after, seconds)
    yield from _disks(before.get("disks", {}), after.get("disks", {}), seconds)
    yield from _network(before, after, seconds)
    if "group" in after:
        yield from _group(before.get("group", {}), after["group"], seconds)


def _deltas(before: dict[str, int], after: dict[str, int]) -> Iterator[tuple[str, int]]:
    for key, value in after.items():
        if key in before and value >= before[key]:
            yield key, value - before[key]


def _processors(before: dict[str, Any], after: dict[str, Any], seconds: float) -> Iterator[Figure]:
    shares: dict[str, float] = {}
    for name, now in after.get("ticks", {}).items():
        then = before.get("ticks", {}).get(name)
        if then is None or len(then) != len(now) or len(now) < 8:
            continue
        spent = [max(0, new - old) for new, old in zip(now, then)]  # noqa: B905  equal, as above; iowait may go back
        total = sum(spent)
        if not total:
            continue
        if name == "cpu":
            for state, columns in _STATES:
                yield "cpu", state, 100 * sum(spent[at] for at in columns) / total
        else:
            shares[name] = 100 * (total - spent[_IDLE] - spent[4]) / total
    if len(shares) <= _MANY:
        for name, share in shares.items():
            yield "processors", name, share
    else:
        ordered = sorted(shares.values())
        for label, at in (("busiest", -1), ("in the middle", len(ordered) // 2), ("idlest", 0)):
            yield "processors", label, ordered[at]
    for key, name in (("running", "running or ready"), ("blocked", "waiting for disks")):
        if key in after:
            yield "load", name, after[key]
    counted: dict[str, int] = {key: after[key] for key in ("switches", "interrupts", "forks") if key in after}
    for key, value in _deltas(before, counted):
        yield ("forks" if key == "forks" else "switches"), key, value / seconds


def _memory(before: dict[str, Any], after: dict[str, Any], seconds: float) -> Iterator[Figure]:
    memory = after.get("memory", {})
    if "MemTotal" in memory and "MemAvailable" in memory:
        yield "memory", "in use", memory["MemTotal"] - memory["MemAvailable"]
        yield "memory", "all there is", memory["MemTotal"]
    for key, name in (("Cached", "file cache"), ("AnonPages", "processes' own"), ("Slab", "kernel objects")):
        if key in memory:
            yield "memory", name, memory[key]
    for key, name in (("Dirty", "to be written"), ("Writeback", "being written")):
        if key in memory:
            yield "dirty", name, memory[key]
    if memory.get("SwapTotal"):
        yield "dirty", "swap in use", memory["SwapTotal"] - memory.get("SwapFree", 0)
    names = {"pgfault": "faults", "pgmajfault": "faults that read a disk"}
    reclaim = {
        "pgscan_kswapd": "pages looked at in the background",
        "pgscan_direct": "pages looked at by waiting tasks",
        "pswpin": "pages swapped in",
        "pswpout": "pages swapped out",
        "compact_stall": "waits for large pages",
    }
    for key, value in _deltas(before.get("virtual", {}), after.get("virtual", {})):
        if key in names:
            yield "faults", names[key], value / seconds
        elif key in reclaim:
            yield "reclaim", reclaim[key], value / seconds


def _disks(before: dict[str, list[int]], after: dict[str, list[int]], seconds: float) -> Iterator[Figure]:
    for name, now in after.items():
        then = before.get(name)
        if then is None or any(new < old for new, old in zip(now[:6], then[:6])):  # noqa: B905  same length
            continue
        reads, read, read_ms, writes, written, write_ms = (new - old for new, old in zip(now[:6], then[:6]))  # noqa: B905
        yield "disk-bytes", f"{name} read", read / seconds
        yield "disk-bytes", f"{name} written", written / seconds
        yield "disk-operations", f"{name} reads", reads / seconds
        yield "disk-operations", f"{name} writes", writes / seconds
        if reads + writes:
            yield "disk-wait", name, (read_ms + write_ms) / (reads + writes)
        yield "disk-busy", name, min(100.0, max(0, now[7] - then[7]) / seconds / 10)


def _network(before: dict[str, Any], after: dict[str, Any], seconds: float) -> Iterator[Figure]:
    for name, now in after.get("network", {}).items():
        then = before.get("network", {}).get(name)
        if then is None or any(new < old for new, old in zip(now, then)):  # noqa: B905  same length
            continue
        delta = [(new - old) / seconds for new, old in zip(now, then)]  # noqa: B905
        yield "network-bytes", f"{name} received", delta[0]
        yield "network-bytes", f"{name} sent", delta[4]
        yield "network-packets", f"{name} received", delta[1]
        yield "network-packets", f"{name} sent", delta[5]
        yield "network-faults", f"{name} errors", delta[2] + delta[6]
        yield "network-faults", f"{name} dropped", delta[3] + delta[7]
    tcp = {"InSegs": "segments received", "OutSegs": "segments sent"}
    for key, value in _deltas(before.get("protocols", {}), after.get("protocols", {})):
        kind, _, name = key.partition(".")
        if name in tcp:
            yield "tcp", tcp[name], value / seconds
        elif name not in {"CurrEstab", "InDatagrams", "OutDatagrams"}:
            yield "tcp-events", f"{kind} {name}", value / seconds
        elif kind == "Udp":
            yield "udp", name, value / seconds
    if "Tcp.CurrEstab" in after.get("protocols", {}):
        yield "connections", "established", after["protocols"]["Tcp.CurrEstab"]


def _group(before: dict[str, Any], after: dict[str, Any], seconds: float) -> Iterator[Figure]:
    numbers = {key: value for key, value in after.items() if isinstance(value, int)}
    deltas = dict(_deltas({key: value for key, value in before.items() if isinstance(value, int)}, numbers))
    for key, name in (("usage_usec", "used"), ("user_usec", "of it user"), ("system_usec", "of it system")):
        if key in deltas:
            yield "group-cpu", name, deltas[key] / seconds / 1e6
    if "cpu_limit" in after:
        yield "group-cpu", "limit", after["cpu_limit"]
    if deltas.get("nr_periods"):
        yield (
            "group-throttled",
            "periods in which it was held back",
            100 * deltas["nr_throttled"] / deltas["nr_periods"],
        )
    sizes = {
        "memory": "in use",
        "anon": "processes' own",
        "file": "file cache",
        "memory_limit": "limit",
        "swap": "swap",
    }
    for key, name in sizes.items():
        if key in numbers:
            yield "group-memory", name, numbers[key]
    for key, name in (("pgfault", "faults"), ("pgmajfault", "faults that read a disk")):
        if key in deltas:
            yield "group-faults", name, deltas[key] / seconds
    for key, name in (("rbytes", "read"), ("wbytes", "written")):
        if key in deltas:
            yield "group-io", name, deltas[key] / seconds
    if "pids" in numbers:
        yield "group-tasks", "processes and threads", numbers["pids"]
    for kind in ("cpu", "memory", "io"):
        waits = after.get(f"{kind}_pressure", {})
        for scope, value in _deltas(before.get(f"{kind}_pressure", {}), waits):
            if scope == "some":
                yield "group-pressure", kind, value / seconds / 1e4


def kinds(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Figure]:
    """Interrupts by kind between two of the samples that have them."""
    seconds = after["t"] - before["t"]
    for chart in ("softirqs", "interrupts"):
        for name, value in _deltas(before.get(chart, {}), after.get(chart, {})):
            if seconds > 0:
                yield chart, name, value / seconds
