"""All sinks behind one object: a SinkRef is checked against the administrator's list, then handed to its sink."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from toe_async.apis.captures import ArtifactRecord, CaptureRecord, CollectorRef, Receipt, S3Ref, SinkRef
from toe_async.apis.reasons import Reason
from toe_async.kube.sender import Sender
from toe_async.lib.clock import Clock
from toe_async.sinks.allow import Allowed, Allows, Refused
from toe_async.sinks.collector import CollectorAccess, CollectorSink
from toe_async.sinks.errors import SinkRefused
from toe_async.sinks.s3 import S3Sink
from toe_async.sinks.spool import SpoolEntry


class Sinks:
    """Every place for bytes. Used as an async context manager; leaving it ends requests that are still under way.

    `max_bytes` is the largest artifact that captures may have; the collector holds every capture to it.
    """

    def __init__(
        self,
        client: Sender,
        allow_list: Allows,
        *,
        clock: Clock,
        collector_ca: Path | None,
        collector_token: Path | None,
        agents_namespace: str,
        uploader: str,
        max_bytes: int = 2 << 30,
    ) -> None:
        self._allow_list = allow_list
        self._s3 = S3Sink(client)
        access = CollectorAccess(
            url=allow_list.collector,
            token_file=collector_token,
            ca=collector_ca,
            agents_namespace=agents_namespace,
            uploader_account=uploader,
            max_bytes=max_bytes,
        )
        self._collector = CollectorSink(client, access, clock)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._s3)
            await stack.enter_async_context(self._collector)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def allow(self, ref: SinkRef, namespace: str) -> Allowed | Refused:
        """Decide whether a config in `namespace` may use this sink; costs nothing."""
        return self._allow_list.allow(ref, namespace)

    async def store(self, entry: SpoolEntry, *, again: bool) -> Receipt:
        """Store one artifact where its capture's record says.

        Raises:
            SinkUnavailable: not now.
            SinkRefused: never; SinkNotAllowed when the administrator's list does not have it.
        """
        record = entry.record
        allowed = self.allow(record.sink, record.namespace)
        if isinstance(allowed, Refused):
            raise SinkRefused(Reason.SINK_NOT_ALLOWED, allowed.message)
        if isinstance(record.sink, S3Ref):
            return await self._s3.store(entry, record.sink, allowed, again=again)
        return await self._collector.store(entry)

    async def complete(self, record: CaptureRecord, artifacts: tuple[ArtifactRecord, ...]) -> None:
        """Say that nothing more will come of a capture; S3 has no use for it.

        Raises:
            SinkUnavailable, SinkRefused.
        """
        if isinstance(record.sink, CollectorRef):
            await self._collector.complete(record, artifacts)

    async def probe(self, ref: SinkRef, namespace: str) -> str | None:
        """Return None when the sink would take an artifact now, as far as can be told; else why not."""
        allowed = self.allow(ref, namespace)
        if isinstance(allowed, Refused):
            return allowed.message
        if isinstance(ref, S3Ref):
            return await self._s3.probe(ref, allowed, namespace)
        return await self._collector.probe()
