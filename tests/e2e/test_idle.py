"""With nothing to do the deployed accounts write nothing but the Lease, and use less than one per cent of a core."""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.harness import (
    COLLECTOR_USER,
    OPERATOR_USER,
    SYSTEM,
    Kube,
    Object,
    audit_log,
    audited,
    config,
    target,
    wait_for_condition,
)

SECONDS = float(os.environ.get("TOE_E2E_IDLE_SECONDS", "600"))

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(SECONDS + 400)]

WRITES = {"create", "update", "patch", "delete", "deletecollection"}


def cpu_seconds(kube: Kube) -> dict[str, float]:
    """CPU of each of our pods since it began, from its cgroup by way of the kubelet."""
    used: dict[str, float] = {}
    for node in kube.items("nodes"):
        name = node["metadata"]["name"]
        summary: Any = json.loads(kube("get", "--raw", f"/api/v1/nodes/{name}/proxy/stats/summary").out)
        for pod in summary["pods"]:
            if pod["podRef"]["namespace"] == SYSTEM:
                used[pod["podRef"]["name"]] = pod["cpu"]["usageCoreNanoSeconds"] / 1e9
    return used


def test_nothing_to_do_costs_nothing(installed: Kube, namespace: Callable[[str], str]) -> None:
    log = audit_log(installed.kubeconfig)
    if log is None:
        pytest.skip("the API server's audit log is not on this machine (TOE_E2E_AUDIT_LOG)")
    scenes = [item["metadata"]["name"] for item in installed.items("namespaces", selector="toe-e2e=scene")]
    if scenes:
        installed("delete", "namespace", *scenes, "--wait", timeout=240)
    # A config and a pod that never gets hot: the usual state of a cluster, and more than no config at all.
    name = namespace("idle")
    thresholds = {"cpuThresholdPercent": 80, "checkIntervalSeconds": 30}
    installed.apply(
        target("target", cpu="100m"), config("watch", "target", thresholds=thresholds, collector={}), namespace=name
    )
    wait_for_condition(installed, name, "watch", "Ready", "True", seconds=120)
    # A pod's first samples hold its own start, and the sentence in the status follows them once a minute (D12).
    time.sleep(150)

    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    before, began = cpu_seconds(installed), time.monotonic()
    time.sleep(SECONDS)
    after, lasted = cpu_seconds(installed), time.monotonic() - began

    calls: list[Object] = [c for c in audited(log, OPERATOR_USER, COLLECTOR_USER, since=since) if c["verb"] in WRITES]
    others = [c["requestURI"] for c in calls if c["objectRef"]["resource"] not in ("leases", "tokenreviews")]
    leases = [c for c in calls if c["objectRef"]["resource"] == "leases"]
    shares = {pod: (after[pod] - before[pod]) / lasted * 100 for pod in after}
    print(f"{lasted:.0f} s: {len(leases)} lease writes, CPU per cent of a core: {shares}")
    assert not others
    assert len(leases) <= lasted / 2 + 1
    assert all(share < 1 for share in shares.values()), shares
