"""Patches of an artifact. One thing of it may change: the annotation that holds it. Pure.

The patch is applied to the whole object and what came out is compared with what was, so that it does not matter by
which of the three patch types, or through which parent, something else was touched: it is found and named.
"""

import copy
from collections.abc import Iterator
from typing import Any

import msgspec

from toe_async.collector.api.objects import HOLD
from toe_async.collector.api.status import Invalid, conflict
from toe_async.collector.errors import Refused

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"

LONGEST_REASON = 1024
_MOST_OPERATIONS = 100
_DEEPEST = 32
_FIELD = f"metadata.annotations[{HOLD}]"


def hold_after(obj: dict[str, Any], content_type: str, body: bytes) -> str:
    """The hold that the object has once this patch is applied, "" for none.

    Raises:
        Refused: 400 it is no patch, 409 it supposes another resourceVersion, 415 no such type of patch, 422 it changes
            anything else, each with the field named.
    """
    name = obj["metadata"]["name"]
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in {MERGE, STRATEGIC, JSON_PATCH}:
        raise Refused(
            415, "UnsupportedMediaType", f"an artifact is patched by {MERGE}, {STRATEGIC} or {JSON_PATCH}, nothing else"
        )
    try:
        patch = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(400, "BadRequest", "the patch is no JSON") from None
    if kind == JSON_PATCH:
        changed = _operate(obj, patch, name)
    elif isinstance(patch, dict):
        changed = _merge(obj, patch, name, strategic=kind == STRATEGIC, depth=0)
    else:
        raise Refused(400, "BadRequest", "a merge patch is a JSON object")
    return _judged(obj, changed, name)


def checked_reason(reason: Any, name: str) -> str:
    """The text of a hold; raises Refused (422) for what is none."""
    if not isinstance(reason, str):
        raise Invalid(name, _FIELD, "a text that says why it is kept is expected")
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        raise Invalid(name, _FIELD, f"one line of at most {LONGEST_REASON} characters is expected")
    return reason.strip()


def _judged(before: dict[str, Any], after: Any, name: str) -> str:
    if not isinstance(after, dict):
        raise Refused(400, "BadRequest", "the patch leaves no object")
    old, new = before["metadata"], after.get("metadata")
    if not isinstance(new, dict):
        raise Invalid(name, "metadata", "cannot be removed", "FieldValueRequired")
    version = new.get("resourceVersion")
    if version != old["resourceVersion"]:
        raise conflict(name, "the object has been modified; please apply your changes to the latest version")
    annotations = new.get("annotations")
    if annotations is not None and not isinstance(annotations, dict):
        raise Invalid(name, "metadata.annotations", "a map of texts is expected")
    rest = {key: value for key, value in (annotations or {}).items() if key != HOLD}
    for field in _differences(_without_annotations(before), _without_annotations(after) | {"annotations": rest}, ""):
        raise Invalid(name, field, f"cannot be changed; only {_FIELD} can", "FieldValueForbidden")
    return checked_reason((annotations or {}).get(HOLD, ""), name)


def _without_annotations(obj: dict[str, Any]) -> dict[str, Any]:
    meta = {key: value for key, value in obj["metadata"].items() if key != "annotations"}
    return obj | {"metadata": meta, "annotations": {}}


def _differences(before: Any, after: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            # The annotations were lifted out beside the metadata to be compared without the hold.
            if path == "annotations":
                yield f"metadata.annotations[{key}]"
            elif before.get(key) != after.get(key) or (key in before) != (key in after):
                yield from _differences(before.get(key), after.get(key), f"{path}.{key}".lstrip("."))
    elif before != after:
        yield path


def _merge(target: Any, patch: Any, name: str, *, strategic: bool, depth: int) -> Any:
    """RFC 7386; for objects without lists to be joined, as ours is, strategic merge is the same but for directives."""
    if depth > _DEEPEST:
        raise Refused(400, "BadRequest", "the patch is nested too deeply")
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if strategic and key.startswith("$"):
            raise Invalid(name, key[:80], "directives of a strategic merge are not supported", "FieldValueNotSupported")
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value, name, strategic=strategic, depth=depth + 1)
    return result


def _operate(obj: dict[str, Any], operations: Any, name: str) -> Any:
    """RFC 6902 without `move` and `copy`, which could only touch what cannot change (and grow a document for ever)."""
    if not isinstance(operations, list) or not all(isinstance(one, dict) for one in operations):
        raise Refused(400, "BadRequest", "a JSON patch is a list of operations")
    if len(operations) > _MOST_OPERATIONS:
        raise Refused(413, "RequestEntityTooLarge", f"a JSON patch may have at most {_MOST_OPERATIONS} operations")
    target = copy.deepcopy(obj)
    for at, operation in enumerate(operations):
        kind, path = operation.get("op"), operation.get("path")
        if not isinstance(kind, str) or not isinstance(path, str) or not path.startswith("/"):
            raise Refused(400, "BadRequest", f"operation {at} of the patch has no op, or no path that starts with /")
        parts = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]
        field = ".".join(parts)[:200]
        parent, last = _found(target, parts[:-1], name, field), parts[-1]
        if not isinstance(parent, dict):
            raise Invalid(name, field, f"cannot be changed; only {_FIELD} can", "FieldValueForbidden")
        if kind in {"add", "replace"} and "value" in operation:
            parent[last] = operation["value"]
        elif last not in parent and kind in {"remove", "test"}:
            raise Invalid(name, field, "is not there", "FieldValueNotFound")
        elif kind == "remove":
            del parent[last]
        elif kind != "test":
            raise Refused(400, "BadRequest", f"operation {at} of the patch is not add, replace, remove or test")
        elif parent[last] != operation.get("value"):
            raise Invalid(name, field, "is not what the patch tests for")
    return target


def _found(target: Any, path: list[str], name: str, field: str) -> Any:
    for part in path:
        if not isinstance(target, dict) or part not in target:
            raise Invalid(name, field, "has no such parent", "FieldValueNotFound")
        target = target[part]
    return target
