"""What `kubectl get` prints: Table answers, with the columns of CRDs and of the built-in kinds that people look at."""

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import msgspec

from toe_async.lib.clock import parse_rfc3339
from toe_async.sandbox.resources import Column, Resource
from toe_async.sandbox.status import JsonObject

_NAME = Column("Name", "string", "", format="name", description="Name must be unique within a namespace.")
_AGE = Column("Age", "string", ".metadata.creationTimestamp", description="Time since the object was created.")
_STEP = re.compile(
    r"""\.(?P<name>[A-Za-z0-9_-]+(?:\\\.[A-Za-z0-9_/-]+)*)
      | \[\?\(@\.(?P<key>[A-Za-z0-9_.-]+)\s*==\s*["'](?P<value>[^"']*)["']\)\]
      | \[(?P<index>-?\d+|\*)\]
      | \['(?P<quoted>[^']+)'\]""",
    re.VERBOSE,
)


def json_path(obj: Any, path: str) -> Any:
    """The first value that a printer column's JSONPath finds; None for nothing."""
    found = [obj]
    for step in _STEP.finditer(path):
        following: list[Any] = []
        for value in found:
            following.extend(_step(value, step))
        found = following
    return found[0] if found else None


def _step(value: Any, step: re.Match[str]) -> Iterable[Any]:
    name = step["quoted"] or (step["name"] or "").replace("\\.", ".")
    if name:
        return [value[name]] if isinstance(value, dict) and name in value else []
    if not isinstance(value, list):
        return []
    if step["key"]:
        return [
            one for one in value if isinstance(one, dict) and str(json_path(one, f".{step['key']}")) == step["value"]
        ]
    if step["index"] == "*":
        return value
    at = int(step["index"])
    return value[at : at + 1] if at >= 0 else value[at:][:1]


def age(text: str | None, now: datetime) -> str:
    """A timestamp as kubectl shows ages: two units at most, coarser as it grows."""
    if not text:
        return "<unknown>"
    seconds = int((now - parse_rfc3339(text)).total_seconds())
    if seconds < 0:
        return "<invalid>" if seconds < -1 else "0s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d"


def _pod_ready(pod: JsonObject) -> str:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return f"{sum(bool(one.get('ready')) for one in statuses)}/{len(pod['spec'].get('containers') or ())}"


def _pod_status(pod: JsonObject) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    for one in pod.get("status", {}).get("containerStatuses") or ():
        for state in ("waiting", "terminated"):
            reason = (one.get("state", {}).get(state) or {}).get("reason")
            if reason:
                return str(reason)
    return str(pod.get("status", {}).get("reason") or pod.get("status", {}).get("phase", "Unknown"))


def _pod_restarts(pod: JsonObject) -> str:
    return str(sum(one.get("restartCount", 0) for one in pod.get("status", {}).get("containerStatuses") or ()))


def _apiservice_backend(one: JsonObject) -> str:
    service = one["spec"].get("service")
    return f"{service['namespace']}/{service['name']}" if service else "Local"


def _apiservice_available(one: JsonObject) -> str:
    found = [held for held in one.get("status", {}).get("conditions") or () if held["type"] == "Available"]
    if not found:
        return "Unknown"
    status, reason = str(found[0]["status"]), found[0].get("reason")
    return f"{status} ({reason})" if status != "True" and reason else status


def _slice_ports(one: JsonObject) -> str:
    return ",".join(str(port.get("port", "*")) for port in one.get("ports") or ()) or "<unset>"


def _slice_addresses(one: JsonObject) -> str:
    found = [address for endpoint in one.get("endpoints") or () for address in endpoint["addresses"]]
    return ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "") or "<unset>"


def _node_status(node: JsonObject) -> str:
    ready = json_path(node, '.status.conditions[?(@.type=="Ready")].status')
    return "Ready" if ready == "True" else "NotReady"


