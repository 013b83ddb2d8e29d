"""What is read from and written to the index: one function a step, each blocking and for one connection.

Whole groups of rows come as one JSON text made by SQLite. Taken a row at a time, each would give up the interpreter's
lock and wait for it again, which takes up to 5 ms whenever the event loop is busy: seconds for a page.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from toe_async.apis.meta import encode
from toe_async.collector.captures import Manifest
from toe_async.collector.catalog import query as q
from toe_async.collector.catalog.file import IndexLost
from toe_async.collector.catalog.query import Entry, Page, Place, Query

ROWS_LOOKED_AT = 2_000
"""Most rows that a page looks at for those that match: 20 ms of processor time."""

_GROUP = 500
_decode_entries = msgspec.json.Decoder(tuple[Entry, ...]).decode

_ADD = """
INSERT INTO artifacts (version, namespace, name, age, run, run_uid, bytes, ends, held, manifest)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (namespace, name) DO UPDATE SET
    version = excluded.version, age = excluded.age, run = excluded.run, run_uid = excluded.run_uid,
    bytes = excluded.bytes, ends = excluded.ends, held = excluded.held, manifest = excluded.manifest
WHERE manifest <> excluded.manifest
"""
_SELECT = """
SELECT '[' || coalesce(group_concat('{"version":' || version || ',"manifest":' || manifest || '}'), '') || ']'
FROM (SELECT version, manifest FROM artifacts
"""
_ALL = "(age, namespace, name) > (:age, :namespace, :name) AND age <= :oldest ORDER BY age, namespace, name"
_ONE = "namespace = :only AND (age, name) > (:age, :name) AND age <= :oldest ORDER BY age, name"
_AGED = "namespace = :only AND held = 0 AND ends IS NULL AND age >= :age ORDER BY age DESC, name DESC"
_RUN = f"""
version IN (
    SELECT version FROM (SELECT version FROM artifacts WHERE run = :run AND {_ONE} LIMIT :limit)
    UNION
    SELECT version FROM (SELECT version FROM artifacts WHERE run_uid = :run AND run_uid <> '' AND {_ONE} LIMIT :limit)
) ORDER BY age, name
"""  # noqa: S608 -- of constants alone


class Counted(NamedTuple):
    """Artifacts and bytes of a namespace, and how many of each are held."""

    artifacts: int
    bytes: int
    held: int
    held_bytes: int


class Candidates(NamedTuple):
    """What may have to go of a namespace, and what there is of it."""

    counted: Counted
    entries: tuple[Entry, ...]


def add(db: sqlite3.Connection, manifests: Sequence[Manifest]) -> None:
    """Take artifacts in, all or none. One that is known changes only when its manifest does."""
    with _transaction(db, "IMMEDIATE"):
        take = "UPDATE state SET value = value + ? WHERE key = 'version' RETURNING value"
        last = db.execute(take, (len(manifests),)).fetchone()[0]
        first = last - len(manifests) + 1
        db.executemany(_ADD, (_row(first + at, one) for at, one in enumerate(manifests)))


def remove(db: sqlite3.Connection, namespace: str, name: str) -> None:
    """Forget an artifact, if it is known."""
    db.execute("DELETE FROM artifacts WHERE namespace = ? AND name = ?", (namespace, name))


def forget(db: sqlite3.Connection, versions: Sequence[int]) -> None:
    """Forget artifacts, each only if it has not changed since its version was read."""
    with _transaction(db, "IMMEDIATE"):
        db.executemany("DELETE FROM artifacts WHERE version = ?", [(one,) for one in versions])


def get(db: sqlite3.Connection, namespace: str, name: str) -> Entry | None:
    """The artifact of that name, or None."""
    found = select(db, "namespace = :only AND name = :name", {"only": namespace, "name": name}, 1)
    return found[0] if found else None


def capture(db: sqlite3.Connection, namespace: str, prefix: str) -> tuple[Entry, ...]:
    """The artifacts of captures whose id begins like this, at most 500."""
    # Names begin with the id's first ten characters, which are all ASCII: 0x7f is above each.
    begin = prefix[: q.NAME_PREFIX]
    where = "namespace = :only AND name >= :begin AND name < :end ORDER BY name"
    found = select(db, where, {"only": namespace, "begin": begin, "end": begin + "\x7f"}, _GROUP)
    return tuple(one for one in found if one.manifest.capture.startswith(prefix))


def page(db: sqlite3.Connection, query: Query, limit: int, place: Place) -> Page:
    """The next `limit` artifacts after the place, after a look at no more than ROWS_LOOKED_AT."""
    with _transaction(db, "DEFERRED"):
        version = db.execute("SELECT value FROM state WHERE key = 'version'").fetchone()[0]
        found, last, more = _scan(db, query, limit, place)
        passed = place.passed + len(found)
        remaining = usage(db, query.namespace).artifacts - passed if more and q.is_plain(query) else None
    token = q.to_token(q.place_of(last, passed)) if more and last is not None else ""
    return Page(tuple(found), token, None if remaining is None else max(remaining, 1), version)


def _scan(db: sqlite3.Connection, query: Query, limit: int, place: Place) -> tuple[list[Entry], Manifest | None, bool]:
    """What matches, the last row that need not be looked at again, and whether anything may come after it."""
    matches, where, values = q.matcher(query), *_source(query, place)
    found: list[Entry] = []
    last: Manifest | None = None
    looked = 0
    while looked < ROWS_LOOKED_AT:
        wanted = limit + 1 if q.is_plain(query) else _GROUP
        rows = sorted(select(db, where, values, wanted), key=lambda one: q.order(one.manifest))
        for one in rows:
            if matches(one.manifest):
                if len(found) == limit:
                    return found, found[-1].manifest, True
                found.append(one)
            last = one.manifest
        if len(rows) < wanted:
            return found, last, False
        looked += len(rows)
        values["age"], values["namespace"], values["name"] = q.order(rows[-1].manifest)
    return found, last, True


def _source(query: Query, place: Place) -> tuple[str, dict[str, Any]]:
    """The narrowest ordered set of rows that holds everything wanted from the place on."""
    newest, oldest = q.ages(query)
    begin = max((place.age, place.namespace, place.name), (newest, "", ""))
    only = q.single_namespace(query)
    values = dict(zip(("age", "namespace", "name"), begin, strict=True), oldest=oldest, only=only, run=query.run)
    if not only:
        return _ALL, values
    return (_RUN if query.run else _ONE), values


def namespaces(db: sqlite3.Connection) -> list[str]:
    """Those that hold something, in order."""
    return [name for (name,) in db.execute("SELECT namespace FROM usage WHERE namespace <> '' ORDER BY namespace")]


def usage(db: sqlite3.Connection, namespace: str) -> Counted:
    """What a namespace holds (empty: all)."""
    wanted = "SELECT artifacts, bytes, held, held_bytes FROM usage WHERE namespace = ?"
    return Counted(*(db.execute(wanted, (namespace,)).fetchone() or (0, 0, 0, 0)))


def select(db: sqlite3.Connection, where: str, values: Mapping[str, object], limit: int) -> tuple[Entry, ...]:
    """Entries by a condition of ours, in no certain order.

    Raises:
        IndexLost: a row is none of ours.
    """
    statement = f"{_SELECT} WHERE {where} LIMIT :limit)"
    try:
        return _decode_entries(db.execute(statement, {**values, "limit": limit}).fetchone()[0])
    except msgspec.DecodeError as bad:
        raise IndexLost("the index holds what nobody wrote") from bad


def candidates(db: sqlite3.Connection, namespace: str, age: timedelta | None, now: datetime, limit: int) -> Candidates:
    """What may be over its age: `limit` of those with an end of their own, and as many of the others."""
    values = {"only": namespace, "now": q.micros(now), "age": -q.micros(now - (age or timedelta()))}
    ended = select(db, "namespace = :only AND held = 0 AND ends <= :now ORDER BY ends", values, limit)
    aged = () if age is None else select(db, _AGED, values, limit)
    return Candidates(usage(db, namespace), ended + aged)


def oldest(db: sqlite3.Connection, namespace: str, limit: int) -> tuple[Entry, ...]:
    """The oldest artifacts of a namespace that are not held."""
    return select(db, "namespace = :only AND held = 0 ORDER BY age DESC, name DESC", {"only": namespace}, limit)


def _row(version: int, one: Manifest) -> tuple[object, ...]:
    days = one.retention_days
    ends = None if days is None else q.micros(one.stored_at + timedelta(days=days))
    age, text = -q.micros(one.stored_at), encode(one).decode()
    return version, one.namespace, one.name, age, one.run, one.run_uid, one.size, ends, bool(one.hold), text


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection, kind: str) -> Iterator[None]:
    db.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        # A full disk may have ended it already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
