"""What a reader may ask of the stored artifacts, whoever answers.

Inside the collector the answers come from its own store, checked against the viewer's rights; in the command line they
come over the aggregated API with the user's kubeconfig. Pages are written against this and know neither. Every call
raises `Refused`, whose reason is the one that the API itself answers with.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from msgspec import Struct


class Body(Struct, frozen=True, kw_only=True):
    """Bytes of an artifact on their way out. `pieces` is read once, inside the context that gave the body."""

    content_type: str
    size: int
    """How many bytes `pieces` yields in all; a body that ends earlier raises ConnectionError."""
    filename: str
    """A plain file name of letters, digits and `._-`."""
    headers: dict[str, str]
    """What an HTTP answer says of them besides type, length and name: ETag, X-Toe-Sha256, Content-Range of a part."""
    pieces: AsyncIterator[bytes]


class Library(Protocol):
    """The artifacts that one viewer may see. Objects are plain JSON-able data in the shape of the API's answers."""

    async def namespaces(self) -> list[str]:
        """Namespaces with artifacts that the viewer may list, sorted; at most 200."""

    async def list(self, namespace: str, query: Mapping[str, str]) -> dict[str, Any]:
        """A page as an ArtifactList, newest first. An empty namespace is all of them and needs that right.

        `query` may hold run, since, until, q, labelSelector, fieldSelector, limit, continue; the page's
        `metadata.continue` is absent at the end.
        """

    async def get(self, namespace: str, name: str) -> dict[str, Any]:
        """One Artifact."""

    def content(
        self, namespace: str, name: str, first: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[Body]:
        """Its bytes from `first` up to `end`, which is not included and defaults to the last one."""

    async def render(self, namespace: str, name: str, query: Mapping[str, str]) -> tuple[str, bytes]:
        """A view of it as (content type, body).

        `query` holds `as` (flame, top, diff, folded), for a diff `base` (NAME or NAMESPACE/NAME), and maybe `sample`.
        """

    async def delete(self, namespace: str, name: str) -> dict[str, Any]:
        """Remove it for good; a Status that names what was removed. One that is held is refused (409)."""

    async def hold(self, namespace: str, name: str, reason: str) -> dict[str, Any]:
        """Keep it from retention and deletion for this reason; an empty one releases it. The Artifact afterwards."""
