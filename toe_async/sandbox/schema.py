"""Structural schemas of custom resources: pruning, defaulting and validation, with the real server's words.

The three passes run in the real server's order: prune, default, validate. CEL rules come after, and only when nothing
failed that would make their answers meaningless (`BLOCKING`).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from toe_async.lib.durations import parse_duration
from toe_async.sandbox.status import Cause, JsonObject

BLOCKING = frozenset(
    {"FieldValueTypeInvalid", "FieldValueRequired", "FieldValueNotSupported", "FieldValueTooLong", "FieldValueTooMany"}
)
_TYPES: dict[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_ROOT = frozenset({"apiVersion", "kind", "metadata"})


class Rules(Protocol):
    """The CEL rules of one schema, compiled."""

    def check(self, obj: JsonObject, old: JsonObject | None) -> list[Cause]:
        """Evaluate every rule; transition rules only when there is an old object."""


class Structural(Struct, frozen=True):
    """The schema of one version of a custom resource and its compiled CEL rules."""

    root: JsonObject
    rules: Rules | None

    def _body(self) -> JsonObject:
        """The schema without metadata, whose fields are Kubernetes' own whatever a CRD says."""
        properties = self.root.get("properties") or {}
        return {**self.root, "properties": {name: one for name, one in properties.items() if name not in _ROOT}}

    def prune(self, obj: JsonObject) -> list[str]:
        """Remove what the schema does not know, in place; returns the paths that went."""
        return sorted(_prune(obj, self._body(), "", known=_ROOT))

    def default(self, obj: JsonObject) -> None:
        """Fill in defaults, in place; nulls of fields that are not nullable are dropped first."""
        _default(obj, self._body())

    def validate(self, obj: JsonObject, old: JsonObject | None) -> list[Cause]:
        """Everything that is wrong with an object; empty when it is fine."""
        causes = list(_validate(obj, self.root, ""))
        causes += _duplicates(obj, self.root, "")
        if self.rules is None:
            return causes
        if any(cause.reason in BLOCKING for cause in causes):
            message = (
                "Invalid value: null: some validation rules were not checked because the object was invalid; "
                "correct the existing errors to complete validation"
            )
            return [*causes, Cause("FieldValueInvalid", message, "<nil>")]
        return causes + self.rules.check(obj, old)


def join(path: str, name: str) -> str:
    """A field's path under its parent's."""
    return f"{path}.{name}" if path else name


def children(value: object, schema: JsonObject, path: str) -> Iterator[tuple[Any, JsonObject, str]]:
    """The values directly inside a value that have a schema of their own, with their paths."""
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        extra = schema.get("additionalProperties")
        for name, held in value.items():
            inner = properties.get(name, extra if isinstance(extra, dict) else None)
            if inner is not None:
                yield held, inner, join(path, name)
    elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
        for index, held in enumerate(value):
            yield held, items, f"{path}[{index}]"


