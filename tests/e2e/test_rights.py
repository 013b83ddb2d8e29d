"""The audit log beside the manifests: our accounts were refused nothing, and use every right that they have.

Runs after the tests that make the operator do everything it can; read alone it would find rights unused.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.e2e.harness import (
    COLLECTOR_USER,
    OPERATOR_USER,
    ROOT,
    Kube,
    Object,
    audit_log,
    audited,
    config,
    run,
    target,
    wait_for_capture,
)

pytestmark = pytest.mark.e2e

Right = tuple[str, str, str]  # group, resource with its subresource, verb

# Granted, and not asked for on every server or in every run.
SELDOM: set[Right] = {
    # API servers before 1.35 ask for `get`, later ones for `create`.
    *(("", f"pods/{name}", verb) for name in ("portforward", "attach") for verb in ("get", "create")),
    ("", "events", "patch"),  # only when an Event repeats
    ("coordination.k8s.io", "leases", "create"),  # only in a fresh cluster
    # A watch brings the first state itself where the server can do that; elsewhere, and after trouble, it is listed.
    *(("", resource, "list") for resource in ("pods", "nodes", "namespaces")),
    *((group, "profilingconfigs", "list") for group in ("profiling.io", "bolometer.io")),
    *(("codriverlabs.ai.toe.run", resource, "list") for resource in ("powertools", "powertoolconfigs")),
}


@pytest.fixture(scope="module")
def calls(installed: Kube) -> list[Object]:
    """Everything that the running operators and the collector asked of the API server."""
    path = audit_log(installed.kubeconfig)
    if path is None:
        pytest.skip("the API server's audit log is not on this machine (TOE_E2E_AUDIT_LOG)")
    since = min(pod["metadata"]["creationTimestamp"] for pod in installed.operators())
    return audited(path, OPERATOR_USER, COLLECTOR_USER, since=since)


def right(call: Object) -> Right:
    ref = call.get("objectRef", {})
    resource = "/".join(part for part in (ref.get("resource", ""), ref.get("subresource", "")) if part)
    return ref.get("apiGroup", ""), resource, call["verb"]


def test_no_call_was_forbidden(calls: list[Object]) -> None:
    refused = [call for call in calls if call.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid"]
    # A credentialsSecret is opened by its namespace's owner; until then asking for it is refused, and told to the user.
    surprising = [call for call in refused if right(call) != ("", "secrets", "get")]
    assert not surprising, json.dumps(surprising[:3], indent=1)


def test_every_right_of_the_operator_is_used(calls: list[Object]) -> None:
    used = {right(call) for call in calls if call["user"]["username"] == OPERATOR_USER}
    granted: set[Right] = set()
    for document in yaml.safe_load_all((ROOT / "deploy/program/rbac-operator.yaml").read_text()):
        for rule in document.get("rules", ()):
            granted |= {(g, r, v) for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
    assert used >= {("metrics.k8s.io", "pods", "list"), ("", "secrets", "create")}, "run this after the captures"
    assert not granted - used - SELDOM
    for name in ("portforward", "attach"):
        assert used & {("", f"pods/{name}", "get"), ("", f"pods/{name}", "create")}


def test_secrets_made_are_empty(installed: Kube, calls: list[Object]) -> None:
    made = [call for call in calls if right(call) == ("", "secrets", "create")]
    gone = [call for call in calls if right(call) == ("", "secrets", "delete")]
    assert {call["objectRef"]["namespace"] for call in made} == {"toe-agents"}
    for secret in installed.items("secrets", namespace="toe-agents"):
        assert (secret["type"], secret.get("data")) == ("Opaque", None)
    assert len(gone) >= len(made) * 0.8, "capture Secrets are left behind"


def test_the_accounts_rights_hold_for_the_token_itself(installed: Kube, tmp_path: Path) -> None:
    """The same rights with the deployed account's own token instead of impersonation."""
    token = installed("-n", "toe-system", "create", "token", "toe-operator").out.strip()
    raw = json.loads(installed("config", "view", "--raw", "--minify", "-o", "json").out)
    raw["users"] = [{"name": "operator", "user": {"token": token}}]
    raw["contexts"][0]["context"]["user"] = "operator"
    path = tmp_path / "operator.kubeconfig"
    path.write_text(json.dumps(raw))
    path.chmod(0o600)
    as_operator = Kube(path)
    assert as_operator.items("pods", namespace="kube-system")
    delete_all = ("-n", "kube-system", "delete", "pods", "--all", "--dry-run=server")
    for forbidden in (("get", "secrets", "-A"), ("get", "configmaps", "-n", "toe-system"), delete_all):
        refused = run(["kubectl", f"--kubeconfig={path}", *forbidden], check=False)
        assert "forbidden" in refused.err.lower(), refused


def test_the_status_is_all_that_it_writes_of_a_config(installed: Kube, namespace: Callable[[str], str]) -> None:
    name = namespace("fields")
    on_demand = {"enabled": True, "intervalSeconds": 86400}
    installed.apply(
        target("target"),
        config("watch", "target", onDemand=on_demand, profileTypes=["goroutine"], collector={}),
        namespace=name,
    )
    wait_for_capture(installed, name, "watch")
    words = ("-n", name, "get", "profilingconfigs.profiling.io", "watch", "-o", "json", "--show-managed-fields")
    managers = json.loads(installed(*words).out)["metadata"]["managedFields"]
    ours = [entry for entry in managers if entry["manager"].startswith("toe")]
    assert ours
    assert all(entry.get("subresource") == "status" for entry in ours)
