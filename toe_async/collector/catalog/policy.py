"""The retention policy in force: read from the mounted ConfigMap and read again when it changes.

File `retention`, in YAML:

    default:
      age: 7d            # a duration like 90m, 168h or 7d
      count: 100000
      bytes: 200Gi
    namespaces:
      payments:
        age: 30d         # what is not named here is as in default
        bytes: none      # no limit

Without the file nothing is removed but what its run's `retentionDays` ends. A file that cannot be used leaves the last
good policy in force and says so, in the log once and in `trouble` for as long as it lasts.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from msgspec.structs import replace

from toe_async.collector.catalog.retention import Retention, RetentionPolicy
from toe_async.lib.durations import parse_duration
from toe_async.lib.names import is_dns1123_label
from toe_async.lib.quantities import parse_quantity
from toe_async.telemetry import log

_FILE = "retention"
_LONGEST = 1 << 20  # what a ConfigMap can hold
_NONE = "none"
_DAYS = re.compile(r"([0-9]{1,6})d")
_MOST = 1 << 62
_log = log.get("collector.retention")


class Policies:
    """The policy in force. `reload` blocks and runs in a thread."""

    def __init__(self, folder: Path | None) -> None:
        self._file = folder / _FILE if folder else None
        self._seen: bytes | None = None
        self.current = Retention()
        self.trouble: str | None = None

    def reload(self) -> None:
        """Look at the file and take a changed policy into force; never raises."""
        try:
            text = self._read()
        except OSError as failed:
            self._seen = None
            self._refuse(f"it cannot be read ({failed.strerror})")
            return
        if text == self._seen:
            return
        self._seen = text
        try:
            self.current = parse(text)
        except ValueError as bad:
            self._refuse(str(bad))
        else:
            self.trouble = None
            _log.info("retention policy in force", namespaces=len(self.current.namespaces))

    def _refuse(self, reason: str) -> None:
        trouble = f"{reason}; the policy before it stays in force"
        if trouble != self.trouble:
            self.trouble = trouble
            _log.error("the retention policy cannot be used", error=reason)

    def _read(self) -> bytes:
        if self._file is None:
            return b""
        try:
            with self._file.open("rb") as file:
                return file.read(_LONGEST)
        except FileNotFoundError:
            return b""


def parse(text: bytes) -> Retention:
    """Read the file's content; nothing at all is a policy without limits.

    Raises:
        ValueError: one sentence that names the place and what is expected there.
    """
    try:
        content = yaml.load(text, _Unique)  # noqa: S506 -- a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, TypeError, AttributeError) as bad:
        # The last three are what PyYAML makes of `!!bool maybe`, `!!int ""` and the like.
        raise ValueError(f"it cannot be read as YAML{_place(bad)}") from bad
    read = _map(content, "the file", {"default", "namespaces"})
    default = _policy(read.get("default"), "default", RetentionPolicy())
    named = _map(read.get("namespaces"), "namespaces", None)
    if wrong := [name for name in named if not is_dns1123_label(name)]:
        raise ValueError(f"namespaces: {wrong[0][:80]!r} is no name of a namespace")
    return Retention(default, {name: _policy(held, f"namespaces.{name}", default) for name, held in named.items()})


def _policy(content: Any, where: str, base: RetentionPolicy) -> RetentionPolicy:
    read = _map(content, where, {"age", "count", "bytes"})
    parsers = {"age": _age, "count": _count, "bytes": _bytes}
    changed: dict[str, Any] = {}
    for key, value in read.items():
        try:
            changed[key] = None if value == _NONE else parsers[key]("" if value is None else str(value))
        except ValueError as bad:
            raise ValueError(f"{where}.{key}: {bad}, or {_NONE} for no limit") from bad
    return replace(base, **changed)


def _map(content: Any, where: str, known: set[str] | None) -> Mapping[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{where} must be a map of names to values")
    if known is not None and (unknown := sorted(content.keys() - known)):
        raise ValueError(f"{where} has {unknown[0][:80]!r}, which is unknown; there are {', '.join(sorted(known))}")
    return content


def _age(text: str) -> timedelta:
    days = _DAYS.fullmatch(text)
    try:
        age = timedelta(days=int(days[1])) if days else parse_duration(text)
    except (ValueError, OverflowError):
        age = timedelta(0)
    if age < timedelta(minutes=1):
        raise ValueError(f"{text[:40]!r} is no age of a minute or more; write it like 90m, 168h or 7d")
    return age


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:20]) <= _MOST:
        raise ValueError(f"{text[:40]!r} is no whole number of 1 or more")
    return int(text)


def _bytes(text: str) -> int:
    try:
        size = int(parse_quantity(text))
    except (ValueError, ArithmeticError):
        size = 0
    if not 1 <= size <= _MOST:
        raise ValueError(f"{text[:40]!r} is no size of a byte or more; write it like 500Mi or 10Gi")
    return size


def _place(bad: BaseException) -> str:
    mark, problem = getattr(bad, "problem_mark", None), getattr(bad, "problem", None)
    return (f" at line {mark.line + 1}" if mark else "") + (f": {problem}" if problem else "")


class _Unique(yaml.SafeLoader):
    """A SafeLoader that takes a key given twice for the mistake that it is."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, "a key is there twice", node.start_mark)
        return super().construct_mapping(node, deep)
