"""The rights that the manifests grant: exactly these, and none of the kinds that turn into all rights."""

from collections.abc import Callable
from typing import Any

import pytest

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]

BOTH = ("profiling.io", "bolometer.io")
POLICIES = ("toe-profilingconfig-author", "toe-powertool-author")
TOOLS = "codriverlabs.ai.toe.run"

# (where, group, resource, names) -> verbs: the operator's account, whole (decision D39: it grows only by use).
OPERATOR: dict[tuple[str, str, str, tuple[str, ...]], set[str]] = {
    ("*", "", "pods", ()): {"list", "watch", "get"},
    ("*", "", "pods/ephemeralcontainers", ()): {"patch"},
    ("*", "", "pods/attach", ()): {"get", "create"},
    ("*", "", "nodes", ()): {"list", "watch"},
    ("*", "", "namespaces", ()): {"list", "watch"},
    ("*", "", "pods/portforward", ()): {"get", "create"},
    ("*", "", "events", ()): {"create", "patch"},
    ("*", "metrics.k8s.io", "pods", ()): {"list"},
    **{("*", group, "profilingconfigs", ()): {"get", "list", "watch"} for group in BOTH},
    **{("*", group, "profilingconfigs/status", ()): {"patch"} for group in BOTH},
    ("*", TOOLS, "powertools", ()): {"list", "watch", "patch", "delete"},
    ("*", TOOLS, "powertools/status", ()): {"patch"},
    ("*", "admissionregistration.k8s.io", "validatingadmissionpolicies", POLICIES): {"get"},
    ("*", "admissionregistration.k8s.io", "validatingadmissionpolicybindings", POLICIES): {"get"},
    ("toe-system", TOOLS, "powertoolconfigs", ()): {"list", "watch"},
    ("toe-system", TOOLS, "powertoolconfigs/status", ()): {"patch"},
    ("toe-system", "coordination.k8s.io", "leases", ()): {"create"},
    ("toe-system", "coordination.k8s.io", "leases", ("toe-async-operator",)): {"get", "update"},
    ("toe-agents", "", "secrets", ()): {"create", "delete"},
    ("toe-agents", "", "pods", ()): {"create", "delete"},
    ("toe-agents", "", "serviceaccounts/token", ("toe-uploader",)): {"create"},
}


def rules_of(manifests: list[Manifest], account: str) -> dict[tuple[str, str, str, tuple[str, ...]], set[str]]:
    """What the roles bound to a service account grant; a role that is not ours to define is an assertion's business."""
    granted: dict[tuple[str, str, str, tuple[str, ...]], set[str]] = {}
    for binding in manifests:
        if not binding["kind"].endswith("RoleBinding") or account not in {s["name"] for s in binding["subjects"]}:
            continue
        where = "*" if binding["kind"] == "ClusterRoleBinding" else binding["metadata"]["namespace"]
        for role in manifests:
            if (role["kind"], role["metadata"]["name"]) != (binding["roleRef"]["kind"], binding["roleRef"]["name"]):
                continue
            if role["kind"] == "Role" and role["metadata"]["namespace"] != where:
                continue
            for rule in role["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        key = (where, group, resource, tuple(rule.get("resourceNames", ())))
                        granted.setdefault(key, set()).update(rule["verbs"])
    return granted


def test_the_operator_has_exactly_these_rights(render: Render) -> None:
    assert rules_of(render("program"), "toe-operator") == OPERATOR


def test_the_collector_may_ask_who_someone_is_and_what_he_may_and_register_itself(render: Render) -> None:
    manifests = render("program")
    bound = {
        (m["kind"], m["metadata"].get("namespace", ""), m["roleRef"]["name"])
        for m in manifests
        if m["kind"].endswith("RoleBinding") and "toe-collector" in {s["name"] for s in m["subjects"]}
    }
    assert bound == {
        ("ClusterRoleBinding", "", "system:auth-delegator"),
        ("RoleBinding", "kube-system", "extension-apiserver-authentication-reader"),
        ("ClusterRoleBinding", "", "toe-collector-registration"),
    }
    (own,) = (
        m for m in manifests if m["kind"] == "ClusterRole" and m["metadata"]["name"] == "toe-collector-registration"
    )
    assert own["rules"] == [
        {
            "apiGroups": ["apiregistration.k8s.io"],
            "resources": ["apiservices"],
            "resourceNames": ["v1alpha1.artifacts.toe.run"],
            "verbs": ["get", "patch"],
        }
    ]


def test_the_uploaders_account_has_no_right_at_all(render: Render) -> None:
    manifests = render("program")
    bindings = [m for m in manifests if m["kind"].endswith("RoleBinding")]
    assert bindings
    assert not [b for b in bindings if "toe-uploader" in {s["name"] for s in b["subjects"]}]
    (account,) = (m for m in manifests if m["kind"] == "ServiceAccount" and m["metadata"]["name"] == "toe-uploader")
    assert account["automountServiceAccountToken"] is False


@pytest.mark.parametrize("arrangement", ["base", "overlays/dev"])
def test_no_rule_is_of_a_kind_that_grows_into_all_rights(render: Render, arrangement: str) -> None:
    roles = [m for m in render(arrangement) if m["kind"] in ("Role", "ClusterRole")]
    assert roles
    for role in roles:
        for rule in role["rules"]:
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            name = f"{role['kind']} {role['metadata']['name']}: {rule}"
            assert not any("*" in word for word in words), name
            assert not words & {"escalate", "bind", "impersonate", "nodes/proxy", "pods/exec"}, name
            assert "pods/attach" not in words or role["metadata"]["name"] == "toe-operator", name
            if "secrets" in rule["resources"]:
                assert role["kind"] == "Role", name
                assert not {"list", "watch", "get"} & set(rule["verbs"]), name
            if "serviceaccounts/token" in rule["resources"]:
                assert role["kind"] == "Role", name
                assert rule["resourceNames"] == ["toe-uploader"], name


def test_reading_artifacts_is_given_to_nobody_by_aggregation(render: Render) -> None:
    readers = [
        m
        for m in render("program")
        if m["kind"] == "ClusterRole" and any("artifacts.toe.run" in rule["apiGroups"] for rule in m["rules"])
    ]
    assert readers
    for role in readers:
        assert not [label for label in role["metadata"].get("labels", {}) if "aggregate-to" in label]


def test_editing_configs_brings_no_right_to_forward_ports(render: Render) -> None:
    (editor,) = (m for m in render("program") if m["metadata"]["name"] == "toe-profilingconfig-editor")
    assert {resource for rule in editor["rules"] for resource in rule["resources"]} == {"profilingconfigs"}
