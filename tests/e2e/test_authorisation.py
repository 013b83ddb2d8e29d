"""Who may create what where, asked of the API server itself: the rows of tests/authorisation, by impersonation.

One kubectl call a role, all as dry runs: nothing is created but the roles' RBAC objects.
"""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from tests.authorisation.limits import AGENTS, CONTAINERS, SECRETS, tool
from tests.authorisation.rows import Places, rbac, rows, users
from tests.e2e.harness import OPERATOR_USER, Kube, Object, until

pytestmark = pytest.mark.e2e

ROWS = rows()
PLURALS = {"PowerTool": "powertools", "PowerToolConfig": "powertoolconfigs", "ProfilingConfig": "profilingconfigs"}
POLICIES = ("toe-powertool-author", "toe-profilingconfig-author")
LIMITS = [f"toe-operator-limits-{name}" for name in ("containers", "agents", "attach", "secrets")]


@pytest.fixture(scope="module")
def places(installed: Kube) -> Iterator[Places]:
    """Three namespaces with everybody's roles, real RBAC objects all of them."""
    found = Places("toe-authz-own", "toe-authz-granting", "toe-authz-closed")
    grant = {"toe.run/powertools-from": found.own}
    spaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": notes}}
        for name, notes in ((found.own, {}), (found.granting, grant), (found.closed, {}))
    ]
    installed.apply(*spaces)
    installed.apply(*rbac(found))
    yield found
    installed("delete", "clusterroles,clusterrolebindings", "-l", "toe-authz=rows")
    installed("delete", "rolebindings", "-A", "-l", "toe-authz=rows")
    installed("delete", "namespace", found.own, found.granting, found.closed, "--wait=false")


def decide(kube: Kube, places: Places, role: str) -> dict[str, str]:
    """Row -> `allow`, `rbac`, or what the policy said. A row that nothing was said of is left out."""
    mine = [row for row in ROWS if row.role == role]
    documents = yaml.safe_dump_all([row.body(places) for row in mine])
    done = kube("create", "--dry-run=server", "-f", "-", stdin=documents, user=users()[role], check=False)
    found = dict.fromkeys(re.findall(r"/(row-\d+) created \(server dry run\)", done.out), "allow")
    for line in done.err.splitlines():
        if named := re.search(r'"(row-\d+)" is forbidden: (ValidatingAdmissionPolicy .*)', line):
            found[named[1]] = named[2]
    # The API server names neither object nor tool when RBAC refuses: it has not looked into the body.
    pattern = r'cannot create resource "(\w+)" in API group "[\w.]+" in the namespace "([\w-]+)"'
    barred = set(re.findall(pattern, done.err))
    for row in mine:
        if (PLURALS[row.kind], row.namespace(places)) in barred:
            assert row.name not in found, f"{row} was both let through and barred:\n{done.out}{done.err}"
            found[row.name] = "rbac"
    return found


def test_every_decision_is_the_oracles(installed: Kube, places: Places, record_property: Callable[..., None]) -> None:
    """By RBAC and policies together; a refusal names the right that is missing."""
    tool_user = users()["tool-user"]

    def settled() -> bool:
        """RBAC is in force about a second after it was written."""
        use = ("auth", "can-i", "use", "powertoolconfigs.codriverlabs.ai.toe.run/perf", "-n", places.system)
        return installed(*use, user=tool_user, check=False).out.strip() == "yes"

    until("the roles are in force", settled)
    with ThreadPoolExecutor(3) as pool:
        decided: dict[str, str] = {}
        for found in pool.map(lambda role: decide(installed, places, role), users()):
            decided |= found
    wrong = []
    for row in ROWS:
        said = decided.get(row.name, "nothing was said")
        right = said == row.expected if row.expected in {"allow", "rbac"} else row.said(places) in said
        if not right:
            wrong.append(f"{row}: {said}")
    record_property("decisions", len(decided))
    assert not wrong, "\n".join(wrong[:20])
    assert len(decided) == len(ROWS) == 684


def test_no_builtin_role_may_write_powertools_or_add_ephemeral_containers(installed: Kube) -> None:
    """Kinds that act in other people's processes are aggregated into nothing that is handed out freely."""
    for name in ("view", "edit", "admin"):
        for rule in installed.get("clusterroles", name)["rules"]:
            writes = set(rule["verbs"]) - {"get", "list", "watch"}
            assert not (
                writes and set(rule["resources"]) & {"powertools", "powertoolconfigs", "pods/ephemeralcontainers"}
            )
    viewed = [r for r in installed.get("clusterroles", "view")["rules"] if "powertools" in r["resources"]]
    assert [sorted(rule["verbs"]) for rule in viewed] == [["get", "list", "watch"]]


def target(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "registry.invalid/none:1", "imagePullPolicy": "Never"}],
        },
    }


