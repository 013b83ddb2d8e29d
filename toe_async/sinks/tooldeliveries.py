"""Leaves of tools that the operator itself brings to S3: through the spool, as every other capture of its own (D15).

The spool's entry stays until the run that it belongs to is written down (`release`), or for ten minutes when nobody of
this process asks for it. So after a kill at any instant the entry is delivered again, the store recognises it, and its
receipt is told to whoever asks then. A leaf that is in the spool is never fetched twice.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from toe_async.apis.captures import ArtifactRecord, CaptureRecord, NotStored, Receipt
from toe_async.apis.reasons import Reason
from toe_async.sinks.delivery import DeliveryFailed, Report
from toe_async.sinks.errors import AlreadySpooled, SpoolError, SpoolFull
from toe_async.sinks.spool import Spool

UNCLAIMED_SECONDS: Final = 600.0
LEAF_TYPE: Final = "tool"

Fetch = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
Key = tuple[str, str]


class ToolDeliveries:
    """Between a tool's run, the spool and `Delivery`."""

    def __init__(self, spool: Spool, group: str) -> None:
        """`group` is the API group of the captures that are ours."""
        self._spool, self._group = spool, group
        self._outcomes: dict[Key, asyncio.Future[Receipt | DeliveryFailed]] = {}
        self._released: dict[str, asyncio.Event] = {}

    async def deliver(
        self, record: CaptureRecord, leaf: str, size: int, sha256: str, fetch: Fetch
    ) -> Receipt | NotStored:
        """Bring one leaf into the spool, unless it is there, and wait for the sink's receipt.

        `fetch` opens its bytes; an exception of its own is let through, and nothing of the leaf is kept then.
        """
        outcome = self._outcome((record.id, leaf))
        if not outcome.done():
            if (trouble := await self._spooled(record, leaf, size, sha256, fetch)) is not None:
                return trouble
            await asyncio.wait({outcome})
        told = outcome.result()
        if isinstance(told, Receipt):
            return told
        self._outcomes.pop((record.id, leaf), None)
        # What an earlier process did not receive whole may be fetched again.
        return NotStored(reason=told.reason, message=told.message, final=told.reason is not Reason.REPLICA_GONE)

    def release(self, capture_id: str) -> None:
        """The run is written down: its entries may leave the spool."""
        for key in [key for key in self._outcomes if key[0] == capture_id]:
            del self._outcomes[key]
        if (released := self._released.pop(capture_id, None)) is not None:
            released.set()

    def reporting(self, other: Report) -> Report:
        """What `Delivery` is to report to: here for our captures, `other` for the rest."""

        async def report(record: CaptureRecord, artifact: ArtifactRecord, outcome: Receipt | DeliveryFailed) -> None:
            if record.group != self._group:
                await other(record, artifact, outcome)
            elif isinstance(outcome, Receipt):
                await self._kept(record.id, artifact.leaf, outcome)
            elif (waited := self._outcomes.get((record.id, artifact.leaf))) is not None and not waited.done():
                waited.set_result(outcome)

        return report

    async def _kept(self, capture_id: str, leaf: str, receipt: Receipt) -> None:
        """Hold the entry in the spool until its receipt is written down, or nobody wants it."""
        told = self._outcome((capture_id, leaf))
        if not told.done():
            told.set_result(receipt)
        released = self._released.setdefault(capture_id, asyncio.Event())
        try:
            async with asyncio.timeout(UNCLAIMED_SECONDS):
                await released.wait()
        except TimeoutError:  # its PowerTool is gone, or another replica leads: the store has it all the same
            self.release(capture_id)

    async def _spooled(
        self, record: CaptureRecord, leaf: str, size: int, sha256: str, fetch: Fetch
    ) -> NotStored | None:
        try:
            writer = await self._spool.begin(record, leaf, LEAF_TYPE, size)
        except AlreadySpooled:
            return None
        except SpoolError as error:
            return NotStored(reason=error.reason, message=str(error))
        digest = hashlib.sha256()
        try:
            async with fetch() as chunks:
                async for chunk in chunks:
                    digest.update(chunk)
                    await writer.write(chunk)
            if digest.hexdigest() != sha256:
                return NotStored(reason=Reason.TRUNCATED, message=f"other bytes came of {leaf} than its tool announced")
            await writer.commit(verified=True)
        except SpoolFull as error:
            return NotStored(reason=error.reason, message=str(error))
        except SpoolError as error:
            return NotStored(reason=error.reason, message=str(error))
        finally:
            await writer.abort()
        return None

    def _outcome(self, key: Key) -> "asyncio.Future[Receipt | DeliveryFailed]":
        return self._outcomes.setdefault(key, asyncio.get_running_loop().create_future())
