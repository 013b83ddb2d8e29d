"""The catalog: all artifacts, findable, in a file beside them.

Commits and deletions keep it up, and `keep` makes it whole after a start or a loss; until then `complete` is False and
a list would lie. It costs no memory for each artifact: what SQLite caches is bounded, and the rest is on disk.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from itertools import islice
from pathlib import Path

from toe_async.collector.artifacts import Artifacts
from toe_async.collector.captures import Manifest
from toe_async.collector.catalog import rows
from toe_async.collector.catalog.building import Building
from toe_async.collector.catalog.connections import Connections
from toe_async.collector.catalog.query import LARGEST_PAGE, Entry, Page, Query, Usage, from_token
from toe_async.collector.catalog.retention import RetentionPolicy, Standing, due, is_within, surplus
from toe_async.collector.disk import Disk
from toe_async.collector.errors import StoreError
from toe_async.collector.locks import KeyLocks
from toe_async.lib.backoff import Backoff
from toe_async.lib.clock import Clock
from toe_async.telemetry import log

_BATCH = 500
_RECHECK_SECONDS = 6 * 3600.0
_log = log.get("collector.catalog")


class Catalog:
    """All artifacts. Every method may raise StoreError; made by `open_catalog`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._building: Building | None = None
        self._build_lock = asyncio.Lock()
        self._built = False
        self._changes = KeyLocks()

    @property
    def complete(self) -> bool:
        """Whether everything in the store is known; until then a list would lie."""
        return self._built and not self._connections.lost.is_set()

    # -- asking -----------------------------------------------------------------------------------------------------

    async def get(self, namespace: str, name: str) -> Entry | None:
        """The artifact of that name, or None."""
        return await self._connections.read(lambda db: rows.get(db, namespace, name))

    async def page(self, query: Query, limit: int, after: str) -> Page:
        """The next artifacts of a list, newest first, at most `limit` (1 to LARGEST_PAGE) of them.

        Raises:
            ValueError: `after` is not the `continue_` of an earlier page.
        """
        place, most = from_token(after), max(1, min(limit, LARGEST_PAGE))
        return await self._connections.read(lambda db: rows.page(db, query, most, place))

    async def capture(self, namespace: str, capture_id_prefix: str) -> tuple[Entry, ...]:
        """What is stored of the captures whose id begins like this, by name, at most 500; of no prefix, nothing."""
        if not capture_id_prefix:
            return ()
        return await self._connections.read(lambda db: rows.capture(db, namespace, capture_id_prefix))

    async def namespaces(self) -> list[str]:
        """The namespaces that hold something, in order."""
        return await self._connections.read(rows.namespaces)

    async def usage(self, namespace: str = "") -> Usage:
        """What a namespace holds, or all of them; kept with every change, so asking costs nothing."""
        counted = await self._connections.read(lambda db: rows.usage(db, namespace))
        return Usage(counted.artifacts, counted.bytes)

    async def held(self) -> Usage:
        """What is held in all namespaces."""
        counted = await self._connections.read(lambda db: rows.usage(db, ""))
        return Usage(counted.held, counted.held_bytes)

    async def due(self, namespace: str, policy: RetentionPolicy, now: datetime, limit: int) -> tuple[Entry, ...]:
        """What has to go of a namespace now, oldest first: about `limit` of it at most, and nothing once all is gone.

        Count and bytes are looked at when no age is over any more, and when everything is known.
        """
        found = await self._connections.read(lambda db: rows.candidates(db, namespace, policy.age, now, limit))
        over = due(found.entries, policy, now)
        if over or not self.complete:
            return over
        standing = Standing(
            found.counted.artifacts - found.counted.held, found.counted.bytes - found.counted.held_bytes
        )
        if is_within(policy, standing):
            return ()
        return surplus(await self._connections.read(lambda db: rows.oldest(db, namespace, limit)), policy, standing)

    # -- keeping up -------------------------------------------------------------------------------------------------

    async def add(self, manifests: Iterable[Manifest]) -> None:
        """Know these artifacts. One that is known in the same words stays as it is; a changed one gets a new version.

        500 at a time are taken in, those all or none.
        """
        left = iter(manifests)
        while batch := list(islice(left, _BATCH)):
            await self._add(batch)

    async def _add(self, batch: list[Manifest]) -> None:
        for one in batch:
            self._touch(one.namespace, one.name)
        await self._connections.write(lambda db: rows.add(db, batch))

    async def remove(self, namespace: str, name: str) -> None:
        """Forget an artifact that was deleted; harmless when it is not known."""
        self._touch(namespace, name)
        await self._connections.write(lambda db: rows.remove(db, namespace, name))

    async def forget(self, entry: Entry) -> None:
        """Forget an artifact that was deleted, unless it has come again or changed since the entry was read."""
        self._touch(entry.manifest.namespace, entry.manifest.name)
        await self._connections.write(lambda db: rows.forget(db, [entry.version]))

    def _touch(self, namespace: str, name: str) -> None:
        if self._building is not None:
            self._building.touched.add((namespace, name))

    @contextlib.asynccontextmanager
    async def changing(self, namespace: str, name: str) -> AsyncIterator[None]:
        """Be the only one of this process that holds, releases or deletes this artifact while the block lasts."""
        async with self._changes.hold(f"{namespace}/{name}"):
            yield

    # -- becoming whole ---------------------------------------------------------------------------------------------

    async def build(self, artifacts: Artifacts) -> None:
        """Compare with every manifest; `complete` afterwards. Commits and deletions may go on meanwhile."""
        async with self._build_lock:
            if self._connections.lost.is_set():
                self._built = False
                await self._connections.renew()
            self._building = Building(self._connections)
            try:
                built = await self._building.run(artifacts)
            finally:
                self._building = None
            self._built = True
            _log.info("the store is read", artifacts=built.artifacts, added=built.added, forgotten=built.forgotten)

    async def keep(self, artifacts: Artifacts) -> None:
        """Build, again after an error, when the index is lost, and every six hours, until cancelled.

        The last is for whatever else writes to the store: other machines with the same volume or bucket.
        """
        backoff = Backoff(1.0, 60.0)
        while True:
            try:
                await self.build(artifacts)
                backoff.reset()
            except StoreError as failed:
                wait = backoff.next()
                _log.error("the store cannot be read to its end", error=str(failed), again_in=round(wait))
                await asyncio.sleep(wait)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RECHECK_SECONDS):
                    await self._connections.lost.wait()


@contextlib.asynccontextmanager
async def open_catalog(path: Path, disk: Disk, clock: Clock) -> AsyncIterator[Catalog]:
    """The catalog in this file for as long as the block lasts; its folder must exist.

    Raises:
        StoreError: no index can be opened or made there.
    """
    connections = Connections(path, disk, clock)
    await connections.open()
    try:
        yield Catalog(connections)
    finally:
        await connections.close()
