"""The index as a SQLite file: its schema, opening it, and telling a good one from one that is none.

WAL, because then pages are read while commits write. `synchronous` is NORMAL: a commit is not synced, so a power cut
may lose the last ones but never the file's consistency. That is enough, because the manifests are the truth and every
start compares the index with them; a sync for each would double the cost of an upload's end. A dead process loses
nothing.

A file that is broken, another program's or of another schema is moved aside (the last one is kept for whoever wants to
know what happened) and an empty one takes its place. Several processes of one machine may have it open; one that finds
another file in its place opens that one.
"""

import contextlib
import fcntl
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from toe_async.collector.errors import StoreError, StoreFull
from toe_async.telemetry import log

ASIDE = ".aside"

_APPLICATION_ID = 0x746F6531
_SCHEMA_VERSION = 1
_BUSY_SECONDS = 10.0
_LOCK_LOOK_SECONDS = 0.02
_WAL_BYTES = 64 << 20
_CHECKPOINT_PAGES = 8192
"""32 MiB: while an index is built, a page is written back once for many rows instead of once for a few."""
_NO_FILE = (-1, -1)
_PRIMARY = 0xFF  # of an extended result code
_log = log.get("collector.catalog")

_SCHEMA = """
CREATE TABLE state (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
INSERT INTO state VALUES ('version', 0);
CREATE TABLE artifacts (
    version INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    age INTEGER NOT NULL,
    run TEXT NOT NULL,
    run_uid TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    ends INTEGER,
    held INTEGER NOT NULL,
    manifest TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX by_name ON artifacts (namespace, name);
CREATE INDEX by_age ON artifacts (age, namespace, name);
CREATE INDEX by_namespace ON artifacts (namespace, age, name, held, ends);
CREATE INDEX by_run ON artifacts (namespace, run, age, name);
CREATE INDEX by_run_uid ON artifacts (namespace, run_uid, age, name) WHERE run_uid <> '';
CREATE INDEX by_end ON artifacts (namespace, ends) WHERE ends IS NOT NULL AND held = 0;
CREATE TABLE usage (
    namespace TEXT PRIMARY KEY,
    artifacts INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    held INTEGER NOT NULL,
    held_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO usage VALUES ('', 0, 0, 0, 0);
CREATE TRIGGER counted_in AFTER INSERT ON artifacts BEGIN
    INSERT INTO usage VALUES
        (new.namespace, 1, new.bytes, new.held, new.held * new.bytes),
        ('', 1, new.bytes, new.held, new.held * new.bytes)
    ON CONFLICT (namespace) DO UPDATE SET
        artifacts = artifacts + 1, bytes = bytes + excluded.bytes,
        held = held + excluded.held, held_bytes = held_bytes + excluded.held_bytes;
END;
CREATE TRIGGER counted_out AFTER DELETE ON artifacts BEGIN
    UPDATE usage SET
        artifacts = artifacts - 1, bytes = bytes - old.bytes,
        held = held - old.held, held_bytes = held_bytes - old.held * old.bytes
    WHERE namespace IN (old.namespace, '');
    DELETE FROM usage WHERE namespace = old.namespace AND artifacts = 0;
END;
CREATE TRIGGER counted_again AFTER UPDATE ON artifacts BEGIN
    UPDATE usage SET
        bytes = bytes + new.bytes - old.bytes, held = held + new.held - old.held,
        held_bytes = held_bytes + new.held * new.bytes - old.held * old.bytes
    WHERE namespace IN (new.namespace, '');
END;
"""
_NAMES = set(re.findall(r"^CREATE (?:UNIQUE )?(?:TABLE|INDEX|TRIGGER) (\w+)", _SCHEMA, re.MULTILINE))


class IndexLost(StoreError):  # noqa: N818 -- what happened to the index
    """The file is broken or another one stands in its place: it is to be opened again and built."""


