"""The date part of storage paths: a layout in Go's reference-time style (`2006/01/02`) or strftime's (`%Y/%m/%d`).

A layout becomes one to eight path segments. Whatever it holds, a rendered date is made of letters, digits and `._=+-`
only, no segment is hidden, and no segment is `.` or `..`.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime

DEFAULT_LAYOUT = "2006/01/02"
_LONGEST = 64
_MOST_SEGMENTS = 8

_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SEGMENT = re.compile(r"[A-Za-z0-9=+_-][A-Za-z0-9._=+-]*")

# Go's elements that name a date or a time of day, the longer first where one begins another. `Jan` and `Mon` are only
# elements when no small letter follows, as in Go. `_2`, a day padded with a blank, is known to be refused.
_GO = re.compile(r"January|Jan(?![a-z])|Monday|Mon(?![a-z])|_2(?!006)|2006|002|01|02|03|04|05|06|15|PM|1|2|3|4|5")
_STRFTIME = re.compile(r"%(.)", re.DOTALL)

Piece = Callable[[datetime], str]


def _number(name: str, width: int) -> Piece:
    return lambda at: f"{getattr(at, name):0{width}d}"


def _short_year(at: datetime) -> str:
    return f"{at.year % 100:02d}"


def _long_year(at: datetime) -> str:
    return f"{at.year:04d}"


def _day_of_year(at: datetime) -> str:
    return f"{at.timetuple().tm_yday:03d}"


def _twelve(width: int) -> Piece:
    return lambda at: f"{(at.hour + 11) % 12 + 1:0{width}d}"


def _half(at: datetime) -> str:
    return "PM" if at.hour >= 12 else "AM"


def _month(at: datetime) -> str:
    return _MONTHS[at.month - 1]


def _weekday(at: datetime) -> str:
    return _DAYS[at.weekday()]


def _short_month(at: datetime) -> str:
    return _month(at)[:3]


def _short_weekday(at: datetime) -> str:
    return _weekday(at)[:3]


_GO_PIECES: dict[str, Piece] = {
    "2006": _long_year, "06": _short_year, "002": _day_of_year,
    "01": _number("month", 2), "1": _number("month", 1), "January": _month, "Jan": _short_month,
    "02": _number("day", 2), "2": _number("day", 1), "Monday": _weekday, "Mon": _short_weekday,
    "15": _number("hour", 2), "03": _twelve(2), "3": _twelve(1), "PM": _half,
    "04": _number("minute", 2), "4": _number("minute", 1), "05": _number("second", 2), "5": _number("second", 1),
}  # fmt: skip
_STRFTIME_PIECES: dict[str, Piece] = {
    "Y": _long_year, "y": _short_year, "m": _number("month", 2), "B": _month, "b": _short_month,
    "d": _number("day", 2), "j": _day_of_year, "A": _weekday, "a": _short_weekday,
    "H": _number("hour", 2), "I": _twelve(2), "p": _half, "M": _number("minute", 2), "S": _number("second", 2),
    "G": lambda at: f"{at.isocalendar().year:04d}", "V": lambda at: f"{at.isocalendar().week:02d}",
}  # fmt: skip


class DateLayout:
    """A layout that was checked; rendering cannot fail."""

    def __init__(self, layout: str) -> None:
        """Raise ValueError, with what is wrong and what would be right, for a layout that gives no safe path."""
        self.layout = layout.strip()
        if not self.layout or len(self.layout) > _LONGEST:
            raise ValueError(f"the date layout must have 1 to {_LONGEST} characters; write it like {DEFAULT_LAYOUT}")
        pattern, table = (_STRFTIME, _STRFTIME_PIECES) if "%" in self.layout else (_GO, _GO_PIECES)
        self._pieces: list[str | Piece] = []
        end = 0
        for found in pattern.finditer(self.layout):
            element = found.group(found.lastindex or 0)
            if element not in table:
                raise ValueError(f"the date layout has {found.group()!r}, which is not known here")
            self._pieces += [self.layout[end : found.start()], table[element]]
            end = found.end()
        if not self._pieces:
            raise ValueError(f"the date layout {self.layout!r} names no part of a date; write it like {DEFAULT_LAYOUT}")
        self._pieces.append(self.layout[end:])
        # Every element renders to letters and digits, so one instant shows what all others look like.
        segments = self._render(datetime(2006, 1, 2, 15, 4, 5, tzinfo=UTC))
        if len(segments) > _MOST_SEGMENTS or not all(_SEGMENT.fullmatch(segment) for segment in segments):
            raise ValueError(
                f"the date layout {self.layout!r} makes an unsafe path; use at most {_MOST_SEGMENTS} parts of letters, "
                "digits and ._=+- between single slashes, none hidden"
            )

    def segments(self, instant: datetime) -> tuple[str, ...]:
        """Render an instant, in UTC, as path segments."""
        return self._render(instant.astimezone(UTC))

    def _render(self, utc: datetime) -> tuple[str, ...]:
        return tuple("".join(piece if isinstance(piece, str) else piece(utc) for piece in self._pieces).split("/"))
