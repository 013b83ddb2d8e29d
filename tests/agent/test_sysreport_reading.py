"""What sysreport reads: the kernel's texts, and the target's control group in every layout that nodes have."""

from pathlib import Path
from typing import Any

import pytest

from toe_async.agent.sysreport import kernelfiles
from toe_async.agent.sysreport.groups import Group, find
from toe_async.agent.sysreport.sample import Sampler

STAT = """cpu  100 5 40 900 10 1 2 3 0 0
cpu0 50 2 20 450 5 1 1 2 0 0
cpu1 50 3 20 450 5 0 1 1 0 0
intr 12345 0 1 2
ctxt 678
btime 1700000000
processes 90
procs_running 3
procs_blocked 1
softirq 5 1 2
"""


def test_processor_ticks_and_counters_are_read() -> None:
    assert kernelfiles.cpu(STAT) == {
        "ticks": {
            "cpu": [100, 5, 40, 900, 10, 1, 2, 3],
            "cpu0": [50, 2, 20, 450, 5, 1, 1, 2],
            "cpu1": [50, 3, 20, 450, 5, 0, 1, 1],
        },
        "interrupts": 12345,
        "switches": 678,
        "forks": 90,
        "running": 3,
        "blocked": 1,
    }


def test_memory_is_in_bytes() -> None:
    assert kernelfiles.memory("MemTotal:  2048 kB\nHugePages_Total:  0\nDirty: 4 kB\n") == {
        "MemTotal": 2048 * 1024,
        "Dirty": 4096,
    }


def test_disks_that_were_never_used_and_loops_are_left_out() -> None:
    text = (
        "   7       0 loop0 9 0 9 0 0 0 0 0 0 0 0\n"
        " 259       0 nvme0n1 10 1 16 30 20 2 32 40 1 50 60 0 0 0 0\n"
        " 259       1 nvme1n1 0 0 0 0 0 0 0 0 0 0 0\n"
    )
    assert kernelfiles.disks(text) == {"nvme0n1": [10, 8192, 30, 20, 16384, 40, 1, 50, 60]}


