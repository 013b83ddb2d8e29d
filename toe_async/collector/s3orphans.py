"""What crashes left in a bucket and nobody will ask for: found by going through its listing, a page a pass.

An object without its manifest and a manifest without its object are left alone for a day, by the clock of S3: longer
than any commit, and long enough for the same upload to come again and complete them. Each is looked at once more right
before it goes. Objects that this program did not make, which have no digest among their metadata or cannot be read as a
manifest, are never touched. Uploads in parts that were never completed are the bucket's own lifecycle rule's.
"""

import contextlib
from datetime import timedelta

from toe_async.collector.s3listing import Halves
from toe_async.collector.s3store import S3Store
from toe_async.lib.clock import Clock
from toe_async.telemetry import log

LEFT_ALONE = timedelta(days=1)
_log = log.get("collector.s3orphans")


class S3Orphans:
    """The passes. One at a time."""

    def __init__(self, store: S3Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._after = ""
        self._halves = Halves(store.bucket.private)

    async def sweep(self) -> int:
        """Finish what was noted, look at the next page of the bucket, and remove its orphans; returns how many.

        Raises:
            StoreError: the store is away; the next pass goes on from here.
        """
        await self._store.recover()
        async with contextlib.aclosing(self._store.bucket.listing(self._after)) as pages:
            page = await anext(pages)
        found = list(self._halves.page(page))
        if not page:
            found += self._halves.end()
        self._after = page[-1].key if page else ""
        removed = 0
        for half in found:
            if half.modified + LEFT_ALONE <= self._clock.now() and await self._store.discard_half(half.key):
                removed += 1
                _log.info("half of an artifact removed", key=half.key)
        return removed
