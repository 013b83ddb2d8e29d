"""Server-side apply as far as our clients use it: owned fields, conflicts between appliers, removal of dropped fields.

Ownership is kept in `managedFields` as the real server does, for appliers only: other writers own nothing here, so an
apply never conflicts with a plain patch. Lists are applied whole.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from msgspec import Struct

from toe_async.sandbox.patches import merge
from toe_async.sandbox.status import Cause, JsonObject, Refusal, invalid

_NOT_OWNED = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}

Path = tuple[str, ...]


class Applier(Struct, frozen=True):
    """Who applies, to which API version, and whether it takes fields over from others."""

    manager: str
    api_version: str
    force: bool
    now: str
    subresource: str = ""


def apply(live: JsonObject, applied: JsonObject, by: Applier) -> JsonObject:
    """The object after an apply.

    Raises:
        Refusal: 422 without a manager, 409 for fields that another applier set to something else.
    """
    if not by.manager:
        message = "Required value: is required for apply patch"
        raise invalid("meta.k8s.io", "PatchOptions", "", [Cause("FieldValueRequired", message, "fieldManager")])
    entries: list[JsonObject] = list(live.get("metadata", {}).get("managedFields") or ())
    wanted = dict(leaves(applied))
    present = dict(leaves(live))
    others = [one for one in entries if one["manager"] != by.manager]
    clashes = [
        (one, path)
        for one in others
        for path in _paths(one["fieldsV1"])
        if path in wanted and present.get(path) != wanted[path]
    ]
    if clashes and not by.force:
        raise _conflicts(clashes)
    mine = next((one for one in entries if one["manager"] == by.manager), None)
    gone = [path for path in (_paths(mine["fieldsV1"]) if mine else ()) if path not in wanted]
    kept_by_others = {path for one in others for path in _paths(one["fieldsV1"])}
    result: JsonObject = merge(live, applied)
    for path in gone:
        if path not in kept_by_others:
            _drop(result, path)
    lost = {path for _, path in clashes}
    entry = {
        "manager": by.manager,
        "operation": "Apply",
        "apiVersion": by.api_version,
        "time": by.now,
        "fieldsType": "FieldsV1",
        "fieldsV1": _fields(set(wanted) - _NOT_OWNED),
    }
    if by.subresource:
        entry["subresource"] = by.subresource
    if mine is not None and mine["fieldsV1"] == entry["fieldsV1"]:
        entry["time"] = mine["time"]
    still = [{**one, "fieldsV1": _fields(set(_paths(one["fieldsV1"])) - lost)} for one in others]
    result["metadata"] = {**result["metadata"], "managedFields": [one for one in still if one["fieldsV1"]] + [entry]}
    return result


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every scalar, list and empty object with its path."""
    if isinstance(value, dict) and (value or not path):
        for name, held in value.items():
            yield from leaves(held, (*path, name))
    else:
        yield path, value


def _paths(fields: JsonObject, path: Path = ()) -> Iterator[Path]:
    for name, inner in fields.items():
        at = (*path, name.removeprefix("f:"))
        if inner:
            yield from _paths(inner, at)
        else:
            yield at


def _fields(paths: set[Path]) -> JsonObject:
    fields: JsonObject = {}
    for path in sorted(paths):
        at = fields
        for name in path:
            at = at.setdefault(f"f:{name}", {})
    return fields


def _drop(obj: JsonObject, path: Path) -> None:
    """Remove a field and the objects that it leaves empty; objects are copied, not changed."""
    at = obj
    chain = [(obj, path[0])]
    for name, following in pairwise(path):
        if not isinstance(at.get(name), dict):
            return
        at[name] = dict(at[name])
        at = at[name]
        chain.append((at, following))
    for holder, name in reversed(chain):
        holder.pop(name, None)
        if holder:
            return


def _conflicts(clashes: list[tuple[JsonObject, Path]]) -> Refusal:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{one["manager"]}"',
            "field": "." + ".".join(path),
        }
        for one, path in clashes
    ]
    plural = "" if len(causes) == 1 else "s"
    listed = "\n".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    message = f"Apply failed with {len(causes)} conflict{plural}: {listed}"
    return Refusal(409, "Conflict", message, {"causes": causes})
