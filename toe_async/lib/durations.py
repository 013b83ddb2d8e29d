"""Go-style durations: ``90s``, ``5m``, ``1h30m``, ``1.5h``, ``250ms``."""

import re
from datetime import timedelta
from decimal import Decimal

_SECONDS = {
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "ns": Decimal("1e-9"),
}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|ns)")
_LONGEST_TEXT = 64


def parse_duration(text: str) -> timedelta:
    """Read a duration; ``0`` alone needs no unit. Parts below a microsecond are lost.

    Raises:
        ValueError: empty, without a unit, negative, or not a duration.
    """
    if text == "0":
        return timedelta(0)
    parts = _PART.findall(text) if len(text) <= _LONGEST_TEXT else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text[:_LONGEST_TEXT]!r} is no duration; write it like 90s, 5m or 1h30m")
    try:
        return timedelta(seconds=float(sum(Decimal(number) * _SECONDS[unit] for number, unit in parts)))
    except OverflowError as error:
        raise ValueError(f"the duration {text[:_LONGEST_TEXT]!r} is too long") from error


def format_duration(duration: timedelta) -> str:
    """Write a duration in whole seconds the short way: ``1h30m``, ``45s``, ``0s``."""
    total = round(duration.total_seconds())
    sign, total = ("-", -total) if total < 0 else ("", total)
    hours, minutes, seconds = total // 3600, total // 60 % 60, total % 60
    parts = [f"{count}{unit}" for count, unit in ((hours, "h"), (minutes, "m"), (seconds, "s")) if count]
    return sign + ("".join(parts) or "0s")