def test_network_interfaces_and_protocols_are_read_by_name() -> None:
    device = (
        "Inter-|\n face |bytes\n  eth0: 100 2 0 1 0 0 0 0 200 3 4 5 0 0 0 0\n  gre0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    )
    assert kernelfiles.network(device) == {"eth0": [100, 2, 0, 1, 200, 3, 4, 5]}
    snmp = "Tcp: RtoMin InSegs RetransSegs\nTcp: 200 7 1\nUdpLite: InErrors\nUdpLite: 9\n"
    netstat = "TcpExt: ListenDrops Unknown\nTcpExt: 2 3\n"
    assert kernelfiles.protocols(snmp, netstat) == {"Tcp.InSegs": 7, "Tcp.RetransSegs": 1, "TcpExt.ListenDrops": 2}


def test_interrupts_are_summed_over_processors_and_named_by_their_device() -> None:
    text = (
        "           CPU0       CPU1\n"
        " 24:          1          2  IO-APIC   5-edge      virtio0-input.0\n"
        " 25:          0          0  IO-APIC   6-edge      silent\n"
        "LOC:         10         20  Local timer interrupts\n"
        "ERR:          3\n"
    )
    assert kernelfiles.per_kind(text) == {"24 virtio0-input.0": 3, "LOC": 30, "ERR": 3}


@pytest.mark.parametrize("command", ["python3", "a) R (b", "", "x y"])
def test_a_process_may_be_called_anything(command: str) -> None:
    fields = "S 1 1 1 0 -1 0 0 0 0 0 11 22 0 0 20 0 4 0 555 1000000 77 0"
    assert kernelfiles.process(f"42 ({command}) {fields}") == (command, "S", 33, 4, 555, 77)


@pytest.mark.parametrize("text", ["", "\n\n", "garbage", "cpu", "a: b\n", "1 (x", "\x00" * 40, "Tcp: a\n"])
def test_texts_of_no_known_form_give_nothing(text: str) -> None:
    """And no exception: a kernel may change its files, a container runtime may mask them."""
    for reader in (kernelfiles.memory, kernelfiles.counters, kernelfiles.pressure, kernelfiles.disks,
                   kernelfiles.network, kernelfiles.protocols, kernelfiles.per_kind):  # fmt: skip
        assert reader(text) == {}
    assert kernelfiles.load(text) == []
    assert kernelfiles.process(text) is None
    assert kernelfiles.switches(text) == (0, 0)


def test_context_switches_are_the_last_lines_of_a_status() -> None:
    text = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t34\n"
    assert kernelfiles.switches(text) == (12, 34)


V2 = {
    "cgroup.controllers": "cpu memory io pids\n",
    "cpu.stat": "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\n"
    "nr_periods 10\nnr_throttled 4\nthrottled_usec 900\n",
    "cpu.max": "50000 100000\n",
    "memory.current": "1048576\n",
    "memory.max": "max\n",
    "memory.stat": "anon 100\nfile 200\nworkingset_refault_anon 1\n",
    "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n",
    "pids.current": "7\n",
    "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=5 rios=1 wios=1\n",
    "cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
}
V2_FIGURES = {
    "usage_usec": 5000, "user_usec": 3000, "system_usec": 2000, "nr_periods": 10, "nr_throttled": 4,
    "throttled_usec": 900, "cpu_limit": 0.5, "memory": 1048576, "anon": 100, "file": 200, "memory_oom_kill": 1,
    "memory_max": 3, "memory_high": 0, "pids": 7, "rbytes": 15, "wbytes": 25, "rios": 2, "wios": 3,
    "cpu_pressure": {"some": 77, "full": 7},
}  # fmt: skip
V1 = {
    "cpu/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 900000\n",
    "cpu/cpu.cfs_quota_us": "50000\n",
    "cpu/cpu.cfs_period_us": "100000\n",
    "cpuacct/cpuacct.usage": "5000000\n",
    "cpuacct/cpuacct.usage_user": "3000000\n",
    "cpuacct/cpuacct.usage_sys": "2000000\n",
    "memory/memory.usage_in_bytes": "1048576\n",
    "memory/memory.limit_in_bytes": "9223372036854771712\n",
    "memory/memory.stat": "rss 1\ntotal_rss 100\ntotal_cache 200\ntotal_swap 0\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    "pids/pids.current": "7\n",
    "blkio/blkio.throttle.io_service_bytes": "8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:16 Read 5\nTotal 35\n",
    "blkio/blkio.throttle.io_serviced": "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
}
V1_FIGURES = {
    "usage_usec": 5000, "user_usec": 3000, "system_usec": 2000, "nr_periods": 10, "nr_throttled": 4,
    "throttled_usec": 900, "cpu_limit": 0.5, "memory": 1048576, "anon": 100, "file": 200, "swap": 0,
    "memory_oom_kill": 1, "pids": 7, "rbytes": 15, "wbytes": 20, "rios": 1, "wios": 2,
}  # fmt: skip
UID = "pod3c2a_11e9"


def tree(root: Path, files: dict[str, str], below: str = "") -> Path:
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def under(path: str, files: dict[str, str]) -> dict[str, str]:
    """cgroup v1: the same path below each controller."""
    return {f"{name.split('/')[0]}/{path}/{name.split('/')[1]}": text for name, text in files.items()}


def membership(controllers: str, path: str) -> str:
    return "".join(f"{number}:{name}:{path}\n" for number, name in enumerate(controllers.split("|")))


SYSTEMD = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{UID}.slice/cri-containerd-ab.scope"
CGROUPFS = "/kubepods/burstable/pod3c2a-11e9/abcdef"
CONTROLLERS = "cpu,cpuacct|memory|blkio|pids|name=systemd"


@pytest.mark.parametrize(
    ("files", "paths", "figures", "version"),
    [
        pytest.param(V2, "0::/\n", V2_FIGURES, 2, id="v2, the target's own mount, seen from inside"),
        pytest.param(V2, "0::/../abcdef\n", V2_FIGURES, 2, id="v2, cgroupfs, seen from the tool's namespace"),
        pytest.param(V2, "0::/../cri-containerd-ab.scope\n", V2_FIGURES, 2, id="v2, systemd, likewise"),
        pytest.param(
            {"cgroup.controllers": "cpu\n", **{f"{SYSTEMD[1:]}/{name}": text for name, text in V2.items()}},
            f"0::{SYSTEMD}\n", V2_FIGURES, 2, id="v2, systemd, the node's namespace",
        ),
        pytest.param(V1, membership(CONTROLLERS, "/"), V1_FIGURES, 1, id="v1, the target's own mount"),
        pytest.param(V1, membership(CONTROLLERS, CGROUPFS), V1_FIGURES, 1, id="v1, as containerd binds it"),
        pytest.param(
            under(CGROUPFS[1:], V1), membership(CONTROLLERS, CGROUPFS), V1_FIGURES, 1, id="v1, the node's mount"
        ),
        pytest.param(
            {**V1, "unified/cgroup.controllers": ""}, f"{membership(CONTROLLERS, SYSTEMD)}0::{SYSTEMD}\n",
            V1_FIGURES, 1, id="the mixed layout",
        ),
        pytest.param(
            {name.replace("cpuacct/", "cpu/").replace("cpu/", "cpu,cpuacct/"): text for name, text in V1.items()},
            membership(CONTROLLERS, "/"), V1_FIGURES, 1, id="v1, controllers in pairs without links",
        ),
    ],
)  # fmt: skip
def test_the_targets_group_is_found_and_read(
    tmp_path: Path, files: dict[str, str], paths: str, figures: dict[str, Any], version: int
) -> None:
    found = find(tree(tmp_path, files), paths)
    assert isinstance(found, Group)
    assert found.version == version
    assert found.read() == figures


def test_a_target_without_a_mount_of_groups_has_none(tmp_path: Path) -> None:
    assert find(tmp_path, "0::/\n") is None


def test_no_limit_is_no_figure(tmp_path: Path) -> None:
    """-1 and `max` are not numbers of cores or bytes."""
    files = {**V1, "cpu/cpu.cfs_quota_us": "-1\n"}
    found = find(tree(tmp_path, files), "")
    assert found is not None
    assert "cpu_limit" not in found.read()
    assert "memory_limit" not in found.read()


def test_a_sample_of_a_node_that_shows_nothing_is_empty_and_says_what_is_missing(tmp_path: Path) -> None:
    """Masked files, a target that is gone."""
    sampler = Sampler(1, tmp_path / "root", tmp_path)
    header = sampler.header(1.0, "2026-01-01T00:00:00Z")
    assert set(header["missing"]) == {
        "interrupts by kind", "pressure", "disks", "the target's control group", "open files of the target's processes"
    }  # fmt: skip
    sample = sampler.take(0.0)
    assert sample["processes"] == []
    assert "group" not in sample


def test_a_process_of_the_target_is_seen_with_what_others_may_see_of_it(tmp_path: Path) -> None:
    process = tmp_path / "7"
    (process / "fd").mkdir(parents=True)
    (process / "fd/0").write_text("")
    (process / "cgroup").write_text("0::/../x\n")
    (process / "stat").write_text("7 (web) S 1 1 1 0 -1 0 0 0 0 0 11 22 0 0 20 0 4 0 555 1000000 2 0")
    (process / "status").write_text("voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t6\n")
    (row,) = Sampler(7, tmp_path / "root", tmp_path).take(0.0)["processes"]
    assert row[:4] == [7, 555, "web", 33]
    assert row[4] % 4096 == 0
    assert row[5:] == [4, 1, 5, 6]
