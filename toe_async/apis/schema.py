"""From a msgspec struct to the structural schema that a CustomResourceDefinition wants.

msgspec's own JSON schema cannot be used: Kubernetes allows no `$ref`, no null type, no numeric exclusive bounds, and a
type on every node. So the small description of types that `msgspec.inspect` gives is folded here, one case a type, and
whatever has no structural form is refused with the path to it. A description comes from the field's `Meta`, else from
the class's docstring. A default is written only where the field says `Meta(extra=PROMISED)`: the server stores it in
every object, and it can never be taken back.
"""

import inspect as python_inspect
from typing import Any, Final

import msgspec
from msgspec import inspect

Schema = dict[str, Any]

PROMISED: Final[dict[Any, Any]] = {"promised": True}
"""`Meta(extra=PROMISED)`: the field's default is part of the API and is filled in by the server."""


class NotStructuralError(TypeError):
    """A type that has no structural schema; the message names the path to it."""


def rule(expression: str, message: str, reason: str, field_path: str = "") -> Schema:
    """One entry of `x-kubernetes-validations`.

    `reason` is one of FieldValueInvalid, FieldValueRequired, FieldValueForbidden, FieldValueDuplicate; `field_path`
    (relative, such as `.values`) is left out where the rule sits on the field it speaks of.
    """
    entry = {"rule": expression, "message": message, "reason": reason}
    return {**entry, "fieldPath": field_path} if field_path else entry


def rules(*entries: Schema) -> Schema:
    """The `extra_json_schema` that carries those rules."""
    return {"x-kubernetes-validations": list(entries)}


def schema_of(struct: type[msgspec.Struct]) -> Schema:
    """The structural schema of a struct. Raises NotStructuralError."""
    return _fold(inspect.type_info(struct), struct.__name__, ())


def _fold(node: inspect.Type, path: str, above: tuple[type, ...]) -> Schema:
    match node:
        case inspect.Metadata():
            return _fold(node.type, path, above) | (node.extra_json_schema or {})
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType():
            return {"type": "integer", "format": "int64"} | _range(node)
        case inspect.FloatType():
            return {"type": "number"} | _range(node)
        case inspect.StrType():
            return {"type": "string"} | _present(
                minLength=node.min_length, maxLength=node.max_length, pattern=node.pattern
            )
        case inspect.DateTimeType():
            return {"type": "string", "format": "date-time"}
        case inspect.EnumType():
            return _enum([member.value for member in node.cls], path)
        case inspect.LiteralType():
            return _enum(list(node.values), path)
        case inspect.ListType() | inspect.VarTupleType():
            items = _fold(node.item_type, f"{path}[]", above)
            return {"type": "array", "items": items} | _present(minItems=node.min_length, maxItems=node.max_length)
        case inspect.DictType():
            if not isinstance(node.key_type, inspect.StrType):
                raise NotStructuralError(f"{path}: the keys of a map must be plain strings")
            values = _fold(node.value_type, f"{path}{{}}", above)
            return {"type": "object", "additionalProperties": values} | _present(
                minProperties=node.min_length, maxProperties=node.max_length
            )
        case inspect.UnionType():
            return _union(node, path, above)
        case inspect.StructType():
            return _object(node, path, above)
        case _:
            raise NotStructuralError(f"{path}: {type(node).__name__} has no structural schema")


def _object(node: inspect.StructType, path: str, above: tuple[type, ...]) -> Schema:
    if node.cls in above:
        raise NotStructuralError(f"{path}: {node.cls.__name__} contains itself; a structural schema has no references")
    if node.forbid_unknown_fields or node.tag is not None or node.array_like:
        raise NotStructuralError(f"{path}: {node.cls.__name__} is tagged, array-like or forbids unknown fields")
    properties = {
        field.encode_name: _field(field, f"{path}.{field.encode_name}", (*above, node.cls)) for field in node.fields
    }
    required = sorted(field.encode_name for field in node.fields if field.required)
    found: Schema = {"type": "object", "properties": properties} | _present(required=required or None)
    if node.cls.__doc__:
        found["description"] = " ".join(python_inspect.cleandoc(node.cls.__doc__).split())
    return found


def _field(field: inspect.Field, path: str, above: tuple[type, ...]) -> Schema:
    found = _fold(field.type, path, above)
    if isinstance(field.type, inspect.Metadata) and (field.type.extra or {}).get("promised"):
        default = field.default if field.default is not msgspec.NODEFAULT else _made(field.default_factory, path)
        found["default"] = msgspec.json.decode(msgspec.json.encode(default))
    return found


def _made(factory: Any, path: str) -> Any:
    if factory is msgspec.NODEFAULT:
        raise NotStructuralError(f"{path}: a default is promised, but there is none")
    return factory()


def _union(node: inspect.UnionType, path: str, above: tuple[type, ...]) -> Schema:
    some = [part for part in node.types if not isinstance(part, inspect.NoneType)]
    if len(some) == 1:
        return _fold(some[0], path, above)
    if {type(part) for part in some} == {inspect.IntType, inspect.StrType}:
        return {"x-kubernetes-int-or-string": True}
    raise NotStructuralError(f"{path}: only `T | None` and `int | str` have a structural schema")


def _enum(values: list[Any], path: str) -> Schema:
    if not all(isinstance(value, str) for value in values):
        raise NotStructuralError(f"{path}: only strings can be enumerated")
    return {"type": "string", "enum": [str(value) for value in values]}


def _range(node: inspect.IntType | inspect.FloatType) -> Schema:
    found = _present(minimum=node.ge, maximum=node.le)
    if node.gt is not None:
        found |= {"minimum": node.gt, "exclusiveMinimum": True}
    if node.lt is not None:
        found |= {"maximum": node.lt, "exclusiveMaximum": True}
    return found


def _present(**entries: Any) -> Schema:
    return {key: value for key, value in entries.items() if value is not None}
