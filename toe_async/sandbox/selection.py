"""Label and field selectors of lists and watches."""

from collections.abc import Callable

from msgspec import Struct

from toe_async.apis import selectors
from toe_async.sandbox.resources import Resource
from toe_async.sandbox.status import JsonObject, bad_request


class Term(Struct, frozen=True):
    """One `path=value` or `path!=value`."""

    path: str
    value: str
    equal: bool


def selection(resource: Resource, labels: str, fields: str) -> Callable[[JsonObject], bool]:
    """A predicate for objects. Raises Refusal 400 for text that is no selector or a field that is not indexed."""
    try:
        by_label = selectors.parse(labels)
    except ValueError as error:
        raise bad_request(str(error)) from error
    terms = [_term(resource, part) for part in fields.split(",") if part]
    if not terms and not labels:
        return lambda _: True

    def selected(obj: JsonObject) -> bool:
        found = obj["metadata"].get("labels") or {}
        return by_label.matches(found) and all((field(obj, t.path) == t.value) is t.equal for t in terms)

    return selected


def _term(resource: Resource, part: str) -> Term:
    for operator, equal in (("!=", False), ("==", True), ("=", True)):
        path, found, value = part.partition(operator)
        if found:
            known = ("metadata.name", "metadata.namespace", *resource.fields)
            if path not in known and (resource.fields or resource.custom):
                raise bad_request(f"field label not supported: {path}")
            if path not in known:
                listed = ", ".join(f'"{one}"' for one in known)
                raise bad_request(f'"{path}" is not a known field selector: only {listed}')
            return Term(path, value, equal)
    raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")


def field(obj: JsonObject, path: str) -> str:
    """The text that a field selector compares: "" for what is absent, as the real server has it."""
    if path == "source":
        path = "source.component"
    value: object = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
