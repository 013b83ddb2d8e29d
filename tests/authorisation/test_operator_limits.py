"""The policies that hold the operator's own account, evaluated by the sandbox; tests/e2e asks a real API server."""

import copy
from typing import Any

import pytest
from directapi import DirectApi

from tests.authorisation.limits import AGENTS, CONTAINERS, SECRETS, tool
from tests.authorisation.rows import manifests
from toe_async.apis.captures import Target
from toe_async.capture.vessels import agent_pod, ephemeral_patch
from toe_async.lib.clock import SystemClock
from toe_async.sandbox import resources
from toe_async.sandbox.admission import Admission, Attempt
from toe_async.sandbox.rbac import User
from toe_async.sandbox.status import Refusal

Object = dict[str, Any]
OPERATOR = User("system:serviceaccount:toe-system:toe-operator")
OTHER = User("somebody")
PREFIX = "toe-operator-limits-"


class Server:
    """The sandbox's admission with the policies of a file."""

    def __init__(self) -> None:
        self.api = DirectApi(SystemClock())
        self.admission = Admission(self.api.store)
        for body in manifests("admission-policy-operator.yaml"):
            policy = body["kind"] == "ValidatingAdmissionPolicy"
            self.api.verbs.create(resources.POLICIES if policy else resources.POLICY_BINDINGS, "", copy.deepcopy(body))

    def narrow(self, name: str, registries: str) -> None:
        """What the overlay in the file's head does."""
        held = self.api.get("validatingadmissionpolicies", "", PREFIX + name)
        assert held is not None
        variables: list[Object] = held["spec"]["variables"]
        assert variables[0]["name"] == "registries"
        listed = [{"name": "registries", "expression": registries}, *variables[1:]]
        self.api.change("validatingadmissionpolicies", "", PREFIX + name, {"spec": {"variables": listed}})

    def asked(self, operation: str, plural: str, obj: Object, *, old: Object | None = None, subresource: str = "",
              namespace: str = "shop", user: User = OPERATOR) -> str:  # fmt: skip
        """What the refusal says; empty when nothing refuses."""
        resource = next(one for one in (resources.PODS, resources.SECRETS) if one.plural == plural)
        attempt = Attempt(operation, resource, namespace, "target", user, obj, old, subresource)
        try:
            self.admission.review(attempt)
        except Refusal as refused:
            return refused.message
        return ""

    def add(self, *containers: Object, had: tuple[Object, ...] = (), user: User = OPERATOR) -> str:
        pod: Object = {"metadata": {"name": "target"}, "spec": {"containers": [{"name": "main"}]}}
        before = {**pod, "spec": {**pod["spec"], "ephemeralContainers": list(had)}} if had else pod
        after = {**pod, "spec": {**pod["spec"], "ephemeralContainers": [*containers]}}
        return self.asked("UPDATE", "pods", after, old=before, subresource="ephemeralcontainers", user=user)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.mark.parametrize(("container", "said"), [row[1:] for row in CONTAINERS], ids=[row[0] for row in CONTAINERS])
def test_only_containers_of_its_own_may_be_added(server: Server, container: Object, said: str) -> None:
    answer = server.add(container)
    assert (PREFIX + "containers" in answer and said in answer) if said else answer == ""
    assert server.add(container, user=OTHER) == "", "others are no business of these policies"


def test_what_is_there_stays_as_it_is(server: Server) -> None:
    """Somebody's debugger is neither changed nor removed, nor does it keep ours out."""
    debugger = {"name": "debugger", "image": "busybox", "env": [{"name": "A", "value": "b"}]}
    assert server.add(debugger, tool(), had=(debugger,)) == ""
    assert "not change or remove" in server.add(tool(), had=(debugger,))
    assert "not change or remove" in server.add({**debugger, "image": "evil"}, tool(), had=(debugger,))


def test_registries_can_be_narrowed(server: Server) -> None:
    """For both kinds of vessel."""
    server.narrow("containers", "['registry.example/tools/', 'ghcr.io/us/']")
    server.narrow("agents", "['registry.example/tools/']")
    assert server.add(tool(image="ghcr.io/us/perf:1")) == ""
    answer = server.add(tool(image="ghcr.io/usurper/perf:1"))
    assert "begin with one of registry.example/tools/, ghcr.io/us/" in answer
    (_, ours, _) = AGENTS[0]
    assert "begin with one of registry.example/tools/" in server.asked("CREATE", "pods", ours, namespace="toe-agents")


@pytest.mark.parametrize(("body", "taken"), [row[1:] for row in AGENTS], ids=[row[0] for row in AGENTS])
def test_only_agent_pods_may_be_made(server: Server, body: Object, taken: bool) -> None:
    answer = server.asked("CREATE", "pods", body, namespace=body["metadata"]["namespace"])
    assert (PREFIX + "agents" not in answer) is taken
    assert server.asked("CREATE", "pods", body, user=OTHER) == ""


@pytest.mark.parametrize(("namespace", "body", "taken"), [row[1:] for row in SECRETS], ids=[row[0] for row in SECRETS])
def test_only_empty_secrets_may_be_made(server: Server, namespace: str, body: Object, taken: bool) -> None:
    """As the server hands them to admission: with their type filled in and stringData encoded."""
    stored = {"type": "Opaque", **body, **({"data": {"a": "Yg=="}} if "stringData" in body else {})}
    answer = server.asked("CREATE", "secrets", stored, namespace=namespace)
    assert (PREFIX + "secrets" not in answer) is taken


OPTIONS: list[tuple[Object, bool]] = [
    ({"container": "toe-1", "stdin": True}, True),
    ({"container": "main"}, False),
    ({}, False),
]


@pytest.mark.parametrize(("options", "taken"), OPTIONS)
def test_only_containers_of_its_own_may_be_attached_to(server: Server, options: Object, taken: bool) -> None:
    answer = server.asked("CONNECT", "pods", {"kind": "PodAttachOptions", **options}, subresource="attach")
    assert (answer == "") is taken
    assert server.asked("CONNECT", "pods", {"container": "main"}, subresource="attach", user=OTHER) == ""


def test_what_the_operator_really_makes_is_let_through(server: Server) -> None:
    """The vessels of toe_async/capture, with and without a claim."""
    capture = "0123456789abcdef0123456789"
    for volume in ("", "data"):
        security = {"privileged": True}
        patch = ephemeral_patch(
            capture,
            pod_uid="u",
            image="r/perf:1",
            orders_digest="d",
            security_context=security,
            target_container="main",
            volume=volume,
        )
        assert server.add(*patch["spec"]["ephemeralContainers"]) == ""
    target = Target(
        namespace="shop", pod="web-1", pod_uid="u", container="main", node="node-1", labels={}, service="web"
    )
    pod = agent_pod(
        capture,
        namespace="toe-agents",
        target=target,
        image="r/perf:1",
        orders_digest="d",
        security_context={},
        deadline_seconds=60,
    )
    assert server.asked("CREATE", "pods", pod, namespace="toe-agents") == ""
