"""What most of the program needs of a connection to the API server, whoever is behind it."""

from typing import Protocol

from toe_async.kube.requests import Request


class Sender(Protocol):
    """Sends requests whose answers are read whole."""

    async def send(self, request: Request) -> bytes:
        """The body of the good answer; raises KubeError."""
