"""The tool is for the right process: by cgroup in every layout, and behind every wrapper."""

import os

import pytest

from toe_async.agent.procfs import Process
from toe_async.agent.target import TargetMissingError, choose, container_processes, find_target, in_container

UID = "0b3f2c4e-9f6c-4b7e-8d55-2f0c9f1d7a10"
OTHER_UID = "0b3f2c4e-9f6c-4b7e-8d55-2f0c9f1d7a11"
ID = "c2d1" * 16
OTHER_ID = "c2d2" * 16
UNDERSCORED = UID.replace("-", "_")

LAYOUTS = {
    "v1, a line a controller": (
        f"12:pids:/kubepods/burstable/pod{UID}/{ID}\n"
        f"3:cpu,cpuacct:/kubepods/burstable/pod{UID}/{ID}\n"
        f"1:name=systemd:/kubepods/burstable/pod{UID}/{ID}\n0::/\n"
    ),
    "v1 below a folder of the node": f"8:pids:/node-1/kubepods/pod{UID}/{ID}\n0::/\n",
    "v1 with systemd": (
        f"4:memory:/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/docker-{ID}.scope\n"
        f"1:name=systemd:/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/docker-{ID}.scope\n"
    ),
    "v2 with cgroupfs": f"0::/kubepods/besteffort/pod{UID}/{ID}\n",
    "v2 with systemd": (
        "0::/kubepods.slice/kubepods-burstable.slice/"
        f"kubepods-burstable-pod{UNDERSCORED}.slice/cri-containerd-{ID}.scope\n"
    ),
    "v2 with systemd under CRI-O": (
        f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice/crio-{ID}.scope\n"
    ),
    "v2 with a runtime's own separators": (
        f"0::/system.slice/containerd.service/kubepods-pod{UNDERSCORED}.slice:cri-containerd:{ID}\n"
    ),
    "v2 relative to a private namespace, cgroupfs": f"0::/../../pod{UID}/{ID}\n",
    "v2 relative to a private namespace, systemd": (
        f"0::/../../kubepods-burstable-pod{UNDERSCORED}.slice/cri-containerd-{ID}.scope\n"
    ),
    "v2, in a cgroup that the container made": f"0::/kubepods/pod{UID}/{ID}/init.scope\n",
}
SAME_POD_ONLY_BY_ID = {
    "v2 seen from a neighbour in the pod, cgroupfs": f"0::/../{ID}\n",
    "v2 seen from a neighbour in the pod, systemd": f"0::/../cri-containerd-{ID}.scope\n",
}


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_a_process_is_found_by_container_and_by_pod_in_every_layout(text: str) -> None:
    assert in_container(text, UID, ID)
    assert in_container(text, "", ID)
    assert in_container(text, UID, "")
    assert not in_container(text, UID, OTHER_ID)
    assert not in_container(text, OTHER_UID, "")


@pytest.mark.parametrize("text", SAME_POD_ONLY_BY_ID.values(), ids=SAME_POD_ONLY_BY_ID)
def test_a_neighbour_in_the_pod_is_told_by_its_container_id(text: str) -> None:
    assert in_container(text, "", ID)
    assert not in_container(text, "", OTHER_ID)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0::/\n",
        "garbage",
        f"0::/kubepods/pod{UID}0/{OTHER_ID}\n",
        f"0::/kubepods/podx{UID}/{OTHER_ID}\n",
        f"0::/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/crio-conmon-{ID}.scope\n".replace(UNDERSCORED, "x"),
    ],
)
def test_a_process_of_nobody_or_of_a_like_name_is_not_taken(text: str) -> None:
    assert not in_container(text, UID, ID)
    assert not in_container(text, UID, "")
    assert not in_container(text, "", "")


def process(pid: int, name: str, parent: int = 0, cpu: int = 0, state: str = "S") -> Process:
    return Process(pid=pid, name=name, state=state, parent=parent, group=pid, cpu=cpu, started=pid, rss=0)


@pytest.mark.parametrize(
    ("family", "chosen", "words"),
    [
        ([process(1, "java")], 1, "1 java"),
        ([process(1, "java"), process(7, "sh", 1, cpu=900)], 1, "1 java"),
        ([process(1, "sh")], 1, "1 sh"),
        ([process(1, "tini"), process(7, "java", 1)], 7, "1 tini > 7 java"),
        ([process(1, "dumb-init"), process(7, "sh", 1), process(8, "node", 7)], 8, "1 dumb-init > 7 sh > 8 node"),
        (
            [
                process(1, "s6-svscan"),
                process(5, "s6-supervise", 1),
                process(6, "s6-supervise", 1),
                process(7, "log", 5, cpu=3),
                process(8, "app", 6, cpu=90),
            ],
            8,
            "1 s6-svscan > 6 s6-supervise (busiest of 2) > 8 app",
        ),
        ([process(1, "sh"), process(7, "app", 1, cpu=5), process(8, "app-sidecar", 1, cpu=9)], 8, "busiest of 2"),
        ([process(1, "sh"), process(7, "dead", 1, cpu=99, state="Z"), process(8, "app", 1)], 8, "8 app"),
        ([process(1, "sh"), process(7, "app", 1), process(8, "app", 1)], 7, "7 app (busiest of 2)"),
    ],
)
def test_the_process_behind_the_wrappers_is_chosen(family: list[Process], chosen: int, words: str) -> None:
    target = choose({one.pid: one for one in family}, (1,), lambda _: ())
    assert target is not None
    assert target.pid == chosen
    assert words in target.evidence


def test_the_program_is_what_it_was_started_as() -> None:
    family = {1: process(1, "busybox"), 9: process(9, "main-thread", 1)}
    target = choose(family, (1,), lambda pid: {1: ("/bin/sh", "-c", "node"), 9: ("/usr/bin/node",)}[pid])
    assert target is not None
    assert (target.pid, target.evidence) == (9, "1 sh > 9 node")


def test_of_several_roots_the_busiest_is_taken() -> None:
    family = [process(10, "app", 4, cpu=50), process(20, "bash", 4, cpu=1), process(21, "yes", 20, cpu=30)]
    target = choose({one.pid: one for one in family}, (10, 20), lambda _: ())
    assert target is not None
    assert (target.pid, target.evidence) == (10, "10 app (busiest of 2)")


def test_without_candidates_there_is_no_target() -> None:
    assert choose({}, (1,), lambda _: ()) is None


def test_a_pod_that_is_not_here_is_missing_and_never_the_nodes_first_process() -> None:
    with pytest.raises(TargetMissingError, match="no process of the target container"):
        find_target(OTHER_UID, "")


def test_a_container_that_is_not_here_is_missing_and_never_whoever_is_first_among_shared_processes() -> None:
    with pytest.raises(TargetMissingError, match="that the pod's containers share"):
        find_target("", OTHER_ID)


def test_the_supervisor_is_never_its_own_target() -> None:
    assert os.getpid() not in container_processes(os.getpid())
