"""Who may write a ProfilingConfig, who may read its artifacts, and what our own accounts may do."""

from collections.abc import Callable

import pytest

from tests.e2e.artifacts import Artifacts
from tests.e2e.conftest import S3
from tests.e2e.harness import (
    AGENTS,
    COLLECTOR_USER,
    OPERATOR_USER,
    ROOT,
    Kube,
    Object,
    config,
    target,
    until,
    wait_for_capture,
    wait_for_condition,
)

pytestmark = pytest.mark.e2e

POLICY = "toe-profilingconfig-author"
CONFIGS = "profilingconfigs.profiling.io"


def role(name: str, *rules: Object, user: str) -> tuple[Object, Object]:
    """A Role, and its binding to a user."""
    api = "rbac.authorization.k8s.io"
    return (
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": {"name": name}, "rules": list(rules)},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
            "subjects": [{"kind": "User", "name": user, "apiGroup": api}],
        },
    )


WRITE_CONFIGS: Object = {
    "apiGroups": ["profiling.io", "bolometer.io"],
    "resources": ["profilingconfigs"],
    "verbs": ["get", "create", "update", "patch", "delete"],
}
FORWARD_PORTS: Object = {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["create"]}


@pytest.fixture(scope="module")
def authors(installed: Kube, namespace: Callable[[str], str]) -> str:
    """A namespace in which ann may forward ports and bob may not; both may write configs."""
    name = namespace("authors")
    installed.apply(*role("ann", WRITE_CONFIGS, FORWARD_PORTS, user="ann"), namespace=name)
    installed.apply(*role("bob", WRITE_CONFIGS, user="bob"), namespace=name)
    may_forward = ("auth", "can-i", "create", "pods", "--subresource=portforward", "-n", name)
    until(
        "the rights are in force",
        lambda: installed(*may_forward, user="ann", check=False).code == 0,
    )
    return name


@pytest.mark.parametrize("group", ["profiling.io", "bolometer.io"])
def test_an_author_who_may_forward_ports_may_write_configs(installed: Kube, authors: str, group: str) -> None:
    wanted = config(f"by-ann-{group.split('.', maxsplit=1)[0]}", "nobody", group=group, collector={})
    installed.apply(wanted, namespace=authors, user="ann")


@pytest.mark.parametrize("group", ["profiling.io", "bolometer.io"])
def test_an_author_who_may_not_forward_ports_is_refused_in_words(installed: Kube, authors: str, group: str) -> None:
    refused = installed.apply(
        config("by-bob", "nobody", group=group, collector={}), namespace=authors, user="bob", check=False
    )
    assert refused.code != 0
    assert "Forbidden" in refused.err
    assert "pods/portforward" in refused.err
    assert authors in refused.err


def test_changing_somebody_elses_spec_is_writing_it_and_a_label_is_not(installed: Kube, authors: str) -> None:
    installed.apply(config("shared", "nobody", collector={}), namespace=authors, user="ann")
    change = ("-n", authors, "patch", "profilingconfigs.profiling.io", "shared", "--type=merge", "-p")
    refused = installed(*change, '{"spec":{"selector":{"labelSelector":{"a":"b"}}}}', user="bob", check=False)
    assert refused.code != 0
    assert "pods/portforward" in refused.err
    installed(*change, '{"metadata":{"labels":{"seen-by":"bob"}}}', user="bob")


def test_the_aggregated_edit_role_covers_configs(installed: Kube) -> None:
    rules = installed.get("clusterrole", "edit")["rules"]
    assert any("profilingconfigs" in rule["resources"] and "create" in rule["verbs"] for rule in rules)
    for name in ("view", "edit", "admin"):
        given = installed.get("clusterrole", name)["rules"]
        assert not any("artifacts.toe.run" in rule["apiGroups"] for rule in given)


def test_without_its_policy_the_operator_acts_for_nobody(installed: Kube, namespace: Callable[[str], str]) -> None:
    name = namespace("no-policy")
    installed.apply(
        target("target"),
        config("watch", "target", onDemand={"enabled": True, "intervalSeconds": 10}, collector={}),
        namespace=name,
    )
    wait_for_condition(installed, name, "watch", "Accepted", "True")
    try:
        installed("delete", "validatingadmissionpolicybinding", POLICY)
        condition = wait_for_condition(installed, name, "watch", "Accepted", "False", reason="PolicyMissing")
        assert POLICY in condition["message"]
    finally:
        installed("apply", "-f", ROOT / "deploy/program/admission-policy.yaml")
    wait_for_condition(installed, name, "watch", "Accepted", "True")


@pytest.fixture(scope="module")
def stored(installed: Kube, namespace: Callable[[str], str]) -> tuple[str, Object]:
    """A namespace, and one artifact of it that is in the collector."""
    name = namespace("readers")
    installed.apply(
        target("target"),
        config(
            "watch",
            "target",
            onDemand={"enabled": True, "intervalSeconds": 3600},
            profileTypes=["goroutine"],
            collector={},
        ),
        namespace=name,
    )
    artifact: Object = wait_for_capture(installed, name, "watch")["artifacts"][0]
    return name, artifact


