"""A client for the store's bucket that outlives the keys it was made with.

Each request borrows the client of the moment. Every few minutes, and after a key was refused, the identity is asked
anew; with another key comes another client, and the old one is closed when its last request has ended.
"""

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

import aiohttp

from toe_async.collector.s3errors import ADVICE
from toe_async.collector.store_url import S3Place
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner
from toe_async.sinks.credentials import Keys, OperatorIdentity
from toe_async.sinks.errors import Denied, Passing
from toe_async.sinks.s3requests import Requests
from toe_async.sinks.uninterrupted import in_thread

_BELIEVED_SECONDS = 240.0  # keys are good for ten minutes when they are handed out, and no request takes longer than 5
_CONNECTIONS = 32


class _Client:
    """A botocore client and how many requests use it."""

    def __init__(self, s3: Any, keys: Keys, stack: AsyncExitStack) -> None:
        self.s3, self.keys, self.users, self.retired = s3, keys, 0, False
        self._stack = stack

    async def close(self) -> None:
        await self._stack.aclose()


class S3Connection:
    """Used as an async context manager; leaving it ends the requests under way."""

    def __init__(self, place: S3Place, clock: Clock) -> None:
        self._place, self._clock = place, clock
        self._identity = OperatorIdentity()
        self._lock = asyncio.Lock()
        self._client: _Client | None = None
        self._believed_until = float("-inf")
        # Whoever starts a request awaits its outcome, so nothing is left to say about an error.
        self._owner = TaskOwner(lambda name, error: None)
        self.requests = Requests(self._owner, self._lend, str(place), self._translate)

    async def __aenter__(self) -> Self:
        # Blocks for 0.2 s the first time; afterwards the errors can be told apart without waiting.
        self._translated = await in_thread(_botocore)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._owner.__aexit__(None, None, None)
        if self._client is not None:
            await self._client.close()

    @asynccontextmanager
    async def _lend(self) -> AsyncIterator[Any]:
        client = await self._current()
        client.users += 1
        try:
            yield client.s3
        finally:
            client.users -= 1
            if client.retired and not client.users:
                await client.close()

    async def _current(self) -> _Client:
        async with self._lock:
            if self._client is None or self._clock.monotonic() >= self._believed_until:
                keys = await self._identity.keys()
                if self._client is None or self._client.keys != keys:
                    await self._replace(keys)
                self._believed_until = self._clock.monotonic() + _BELIEVED_SECONDS
            assert self._client is not None
            return self._client

    async def _replace(self, keys: Keys) -> None:
        from toe_async.sinks.s3client import connect

        session = await self._identity.session()
        async with AsyncExitStack() as stack:
            place = self._place
            s3 = await stack.enter_async_context(
                connect(session, keys, place.allowed(), addressing=place.addressing, connections=_CONNECTIONS)
            )
            old, self._client = self._client, _Client(s3, keys, stack.pop_all())
        if old is not None:
            old.retired = True
            if not old.users:
                await old.close()

    def _translate(self, error: Exception, where: str) -> Exception:
        told = self._translated(error, where)
        if isinstance(told, Denied):
            # A mounted key may have been rotated: look at it again before the next request.
            self._identity.forget()
            self._believed_until = float("-inf")
        if isinstance(told, aiohttp.ClientError | OSError):
            return Passing(f"{where}: the connection broke ({type(told).__name__})")
        return told


def _botocore() -> "functools.partial[Exception]":
    from toe_async.sinks.s3client import connect  # noqa: F401 -- imported here, in a thread
    from toe_async.sinks.s3errors import translate

    return functools.partial(translate, advice=ADVICE)
