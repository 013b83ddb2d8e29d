"""What stands out in a report, in sentences: the few things that explain slowness most often. Pure."""

from __future__ import annotations

from typing import Any


def findings(report: dict[str, Any], first: dict[str, Any], last: dict[str, Any]) -> list[str]:
    """Sentences, the gravest first. `first` and `last` are the samples at both ends of the record."""
    lines = {(chart["key"], line["name"]): line for chart in report["charts"] for line in chart["lines"]}

    def average(chart: str, name: str) -> float:
        line = lines.get((chart, name))
        return float(line["average"]) if line else 0.0

    found = []
    killed = _grown(first, last, "group", "memory_oom_kill")
    if killed:
        found.append(f"The kernel killed {killed} of the container's processes: it was at its memory limit.")
    held = average("group-throttled", "periods in which it was held back")
    if held >= 1:
        limit = average("group-cpu", "limit")
        found.append(
            f"The container was held back in {held:.0f} % of its scheduling periods: its limit of {limit:g} cores is "
            "less than it wants at a time, which costs response time even where the average is low."
        )
    limit, used = average("group-memory", "limit"), lines.get(("group-memory", "in use"))
    if limit and used and used["peak"] >= 0.9 * limit:
        found.append(f"The container's memory came to {100 * used['peak'] / limit:.0f} % of its limit.")
    for kind, name, least in (("cpu", "a processor", 20), ("memory", "memory", 2), ("io", "disks", 20)):
        share = average("pressure", f"{kind}, some")
        if share >= least:
            found.append(f"Tasks of the node waited for {name} in {share:.0f} % of the time.")
    if (stolen := average("cpu", "stolen")) >= 5:
        found.append(f"The hypervisor gave {stolen:.0f} % of the processors' time to others.")
    sent, again = _grown(first, last, "protocols", "Tcp.OutSegs"), _grown(first, last, "protocols", "Tcp.RetransSegs")
    if sent >= 100 and again >= 0.01 * sent:
        found.append(
            f"{100 * again / sent:.1f} % of the pod's TCP segments were sent again: packets were lost or late."
        )
    if dropped := _grown(first, last, "protocols", "TcpExt.ListenDrops"):
        found.append(f"{dropped} new connections were dropped: a listening program did not accept fast enough.")
    for chart in report["charts"]:
        if chart["key"] == "disk-busy":
            busy = [line for line in chart["lines"] if line["average"] >= 90]
            found.extend(f"Disk {line['name']} was busy for {line['average']:.0f} % of the time." for line in busy)
    if _grown(first, last, "virtual", "pgscan_direct"):
        found.append("Tasks of the node had to look for free memory themselves: it has too little of it.")
    return found


def _grown(first: dict[str, Any], last: dict[str, Any], part: str, key: str) -> int:
    before, after = first.get(part, {}), last.get(part, {})
    return max(0, after[key] - before[key]) if key in before and key in after else 0
