"""Pages over real sockets, in the test's own loop and, for the browser, in a thread beside it."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.collector.pages.shelf import NOW, Shelf, Viewer
from toe_async.collector.pages.access import Access
from toe_async.collector.pages.routes import build_pages


@dataclass
class Watch:
    """A clock that is moved by hand; both of its hands move together."""

    instant: datetime = NOW

    def now(self) -> datetime:
        """The wall clock."""
        return self.instant

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return (self.instant - NOW).total_seconds()

    def forward(self, step: timedelta) -> None:
        """Let time pass."""
        self.instant += step


Connect = Callable[[Access], AbstractAsyncContextManager[aiohttp.ClientSession]]
Serve = Callable[[Access], contextlib.AbstractContextManager[str]]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def connect(watch: Watch) -> Connect:
    """Serve the pages in this loop and give a client that keeps cookies and follows nothing by itself."""

    @contextlib.asynccontextmanager
    async def connected(access: Access) -> AsyncIterator[aiohttp.ClientSession]:
        app = web.Application()
        app.add_routes(await asyncio.to_thread(build_pages, access, title="test cluster", clock=watch))
        async with TestServer(app) as server:
            jar = aiohttp.CookieJar(unsafe=True)
            async with aiohttp.ClientSession(server.make_url("/"), cookie_jar=jar) as client:
                yield client

    return connected


@pytest.fixture
def serve(watch: Watch) -> Serve:
    """Serve the pages in a thread of their own and give their address."""

    @contextlib.contextmanager
    def served(access: Access) -> Iterator[str]:
        app = web.Application()
        app.add_routes(build_pages(access, title="test cluster", clock=watch))
        ready, ending = threading.Event(), asyncio.Event()
        found: list[tuple[asyncio.AbstractEventLoop, str]] = []

        async def run() -> None:
            async with TestServer(app) as server:
                found.append((asyncio.get_running_loop(), str(server.make_url("/")).rstrip("/")))
                ready.set()
                await ending.wait()

        thread = threading.Thread(target=asyncio.run, args=(run(),))
        thread.start()
        assert ready.wait(5)
        try:
            yield found[0][1]
        finally:
            found[0][0].call_soon_threadsafe(ending.set)
            thread.join(10)
            assert not thread.is_alive()

    return served


def everything(shelf: Shelf) -> Viewer:
    """The library of somebody who may do all of it."""
    return Viewer(shelf)
