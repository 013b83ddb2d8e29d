"""What a tool's run needs of the rest of the program, so that it can be told without any of it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from typing import Protocol

from toe_async.apis.captures import CaptureRecord, NotStored, Receipt, Standing
from toe_async.kube.requests import Request

Fetch = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]


class Attached(Protocol):
    """A container's first process: `kube.remotecommand.Stream`."""

    async def send(self, data: bytes) -> None:
        """Write to its stdin; raises RemoteCommandBroken."""

    def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        """Its output by channel, until it or the connection ends; raises RemoteCommandBroken."""


class Kube(Protocol):
    """The API server: `capture.toolkube.ToolKube`."""

    async def send(self, request: Request) -> bytes:
        """The body of the good answer; raises KubeError."""

    def attach(self, namespace: str, pod: str, container: str) -> AbstractAsyncContextManager[Attached]:
        """Attach to a running container; raises KubeError."""

    def get(
        self, namespace: str, pod: str, port: int, target: str, seconds: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The body of a 200 from a port of a pod, within `seconds`; raises KubeError."""


class PodWatch(Protocol):
    """Who hears of pods first: the operator's informer."""

    def watching(self, namespace: str, name: str, changed: Callable[[], None]) -> AbstractContextManager[None]:
        """Call back when the pod has changed or gone, until the block ends. Calls may be lost or come for nothing."""


class Ticket(Protocol):
    """The right to upload one capture."""

    async def token(self, *, anew: bool) -> str | NotStored:
        """A token that lives for five minutes at least, or why there is none now; `anew` after a refusal."""

    def leave(self) -> None:
        """Let its tokens live on when the block ends."""


class Captures(Protocol):
    """The collector: `sinks.toolcaptures.ToolCaptures`."""

    async def register(
        self, record: CaptureRecord, *, expires: datetime, details: dict[str, str]
    ) -> Standing | NotStored:
        """Make the capture known, for the first time or again, and learn what is stored of it."""

    async def cancel(self, capture_id: str) -> NotStored | None:
        """Let nothing more be uploaded; None when that is so."""

    def hold(self, capture_id: str) -> AbstractAsyncContextManager[Ticket]:
        """Give the ticket for one capture; at the end of the block it is taken back."""


class Deliveries(Protocol):
    """The way to S3: `sinks.tooldeliveries.ToolDeliveries`."""

    async def deliver(
        self, record: CaptureRecord, leaf: str, size: int, sha256: str, fetch: Fetch
    ) -> Receipt | NotStored:
        """Bring one leaf to its sink, once, and wait for the receipt. Errors of `fetch` are let through."""

    def release(self, capture_id: str) -> None:
        """The run is written down: nobody will ask for its receipts again."""