def _prune(value: object, schema: JsonObject, path: str, known: frozenset[str] = frozenset()) -> Iterator[str]:
    if isinstance(value, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        properties = schema.get("properties") or {}
        if not schema.get("additionalProperties"):
            embedded = _ROOT if schema.get("x-kubernetes-embedded-resource") else frozenset[str]()
            for name in [name for name in value if name not in properties and name not in known | embedded]:
                del value[name]
                yield join(path, name)
    for held, inner, at in children(value, schema, path):
        yield from _prune(held, inner, at)


def _default(value: object, schema: JsonObject) -> None:
    if isinstance(value, dict):
        for name, inner in (schema.get("properties") or {}).items():
            if name in value and value[name] is None and not inner.get("nullable"):
                del value[name]
            if name not in value and "default" in inner:
                value[name] = msgspec.json.decode(msgspec.json.encode(inner["default"]))
    for held, inner, _ in children(value, schema, ""):
        _default(held, inner)


def _validate(value: Any, schema: JsonObject, path: str) -> Iterator[Cause]:
    if value is None and schema.get("nullable"):
        return
    expected = schema.get("type", "")
    if schema.get("x-kubernetes-int-or-string"):
        if not (_TYPES["integer"](value) or _TYPES["string"](value)):
            yield _wrong_type(path, "integer,string", value)
            return
    elif expected and not _TYPES[expected](value):
        yield _wrong_type(path, _expected(schema, value), value)
        yield from _validate_enum(value, schema, path)
        return
    yield from _validate_enum(value, schema, path)
    if isinstance(value, str):
        yield from _validate_string(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _validate_number(value, schema, path)
    elif isinstance(value, list) and "maxItems" in schema and len(value) > schema["maxItems"]:
        bound = schema["maxItems"]
        yield Cause("FieldValueTooMany", f"Too many: {len(value)}: must have at most {_count(bound, 'item')}", path)
    elif isinstance(value, list) and len(value) < schema.get("minItems", 0):
        message = f"{path} in body should have at least {schema['minItems']} items"
        yield _wrong(path, len(value), message)
    elif isinstance(value, dict):
        yield from _validate_object(value, schema, path)
    for held, inner, at in children(value, schema, path):
        yield from _validate(held, inner, at)
    yield from _validate_joined(value, schema, path)


def _validate_enum(value: object, schema: JsonObject, path: str) -> Iterator[Cause]:
    if "enum" in schema and value not in schema["enum"]:
        listed = ", ".join(_shown(one) for one in schema["enum"])
        yield Cause("FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {listed}", path)


def _validate_object(value: JsonObject, schema: JsonObject, path: str) -> Iterator[Cause]:
    for name in schema.get("required") or ():
        if name not in value:
            yield Cause("FieldValueRequired", "Required value", join(path, name))
    if "maxProperties" in schema and len(value) > schema["maxProperties"]:
        bound = _count(schema["maxProperties"], "item")
        yield Cause("FieldValueTooMany", f"Too many: {len(value)}: must have at most {bound}", path)
    if len(value) < schema.get("minProperties", 0):
        yield _wrong(path, len(value), f"{path} in body should have at least {schema['minProperties']} properties")


def _validate_joined(value: Any, schema: JsonObject, path: str) -> Iterator[Cause]:
    for inner in schema.get("allOf") or ():
        yield from _validate(value, inner, path)
    if (options := schema.get("anyOf")) and all(list(_validate(value, one, path)) for one in options):
        yield _wrong(path, value, f"{path} in body must validate at least one schema (anyOf)")
    if (options := schema.get("oneOf")) and sum(not list(_validate(value, one, path)) for one in options) != 1:
        yield _wrong(path, value, f"{path} in body must validate one and only one schema (oneOf)")
    if (refused := schema.get("not")) and not list(_validate(value, refused, path)):
        yield _wrong(path, value, f"{path} in body must not validate the schema (not)")


def _validate_string(value: str, schema: JsonObject, path: str) -> Iterator[Cause]:
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        message = f"Too long: may not be more than {schema['maxLength']} bytes"
        yield Cause("FieldValueTooLong", message, path)
    if len(value) < schema.get("minLength", 0):
        yield _wrong(path, value, f"{path} in body should be at least {schema['minLength']} chars long")
    if "pattern" in schema and not re.search(_python_pattern(schema["pattern"]), value):
        yield _wrong(path, value, f"{path} in body should match '{schema['pattern']}'")
    form = schema.get("format", "")
    if form in {"date-time", "duration"} and not _has_format(form, value):
        yield Cause("FieldValueTypeInvalid", f'Invalid value: "{value}": {path} in body must be of type {form}: "{value}"', path)  # fmt: skip  # noqa: E501


def _validate_number(value: float, schema: JsonObject, path: str) -> Iterator[Cause]:
    if "minimum" in schema:
        strict = bool(schema.get("exclusiveMinimum"))
        if value < schema["minimum"] or (strict and value == schema["minimum"]):
            bound = f"greater than {schema['minimum']}" if strict else f"greater than or equal to {schema['minimum']}"
            yield _wrong(path, value, f"{path} in body should be {bound}")
    if "maximum" in schema:
        strict = bool(schema.get("exclusiveMaximum"))
        if value > schema["maximum"] or (strict and value == schema["maximum"]):
            bound = f"less than {schema['maximum']}" if strict else f"less than or equal to {schema['maximum']}"
            yield _wrong(path, value, f"{path} in body should be {bound}")
    if schema.get("multipleOf") and value % schema["multipleOf"]:
        yield _wrong(path, value, f"{path} in body should be a multiple of {schema['multipleOf']}")


def _duplicates(value: object, schema: JsonObject, path: str) -> Iterator[Cause]:
    if isinstance(value, list) and (kind := schema.get("x-kubernetes-list-type")) in {"map", "set"}:
        keys = schema.get("x-kubernetes-list-map-keys") or ()
        seen: list[object] = []
        for index, held in enumerate(value):
            if kind == "map" and not isinstance(held, dict):
                continue
            identity = {key: held.get(key) for key in keys} if kind == "map" else held
            if identity in seen:
                yield Cause("FieldValueDuplicate", f"Duplicate value: {_shown(identity)}", f"{path}[{index}]")
            seen.append(identity)
    for held, inner, at in children(value, schema, path):
        yield from _duplicates(held, inner, at)


def _has_format(form: str, value: str) -> bool:
    try:
        if form == "duration":
            parse_duration(value)
        else:
            datetime.fromisoformat(value)
    except ValueError:
        return False
    return form == "duration" or "T" in value


def _python_pattern(pattern: str) -> str:
    return re.sub(r"(?<!\\)\$$", r"\\Z", pattern)  # Go's $ is the end of the text, Python's forgives a last newline


def _expected(schema: JsonObject, value: object) -> str:
    form = str(schema.get("format", ""))
    return form if form and isinstance(value, float) else str(schema["type"])


def _wrong_type(path: str, expected: str, value: object) -> Cause:
    name = "float64" if isinstance(value, float) and expected.startswith("int") else type_name(value)
    message = f'Invalid value: "{name}": {path} in body must be of type {expected}: "{name}"'
    return Cause("FieldValueTypeInvalid", message, path)


def type_name(value: object) -> str:
    """A JSON type as error messages name it."""
    if value is None:
        return "null"
    return next((name for name, fits in _TYPES.items() if fits(value)), "object")


def _wrong(path: str, value: object, message: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: {_shown(value)}: {message}", path)


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def structural_faults(schema: JsonObject, path: str, *, typed: bool = True) -> Iterable[Cause]:
    """What keeps a schema from being structural: a node without a type, or list-map keys that may be missing."""
    loose = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if typed and not schema.get("type") and not loose:
        yield Cause(
            "FieldValueRequired", "Required value: must not be empty for specified object fields", f"{path}.type"
        )
    for name, inner in (schema.get("properties") or {}).items():
        yield from structural_faults(inner, f"{path}.properties[{name}]")
    if isinstance(items := schema.get("items"), dict):
        yield from structural_faults(items, f"{path}.items")
        for key in schema.get("x-kubernetes-list-map-keys") or ():
            held = (items.get("properties") or {}).get(key)
            if held is not None and key not in (items.get("required") or ()) and "default" not in held:
                message = "Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"  # noqa: E501
                yield Cause("FieldValueRequired", message, f"{path}.items.properties[{key}].default")
    if isinstance(extra := schema.get("additionalProperties"), dict):
        yield from structural_faults(extra, f"{path}.additionalProperties")
        if schema.get("properties"):
            message = "Forbidden: additionalProperties and properties are mutual exclusive"
            yield Cause("FieldValueForbidden", message, f"{path}.additionalProperties")