@pytest.fixture(scope="module")
def limited(installed: Kube, places: Places) -> Iterator[Places]:
    """The operator's account with all rights that its policies speak of, so that nothing but they can refuse."""
    rule = {
        "apiGroups": [""],
        "resources": ["pods", "pods/ephemeralcontainers", "pods/attach", "secrets"],
        "verbs": ["get", "create", "patch", "update"],
    }
    name = "toe-authz-operator"
    meta = {"name": name, "labels": {"toe-authz": "rows"}}
    api = "rbac.authorization.k8s.io"
    subject = {"kind": "User", "name": OPERATOR_USER, "apiGroup": api}
    ref = {"kind": "ClusterRole", "name": name, "apiGroup": api}
    role = {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": meta, "rules": [rule]}
    binding = {"apiVersion": f"{api}/v1", "kind": "ClusterRoleBinding", "metadata": meta, "subjects": [subject],
               "roleRef": ref}  # fmt: skip
    installed.apply(role, binding)
    installed.apply(target("target"), namespace=places.own)
    can = ("auth", "can-i", "patch", "pods/ephemeralcontainers", "-n", places.own)
    until("the rights are in force", lambda: installed(*can, user=OPERATOR_USER, check=False).out.strip() == "yes")
    yield places
    installed("delete", "clusterrole,clusterrolebinding", name)


def add(kube: Kube, places: Places, container: Object, user: str) -> str:
    """Add an ephemeral container; what the refusal says, empty when it was taken."""
    patch = json.dumps({"spec": {"ephemeralContainers": [container]}})
    words = ("-n", places.own, "patch", "pod", "target", "--subresource=ephemeralcontainers", "--dry-run=server")
    done = kube(*words, "-p", patch, user=user, check=False)
    return done.err if done.code else ""


@pytest.mark.parametrize(("container", "said"), [row[1:] for row in CONTAINERS], ids=[row[0] for row in CONTAINERS])
def test_the_operators_account_may_only_add_containers_of_its_own(
    installed: Kube, limited: Places, container: Object, said: str
) -> None:
    """Whatever its code does, and whatever its RBAC would let it do."""
    answer = add(installed, limited, container, OPERATOR_USER)
    assert ("toe-operator-limits-containers" in answer and said in answer) if said else answer == ""
    if container.get("name") == "debugger":
        assert add(installed, limited, container, "") == "", "others are no business of this policy"


def test_an_overlay_narrows_the_registries(installed: Kube, limited: Places) -> None:
    """By the list at the head of the policy's variables."""
    name = "toe-operator-limits-containers"

    def narrow(to: str) -> None:
        patch = [{"op": "replace", "path": "/spec/variables/0/expression", "value": to}]
        installed("patch", "validatingadmissionpolicy", name, "--type=json", "-p", json.dumps(patch))

    narrow("['registry.example/tools/', 'ghcr.io/us/']")
    try:
        refused = until(
            "the narrower list is in force", lambda: add(installed, limited, tool(), OPERATOR_USER), every=0.5
        )
        assert "begin with one of registry.example/tools/, ghcr.io/us/" in refused
        for image in ("registry.example/tools/perf:1", "ghcr.io/us/x"):
            assert add(installed, limited, tool(image=image), OPERATOR_USER) == ""
        assert "begin with one of" in add(installed, limited, tool(image="ghcr.io/usurper/x"), OPERATOR_USER)
    finally:
        narrow("['']")


def test_the_operators_account_may_only_attach_to_its_own(installed: Kube, limited: Places) -> None:
    """The container that is asked for is part of a CONNECT, and RBAC cannot tell one from another."""
    said = "only attach to containers of its own"

    path = f"/api/v1/namespaces/{limited.own}/pods/target/attach"
    for query, refused in (
        ("container=main&stdin=true", True),
        ("stdin=true", True),
        ("container=toe-0123456789&stdin=true", False),
    ):
        done = installed("create", "--raw", f"{path}?{query}", "-f", "/dev/null", user=OPERATOR_USER, check=False)
        assert (said in done.err) is refused, f"{query}: {done.err}"
        assert done.code != 0, "nothing runs there, so nobody can be attached to it"
    as_admin = installed("create", "--raw", f"{path}?container=main&stdin=true", "-f", "/dev/null", check=False)
    assert said not in as_admin.err


@pytest.mark.parametrize(("namespace", "body", "taken"), [row[1:] for row in SECRETS], ids=[row[0] for row in SECRETS])
def test_the_operators_account_may_only_make_empty_secrets(
    installed: Kube, limited: Places, namespace: str, body: Object, taken: bool
) -> None:
    """A token of any account could be had by a Secret of the right type."""
    words = ("-n", namespace, "create", "--dry-run=server", "-f", "-")
    done = installed(*words, stdin=json.dumps(body), user=OPERATOR_USER, check=False)
    assert (done.code == 0) is taken, done.err
    assert taken or "toe-operator-limits-secrets" in done.err


@pytest.mark.parametrize(("body", "taken"), [row[1:] for row in AGENTS], ids=[row[0] for row in AGENTS])
def test_the_operators_account_may_only_make_agent_pods(
    installed: Kube, limited: Places, body: Object, taken: bool
) -> None:
    """They see all processes of a node, so nothing but the supervisor may run in them."""
    words = ("create", "--dry-run=server", "-f", "-")
    done = installed(*words, stdin=json.dumps(body), user=OPERATOR_USER, check=False)
    assert (done.code == 0) is taken, done.err
    assert taken or "toe-operator-limits-agents" in done.err


def test_the_api_server_finds_no_fault_with_the_policies(installed: Kube) -> None:
    """Its type checker reads every expression against the kinds that it is for."""
    for name in (*POLICIES, *LIMITS):
        policy = installed.get("validatingadmissionpolicies", name)
        assert policy["status"]["observedGeneration"] == policy["metadata"]["generation"], name
        assert not policy["status"]["typeChecking"].get("expressionWarnings"), policy["status"]