_Cells = tuple[tuple[Column, str | Callable[[JsonObject], Any]], ...]


def _plain(*columns: tuple[str, str] | tuple[str, str, int]) -> _Cells:
    return tuple((Column(one[0], "string", one[1], one[2] if len(one) > 2 else 0), one[1]) for one in columns)


_BUILT_IN: dict[str, _Cells] = {
    "pods": (
        (Column("Ready", "string", ""), _pod_ready),
        (Column("Status", "string", ""), _pod_status),
        (Column("Restarts", "string", ""), _pod_restarts),
        (_AGE, ""),
        *_plain(("IP", ".status.podIP", 1), ("Node", ".spec.nodeName", 1)),
    ),
    "nodes": (
        (Column("Status", "string", ""), _node_status),
        (Column("Roles", "string", ""), lambda _: "<none>"),
        (_AGE, ""),
        *_plain(("Version", ".status.nodeInfo.kubeletVersion")),
    ),
    "namespaces": (*_plain(("Status", ".status.phase")), (_AGE, "")),
    "events": _plain(
        ("Last Seen", ".lastTimestamp"), ("Type", ".type"), ("Reason", ".reason"),
        ("Object", ".involvedObject.name"), ("Message", ".message"),
    ),
    "leases": (*_plain(("Holder", ".spec.holderIdentity")), (_AGE, "")),
    "secrets": (
        *_plain(("Type", ".type")),
        (Column("Data", "string", ""), lambda one: len(one.get("data") or {})),
        (_AGE, ""),
    ),
    "configmaps": ((Column("Data", "string", ""), lambda one: len(one.get("data") or {})), (_AGE, "")),
    "customresourcedefinitions": _plain(("Created At", ".metadata.creationTimestamp")),
    "apiservices": (
        (Column("Service", "string", ""), _apiservice_backend),
        (Column("Available", "string", ""), _apiservice_available),
        (_AGE, ""),
    ),
    "endpointslices": (
        *_plain(("AddressType", ".addressType")),
        (Column("Ports", "string", ""), _slice_ports),
        (Column("Endpoints", "string", ""), _slice_addresses),
        (_AGE, ""),
    ),
    "validatingadmissionpolicybindings": (*_plain(("PolicyName", ".spec.policyName")), (_AGE, "")),
}  # fmt: skip


def _cells(resource: Resource) -> _Cells:
    if resource.custom:
        return tuple((column, column.path) for column in resource.columns)
    return _BUILT_IN.get(resource.plural, ((_AGE, ""),))


def table(
    resource: Resource,
    objects: list[JsonObject],
    meta: JsonObject,
    now: datetime,
    *,
    include: str = "Metadata",
    header: bool = True,
) -> bytes:
    """A Table of objects. Watch events after the first come without a header."""
    cells = _cells(resource)
    columns = [_NAME, *(column for column, _ in cells)]
    body = {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": [_definition(column) for column in columns] if header else None,
        "rows": [_row(obj, cells, now, include) for obj in objects],
    }
    return msgspec.json.encode(body)


def _definition(column: Column) -> JsonObject:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def _row(obj: JsonObject, cells: _Cells, now: datetime, include: str) -> JsonObject:
    row: JsonObject = {"cells": [obj["metadata"]["name"], *(_cell(obj, column, how, now) for column, how in cells)]}
    if include == "Object":
        row["object"] = obj
    elif include != "None":
        row["object"] = partial(obj)
    return row


def _cell(obj: JsonObject, column: Column, how: str | Callable[[JsonObject], Any], now: datetime) -> Any:
    if callable(how):
        return how(obj)
    value = json_path(obj, column.path)
    if value is None and column is not _AGE:
        return None
    if column is _AGE or column.type == "date":
        return age(value, now)
    if column.type in {"integer", "number", "boolean"}:
        return value
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def partial(obj: JsonObject) -> JsonObject:
    """An object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
