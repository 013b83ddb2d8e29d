"""What a tool's arguments may leave for the supervisor to fill in. Text is replaced once and never evaluated."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PLACE = re.compile(r"\{\{|\}\}|\{(target_pid|target_root|output|duration)\}")


def needs(argv: tuple[str, ...], *names: str) -> bool:
    """Whether one of these places occurs in the arguments."""
    return any(found.group(1) in names for one in argv for found in _PLACE.finditer(one))


def fill(argv: tuple[str, ...], values: Mapping[str, str]) -> tuple[str, ...]:
    """The arguments with every place filled, `{{` and `}}` as braces; any other brace stays as it is."""
    return tuple(_PLACE.sub(lambda found: values[found[1]] if found[1] else found[0][0], one) for one in argv)


def seconds(duration: float) -> str:
    """A duration as tools take it: whole seconds without a fraction."""
    return str(int(duration)) if duration == int(duration) else repr(duration)
