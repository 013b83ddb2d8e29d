"""The shipped install becomes ready, as restricted pods spread over the nodes, and its samples and names are real."""

import pytest

from tests.e2e.harness import ROOT, SYSTEM, Kube, until

pytestmark = pytest.mark.e2e


def test_both_replicas_of_the_operator_are_ready_on_two_nodes(installed: Kube) -> None:
    pods = until("two operators", lambda: found if len(found := installed.operators()) == 2 else [])
    assert all(status["ready"] for pod in pods for status in pod["status"]["containerStatuses"])
    if len(installed.items("nodes")) > 1:
        assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    assert installed.leader()


def test_nothing_was_restarted_to_get_there(installed: Kube) -> None:
    pods = installed.items("pods", namespace=SYSTEM)
    restarts = {p["metadata"]["name"]: [s["restartCount"] for s in p["status"]["containerStatuses"]] for p in pods}
    assert not any(count for counts in restarts.values() for count in counts), restarts


def test_health_names_its_checks(installed: Kube) -> None:
    pod = installed.leader()
    text = installed("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{pod}:8081/proxy/readyz?verbose").out
    assert text.count("[+]") >= 2, text
    assert "[-]" not in text


@pytest.mark.parametrize("sample", sorted((ROOT / "deploy/samples").glob("*.yaml")), ids=lambda path: path.name)
def test_the_samples_are_taken_by_the_api_server(installed: Kube, sample: str) -> None:
    installed("-n", "default", "apply", "--dry-run=server", "-f", sample)


def test_the_components_render_onto_the_install(installed: Kube) -> None:
    installed("apply", "--dry-run=server", "-f", ROOT / "deploy/components/network-policy/network-policy.yaml")


def test_kubectl_explains_and_lists_configs(installed: Kube) -> None:
    for group in ("profiling.io", "bolometer.io"):
        explained = installed("explain", f"profilingconfigs.{group}", "--recursive").out
        assert "cpuThresholdPercent" in explained
    assert "profilingconfigs.profiling.io" in installed("get", "crd", "-o", "name").out
