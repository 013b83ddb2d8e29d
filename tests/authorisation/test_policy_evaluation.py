"""How the sandbox evaluates a policy's own variables, as the real server does: when they are used, and only then."""

from typing import Any

import pytest
from directapi import DirectApi

from toe_async.lib.clock import SystemClock
from toe_async.sandbox import resources
from toe_async.sandbox.admission import Admission, Attempt
from toe_async.sandbox.rbac import User
from toe_async.sandbox.status import Refusal

BROKEN = {"name": "broken", "expression": "oldObject.spec.nothing"}
DOUBLED = [
    {"name": "one", "expression": "object.data.key"},
    {"name": "two", "expression": "variables.one + variables.one"},
]


def review(**spec: Any) -> str:
    """What a policy says to the making of a ConfigMap; empty when it lets it through."""
    api = DirectApi(SystemClock())
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    made = {"matchConstraints": {"resourceRules": [rule]}, **spec}
    api.verbs.create(resources.POLICIES, "", {"metadata": {"name": "p"}, "spec": made})
    bound = {"policyName": "p", "validationActions": ["Deny"]}
    api.verbs.create(resources.POLICY_BINDINGS, "", {"metadata": {"name": "p"}, "spec": bound})
    obj = {"metadata": {"name": "c"}, "data": {"key": "a"}}
    try:
        Admission(api.store).review(Attempt("CREATE", resources.CONFIG_MAPS, "shop", "c", User("u"), obj, None))
    except Refusal as refused:
        return refused.message
    return ""


def test_a_variable_may_use_those_before_it() -> None:
    assert review(variables=DOUBLED, validations=[{"expression": "variables.two == 'aa'"}]) == ""
    said = review(
        variables=DOUBLED, validations=[{"expression": "false", "messageExpression": "'got ' + variables.two"}]
    )
    assert said.endswith("denied request: got aa")


def test_a_variable_that_cannot_be_computed_matters_only_where_it_is_used() -> None:
    """A policy for creations and updates may speak of an old object that a creation has not."""
    assert review(variables=[BROKEN], validations=[{"expression": "true"}]) == ""
    assert "expression resulted in error" in review(
        variables=[BROKEN], validations=[{"expression": "variables.broken"}]
    )


@pytest.mark.parametrize(("failure", "refused"), [("Fail", True), ("Ignore", False)])
def test_the_failure_policy_decides_about_errors(failure: str, refused: bool) -> None:
    said = review(failurePolicy=failure, variables=[BROKEN], validations=[{"expression": "variables.broken"}])
    assert (said != "") is refused


def test_a_policy_whose_conditions_do_not_hold_is_not_asked() -> None:
    """Nobody else pays for a policy that looks at one account."""
    other = [{"name": "other", "expression": "request.userInfo.username == 'somebody else'"}]
    assert review(matchConditions=other, validations=[{"expression": "false"}]) == ""
