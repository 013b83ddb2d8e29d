"""Patch types: JSON merge, JSON patch, and strategic merge for the lists that clients of built-in kinds patch. Pure."""

from collections.abc import Callable
from typing import Any

from toe_async.sandbox.status import JsonObject, Refusal, bad_request

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

_LIST_KEYS = {
    "containers": "name", "initContainers": "name", "ephemeralContainers": "name", "volumes": "name", "env": "name",
    "volumeMounts": "mountPath", "containerPorts": "containerPort", "conditions": "type", "ownerReferences": "uid",
    "imagePullSecrets": "name", "hostAliases": "ip", "secrets": "name", "addresses": "type", "taints": "key",
    "topologySpreadConstraints": "topologyKey",
}  # fmt: skip
"""Lists of objects that strategic merge joins by a key instead of replacing them (field name -> key)."""
_PRIMITIVES = frozenset({"finalizers"})


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386; the target is not changed."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902, on a target that belongs to the caller.

    Raises:
        Refusal: 400 for what is no patch, 422 for a path that is not there or a test that fails.
    """
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    for operation in operations:
        try:
            target = _operate(target, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            message = "the server rejected our request due to an error in our request"
            raise Refusal(422, "Invalid", message, {}) from error
    return target


def _operate(target: Any, operation: JsonObject) -> Any:
    kind, path = operation["op"], _pointer(operation["path"])
    match kind:
        case "test":
            if _read(target, path) != operation["value"]:
                raise ValueError("test failed")
            return target
        case "add":
            return _change(target, path, operation["value"], insert=True)
        case "replace":
            if path and isinstance(parent := _read(target, path[:-1]), list):
                parent[int(path[-1])] = operation["value"]
                return target
            return _change(target, path, operation["value"], insert=False)
        case "remove":
            return _remove(target, path)
        case "move" | "copy":
            source = _pointer(operation["from"])
            value = _read(target, source)
            return _change(_remove(target, source) if kind == "move" else target, path, value, insert=True)
        case _:
            raise ValueError(f"unexpected kind: {kind}")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError("a JSON pointer starts with /")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _read(target: Any, path: list[str]) -> Any:
    for part in path:
        target = target[int(part)] if isinstance(target, list) else target[part]
    return target


def _change(target: Any, path: list[str], value: Any, *, insert: bool) -> Any:
    if not path:
        return value
    parent, last = _read(target, path[:-1]), path[-1]
    if isinstance(parent, list) and insert:
        parent.insert(len(parent) if last == "-" else int(last), value)
    elif isinstance(parent, dict):
        parent[last] = value  # a replace of what is absent adds it, as the real server's library does
    else:
        raise TypeError("neither object nor list")
    return target


def _remove(target: Any, path: list[str]) -> Any:
    parent, last = _read(target, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.pop(int(last))
    else:
        del parent[last]
    return target


def strategic(target: Any, patch: Any) -> Any:
    """Strategic merge for objects; lists known in `_LIST_KEYS` are joined by key, others are replaced."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    if keep := patch.get("$retainKeys"):
        result = {key: value for key, value in result.items() if key in keep}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            result[name] = [one for one in result.get(name, ()) if one not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, list):
            result[key] = _join_lists(key, result.get(key) or [], value)
        else:
            result[key] = strategic(result.get(key), value)
    for key, order in patch.items():
        if key.startswith("$setElementOrder/"):
            _reorder(result, key.partition("/")[2], order)
    return result


def _list_key(name: str, items: list[Any]) -> str | None:
    if name == "ports":
        return "containerPort" if any("containerPort" in one for one in items if isinstance(one, dict)) else "port"
    return _LIST_KEYS.get(name)


def _join_lists(name: str, old: list[Any], patch: list[Any]) -> list[Any]:
    if name in _PRIMITIVES:
        return [*old, *(one for one in patch if one not in old)]
    key = _list_key(name, [*old, *patch])
    if key is None or any(not isinstance(one, dict) for one in patch):
        return patch
    if any(one.get("$patch") == "replace" for one in patch):
        return [one for one in patch if "$patch" not in one]
    if not old and all("$patch" not in one for one in patch):
        return [strategic({}, one) for one in patch]
    result = list(old)
    for one in patch:
        at = next((index for index, held in enumerate(result) if held.get(key) == one.get(key)), None)
        if one.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(strategic({}, one))
        else:
            result[at] = strategic(result[at], one)
    return _patched_first(result, old, [one.get(key) for one in patch], key)


def _patched_first(result: list[Any], old: list[Any], patched: list[Any], key: str) -> list[Any]:
    """The joined list in the real server's order.

    Patched items keep the patch's order; the others keep theirs, each in front of those that came after it before.
    New items were nowhere before, so they come first.
    """
    before = [one.get(key) for one in old]
    items = {one.get(key): one for one in result}
    first = [name for name in patched if name in items]
    rest = [one.get(key) for one in result if one.get(key) not in first]
    merged: list[Any] = []
    while first and rest:
        earlier = first[0] in before and before.index(rest[0]) < before.index(first[0])
        merged.append((rest if earlier else first).pop(0))
    return [items[name] for name in (*merged, *first, *rest)]


def _reorder(result: JsonObject, name: str, order: list[Any]) -> None:
    held = result.get(name)
    if not isinstance(held, list):
        return
    key = _list_key(name, held)
    wanted = [one.get(key) if isinstance(one, dict) else one for one in order]

    def place(item: Any) -> int:
        value = item.get(key) if isinstance(item, dict) else item
        return wanted.index(value) if value in wanted else len(wanted)

    held.sort(key=place)


BY_TYPE: dict[str, Callable[[Any, Any], Any]] = {MERGE: merge, JSON_PATCH: json_patch, STRATEGIC: strategic}
