"""Which artifacts there are, newest first: an index in memory, built from the manifests and kept up by commits.

It holds what listing needs to find manifests, not what it shows: per artifact one row in one sorted list and one entry
in one dict, with folder, run and run UID shared between artifacts (under 700 bytes, measured in the tests). A page
looks at a bounded number of rows, so a filter that matches little gives short pages with a way to go on.
"""

import base64
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from datetime import UTC, datetime
from sys import intern
from typing import NamedTuple

import msgspec

from toe_async.collector.captures import Manifest

LARGEST_PAGE = 500
_ROWS_LOOKED_AT = 5_000


class Row(NamedTuple):
    """Where one artifact's manifest is. Rows sort newest first."""

    age: int
    """Microseconds since 1970 when it was stored, negated."""
    name: str
    directory: tuple[str, ...]
    file: str
    run: str
    run_uid: str


class Page(NamedTuple):
    """A piece of a list; `continue_` is empty at the end."""

    rows: list[Row]
    continue_: str


class Index:
    """All artifacts by namespace."""

    def __init__(self) -> None:
        self._sorted: dict[str, list[Row]] = {}
        self._by_name: dict[str, dict[str, Row]] = {}
        self._folders: dict[tuple[str, ...], tuple[str, ...]] = {}

    def add(self, manifests: Iterable[Manifest]) -> None:
        """Know these artifacts; those that are known already change nothing."""
        for one in manifests:
            by_name = self._by_name.setdefault(one.namespace, {})
            if one.name in by_name:
                continue
            folder = self._folders.setdefault(one.directory, one.directory)
            row = Row(-micros(one.stored_at), one.name, folder, one.file, intern(one.run), intern(one.run_uid))
            by_name[one.name] = row
            insort(self._sorted.setdefault(one.namespace, []), row)

    def remove(self, namespace: str, name: str) -> None:
        """Forget an artifact."""
        row = self._by_name.get(namespace, {}).pop(name, None)
        if row is not None:
            rows = self._sorted[namespace]
            del rows[bisect_left(rows, row)]

    def get(self, namespace: str, name: str) -> Row | None:
        """Where an artifact is, or None."""
        return self._by_name.get(namespace, {}).get(name)

    def page(self, namespace: str, *, run: str, since: datetime | None, limit: int, after: str) -> Page:
        """List a namespace, newest first: of one run (its name or UID) if given, stored at or after `since`.

        Raises:
            ValueError: `after` did not come from here.
        """
        rows = self._sorted.get(namespace, [])
        at = bisect_right(rows, _token(after)) if after else 0
        end = len(rows) if since is None else bisect_right(rows, -micros(since), key=lambda row: row.age)
        found: list[Row] = []
        stop = min(end, at + _ROWS_LOOKED_AT)
        while at < stop and len(found) < limit:
            row = rows[at]
            if not run or run in (row.run, row.run_uid):
                found.append(row)
            at += 1
        return Page(found, _continue(rows[at - 1]) if at < end else "")


def micros(instant: datetime) -> int:
    """Whole microseconds since 1970."""
    return int((instant - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)


def _continue(row: Row) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((row.age, row.name))).decode().rstrip("=")


def _token(text: str) -> Row:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        age, name = msgspec.json.decode(raw, type=tuple[int, str])
    except (ValueError, msgspec.DecodeError) as bad:
        raise ValueError("not a continue token") from bad
    # Sorts after the row of this age and name, whatever the rest of that row is.
    return Row(age, name + "\0", (), "", "", "")
