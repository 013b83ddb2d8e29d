"""The janitor: removes what retention says has to go, and what crashes left, a bounded piece a pass.

A pass goes round the namespaces, a batch of each at a time, until nothing is due or its time is over; the next pass
begins with the namespace after the last one, so none waits for another. Each artifact is read once more from the store
right before it goes: what somebody has taken under hold meanwhile, in this process or another, stays. Readers that
have an artifact open keep it (see `Artifacts.delete`), and an upload is none before its commit.
"""

import asyncio
from collections import deque
from typing import Protocol

from msgspec import Struct

from toe_async.collector.artifacts import Artifacts
from toe_async.collector.catalog.catalog import Catalog
from toe_async.collector.catalog.policy import Policies
from toe_async.collector.catalog.query import Entry
from toe_async.collector.errors import StoreError
from toe_async.lib.clock import Clock
from toe_async.telemetry import log

_BATCH = 200
_AT_ONCE = 4
_PASS_SECONDS = 30.0
_log = log.get("collector.janitor")


class Orphaned(Protocol):
    """Where a backend has leftovers of its own, what removes them."""

    async def sweep(self) -> int:
        """Remove some; returns how many. Raises StoreError."""


class Swept(Struct, frozen=True, kw_only=True):
    """What a pass did. `kept_by_hold` is how many artifacts are held now, due or not; `failed` counts what could not
    be done."""

    removed: int = 0
    bytes: int = 0
    kept_by_hold: int = 0
    orphans: int = 0
    failed: int = 0
    finished: bool = True
    """False: more is due, and the next pass goes on with it."""


class Janitor:
    """The passes. One at a time."""

    def __init__(
        self, catalog: Catalog, artifacts: Artifacts, policies: Policies, clock: Clock, orphans: Orphaned | None = None
    ) -> None:
        self._catalog, self._artifacts, self._policies, self._clock = catalog, artifacts, policies, clock
        self._orphans = orphans
        self._first = ""

    async def sweep(self) -> Swept:
        """Do one pass, of half a minute and one batch at most.

        Raises:
            StoreError: the catalog cannot be read. That an artifact could not be removed, or a backend's leftovers not
                be looked at, is counted instead; a later pass tries again.
        """
        names = await self._catalog.namespaces()
        at = next((number for number, name in enumerate(names) if name >= self._first), 0)
        waiting = deque(names[at:] + names[:at])
        end = self._clock.monotonic() + _PASS_SECONDS
        tally = _Tally()
        while waiting and self._clock.monotonic() < end:
            namespace = waiting.popleft()
            if await self._batch(namespace, tally):
                waiting.append(namespace)
        self._first = waiting[0] if waiting else ""
        if tally.removed or tally.failed:
            _log.info("retention removed artifacts", removed=tally.removed, bytes=tally.bytes, failed=tally.failed)
        orphans = await self._sweep_orphans(tally)
        return Swept(
            removed=tally.removed,
            bytes=tally.bytes,
            kept_by_hold=(await self._catalog.held()).artifacts,
            orphans=orphans,
            failed=tally.failed,
            finished=not waiting and not tally.failed,
        )

    async def _sweep_orphans(self, tally: "_Tally") -> int:
        try:
            return 0 if self._orphans is None else await self._orphans.sweep()
        except StoreError as failed:
            tally.failed += 1
            _log.warning("orphans cannot be removed", error=str(failed))
            return 0

    async def _batch(self, namespace: str, tally: "_Tally") -> bool:
        """Remove some of what is due; whether more may be. After a failure it is left to the next pass."""
        policy = self._policies.current.of(namespace)
        found = await self._catalog.due(namespace, policy, self._clock.now(), _BATCH)
        failed, left = tally.failed, deque(found)

        async def work() -> None:
            while left:
                await self._remove(left.popleft(), tally)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(_AT_ONCE):
                tasks.create_task(work())
        return bool(found) and tally.failed == failed

    async def _remove(self, entry: Entry, tally: "_Tally") -> None:
        known = entry.manifest
        try:
            async with self._catalog.changing(known.namespace, known.name):
                held = await self._artifacts.find(known.directory, known.file)
                if held is not None and held != known:
                    await self._catalog.add([held])
                    return
                await self._artifacts.delete(known)
                await self._catalog.forget(entry)
        except StoreError as failed:
            tally.failed += 1
            _log.warning("an artifact cannot be removed", namespace=known.namespace, name=known.name, error=str(failed))
        else:
            tally.removed, tally.bytes = tally.removed + 1, tally.bytes + known.size


class _Tally(Struct):
    removed: int = 0
    bytes: int = 0
    failed: int = 0
