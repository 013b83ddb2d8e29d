"""What `kubectl get artifacts` prints: the server-side Table, with further columns (priority 1) for `-o wide`."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec import Struct

from toe_async.collector.api.objects import HOLD, partial
from toe_async.collector.errors import Refused
from toe_async.lib.clock import parse_rfc3339

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400


class Column(Struct, frozen=True):
    """One column: what it is called and how an object's cell is made."""

    name: str
    description: str
    cell: Callable[[dict[str, Any], datetime], Any]
    type: str = "string"
    format: str = ""
    priority: int = 0


def _field(name: str) -> Callable[[dict[str, Any], datetime], Any]:
    return lambda obj, _: obj["artifact"][name]


def _held(obj: dict[str, Any]) -> str:
    return str(obj["metadata"].get("annotations", {}).get(HOLD, ""))


COLUMNS = (
    Column("Name", "Capture and file, unique in the namespace.", lambda obj, _: obj["metadata"]["name"], format="name"),
    Column("Run", "Name of the object that asked for the capture.", _field("run")),
    Column("Pod", "Pod that it was taken from.", _field("pod")),
    Column("Size", "Bytes stored, rounded.", lambda obj, _: size(obj["artifact"]["size"])),
    Column("Reason", "Why it was taken, in one word.", _field("reason")),
    Column(
        "Age",
        "Time since it was stored.",
        lambda obj, now: age((now - parse_rfc3339(obj["metadata"]["creationTimestamp"])).total_seconds()),
        type="date",
    ),
    Column("Kind", "Kind of the object that asked for it.", _field("kind"), priority=1),
    Column("Tool", "What took it.", _field("tool"), priority=1),
    Column("Container", "Container that it was taken from.", _field("container"), priority=1),
    Column("Node", "Node of the pod at that time.", _field("node"), priority=1),
    Column("Service", "Service that the pod belongs to.", _field("service"), priority=1),
    Column("Hold", "Why it is kept from retention; empty when it is not.", lambda obj, _: _held(obj), priority=1),
    Column("SHA256", "First twelve digits of its digest.", lambda obj, _: obj["artifact"]["sha256"][:12], priority=1),
)


def size(count: int) -> str:
    """Bytes for people: `0B`, `999B`, `1.5KiB`, `64MiB`."""
    amount, unit = float(count), 0
    # 1023.95 would be written 1024.0: it belongs to the next unit already.
    while amount >= (1024 if unit == 0 else 1023.95) and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.1f}".removesuffix(".0") + _UNITS[unit]


def age(seconds: float) -> str:
    """A span as kubectl writes it: two units where the second still matters, `<invalid>` for the future."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 2 * _MINUTE:
        return f"{max(whole, 0)}s"
    if whole < 10 * _MINUTE:
        return _two(whole, _MINUTE, "m", 1, "s")
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return _two(whole, _HOUR, "h", _MINUTE, "m")
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h"
    if whole < 8 * _DAY:
        return _two(whole, _DAY, "d", _HOUR, "h")
    if whole < 2 * _YEAR:
        return f"{whole // _DAY}d"
    return _two(whole, _YEAR, "y", _DAY, "d") if whole < 8 * _YEAR else f"{whole // _YEAR}y"


def _two(whole: int, large: int, name: str, small: int, small_name: str) -> str:
    rest = whole % large // small
    return f"{whole // large}{name}" + (f"{rest}{small_name}" if rest else "")


def table(objects: list[dict[str, Any]], meta: dict[str, Any], now: datetime, include: str) -> dict[str, Any]:
    """A Table of objects. `include` is what each row carries besides: None, Metadata (the default) or Object.

    Raises:
        Refused: 400, `include` is none of them.
    """
    if include not in {"", "None", "Metadata", "Object"}:
        raise Refused(400, "BadRequest", "includeObject must be None, Metadata or Object")
    definitions = [
        {
            "name": one.name,
            "type": one.type,
            "format": one.format,
            "description": one.description,
            "priority": one.priority,
        }
        for one in COLUMNS
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": definitions,
        "rows": [_row(obj, now, include) for obj in objects],
    }


def _row(obj: dict[str, Any], now: datetime, include: str) -> dict[str, Any]:
    row: dict[str, Any] = {"cells": [column.cell(obj, now) for column in COLUMNS]}
    if include == "Object":
        row["object"] = obj
    elif include != "None":
        row["object"] = partial(obj)
    return row
