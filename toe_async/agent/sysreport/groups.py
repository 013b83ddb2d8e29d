"""The target's control group: cgroup v2, v1 and the mixed layout, found through the target's own mount of it.

A tool's container sees its own control group at /sys/fs/cgroup, not the target's. The target's mount, which every
runtime makes, is reached through /proc/PID/root and shows the target's group at its top. Where the target shares the
node's cgroup namespace the mount shows all groups, and the path of /proc/PID/cgroup leads to the right one; names of
cgroupfs and of systemd occur there, and none of them is interpreted.
"""

from __future__ import annotations

from pathlib import Path

from toe_async.agent.sysreport import kernelfiles

_UNLIMITED = 1 << 60
"""cgroup v1 writes "no limit" as a number of about 2**63."""
_V2_MEMORY = ("anon", "file", "file_dirty", "slab", "sock", "shmem", "pgfault", "pgmajfault", "workingset_refault_file")
_V1_MEMORY = {"total_rss": "anon", "total_cache": "file", "total_dirty": "file_dirty", "total_shmem": "shmem",
              "total_pgfault": "pgfault", "total_pgmajfault": "pgmajfault",
              "total_workingset_refault_file": "workingset_refault_file"}  # fmt: skip
_CONTROLLERS = ("cpu", "cpuacct", "memory", "blkio", "pids")


class Group:
    """Where the files of one group lie: one folder (v2), or one for each controller (v1)."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self._folders = folders
        self.version = 2 if "" in folders else 1

    def read(self) -> dict[str, object]:
        """The group's figures; what cannot be read is not in it."""
        return _v2(self._folders[""]) if self.version == 2 else _v1(self._folders)


def find(root: Path, membership: str) -> Group | None:
    """The group of a process, by its root folder and the text of its /proc/PID/cgroup; None when it cannot be seen."""
    mount = root / "sys/fs/cgroup"
    paths: dict[str, str] = {}
    for line in membership.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        paths.update(dict.fromkeys(names.split(",") if names else [""], path))
    if _exists(mount / "cgroup.controllers"):
        return Group({"": _below(mount, paths.get("", "/"))})
    folders = {}
    for name in _CONTROLLERS:
        # Controllers are mounted alone or in pairs such as cpu,cpuacct, with or without links of the single names.
        for candidate in (name, "cpu,cpuacct", "cpuacct,cpu"):
            if (name == candidate or name in candidate.split(",")) and _exists(mount / candidate):
                folders[name] = _below(mount / candidate, paths.get(name, "/"))
                break
    return Group(folders) if folders else None


def _below(mount: Path, path: str) -> Path:
    if path in ("", "/") or ".." in path.split("/"):  # the top of what the target sees; or seen from another namespace
        return mount
    inner = mount / path.lstrip("/")
    return inner if _exists(inner) else mount


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _v2(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    keys = ("usage_usec", "user_usec", "system_usec", "nr_periods", "nr_throttled", "throttled_usec")
    found.update(kernelfiles.counters(text(folder / "cpu.stat"), keys))
    quota = text(folder / "cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        found["cpu_limit"] = int(quota[0]) / int(quota[1])
    found.update(_number(folder / "memory.current", "memory"))
    found.update(_number(folder / "memory.max", "memory_limit"))
    found.update(_number(folder / "memory.swap.current", "swap"))
    found.update(_number(folder / "pids.current", "pids"))
    found.update(kernelfiles.counters(text(folder / "memory.stat"), _V2_MEMORY))
    events = kernelfiles.counters(text(folder / "memory.events"), ("high", "max", "oom_kill"))
    found.update({f"memory_{key}": value for key, value in events.items()})
    sums = {"rbytes": 0, "wbytes": 0, "rios": 0, "wios": 0}
    lines = text(folder / "io.stat").splitlines()
    for word in (word for line in lines for word in line.split()[1:]):
        key, _, value = word.partition("=")
        if key in sums and value.isdigit():
            sums[key] += int(value)
    if lines:
        found.update(sums)
    for kind in ("cpu", "memory", "io"):
        if waits := kernelfiles.pressure(text(folder / f"{kind}.pressure")):
            found[f"{kind}_pressure"] = waits
    return found


def _v1(folders: dict[str, Path]) -> dict[str, object]:
    nowhere = Path("/nonexistent")
    cpu, memory = folders.get("cpu", nowhere), folders.get("memory", nowhere)
    accounts, io = folders.get("cpuacct", nowhere), folders.get("blkio", nowhere)
    found: dict[str, object] = {}
    for name, key in (("usage", "usage_usec"), ("usage_user", "user_usec"), ("usage_sys", "system_usec")):
        found.update({k: v // 1000 for k, v in _number(accounts / f"cpuacct.{name}", key).items()})
    throttling = kernelfiles.counters(text(cpu / "cpu.stat"), ("nr_periods", "nr_throttled", "throttled_time"))
    if (nanoseconds := throttling.pop("throttled_time", None)) is not None:
        throttling["throttled_usec"] = nanoseconds // 1000
    found.update(throttling)
    quota = text(cpu / "cpu.cfs_quota_us").strip()
    period = text(cpu / "cpu.cfs_period_us").strip()
    if quota.isdigit() and period.isdigit():  # -1 is no quota
        found["cpu_limit"] = int(quota) / int(period)
    found.update(_number(memory / "memory.usage_in_bytes", "memory"))
    found.update(_number(memory / "memory.limit_in_bytes", "memory_limit"))
    found.update(_number(folders.get("pids", nowhere) / "pids.current", "pids"))
    statistics = kernelfiles.counters(text(memory / "memory.stat"), tuple(_V1_MEMORY))
    found.update({_V1_MEMORY[key]: value for key, value in statistics.items()})
    found.update(kernelfiles.counters(text(memory / "memory.stat"), ("total_swap",)))
    if "total_swap" in found:
        found["swap"] = found.pop("total_swap")
    kills = kernelfiles.counters(text(memory / "memory.oom_control"), ("oom_kill",))
    found.update({f"memory_{key}": value for key, value in kills.items()})
    found.update(_block_io(text(io / "blkio.throttle.io_service_bytes"), "rbytes", "wbytes"))
    found.update(_block_io(text(io / "blkio.throttle.io_serviced"), "rios", "wios"))
    return found


def _block_io(content: str, read: str, written: str) -> dict[str, int]:
    sums = {read: 0, written: 0}
    names = {"Read": read, "Write": written}
    for words in (line.split() for line in content.splitlines()):
        if len(words) == 3 and words[1] in names:
            sums[names[words[1]]] += int(words[2])
    return sums if content else {}


def _number(path: Path, key: str) -> dict[str, int]:
    word = text(path).strip()
    return {key: int(word)} if word.isdigit() and int(word) < _UNLIMITED else {}


def text(path: Path) -> str:
    """What a kernel's file says; empty when it is not there or not for us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