class IndexFile:
    """Where the file is, and which one it was when it was opened. All methods block and run in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity = _NO_FILE

    def prepare(self, first_version: int) -> None:
        """Make sure that a usable file stands there; versions given from now on are above `first_version`.

        The file that was prepared before is broken when this is asked again, whatever it looks like. One that another
        program has put there since stays where it is: two would else take each other's place for ever.

        Raises:
            StoreError: it cannot be used or made.
        """
        with translated(), _locked(self.path.with_name(self.path.name + ".lock")):
            known = self._identity != _NO_FILE
            broken = known and self._now() == self._identity
            if broken or not self._usable(first_version):
                if known and not broken:
                    raise StoreError("the index belongs to another program by now; restart the collector")
                self._move_aside()
                if not self._usable(first_version):
                    raise StoreError("no index can be made in the store's own folder")
            self._identity = self._now()

    def connect(self, *, writer: bool, cache_bytes: int) -> sqlite3.Connection:
        """Open the file that `prepare` found."""
        with translated():
            made = self._open()
            made.execute(f"PRAGMA cache_size = -{cache_bytes >> 10}")
            made.execute(f"PRAGMA query_only = {not writer:d}")
            return made

    def check(self) -> None:
        """Raise IndexLost when another file, or none, stands there by now."""
        if self._now() != self._identity:
            raise IndexLost("the index was replaced")

    def _now(self) -> tuple[int, int]:
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return _NO_FILE
        return found.st_dev, found.st_ino

    def _open(self) -> sqlite3.Connection:
        # In autocommit: transactions are begun by hand. Connections change threads, one at a time.
        made = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            made.execute("PRAGMA journal_mode = WAL")
            made.execute("PRAGMA synchronous = NORMAL")
            made.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
            made.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        except BaseException:
            made.close()
            raise
        return made

    def _usable(self, first_version: int) -> bool:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if self.path.is_symlink() or not self.path.is_file():
            return False
        try:
            with contextlib.closing(self._open()) as made:
                if _shape(made) == (0, 0, set()):
                    _create(made)
                if _shape(made) != (_APPLICATION_ID, _SCHEMA_VERSION, _NAMES) or not _counts(made):
                    return False
                made.execute("UPDATE state SET value = max(value, ?)", (first_version,))
                return True
        except sqlite3.DatabaseError as bad:
            if not _is_broken(bad):
                raise
            return False

    def _move_aside(self) -> None:
        aside = self.path.with_name(self.path.name + ASIDE)
        _log.warning("the index cannot be used; it is moved aside and built again", file=aside.name)
        os.replace(self.path, aside)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Give SQLite's errors the store's words."""
    try:
        yield
    except sqlite3.Error as failed:
        if isinstance(failed, sqlite3.DatabaseError) and _is_broken(failed):
            raise IndexLost("the index is broken") from failed
        kind = StoreFull if _code(failed) == sqlite3.SQLITE_FULL else StoreError
        raise kind(f"the index answered {getattr(failed, 'sqlite_errorname', 'an unknown error')}") from failed


def _code(failed: sqlite3.Error) -> int:
    return getattr(failed, "sqlite_errorcode", 0) & _PRIMARY


def _is_broken(failed: sqlite3.DatabaseError) -> bool:
    return _code(failed) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}


def _shape(made: sqlite3.Connection) -> tuple[int, int, set[str]]:
    application = made.execute("PRAGMA application_id").fetchone()[0]
    schema = made.execute("PRAGMA user_version").fetchone()[0]
    names = {name for (name,) in made.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")}
    return application, schema, names


def _create(made: sqlite3.Connection) -> None:
    marks = f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {_SCHEMA_VERSION};"
    made.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {marks} COMMIT;")


def _counts(made: sqlite3.Connection) -> bool:
    rows = made.execute("SELECT (SELECT count(*) FROM state), (SELECT count(*) FROM usage WHERE namespace = '')")
    found: tuple[int, int] = rows.fetchone()
    return found == (1, 1)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; what is done under it takes milliseconds."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        begin = time.monotonic()
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as busy:
                if time.monotonic() - begin > _BUSY_SECONDS:
                    raise StoreError("another process keeps the index locked") from busy
                time.sleep(_LOCK_LOOK_SECONDS)
        yield
    finally:
        os.close(fd)
