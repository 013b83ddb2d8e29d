"""ValidatingAdmissionPolicies, evaluated with the `authorizer` for every write that a binding covers."""

from collections.abc import Callable, Iterator
from typing import Any

from celpy import celtypes
from celpy.evaluation import CELEvalError
from msgspec import Struct, structs

from toe_async.sandbox.cel import CelError, Program, to_cel
from toe_async.sandbox.rbac import Attributes, User, Verdict, authorize
from toe_async.sandbox.resources import POLICIES, POLICY_BINDINGS, Resource
from toe_async.sandbox.status import JsonObject, Refusal, qualified
from toe_async.sandbox.store import Key, Store

_CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}


class Attempt(Struct, frozen=True):
    """One write that is about to happen."""

    operation: str
    resource: Resource
    namespace: str
    name: str
    user: User
    obj: JsonObject | None
    old: JsonObject | None
    subresource: str = ""
    dry_run: bool = False


class Authorizer(Struct, frozen=True):
    """CEL's `authorizer` and every check that is built from it; `check` ends in a Verdict."""

    decide: Callable[[Attributes], Verdict]
    want: Attributes = Attributes("")

    def having(self, **parts: str) -> "Authorizer":
        """The same check with one more part filled in."""
        return Authorizer(self.decide, structs.replace(self.want, **parts))


class Admission:
    """Evaluates the policies in the store; compiled expressions are kept by their text."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._programs: dict[str, Program] = {}

    def review(self, attempt: Attempt) -> None:
        """Raises Refusal when a bound policy denies the write or cannot be evaluated and fails closed."""
        for binding in list(self._store.collection(POLICY_BINDINGS).items.values()):
            if "Deny" not in (binding.obj["spec"].get("validationActions") or ()):
                continue
            policy = self._store.get(POLICIES, Key("", binding.obj["spec"]["policyName"]))
            if policy is None or not _matches(policy.obj["spec"].get("matchConstraints") or {}, attempt):
                continue
            self._apply(policy.obj, binding.key.name, attempt)

    def _apply(self, policy: JsonObject, binding: str, attempt: Attempt) -> None:
        spec, name = policy["spec"], policy["metadata"]["name"]
        said = f"ValidatingAdmissionPolicy '{name}' with binding '{binding}' denied request: "
        try:
            variables = self._variables(attempt)
            for condition in spec.get("matchConditions") or ():
                if not self._program(condition["expression"]).holds(variables):
                    return
            variables["variables"] = self._composed(spec, variables)
            for validation in spec.get("validations") or ():
                if self._program(validation["expression"]).holds(variables):
                    continue
                message = validation.get("message") or f"failed expression: {validation['expression'].strip()}"
                if "messageExpression" in validation:
                    message = str(self._program(validation["messageExpression"]).value(variables))
                raise _denied(attempt, validation.get("reason", "Invalid"), said + message)
        except CelError as error:
            if spec.get("failurePolicy", "Fail") == "Fail":
                raise _denied(attempt, "Invalid", f"{said}expression resulted in error: {error}") from error

    def _variables(self, attempt: Attempt) -> dict[str, Any]:
        request = {
            "operation": attempt.operation,
            "namespace": attempt.namespace,
            "name": attempt.name,
            "subResource": attempt.subresource,
            "dryRun": attempt.dry_run,
            "kind": {
                "group": attempt.resource.group,
                "version": attempt.resource.version,
                "kind": attempt.resource.kind,
            },
            "userInfo": {"username": attempt.user.name, "uid": attempt.user.uid, "groups": list(attempt.user.groups)},
        }
        return {
            "request": to_cel(request),
            "object": to_cel(attempt.obj),
            "oldObject": to_cel(attempt.old),
            "authorizer": Authorizer(lambda want: authorize(self._store, attempt.user, want)),
        }

    def _composed(self, spec: JsonObject, variables: dict[str, Any]) -> celtypes.MapType:
        """The policy's own variables. One that cannot be computed is an error only where it is used."""
        composed = celtypes.MapType()
        for one in spec.get("variables") or ():
            held: Any
            try:
                held = self._program(one["expression"]).value({**variables, "variables": composed})
            except CelError as error:
                held = CELEvalError(str(error))
            composed[celtypes.StringType(one["name"])] = held
        return composed

    def _program(self, source: str) -> Program:
        held = self._programs.get(source)
        if held is None:
            held = self._programs[source] = Program(source.strip(), _METHODS)
        return held


def _part(name: str) -> Callable[[Authorizer, Any], Authorizer]:
    return lambda held, value: held.having(**{name: str(value)})


def _allowed(verdict: Verdict) -> Any:
    return celtypes.BoolType(verdict.allowed)


_METHODS: dict[str, Callable[..., Any]] = {
    **{name: _part(name) for name in ("group", "resource", "subresource", "namespace", "name", "path")},
    "check": lambda held, verb: held.decide(held.having(verb=str(verb)).want),
    "allowed": _allowed,
}


def _denied(attempt: Attempt, reason: str, message: str) -> Refusal:
    named = f'{qualified(attempt.resource.group, attempt.resource.plural)} "{attempt.name}"'
    details = {"name": attempt.name, "group": attempt.resource.group, "kind": attempt.resource.plural}
    return Refusal(_CODES.get(reason, 422), reason, f"{named} is forbidden: {message}", details)


def _matches(constraints: JsonObject, attempt: Attempt) -> bool:
    return any(_rule_matches(rule, attempt) for rule in constraints.get("resourceRules") or ())


def _rule_matches(rule: JsonObject, attempt: Attempt) -> bool:
    plural = attempt.resource.plural
    full = f"{plural}/{attempt.subresource}" if attempt.subresource else plural
    wanted = [
        ("apiGroups", attempt.resource.group),
        ("apiVersions", attempt.resource.version),
        ("operations", attempt.operation),
        ("resources", full),
    ]
    return all(_covers(rule.get(key) or (), value) for key, value in wanted)


def _covers(held: Iterator[str] | tuple[str, ...] | list[str], value: str) -> bool:
    values = list(held)
    return "*" in values or "*/*" in values or value in values
