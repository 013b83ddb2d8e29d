"""Who may create what where: the table against an oracle, by the policies' own CEL and by the sandbox's API server.

tests/e2e/test_authorisation.py asks a real API server the same.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from celpy import celtypes
from directapi import DirectApi

from tests.authorisation.rows import TOOLS, Object, Places, Row, manifests, rbac, rows, users
from toe_async.apis.meta import without_nulls
from toe_async.lib.clock import SystemClock
from toe_async.sandbox import resources
from toe_async.sandbox.cel import Program, to_cel
from toe_async.sandbox.rbac import BOOTSTRAP_ROLES, Attributes, User, authorize
from toe_async.sandbox.status import Refusal
from toe_async.sandbox.verbs import Context

ROWS = rows()
AT = Places("own-ns", "granting-ns", "closed-ns")
POLICIES = ("admission-policy.yaml", "admission-policy-powertools.yaml")
KINDS = {"PowerTool": "powertools", "PowerToolConfig": "powertoolconfigs", "ProfilingConfig": "profilingconfigs"}

# Who may do by himself what the operator would do for him, by role: said once more by hand, for the stub authorizer.
ALL_NAMESPACES = {"own", "granting", "closed"}
EPHEMERAL = {"tool-user": {"own"}, "ephemeral-only": {"own"}, "other-admin": {"closed"}, "gitops": {"own"}}
FORWARDS = {
    "edit": {"own"},
    "namespace-admin": {"own"},
    "portforward-only": {"own"},
    "other-admin": {"closed"},
    "gitops": {"own"},
}
HARMLESS = set(TOOLS) - {"chaos"}
USES = {"tool-user": HARMLESS, "use-only": set(TOOLS), "other-admin": HARMLESS, "gitops": {"perf", "tcpdump"}}


def test_the_table_is_whole() -> None:
    """Twelve roles, each kind, six tools, three namespaces, and the ways around them."""
    assert len(users()) == 12
    assert len(ROWS) == 12 * (6 * 5 + 3 + 6 * 4)
    assert {row.expected for row in ROWS} == {"allow", "rbac", "container", "use", "forward"}
    assert {row.role for row in ROWS if row.expected == "allow"} >= {
        "tool-user",
        "gitops",
        "tool-administrator",
        "edit",
    }


class Stub:
    """CEL's authorizer for one role, answering from the tables above alone."""

    def __init__(self, role: str, parts: dict[str, str] | None = None) -> None:
        self.role, self.parts = role, parts or {}

    def having(self, name: str, value: str) -> "Stub":
        return Stub(self.role, {**self.parts, name: value})

    def check(self, verb: str) -> bool:
        asked = {**self.parts, "verb": verb}
        place = {"own-ns": "own", "granting-ns": "granting", "closed-ns": "closed"}.get(asked["namespace"], "")
        pods = {"group": "", "resource": "pods", "namespace": asked["namespace"]}
        if asked == {**pods, "subresource": "ephemeralcontainers", "verb": "patch"}:
            return place in EPHEMERAL.get(self.role, ())
        if asked == {**pods, "subresource": "portforward", "verb": "create"}:
            return place in FORWARDS.get(self.role, ())
        configs = {"group": "codriverlabs.ai.toe.run", "resource": "powertoolconfigs", "namespace": "toe-system"}
        if asked == {**configs, "name": asked.get("name"), "verb": "use"}:
            return asked.get("name") in USES.get(self.role, ())
        raise AssertionError(f"a policy asks what nobody has thought of: {asked}")


def _part(name: str) -> Callable[[Stub, Any], Stub]:
    return lambda held, value: held.having(name, str(value))


METHODS: dict[str, Callable[..., Any]] = {
    **{name: _part(name) for name in ("group", "resource", "subresource", "namespace", "name")},
    "check": lambda held, verb: held.check(str(verb)),
    "allowed": celtypes.BoolType,
}


class Policies:
    """The policies' expressions, compiled."""

    def __init__(self, objects: Iterable[Object]) -> None:
        self.specs = [one["spec"] for one in objects if one["kind"] == "ValidatingAdmissionPolicy"]
        self.programs: dict[str, Program] = {}

    def value(self, text: str, variables: dict[str, Any]) -> Any:
        if text not in self.programs:
            self.programs[text] = Program(text.strip(), METHODS)
        return self.programs[text].value(variables)

    def refusal(self, row: Row) -> str | None:
        """What the first policy that refuses says."""
        plural = KINDS[row.kind]
        for spec in self.specs:
            (rule,) = spec["matchConstraints"]["resourceRules"]
            if plural not in rule["resources"]:
                continue
            request = {"operation": "CREATE", "namespace": row.namespace(AT)}
            variables: dict[str, Any] = {"request": to_cel(request), "object": to_cel(row.body(AT)),
                                         "oldObject": to_cel(None), "authorizer": Stub(row.role)}  # fmt: skip
            assert all(self.value(one["expression"], variables) for one in spec["matchConditions"])
            variables["variables"] = celtypes.MapType(
                {celtypes.StringType(one["name"]): self.value(one["expression"], variables)
                 for one in spec.get("variables", ())})  # fmt: skip
            for one in spec["validations"]:
                if not self.value(one["expression"], variables):
                    return str(self.value(one["messageExpression"], variables))
        return None


REACHED = [row for row in ROWS if row.expected != "rbac"]


def wrong(policies: Policies) -> list[Row]:
    """The rows on which policies and oracle differ."""
    found = []
    for row in REACHED:
        said = policies.refusal(row)
        if (said is None) != (row.expected == "allow") or (said is not None and row.said(AT) not in said):
            found.append(row)
    return found


def test_the_policies_cel_decides_as_the_oracle_does() -> None:
    assert len(REACHED) == 122
    assert wrong(Policies(manifests(*POLICIES))) == []


