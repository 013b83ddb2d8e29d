"""Kept leaves from a supervisor to S3: fetched by port-forward, stored through the operator's own spool."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final

from toe_async.agent.protocol import Orders
from toe_async.agent.serving import FETCHED
from toe_async.apis.captures import NotStored, Receipt
from toe_async.apis.powertool import StoredArtifact
from toe_async.apis.reasons import Reason
from toe_async.capture.placing import Vessel
from toe_async.capture.tooldetails import record_of
from toe_async.capture.toolevents import ToolLeaf, ToolResult
from toe_async.capture.toolfaults import Fault
from toe_async.capture.toolports import Deliveries, Fetch, Kube
from toe_async.capture.toolrun import ToolCapture
from toe_async.kube.errors import KubeError, PortForwardBroken
from toe_async.lib.backoff import Backoff
from toe_async.lib.clock import Clock

_LEAST_SECONDS: Final = 60.0
_LEAST_RATE: Final = 1 << 20
"""Bytes a second that a port-forward is given time for."""
_TELL_SECONDS: Final = 10.0

Delivered = tuple[tuple[str, StoredArtifact], ...]


class Fetching:
    """The leaves of one capture, in the container of `vessel`, by the orders that it has."""

    def __init__(
        self, capture: ToolCapture, vessel: Vessel, orders: Orders, *, kube: Kube, deliveries: Deliveries, clock: Clock
    ) -> None:
        self._capture, self._vessel, self._key, self._max_bytes = capture, vessel, orders.fetch_key, orders.max_bytes
        self._kube, self._deliveries, self._clock = kube, deliveries, clock
        self._port = 0

    async def deliver(self, result: ToolResult, ends_at: float, *, ended: bool) -> tuple[Delivered, Fault | None]:
        """Have each kept leaf stored, until the clock's `ends_at`; those that the spool has are not fetched again.

        `ended` tells that the container has: then the spool is the only place where a leaf may still be.
        """
        self._port = result.port
        size = sum(leaf.size for leaf in result.leaves if leaf.state == "kept")
        if size > self._max_bytes:  # the spool is everybody's
            return (), Fault(Reason.TOO_LARGE, f"the tool keeps {size} bytes, and may keep {self._max_bytes}")
        delivered: list[tuple[str, StoredArtifact]] = []
        for leaf in result.leaves:
            if leaf.state != "kept":
                continue
            told = await self._one(leaf, ends_at, ended=ended)
            if isinstance(told, NotStored):
                return tuple(delivered), Fault(told.reason, told.message, passing=not told.final)
            delivered.append((leaf.name, StoredArtifact(uri=told.uri, size=told.size, sha256=told.sha256)))
        return tuple(delivered), None

    async def fetched(self) -> None:
        """Tell the supervisor that nothing has to be kept any more, if it can be reached; else its time ends it."""
        if self._port:
            with suppress(KubeError):
                async with self._get(FETCHED, _TELL_SECONDS) as chunks:
                    async for _ in chunks:
                        pass

    async def _one(self, leaf: ToolLeaf, ends_at: float, *, ended: bool) -> Receipt | NotStored:
        backoff = Backoff(1.0, 15.0, jitter=0.5)
        record = record_of(self._capture)
        while True:
            told: Receipt | NotStored
            try:
                async with asyncio.timeout(ends_at - self._clock.monotonic()):
                    told = await self._deliveries.deliver(record, leaf.name, leaf.size, leaf.sha256, self._fetch(leaf))
            except TimeoutError:
                return NotStored(reason=Reason.UPLOAD_FAILED, message=f"{leaf.name} was not stored within its time")
            except KubeError as error:
                told = NotStored(reason=Reason.UPLOAD_FAILED, message=f"{leaf.name} could not be fetched: {error}")
            wait = backoff.next()
            if isinstance(told, Receipt) or told.final or ended or self._clock.monotonic() + wait >= ends_at:
                return told
            await asyncio.sleep(wait)

    def _fetch(self, leaf: ToolLeaf) -> Fetch:
        def fetch() -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
            return self._get(leaf.name, _LEAST_SECONDS + leaf.size / _LEAST_RATE)

        return fetch

    @asynccontextmanager
    async def _get(self, name: str, seconds: float) -> AsyncIterator[AsyncIterator[bytes]]:
        vessel = self._vessel
        if not self._port:
            raise PortForwardBroken(f"the supervisor in {vessel.namespace}/{vessel.pod} serves nothing")
        target = f"/{self._key}/{name}"
        async with self._kube.get(vessel.namespace, vessel.pod, self._port, target, seconds) as chunks:
            yield chunks
