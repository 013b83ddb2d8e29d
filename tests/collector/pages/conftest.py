"""Pages over real sockets: in the test's own loop, and for a browser in a thread beside it.

A browser notes what it was made to do and should not have: dialogs, violations of the policy, requests to others.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from browser import launch

from tests.collector.pages.shelf import NOW, Shelf, Viewer
from toe_async.collector.pages.access import Access
from toe_async.collector.pages.routes import build_pages
from toe_async.collector.pages.viewers import OneViewer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

KEY = "k" * 43
WAIT = 10_000
"""Milliseconds for what takes a few; only a hang takes that long."""


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


Open = Callable[..., "Page"]
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

    def served(access: Access) -> contextlib.AbstractContextManager[str]:
        return in_thread(build_pages(access, title="test cluster", clock=watch))

    return served


@contextlib.contextmanager
def in_thread(routes: list[web.RouteDef]) -> Iterator[str]:
    """A server beside this thread, for as long as the block lasts; its address on 127.0.0.1."""
    app = web.Application()
    app.add_routes(routes)
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


WATCHING = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) => window.violations.push(event.violatedDirective));
"""


class Seen:
    """What a browser said and did that it should not have."""

    def __init__(self) -> None:
        self.dialogs: list[str] = []
        self.console: list[str] = []
        self.outside: list[str] = []

    def watch(self, page: "Page", url: str) -> None:
        def dialog(one: Any) -> None:
            self.dialogs.append(one.message)
            one.dismiss()

        def request(one: Any) -> None:
            if not one.url.startswith((url + "/", "blob:", "data:")):
                self.outside.append(one.url)

        page.on("dialog", dialog)
        page.on("request", request)
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("console", lambda one: self.console.append(one.text) if "Content Security Policy" in one.text else None)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with launch() as running:
        yield running


@pytest.fixture
def seen() -> Iterator[Seen]:
    """Nothing of the kind may have happened by the end of any test."""
    found = Seen()
    yield found
    assert (found.dialogs, found.console, found.outside) == ([], [], [])


@pytest.fixture
def url(shelf: Shelf, serve: Serve) -> Iterator[str]:
    with serve(OneViewer(Viewer(shelf), KEY, name="ada")) as address:
        yield address


@pytest.fixture
def context(browser: "Browser", url: str) -> Iterator[Callable[..., "BrowserContext"]]:
    """Contexts of somebody who is in; the first one takes the key, the others its cookie."""
    with ExitStack() as stack:
        state: list[Any] = []

        def make(**options: Any) -> "BrowserContext":
            made = browser.new_context(storage_state=state[0] if state else None, **options)
            stack.callback(made.close)
            made.set_default_timeout(WAIT)
            if not state:
                page = made.new_page()
                page.goto(f"{url}/ui/open?key={KEY}")
                state.append(made.storage_state())
                page.close()
            made.add_init_script(WATCHING)
            return made

        yield make


@pytest.fixture
def visit(url: str, context: Callable[..., "BrowserContext"], seen: Seen) -> Open:
    """Open a path in a page of its own."""

    def opened(path: str = "/", **options: Any) -> "Page":
        page = context(**options).new_page()
        seen.watch(page, url)
        page.goto(url + path)
        return page

    return opened


def focused(page: "Page") -> str:
    """The accessible name of what has the focus, or its tag."""
    found: str = page.evaluate(
        "() => { const at = document.activeElement; "
        "return at.getAttribute('aria-label') || (at.labels && at.labels[0] && at.labels[0].textContent) "
        "|| at.textContent || at.tagName; }"
    )
    return found.strip()