def test_a_reader_lists_and_fetches_with_a_bearer_token(artifacts: Artifacts, stored: tuple[str, Object]) -> None:
    namespace, artifact = stored
    token = artifacts.account(namespace, "reader", role="toe-artifact-reader")
    name = artifacts.name_of(namespace, artifact, token)
    content = artifacts.call(artifacts.path(namespace, name, "content"), token)
    assert (content.status, len(content.body)) == (200, artifact["size"])


def test_a_lister_sees_names_but_no_bytes(artifacts: Artifacts, stored: tuple[str, Object]) -> None:
    namespace, artifact = stored
    token = artifacts.account(namespace, "lister", role="toe-artifact-lister")
    name = artifacts.name_of(namespace, artifact, token)
    assert artifacts.call(artifacts.path(namespace, name), token).status == 200
    assert artifacts.call(artifacts.path(namespace, name, "content"), token).status == 403


def test_without_rights_or_token_nothing_is_told(
    artifacts: Artifacts, stored: tuple[str, Object], namespace: Callable[[str], str]
) -> None:
    where, artifact = stored
    reader = artifacts.account(where, "reader", role="toe-artifact-reader")
    path = artifacts.path(where, artifacts.name_of(where, artifact, reader), "content")
    assert artifacts.call(path).status == 401
    assert artifacts.call(path, "not.a.token").status == 401
    assert artifacts.call(path, artifacts.account(where, "nobody")).status == 403
    elsewhere = artifacts.account(namespace("strangers"), "reader", role="toe-artifact-reader")
    assert artifacts.call(path, elsewhere).status == 403


def test_a_reader_cannot_register_or_upload(artifacts: Artifacts, stored: tuple[str, Object]) -> None:
    namespace, _ = stored
    token = artifacts.account(namespace, "reader", role="toe-artifact-reader")
    assert artifacts.call("/v1/captures", token, method="POST").status in (401, 403)
    assert artifacts.call("/v1/captures/x/artifacts/heap.pprof", token, method="PUT").status in (400, 401, 403, 404)


def test_s3_keys_of_the_namespace_are_used_when_its_owner_lets_the_operator_read_them(
    installed: Kube, s3: S3, namespace: Callable[[str], str]
) -> None:
    name = namespace("own-keys")
    keys = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secretkey123"}
    once: Object = {"onDemand": {"enabled": True, "intervalSeconds": 10}, "profileTypes": ["goroutine"]}
    installed.apply(
        target("target"),
        config("watch", "target", **once, s3Config=s3.spec("own", credentialsSecret="profiles-s3")),
        namespace=name,
    )
    refused = wait_for_condition(installed, name, "watch", "StoreReachable", "False")
    assert "profiles-s3" in refused["message"]
    sample = (ROOT / "deploy/samples/credentials.yaml").read_text()
    installed("-n", name, "apply", "-f", "-", stdin=sample)
    installed.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "profiles-s3"}, "stringData": keys}, namespace=name
    )
    capture = wait_for_capture(installed, name, "watch", seconds=180)
    assert capture["artifacts"][0]["uri"].startswith("s3://profiles/own/")


@pytest.mark.parametrize(
    ("user", "words", "allowed"),
    [
        (OPERATOR_USER, ("create", "pods", "--subresource=portforward", "-n", "default"), True),
        (OPERATOR_USER, ("patch", CONFIGS, "--subresource=status", "-n", "default"), True),
        (OPERATOR_USER, ("patch", CONFIGS, "-n", "default"), False),
        (OPERATOR_USER, ("create", "secrets", "-n", AGENTS), True),
        (OPERATOR_USER, ("get", "secrets", "-n", AGENTS), False),
        (OPERATOR_USER, ("get", "secrets", "-n", "toe-system"), False),
        (OPERATOR_USER, ("list", "secrets", "-A"), False),
        (OPERATOR_USER, ("create", "pods", "--subresource=exec", "-n", "default"), False),
        (OPERATOR_USER, ("create", "pods", "-n", "toe-system"), False),
        (OPERATOR_USER, ("create", "serviceaccounts/toe-uploader", "--subresource=token", "-n", AGENTS), True),
        (OPERATOR_USER, ("create", "serviceaccounts/default", "--subresource=token", "-n", AGENTS), False),
        (OPERATOR_USER, ("create", "serviceaccounts/toe-operator", "--subresource=token", "-n", "toe-system"), False),
        (OPERATOR_USER, ("update", "leases/toe-async-operator", "-n", "toe-system"), True),
        (OPERATOR_USER, ("update", "leases/other", "-n", "toe-system"), False),
        (COLLECTOR_USER, ("create", "tokenreviews.authentication.k8s.io"), True),
        (COLLECTOR_USER, ("create", "subjectaccessreviews.authorization.k8s.io"), True),
        (COLLECTOR_USER, ("get", "pods", "-A"), False),
        (COLLECTOR_USER, ("get", "secrets", "-n", "toe-system"), False),
        ("system:serviceaccount:toe-agents:toe-uploader", ("get", "pods", "-A"), False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_our_accounts_may_do_this_and_not_that(
    installed: Kube, user: str, words: tuple[str, ...], allowed: bool
) -> None:
    answer = installed("auth", "can-i", *words, user=user, check=False)
    assert answer.out.strip().startswith("yes" if allowed else "no"), answer
