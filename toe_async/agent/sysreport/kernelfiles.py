"""Texts of /proc as numbers. Pure. Lines of no known form are passed over; a missing figure is a missing key."""

from __future__ import annotations

from typing import Any

MEMORY = frozenset(
    [
        "MemTotal",
        "MemFree",
        "MemAvailable",
        "Buffers",
        "Cached",
        "Dirty",
        "Writeback",
        "AnonPages",
        "Shmem",
        "Slab",
        "SReclaimable",
        "SwapTotal",
        "SwapFree",
        "PageTables",
        "Committed_AS",
    ]
)
VIRTUAL = ("pgpgin", "pgpgout", "pswpin", "pswpout", "pgfault", "pgmajfault", "pgscan_kswapd", "pgscan_direct",
           "pgsteal_kswapd", "pgsteal_direct", "allocstall_normal", "allocstall_movable", "oom_kill", "compact_stall",
           "thp_fault_alloc")  # fmt: skip
PROTOCOLS = {
    "Tcp": ("ActiveOpens", "PassiveOpens", "AttemptFails", "EstabResets", "CurrEstab", "InSegs", "OutSegs",
            "RetransSegs", "InErrs", "OutRsts"),
    "Udp": ("InDatagrams", "OutDatagrams", "NoPorts", "InErrors", "RcvbufErrors", "SndbufErrors"),
    "TcpExt": ("ListenOverflows", "ListenDrops", "TCPTimeouts", "TCPLostRetransmit", "TCPAbortOnMemory",
               "TCPRcvQDrop", "TCPBacklogDrop"),
}  # fmt: skip
SECTOR = 512
"""Bytes of a sector in /proc/diskstats, whatever the disk's own are."""
MOST_DEVICES = 64


def cpu(text: str) -> dict[str, Any]:
    """/proc/stat: `cpu` (all) and `cpu0`, ... as lists of ticks in the file's order; and the counters beside them."""
    found: dict[str, Any] = {"ticks": {}}
    names = {"ctxt": "switches", "processes": "forks", "procs_running": "running", "procs_blocked": "blocked"}
    for line in text.splitlines():
        key, _, rest = line.partition(" ")
        if key.startswith("cpu"):
            found["ticks"][key] = [int(word) for word in rest.split()[:8]]
        elif key == "intr":
            found["interrupts"] = int(rest.split(" ", 1)[0])
        elif key in names:
            found[names[key]] = int(rest)
    return found


def load(text: str) -> list[float]:
    """/proc/loadavg: the averages over 1, 5 and 15 minutes, and the number of threads of the node."""
    words = text.split()
    if len(words) < 4:
        return []
    return [float(word) for word in words[:3]] + [float(words[3].partition("/")[2] or 0)]


def memory(text: str) -> dict[str, int]:
    """/proc/meminfo, in bytes."""
    found = {}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if key in MEMORY:
            found[key] = int(rest.split()[0]) * 1024
    return found


def counters(text: str, wanted: tuple[str, ...] = VIRTUAL) -> dict[str, int]:
    """Lines of `name number`, as in /proc/vmstat and in files of control groups."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] in wanted and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found


def pressure(text: str) -> dict[str, int]:
    """A pressure file: microseconds in which `some` or all (`full`) tasks waited."""
    found = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        total = rest.rpartition("total=")[2]
        if kind in ("some", "full") and total.isdigit():
            found[kind] = int(total)
    return found


def disks(text: str) -> dict[str, list[int]]:
    """/proc/diskstats of disks that were used: reads, bytes, ms; writes, bytes, ms; in flight, busy ms, weighted ms."""
    found: dict[str, list[int]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 14 or words[2].startswith(("loop", "ram")) or len(found) >= MOST_DEVICES:
            continue
        values = [int(word) for word in words[3:14]]
        if values[0] or values[4]:
            found[words[2]] = [values[0], values[2] * SECTOR, values[3], values[4], values[6] * SECTOR, *values[7:11]]
    return found


def network(text: str) -> dict[str, list[int]]:
    """/proc/net/dev of interfaces that were used: received bytes, packets, errors, drops; and the same as sent."""
    found: dict[str, list[int]] = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        words = rest.split()
        if not colon or len(words) < 16 or len(found) >= MOST_DEVICES:
            continue
        values = [int(word) for word in words]
        if values[1] or values[9]:
            found[name.strip()] = values[:4] + values[8:12]
    return found


def protocols(*texts: str) -> dict[str, int]:
    """/proc/net/snmp and /proc/net/netstat: pairs of lines, names and values, as `Tcp.RetransSegs`."""
    found = {}
    for text in texts:
        lines = text.splitlines()
        for names, values in ((lines[at], lines[at + 1]) for at in range(0, len(lines) - 1, 2)):
            kind = names.partition(":")[0]
            wanted = PROTOCOLS.get(kind)
            if wanted and values.startswith(kind + ":"):
                row = dict(zip(names.split()[1:], values.split()[1:]))  # noqa: B905  `strict` is of Python 3.10
                found.update({f"{kind}.{name}": int(row[name]) for name in wanted if name in row})
    return found


def per_kind(text: str) -> dict[str, int]:
    """/proc/softirqs and /proc/interrupts: each kind's sum over all processors, those of none left out.

    An interrupt's name is its number and what the line ends in, the device or the kernel's words.
    """
    lines = text.splitlines()
    processors = len(lines[0].split()) if lines else 0
    found = {}
    for line in lines[1:]:
        name, _, rest = line.partition(":")
        words = rest.split()
        numbers = [int(word) for word in words[:processors] if word.isdigit()]
        if total := sum(numbers):
            tail = words[len(numbers) :]
            label = tail[-1] if name.strip().isdigit() and tail else ""
            found[f"{name.strip()} {label}".strip()] = total
    return found


def process(text: str) -> tuple[str, str, int, int, int, int] | None:
    """/proc/PID/stat: command, state, ticks of processor time, threads, start in ticks, resident pages."""
    head, paren, rest = text.rpartition(")")
    words = rest.split()
    if not paren or len(words) < 22:
        return None
    command = head.partition("(")[2]
    return command, words[0], int(words[11]) + int(words[12]), int(words[17]), int(words[19]), int(words[21])


def switches(text: str) -> tuple[int, int]:
    """/proc/PID/status: context switches that it wanted and that it did not."""
    found = {"voluntary_ctxt_switches": 0, "nonvoluntary_ctxt_switches": 0}
    for line in text.splitlines()[-4:]:  # they are the last lines
        key, _, value = line.partition(":")
        if key in found and value.strip().isdigit():
            found[key] = int(value)
    return found["voluntary_ctxt_switches"], found["nonvoluntary_ctxt_switches"]
