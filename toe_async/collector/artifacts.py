"""What a backend for finished artifacts must be able to do; `storage` and the others keep these promises.

Uploads are staged as parts on local disk, whatever the backend is. A backend takes a finished part, whole or not at
all, and never replaces what it holds.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from toe_async.collector.captures import Manifest
from toe_async.collector.parts import Part


class Reader(Protocol):
    """An opened artifact, readable until its block ends even when the artifact is deleted meanwhile."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    async def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on; empty at the end and nowhere else. Raises StoreError."""


class Artifacts(Protocol):
    """All stored artifacts. Every method may raise StoreError (StoreFull where something is written)."""

    async def commit(self, part: Part, manifest: Manifest) -> Manifest:
        """Store a finished upload under its final name, or find out what is stored there.

        When this returns, what it returns survives a crash. That is the manifest given (the same object), an older one
        of the same content (the upload was not needed), or one of a different content, which stays. The caller lets
        one commit of a capture run at a time, and removes the part afterwards.
        """

    async def find(self, directory: tuple[str, ...], file: str) -> Manifest | None:
        """The manifest of a stored artifact, or None."""

    def open(self, manifest: Manifest) -> AbstractAsyncContextManager[Reader]:
        """A stored artifact's bytes; raises FileNotFoundError when it is gone or not as long as its manifest says."""

    async def delete(self, manifest: Manifest) -> None:
        """Remove this artifact for good, not one stored under its name since; harmless when it is gone.

        Readers that have it open go on.
        """

    async def rewrite(self, manifest: Manifest) -> None:
        """Replace the manifest of a stored artifact, atomically; raises FileNotFoundError when the artifact is gone."""

    def manifests(self) -> AsyncIterator[list[Manifest]]:
        """All of them, some hundreds at a time; those that come or go meanwhile may or may not be among them."""

    async def free_bytes(self) -> int:
        """What may still be stored."""

    async def probe(self) -> None:
        """Write and remove something; raises StoreError when that cannot be done."""
