"""One holder at a time for each key, without a lock object for every key there ever was."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class KeyLocks:
    """Locks by key. Holders of different keys do not meet; waiters of one key go in order."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Wait for the key and keep it until the block ends."""
        lock, users = self._held.get(key, (None, 0))
        lock = lock or asyncio.Lock()
        self._held[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._held.pop(key)
            if users > 1:
                self._held[key] = lock, users - 1