@pytest.mark.parametrize("number", [0, 1])
def test_the_table_finds_out_when_a_rule_is_missing(number: int) -> None:
    """A table that is satisfied by anything would show nothing."""
    broken = copy.deepcopy(list(manifests("admission-policy-powertools.yaml")))
    del broken[0]["spec"]["validations"][number]
    assert len(wrong(Policies([*manifests("admission-policy.yaml"), *broken]))) >= 16


def test_a_write_that_leaves_the_spec_alone_is_no_authorship() -> None:
    """Finalizers and annotations are set by the operator, who may use no tool."""
    (policy, _) = manifests("admission-policy-powertools.yaml")
    (condition,) = policy["spec"]["matchConditions"]
    body = next(row for row in ROWS if row.kind == "PowerTool").body(AT)
    marked = {**body, "metadata": {**body["metadata"], "finalizers": ["x/y"]}}
    changed = {**body, "spec": {**body["spec"], "suspend": True}}
    judged = Program(condition["expression"])
    for new, expected in ((body, False), (marked, False), (changed, True)):
        variables = {"request": {"operation": "UPDATE"}, "object": new, "oldObject": body}
        assert judged.holds({name: to_cel(value) for name, value in variables.items()}) is expected


# ---- the sandbox's API server ----------------------------------------------------------------------------------------


def _aggregated() -> Iterator[tuple[str, list[Object]]]:
    """The cluster's own roles with what our manifests add to them, as the controller of a real cluster adds it."""
    ours = [one for one in manifests("rbac-users.yaml") if one["kind"] == "ClusterRole"]

    def added(*words: str) -> list[Object]:
        labels = {f"rbac.authorization.k8s.io/aggregate-to-{word}" for word in words}
        return [rule for one in ours if labels & set(one["metadata"].get("labels", {})) for rule in one["rules"]]

    yield "view", [*BOOTSTRAP_ROLES["view"], *added("view")]
    yield "edit", [*BOOTSTRAP_ROLES["edit"], *added("view", "edit")]
    yield "admin", [*BOOTSTRAP_ROLES["edit"], *added("view", "edit", "admin")]


@pytest.fixture(scope="module")
def api() -> DirectApi:
    """The sandbox with the manifests' roles and policies and everybody's bindings."""
    made = DirectApi(SystemClock())
    made.install(AT.own, AT.granting, AT.closed, AT.system, "toe-agents")
    kinds = {one.kind: one for one in (
        resources.ROLES, resources.ROLE_BINDINGS, resources.CLUSTER_ROLES, resources.CLUSTER_ROLE_BINDINGS,
        resources.POLICIES, resources.POLICY_BINDINGS)}  # fmt: skip
    for name, rules in _aggregated():
        made.verbs.create(resources.CLUSTER_ROLES, "", {"metadata": {"name": name}, "rules": rules})
    files = manifests("rbac-users.yaml", "rbac-operator.yaml", *POLICIES, "admission-policy-operator.yaml")
    for body in (*files, *rbac(AT)):
        made.verbs.create(kinds[body["kind"]], body["metadata"].get("namespace", ""), copy.deepcopy(body))
    return made


def decision(api: DirectApi, row: Row) -> tuple[str, str]:
    """`allow` and the RBAC rule that justifies it, or `rbac` or `policy` and the sentence of the refusal."""
    resource = next(one for one in api.registry if one.kind == row.kind and one.group != "bolometer.io")
    namespace, user = row.namespace(AT), User(users()[row.role], groups=("system:authenticated",))
    asked = Attributes("create", resource.group, resource.plural, namespace=namespace)
    verdict = authorize(api.store, user, asked)
    if not verdict.allowed:
        return "rbac", ""
    try:
        api.verbs.create(resource, namespace, row.body(AT), Context(user=user, dry_run=True))
    except Refusal as refused:
        return "policy", refused.message
    return "allow", verdict.reason


@pytest.mark.slow
def test_the_sandbox_decides_as_the_oracle_does(api: DirectApi) -> None:
    """RBAC and policies together; each allow names the rule that justifies it."""
    differing = []
    for row in ROWS:
        how, why = decision(api, row)
        refused_rightly = how == "policy" and row.expected not in {"allow", "rbac"} and row.said(AT) in why
        if not (refused_rightly or how == row.expected):
            differing.append((row, how, why))
        if how == "allow":
            assert why.startswith("RBAC: allowed by "), row
    assert differing == []


def test_whoever_changes_a_spec_is_judged_and_the_operators_finalizer_is_not(api: DirectApi) -> None:
    """The policy judges every writing of a spec; what the operator writes of it is none."""
    row = next(one for one in ROWS if (one.role, one.tool, one.place) == ("tool-user", "perf", "own"))
    powertools = api.resource("powertools")
    api.verbs.create(powertools, AT.own, row.body(AT), Context(user=User(users()["tool-user"])))
    key = next(item.key for item in api.store.collection(powertools).items.values())

    def change(live: Object, to: Any) -> Object:
        return {**live, "spec": {**live["spec"], "suspend": to}}

    for role, allowed in (("tool-user", True), ("use-only", False), ("ephemeral-only", False)):
        context = Context(user=User(users()[role]))
        if allowed:
            api.verbs.update(powertools, key, lambda live: change(live, True), context=context)
            continue
        with pytest.raises(Refusal, match="toe-powertool-author"):
            api.verbs.update(powertools, key, lambda live: change(live, False), context=context)
    mark = without_nulls({"finalizers": ["codriverlabs.ai.toe.run/cancel"]})
    operator = Context(user=User(users()["operator"]))
    api.verbs.update(powertools, key, lambda live: {**live, "metadata": {**live["metadata"], **mark}}, context=operator)
