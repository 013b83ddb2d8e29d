"""Measured values in their profile's unit, for people."""

from toe_async.cli.plugin import text

_TIMES = {"nanoseconds": 1e-9, "microseconds": 1e-6, "milliseconds": 1e-3, "seconds": 1.0}


def amount(value: int, unit: str) -> str:
    """`1.50s`, `12.0 MiB` or a plain number."""
    if unit in _TIMES:
        return _seconds(value * _TIMES[unit])
    if unit == "bytes":
        return text.size(value) if value >= 0 else f"-{text.size(-value)}"
    return str(value)


def change(value: int, unit: str) -> str:
    """The same with its sign."""
    return f"+{amount(value, unit)}" if value > 0 else amount(value, unit)


def share(value: int, total: int) -> str:
    """Per cent of a total, `-` of nothing."""
    return f"{100 * value / total:.1f}%" if total else "-"


def _seconds(value: float) -> str:
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if abs(value) < limit:
            return f"{value * factor:.2f}{unit}" if value else "0s"
    return f"{value:.2f}s"
