"""Which process the tool is for: never a supervisor's, never pause, never an init that only waits for the real one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from toe_async.agent.procfs import Process, below, cgroup, command, processes
from toe_async.agent.protocol import SUPERVISOR

SHELLS = ("sh", "bash", "dash", "ash", "zsh", "ksh")
INITS = ("tini", "tini-static", "dumb-init", "docker-init", "catatonit", "my_init")
SUPERVISORS = ("s6-svscan", "s6-supervise", "runsvdir", "runsv", "runit")
PREFIXES = ("su", "sudo", "gosu", "su-exec", "setpriv", "env", "nice", "nohup", "timeout")
WRAPPERS = frozenset(SHELLS + INITS + SUPERVISORS + PREFIXES)
"""Programs that start the real one and wait for it. Whoever runs as one of these and has no child is real himself."""


class TargetMissingError(Exception):
    """No process of the target can be told."""


@dataclass(frozen=True)
class Target:
    """The chosen process, and why it is this one."""

    pid: int
    evidence: str


def in_container(text: str, pod_uid: str, container_id: str) -> bool:
    """Whether a process with this /proc/PID/cgroup runs in the container; without an id, in any container of the pod.

    Layouts: cgroup v1 (a line a controller), v2 with cgroupfs (`/kubepods/burstable/podUID/ID`), v2 with systemd
    (`/kubepods.slice/...-podUID_WITH_UNDERSCORES.slice/cri-containerd-ID.scope`), and the relative paths (`/../..`)
    that a private cgroup namespace makes of either. Cgroups that the container itself made lie below and count.
    """
    wanted = container_id or pod_uid
    if not wanted:
        return False
    spellings = {wanted, wanted.replace("-", "_")}
    for line in text.splitlines():
        for part in line.partition(":")[2].partition(":")[2].split("/"):
            # the whole id, as in `podUID` or `cri-containerd-ID.scope`; CRI-O's monitor of a container is not in it
            if any(
                re.search(rf"(?:^|(?<!conmon)[-:]|pod){re.escape(one)}(?:\.scope|\.slice|$)", part) for one in spellings
            ):
                return True
    return False


def choose(
    candidates: dict[int, Process], roots: tuple[int, ...], argv: Callable[[int], tuple[str, ...]]
) -> Target | None:
    """Start at the busiest root and go from wrapper to busiest child until somebody real is met.

    `candidates` are the processes that may be chosen; busy is CPU of a process with all that descend from it.
    """
    steps: list[str] = []
    level = [candidates[pid] for pid in roots if pid in candidates]
    chosen: Process | None = None
    while level:
        busy = {one.pid: one.cpu + sum(child.cpu for child in below(candidates, one.pid).values()) for one in level}
        chosen = max(level, key=lambda one: (busy[one.pid], -one.started, -one.pid))
        name = program(chosen, argv(chosen.pid))
        among = f" (busiest of {len(level)})" if len(level) > 1 else ""
        steps.append(f"{chosen.pid} {name}{among}")
        if name not in WRAPPERS:
            break
        level = [one for one in candidates.values() if one.parent == chosen.pid and not one.dead]
    return Target(chosen.pid, " > ".join(steps)[:400]) if chosen is not None else None


def program(process: Process, argv: tuple[str, ...]) -> str:
    """The program's own name: what it was started as, else what the kernel calls it."""
    return argv[0].rpartition("/")[2].lstrip("-").partition(" ")[0] if argv and argv[0] else process.name


def find_target(pod_uid: str, container_id: str, first: int = 1) -> Target:
    """The process a tool is for.

    With an id of container or pod it is looked for by cgroup and nowhere else: PID 1 may be the node's then, or that of
    a pod whose containers share their processes. Without one it is sought below PID 1, whose PID namespace we share as
    an ephemeral container. Where somebody who has no namespaces says which process is the `first` one of the target, it
    is sought there.

    Raises:
        TargetMissingError: there is none, or several containers share the namespace and no id says which is meant.
    """
    table = processes()
    supervisors = [pid for pid in table if pid == os.getpid() or SUPERVISOR in command(pid)[:3]]
    ours = {one for pid in supervisors for one in (pid, *below(table, pid))}
    others = {pid: one for pid, one in table.items() if pid not in ours and not one.dead and not _is_pause(one)}
    if (container_id or pod_uid) and first == 1:
        inside = {pid: one for pid, one in others.items() if in_container(cgroup(pid), pod_uid, container_id)}
        roots = tuple(pid for pid, one in inside.items() if one.parent not in inside)
        if chosen := choose(inside, roots, command):
            return chosen
        where = "on this node" if pod_uid else "among those that the pod's containers share"
        raise TargetMissingError(f"no process of the target container is to be seen {where}")
    if first in others and (chosen := choose({first: others[first], **below(others, first)}, (first,), command)):
        return chosen
    raise TargetMissingError("no process of the target container is to be seen from the tool's container")


def _is_pause(process: Process) -> bool:
    return process.name == "pause" and command(process.pid)[:1] in ((), ("/pause",), ("pause",))


def container_processes(target: int) -> frozenset[int]:
    """All processes in the target's container, by equal cgroup; if that is ours too, the target and what it started."""
    table, text = processes(), cgroup(target)
    if text and text != cgroup(os.getpid()):
        return frozenset(pid for pid in table if cgroup(pid) == text)
    return frozenset({target, *below(table, target)} - {os.getpid(), *below(table, os.getpid())})
