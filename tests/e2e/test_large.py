"""1 GiB that cannot be compressed, streamed by a target as its heap profile, costs the operator hardly any memory."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.artifacts import Artifacts
from tests.e2e.conftest import S3
from tests.e2e.harness import SYSTEM, Kube, Object, config, target, wait_for_capture

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

MIB = 1 << 20
ALLOWED_GROWTH_MIB = 32


def high_water_mark(kube: Kube, pod: str) -> float:
    """VmHWM of a pod's first process, in MiB."""
    read = "print(open('/proc/1/status').read())"
    status = kube("-n", SYSTEM, "exec", pod, "--", "/opt/toe/bin/python", "-I", "-S", "-c", read).out
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found, status
    return int(found[1]) / 1024


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("sink", ["collector", "s3"])
def test_a_gibibyte_passes_through_in_bounded_memory(
    installed: Kube, s3: S3, artifacts: Artifacts, namespace: Callable[[str], str], sink: str, tmp_path: Path
) -> None:
    name = namespace(f"large-{sink}")
    where: Object = {"collector": {}} if sink == "collector" else {"s3Config": s3.spec("large")}
    marks, captures = {}, {}
    for size in (MIB, 1024 * MIB):
        pod = f"target-{size // MIB}"
        installed.apply(
            target(pod, f"-heap-bytes={size}", memory="256Mi"),
            config(pod, pod, onDemand={"enabled": True, "intervalSeconds": 86400}, profileTypes=["heap"], **where),
            namespace=name,
        )
        captures[size] = wait_for_capture(installed, name, pod, seconds=600)
        holder = captures[size]["holder"]
        (leader,) = (p["metadata"]["name"] for p in installed.operators() if holder.startswith(p["metadata"]["name"]))
        marks[size] = (leader, high_water_mark(installed, leader))
    (small_by, small), (large_by, large) = marks[MIB], marks[1024 * MIB]
    print(f"{sink}: VmHWM {small:.1f} MiB after 1 MiB, {large:.1f} MiB after 1 GiB")
    assert small_by == large_by, "the leader changed in between"

    (artifact,) = captures[1024 * MIB]["artifacts"]
    sent = re.findall(r"sent (\d+) ([0-9a-f]{64})", installed("-n", name, "logs", "target-1024").out)
    assert sent == [(str(artifact["size"]), artifact["sha256"])]
    path = tmp_path / "profile"
    if sink == "s3":
        s3.fetch(artifact["uri"], path)
    else:
        artifacts.fetch(name, artifact, path)
    assert path.stat().st_size == artifact["size"] > 1024 * MIB
    assert digest(path) == artifact["sha256"]
    assert large - small <= ALLOWED_GROWTH_MIB
