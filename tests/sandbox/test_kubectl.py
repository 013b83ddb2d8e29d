"""The real kubectl, against the sandbox: what people type first."""

from pathlib import Path

import pytest

from tests.sandbox.kubectl import NEEDED, Kubectl

CRDS = Path(__file__).parents[2] / "crds"
POD = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: none
    command: [sh, -c, "echo hello; exec sleep 600"]
"""
CONFIG = """
apiVersion: profiling.io/v1alpha1
kind: ProfilingConfig
metadata: {name: hot}
spec:
  selector: {labelSelector: {app: web}}
  thresholds: {cpuThresholdPercent: %d}
  collector: {}
"""

pytestmark = [pytest.mark.slow, NEEDED]


@pytest.fixture
def kubectl(kubeconfig: Path) -> Kubectl:
    return Kubectl(kubeconfig)


async def test_a_pod_can_be_applied_watched_read_and_deleted(kubectl: Kubectl) -> None:
    assert await kubectl("apply", "-f", "-", stdin=POD) == "pod/web created\n"
    assert await kubectl("apply", "-f", "-", stdin=POD) == "pod/web unchanged\n"
    assert await kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=20s") == "pod/web condition met\n"
    header, row = (await kubectl("get", "pods")).splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["web", "1/1", "Running", "0"]
    assert "app=web" in await kubectl("describe", "pod", "web")
    assert await kubectl("logs", "web") == "hello\n"
    assert await kubectl("label", "pod", "web", "tier=x") == "pod/web labeled\n"
    assert await kubectl("get", "po", "-l", "tier=x", "-o", "name") == "pod/web\n"
    assert "phase: Running" in await kubectl("get", "pod", "web", "-o", "yaml")
    assert 'pod "web" deleted' in await kubectl("delete", "pod", "web")
    assert "not found" in await kubectl("get", "pod", "web", fails=True)


async def test_our_own_kind_works_like_a_built_in_one(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", str(CRDS / "profilingconfigs.profiling.io.yaml"))
    await kubectl("wait", "--for=condition=Established", "crd/profilingconfigs.profiling.io")
    assert "created" in await kubectl("apply", "-f", "-", stdin=CONFIG % 70)
    assert "configured" in await kubectl("apply", "-f", "-", stdin=CONFIG % 75)
    assert await kubectl("get", "pc", "hot", "-o", "jsonpath={.spec.thresholds.cpuThresholdPercent}") == "75"
    header, row = (await kubectl("get", "pc")).splitlines()
    assert header.split()[:2] == ["NAME", "READY"]
    assert row.split()[0] == "hot"
    assert await kubectl("get", "toe", "-o", "name") == "profilingconfig.profiling.io/hot\n"
    described = (await kubectl("describe", "pc", "hot")).split()
    at = described.index("Threshold")
    assert described[at - 1 : at + 3] == ["Cpu", "Threshold", "Percent:", "75"]
    assert "CPU" in await kubectl("explain", "profilingconfigs.spec.thresholds.cpuThresholdPercent")
    refused = await kubectl("apply", "-f", "-", stdin=(CONFIG % 70).replace("collector", "colector"), fails=True)
    assert 'unknown field "spec.colector"' in refused
    assert "deleted" in await kubectl("delete", "pc", "--all")


async def test_resources_can_be_looked_up(kubectl: Kubectl) -> None:
    listed = await kubectl("api-resources", "-o", "name")
    assert {"pods", "leases.coordination.k8s.io", "pods.metrics.k8s.io"} <= set(listed.split())
    assert (await kubectl("get", "--raw", "/readyz")).strip() == "ok"
    assert "Server Version: v1.36" in await kubectl("version")
    assert "sandbox   Ready" in await kubectl("get", "nodes")


async def test_server_side_apply_and_patches_work(kubectl: Kubectl) -> None:
    body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n"
    applied = await kubectl("apply", "--server-side", "-f", "-", stdin=body)
    assert applied == "configmap/c serverside-applied\n"
    for kind, patch in {
        "merge": '{"data":{"m":"1"}}',
        "json": '[{"op":"add","path":"/data/j","value":"2"}]',
        "strategic": '{"data":{"s":"3"}}',
    }.items():
        await kubectl("patch", "configmap", "c", "--type", kind, "-p", patch)
    found = await kubectl("get", "configmap", "c", "-o", "jsonpath={.data}")
    assert found == '{"a":"b","j":"2","m":"1","s":"3"}'


async def test_kubectl_gets_into_containers_and_adds_one(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=POD)
    await kubectl("wait", "pod/web", "--for=condition=Ready", "--timeout=20s")
    assert await kubectl("exec", "web", "--", "echo", "inside") == "inside\n"
    assert await kubectl("exec", "-i", "web", "--", "cat", stdin="typed") == "typed"
    assert "exit code 3" in await kubectl("exec", "web", "--", "sh", "-c", "exit 3", fails=True)
    added = ("debug", "web", "--image=busybox:1", "--target=web", "--container=tool")
    await kubectl(*added, "--", "sh", "-c", "echo debugging; exec sleep 600")
    path = "jsonpath={.status.ephemeralContainerStatuses[0].state.running}"
    await kubectl("wait", "pod/web", f"--for={path}", "--timeout=20s")
    assert await kubectl("exec", "web", "--container=tool", "--", "pwd") == "/\n"
    assert "tool" in await kubectl("describe", "pod", "web")
    assert await kubectl("logs", "web", "--container=tool") == "debugging\n"
