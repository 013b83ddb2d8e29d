"""Making the index whole: compared with every manifest, a batch at a time, while commits and deletions go on.

What is remembered of a comparison is one bit for each row that has its manifest. A row without one is looked up once
more before it is forgotten, because a folder that changes while it is listed may hide what it holds.
"""

import sqlite3
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from toe_async.collector.artifacts import Artifacts
from toe_async.collector.captures import Manifest
from toe_async.collector.catalog import rows
from toe_async.collector.catalog.connections import Connections
from toe_async.collector.catalog.query import Entry

_BATCH = 500
_TAKEN_AT_ONCE = 2_000
"""Manifests a transaction, some 4 MB: the fewer transactions, the fewer times a page of an index is written."""
_CHUNK_BITS = 1 << 13
_decode_versions = msgspec.json.Decoder(list[int]).decode


class Built(Struct, frozen=True):
    """What a comparison found: artifacts in the store, rows added or changed, and rows forgotten."""

    artifacts: int
    added: int
    forgotten: int


class Marks:
    """A set of versions, a bit each where they lie close together: 125 KB for a million in a row."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}

    def add(self, version: int) -> None:
        """Mark a version."""
        chunk, bit = divmod(version, _CHUNK_BITS)
        self._chunks.setdefault(chunk, bytearray(_CHUNK_BITS // 8))[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, version: int) -> bool:
        chunk, bit = divmod(version, _CHUNK_BITS)
        return chunk in self._chunks and bool(self._chunks[chunk][bit >> 3] & 1 << (bit & 7))


class Building:
    """One comparison."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._present = Marks()
        self.touched: set[tuple[str, str]] = set()
        """Namespace and name of what was added, changed or deleted since it began: the index knows that better than
        what was read before."""

    async def run(self, artifacts: Artifacts) -> Built:
        """Add what is missing, take over what has changed, forget what is gone. Raises StoreError."""
        last = await self._connections.read(_last_version)
        count = added = 0
        waiting: list[Manifest] = []
        async for found in artifacts.manifests():
            waiting += found
            if len(waiting) >= _TAKEN_AT_ONCE:
                batch, waiting = waiting, []
                count, added = count + len(batch), added + await self._take(batch)
        count, added = count + len(waiting), added + await self._take(waiting)
        return Built(count, added, await self._forget_others(artifacts, last))

    async def _take(self, batch: Sequence[Manifest]) -> int:
        known = await self._connections.read(lambda db: _known(db, batch))
        new = []
        for one, entry in zip(batch, known, strict=True):
            if entry is not None:
                self._present.add(entry.version)
            if (entry is None or entry.manifest != one) and (one.namespace, one.name) not in self.touched:
                new.append(one)
        if new:
            await self._connections.write(lambda db: rows.add(db, new))
        return len(new)

    async def _forget_others(self, artifacts: Artifacts, last: int) -> int:
        at, forgotten = -1, 0
        while versions := await self._versions(at, last):
            at = versions[-1]
            doubted = [one for one in versions if one not in self._present]
            for begin in range(0, len(doubted), _BATCH):
                forgotten += await self._forget(artifacts, doubted[begin : begin + _BATCH])
        return forgotten

    async def _versions(self, after: int, last: int) -> list[int]:
        return await self._connections.read(lambda db: _versions(db, after, last))

    async def _forget(self, artifacts: Artifacts, doubted: Sequence[int]) -> int:
        entries = await self._connections.read(lambda db: _entries(db, doubted))
        gone = [
            one.version for one in entries if await artifacts.find(one.manifest.directory, one.manifest.file) is None
        ]
        await self._connections.write(lambda db: rows.forget(db, gone))
        return len(gone)


def _last_version(db: sqlite3.Connection) -> int:
    last: int = db.execute("SELECT value FROM state WHERE key = 'version'").fetchone()[0]
    return last


def _known(db: sqlite3.Connection, batch: Sequence[Manifest]) -> list[Entry | None]:
    return [rows.get(db, one.namespace, one.name) for one in batch]


def _versions(db: sqlite3.Connection, after: int, last: int) -> list[int]:
    inner = "SELECT version FROM artifacts WHERE version > ? AND version <= ? ORDER BY version LIMIT ?"
    found = db.execute(f"SELECT json_group_array(version) FROM ({inner})", (after, last, _CHUNK_BITS)).fetchone()  # noqa: S608
    return sorted(_decode_versions(found[0]))


def _entries(db: sqlite3.Connection, versions: Sequence[int]) -> Sequence[Entry]:
    found = [rows.select(db, "version = :version", {"version": one}, 1) for one in versions]
    return [one for some in found for one in some]
