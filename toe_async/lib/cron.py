"""Cron schedules: five fields, names, lists, ranges, steps and the @words, in a time zone with its clock changes.

A slot is an instant at which the schedule is due. Where the clock is put forward, slots of the skipped time fall on the
instant of the change, all of them together once. Where it is put back, a slot of the repeated time is due the first
time only, unless the schedule names every hour: then it goes on through both. Day of month and day of week are joined
by "or" when both are restricted, as every cron does (crontab(5)).
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

_LONGEST_TEXT: Final = 256
_LONGEST_SEARCH: Final = 366 * 8 + 2  # days; 29 February is missing around a century for eight years
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAYS_IN_MONTH: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_WORDS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_PART: Final = re.compile(r"(?P<any>[*?])|(?P<low>[a-z0-9]+)(?:-(?P<high>[a-z0-9]+))?")
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,3}")


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    first_named: int = 0


_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS, 1),
    _Field("day of week", 0, 7, _DAYS, 0),
)


@dataclass(frozen=True)
class Cron:
    """A schedule that was read. Sunday is 0. `any_day` and `any_weekday` tell a field that restricts nothing."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool

    def next(self, after: datetime, zone: tzinfo = UTC) -> datetime:
        """The first slot later than an aware instant, in UTC."""
        day = after.astimezone(zone).date()
        for _ in range(_LONGEST_SEARCH):
            if self._due_on(day):
                for slot in _slots(self, day, zone):
                    if slot > after:
                        return slot
            day += timedelta(days=1)
        raise AssertionError("a schedule that parse() took has no slot in eight years")

    def latest(self, until: datetime, after: datetime, zone: tzinfo = UTC) -> datetime | None:
        """The last slot that is not later than ``until`` and later than ``after``, in UTC; None without one."""
        day, first = until.astimezone(zone).date(), after.astimezone(zone).date()
        for _ in range(_LONGEST_SEARCH):
            if day < first:
                return None
            if self._due_on(day):
                for slot in reversed(_slots(self, day, zone)):
                    if slot <= until:
                        return slot if slot > after else None
            day -= timedelta(days=1)
        return None

    def _due_on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return of_month and of_week
        return of_month or of_week


def parse(text: str) -> Cron:
    """Read a schedule. Raises ValueError that names the field, what was expected and the way out."""
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"the schedule is longer than {_LONGEST_TEXT} characters")
    words = text.lower().split()
    if words and words[0].startswith(("tz=", "cron_tz=")):
        raise ValueError("a time zone does not belong into the schedule; write it into timeZone")
    if len(words) == 1 and words[0].startswith("@"):
        if words[0] not in _WORDS:
            raise ValueError(f"{words[0][:20]!r} is none of {', '.join(sorted(_WORDS))}; or write five fields")
        words = _WORDS[words[0]].split()
    if len(words) != len(_FIELDS):
        raise ValueError(
            f"{text[:60]!r} has {len(words)} fields, not five: minute, hour, day of month, month, day of week; "
            "write it like '30 2 * * mon-fri'"
        )
    minutes, hours, days, months, weekdays = (_read(field, word) for field, word in zip(_FIELDS, words, strict=True))
    found = Cron(
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        days,
        months,
        frozenset(one % 7 for one in weekdays),
        words[2][0] in "*?",
        words[4][0] in "*?",
    )
    longest = max(_DAYS_IN_MONTH[month - 1] for month in found.months)
    if found.any_weekday and min(found.days) > longest:
        raise ValueError(f"day {min(found.days)} is in none of the months of {text[:60]!r}, so it is never due")
    return found


@lru_cache(maxsize=64)
def zone(name: str) -> tzinfo:
    """The time zone of an IANA name such as Europe/Berlin; empty means UTC. Reads a file when it is first asked for.

    Raises:
        ValueError: there is none of that name.
    """
    if name in {"", "UTC", "Etc/UTC"}:
        return UTC
    try:
        if _ZONE.fullmatch(name):
            return ZoneInfo(name)
    except (LookupError, OSError, ValueError):
        pass  # ZoneInfo raises any of them for a name that is none, depending on what lies at that path
    raise ValueError(f"there is no time zone {name[:60]!r}; write an IANA name such as Europe/Berlin")


def _read(field: _Field, text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        body, slash, step_text = part.partition("/")
        match = _PART.fullmatch(body)
        if match is None:
            raise ValueError(_wrong(field, part))
        step = 1
        if slash:
            if not step_text.isdecimal() or not 1 <= int(step_text[:4]) <= field.high:
                raise ValueError(f"{field.name}: the step of {part[:20]!r} is not from 1 to {field.high}")
            step = int(step_text)
        if match["any"]:
            low, high = field.low, field.high
        else:
            low = _number(field, match["low"], part)
            # As crontab(5) says, N/STEP means from N to the end.
            high = _number(field, match["high"], part) if match["high"] else field.high if slash else low
        if low > high:
            raise ValueError(f"{field.name}: the range {part[:20]!r} goes backwards")
        found.update(range(low, high + 1, step))
    return frozenset(found)


def _number(field: _Field, text: str, part: str) -> int:
    if text in field.names:
        return field.names.index(text) + field.first_named
    if text.isdecimal() and len(text) <= 2 and field.low <= int(text) <= field.high:
        return int(text)
    raise ValueError(_wrong(field, part))


def _wrong(field: _Field, part: str) -> str:
    named = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
    return (
        f"{field.name}: {part[:20]!r} is not understood; write *, a number from {field.low} to {field.high}{named}, "
        "a range, a list, or a step such as */5"
    )


@lru_cache(maxsize=64)
def _slots(cron: Cron, day: date, where: tzinfo) -> tuple[datetime, ...]:
    """All slots of one local day in order, each once."""
    found = set()
    goes_on = len(cron.hours) == 24
    for hour in cron.hours:
        for minute in cron.minutes:
            local = datetime.combine(day, time(hour, minute), where)
            first = local.astimezone(UTC)
            if first.astimezone(where).replace(tzinfo=None) != local.replace(tzinfo=None):
                found.add(_change(first, where))
                continue
            found.add(first)
            if goes_on:
                found.add(local.replace(fold=1).astimezone(UTC))
    return tuple(sorted(found))


def _change(skipped: datetime, where: tzinfo) -> datetime:
    """The instant at which the clock was put forward over a local time that `skipped` stands for, to the second."""
    # Read with the old offset the skipped time lies behind the change, by less than it skips: a day at most.
    early, late = skipped - timedelta(days=1), skipped
    offset = late.astimezone(where).utcoffset()
    while late - early > timedelta(seconds=1):
        middle = early + timedelta(seconds=int((late - early).total_seconds()) // 2)
        early, late = (early, middle) if middle.astimezone(where).utcoffset() == offset else (middle, late)
    return late
