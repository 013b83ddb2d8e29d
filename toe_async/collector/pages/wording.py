"""Figures and instants as people read them. Pure; instants are UTC, as in every log."""

from datetime import UTC, datetime

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEPS = ((60, 1, "s"), (3600, 60, "min"), (48 * 3600, 3600, "h"), (60 * 86400, 86400, "days"))


def size(count: int) -> str:
    """Bytes in binary units, three digits: `999 B`, `1.46 KiB`, `23.4 MiB`."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    if unit == 0:
        return f"{count} B"
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {_UNITS[unit]}"


def age(then: datetime, now: datetime) -> str:
    """How long ago, in one figure: `4 min ago`."""
    seconds = (now - then).total_seconds()
    if seconds < 0:
        return "just now" if seconds > -60 else "in the future"
    if seconds < 5:
        return "just now"
    for limit, unit, name in _STEPS:
        if seconds < limit:
            return f"{int(seconds / unit)} {name} ago"
    return f"{int(seconds / 86400 / 30.44)} months ago"


def clock(instant: datetime) -> str:
    """The time of day: `03:12:45`."""
    return instant.astimezone(UTC).strftime("%H:%M:%S")


def day(instant: datetime) -> str:
    """The day: `Saturday, 24 January 2026`."""
    utc = instant.astimezone(UTC)
    return f"{utc:%A}, {utc.day} {utc:%B %Y}"


def moment(instant: datetime) -> str:
    """Day and time: `2026-01-24 03:12:45 UTC`."""
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def machine(instant: datetime) -> str:
    """For programs: `2026-01-24T03:12:45Z`."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
