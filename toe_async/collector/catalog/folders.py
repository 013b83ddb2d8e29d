"""A directory store that leaves no empty folders behind.

A folder is removed by rmdir, which refuses one that is not empty, from the deepest up until one is in use. What can
meet it is a commit that has made or opened the folder and not yet linked its file: that commit fails with ENOENT, with
nothing of it visible, and is simply done again. Once its file is linked the folder cannot go any more.
"""

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from toe_async.collector.artifacts import Artifacts, Reader
from toe_async.collector.captures import Manifest
from toe_async.collector.disk import Directory, Disk
from toe_async.collector.errors import StoreError
from toe_async.collector.parts import Part

_TRIES = 10


class TidyStore:
    """`Artifacts` over the directory store of one root."""

    def __init__(self, store: Artifacts, root: Directory, disk: Disk) -> None:
        self._store, self._root, self._disk = store, root, disk

    async def commit(self, part: Part, manifest: Manifest) -> Manifest:
        """Store, again when a folder on the way was taken away as empty meanwhile."""
        for _ in range(_TRIES - 1):
            try:
                return await self._store.commit(part, manifest)
            except StoreError as failed:
                if not isinstance(failed.__cause__, FileNotFoundError):
                    raise
        return await self._store.commit(part, manifest)

    async def delete(self, manifest: Manifest) -> None:
        """Remove an artifact, and the folders that held nothing else."""
        await self._store.delete(manifest)
        await self._disk.run(lambda: remove_empty(self._root, manifest.directory))

    async def find(self, directory: tuple[str, ...], file: str) -> Manifest | None:
        """As the store."""
        return await self._store.find(directory, file)

    def open(self, manifest: Manifest) -> AbstractAsyncContextManager[Reader]:
        """As the store."""
        return self._store.open(manifest)

    async def rewrite(self, manifest: Manifest) -> None:
        """As the store."""
        await self._store.rewrite(manifest)

    def manifests(self) -> AsyncIterator[list[Manifest]]:
        """As the store."""
        return self._store.manifests()

    async def free_bytes(self) -> int:
        """As the store."""
        return await self._store.free_bytes()

    async def probe(self) -> None:
        """As the store."""
        await self._store.probe()


def remove_empty(root: Directory, directory: tuple[str, ...]) -> None:
    """Remove a folder if it is empty, then the one above if it is empty by that, and so on below the root. Blocks."""
    for depth in range(len(directory), 0, -1):
        try:
            with root.enter(directory[: depth - 1]) as above:
                os.rmdir(directory[depth - 1], dir_fd=above.fd)
        except FileNotFoundError:
            continue  # somebody else was faster, and may not have come to the one above
        except OSError:
            return  # in use, or not ours to remove
