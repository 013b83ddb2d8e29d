"""CEL: `x-kubernetes-validations` of custom resources and ValidatingAdmissionPolicies, evaluated by cel-python.

What the library lacks of Kubernetes' own extensions is added here, as far as our CRDs and policies use it; a rule that
does not compile is refused when it is registered.
"""

from collections.abc import Callable, Mapping
from typing import Any

import celpy
import msgspec
from celpy import celtypes
from celpy.adapter import json_to_cel
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError

from toe_async.lib.quantities import parse_quantity
from toe_async.sandbox.schema import children, join
from toe_async.sandbox.status import Cause, JsonObject

_PREFIX = {"FieldValueRequired": "Required value", "FieldValueForbidden": "Forbidden"}


class CelError(Exception):
    """A rule cannot be compiled or evaluated; the message says why, in one line."""


def warm_up() -> None:
    """Load the grammar, which is a file: done once before rules are compiled in an event loop."""
    Program("true")


class Program:
    """One compiled expression; `methods` are callable beside the built-in functions, the receiver as first argument."""

    def __init__(self, source: str, methods: Mapping[str, Callable[..., Any]] | None = None) -> None:

        self.source = source
        self.uses_old = "oldSelf" in source
        environment = celpy.Environment()
        try:
            ast = environment.compile(source)
        except CELParseError as error:
            raise CelError(f"compilation failed: {str(error)[:300]}") from error
        self._program = environment.program(ast, functions={**_functions(), **(methods or {})})

    def value(self, variables: Mapping[str, Any]) -> Any:
        """Evaluate with variables that are CEL values (`to_cel`). Raises CelError."""
        try:
            result = self._program.evaluate(dict(variables))
        except (CELEvalError, KeyError, TypeError, ValueError) as error:
            raise CelError(str(error.args[0] if error.args else error)[:300]) from error
        if isinstance(result, CELEvalError):
            raise CelError(str(result.args[0])[:300])
        return result

    def holds(self, variables: Mapping[str, Any]) -> bool:
        """Evaluate a rule. Raises CelError."""
        return bool(self.value(variables))


def to_cel(value: Any) -> Any:
    """A JSON value as CEL sees it."""
    return json_to_cel(value)


def _functions() -> dict[str, Callable[..., Any]]:
    def is_quantity(text: Any) -> Any:
        try:
            parse_quantity(str(text))
        except ValueError:
            return celtypes.BoolType(False)
        return celtypes.BoolType(True)

    def quantity(text: Any) -> Any:
        return celtypes.DoubleType(float(parse_quantity(str(text))))

    def split(text: Any, by: Any) -> Any:
        return celtypes.ListType([celtypes.StringType(part) for part in str(text).split(str(by))])

    def join(parts: Any, by: Any = "") -> Any:
        return celtypes.StringType(str(by).join(str(part) for part in parts))

    return {
        "isQuantity": is_quantity,
        "quantity": quantity,
        "split": split,
        "join": join,
        "lowerAscii": lambda text: celtypes.StringType(str(text).lower()),
        "isGreaterThan": lambda left, right: celtypes.BoolType(left > right),
        "isLessThan": lambda left, right: celtypes.BoolType(left < right),
    }


class _Rule:
    def __init__(self, rule: JsonObject) -> None:
        self.program = Program(rule["rule"])
        self.message_program = Program(rule["messageExpression"]) if "messageExpression" in rule else None
        self.message: str = rule.get("message", f"failed rule: {rule['rule']}")
        self.reason: str = rule.get("reason", "FieldValueInvalid")
        self.at: str = rule.get("fieldPath", "").lstrip(".")

    def check(self, value: object, variables: dict[str, Any], path: str) -> Cause | None:
        try:
            if self.program.holds(variables):
                return None
            message = self.message
            if self.message_program is not None:
                message = str(self.message_program.value(variables))
        except CelError as error:
            message = f"{error} evaluating rule: {self.message}"
        prefix = _PREFIX.get(self.reason, "Invalid value")
        if prefix == "Invalid value" and not isinstance(value, dict | list):
            message = f"{msgspec.json.encode(value).decode()}: {message}"
        return Cause(self.reason, f"{prefix}: {message}", join(path, self.at) if self.at else path)


class _Node:
    """The rules of one schema node and the nodes inside; nodes without any rule below them are left out."""

    def __init__(self, schema: JsonObject) -> None:
        self.schema = schema
        self.rules = [_Rule(rule) for rule in schema.get("x-kubernetes-validations") or ()]
        inner = [*(schema.get("properties") or {}).values(), schema.get("items"), schema.get("additionalProperties")]
        nodes = ((id(one), _Node(one)) for one in inner if isinstance(one, dict))
        self.inner: dict[int, _Node] = {key: node for key, node in nodes if node.rules or node.inner}

    def check(self, value: object, old: object, path: str) -> list[Cause]:
        causes: list[Cause] = []
        if self.rules:
            variables = {"self": to_cel(value)}
            if old is not None:
                variables["oldSelf"] = to_cel(old)
            for rule in self.rules:
                if rule.program.uses_old and old is None:
                    continue
                cause = rule.check(value, variables, path or "<nil>")
                if cause is not None:
                    causes.append(cause)
        if self.inner:
            for held, schema, at in children(value, self.schema, path):
                node = self.inner.get(id(schema))
                if node is not None:
                    causes += node.check(held, _counterpart(value, old, held, at, self.schema), at)
        return causes


def _counterpart(parent: object, old: object, held: object, at: str, schema: JsonObject) -> object:
    """The old value of a child: by name in objects, by its keys in list-maps, none in other lists."""
    if isinstance(parent, dict):
        return old.get(at.rpartition(".")[2]) if isinstance(old, dict) else None
    keys = schema.get("x-kubernetes-list-map-keys")
    if keys and isinstance(old, list) and isinstance(held, dict):
        for one in old:
            if isinstance(one, dict) and all(one.get(key) == held.get(key) for key in keys):
                return one
    return None


class SchemaRules:
    """All rules of one schema. Raises CelError when one cannot be compiled."""

    def __init__(self, schema: JsonObject) -> None:
        self._root = _Node(schema)

    @property
    def empty(self) -> bool:
        """Whether the schema has no rules at all."""
        return not (self._root.rules or self._root.inner)

    def check(self, obj: JsonObject, old: JsonObject | None) -> list[Cause]:
        """Evaluate every rule that the object reaches."""
        return self._root.check(obj, old, "")
