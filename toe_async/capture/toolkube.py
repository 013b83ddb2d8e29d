"""The API server as a tool's run sees it."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from toe_async.kube.client import Client
from toe_async.kube.errors import PortForwardBroken
from toe_async.kube.portforward import pod_request
from toe_async.kube.remotecommand import Stream, attach
from toe_async.kube.requests import Request


class ToolKube:
    """Requests, attaching and port-forwards over one client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def send(self, request: Request) -> bytes:
        """As `Client.send`."""
        return await self._client.send(request)

    def attach(self, namespace: str, pod: str, container: str) -> AbstractAsyncContextManager[Stream]:
        """As `remotecommand.attach`."""
        return attach(self._client, namespace, pod, container)

    @asynccontextmanager
    async def get(
        self, namespace: str, pod: str, port: int, target: str, seconds: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """As `pod_request`; everything but a 200 is PortForwardBroken."""
        async with pod_request(self._client, namespace, pod, port, target, deadline_seconds=seconds) as answer:
            if answer.status != 200:
                raise PortForwardBroken(f"port {port} of pod {namespace}/{pod} answers {answer.status}")
            yield answer.chunks()
