"""A headless Chromium for tests of pages: the one of the machine, without GPU, without a way to update itself.

Tests that need it are skipped, with the reason, where no Chromium or no `playwright` package is found; with
`TOE_REQUIRE_BROWSER=1` (continuous integration) that is a failure instead, so that nothing is skipped unseen.
"""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Never

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser as AsyncBrowser
    from playwright.sync_api import Browser

__all__ = ["ARGUMENTS", "executable", "launch", "launch_async"]

ARGUMENTS = (
    "--no-sandbox",  # containers seldom allow the user namespaces that it needs
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str:
    """Path of the browser (`TOE_BROWSER` when set, else the first on PATH); skips or fails the test without one."""
    found = os.environ.get("TOE_BROWSER") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        _missing("there is no Chromium on PATH; install one or set TOE_BROWSER to run this test")
    try:
        import playwright  # noqa: F401 - only whether it is there
    except ImportError:
        _missing("the playwright package is not installed; install it to run this test")
    return found


@contextmanager
def launch() -> Iterator["Browser"]:
    """A browser for synchronous tests; closed at the end. Not inside a running event loop."""
    path = executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@asynccontextmanager
async def launch_async() -> AsyncIterator["AsyncBrowser"]:
    """The same for asynchronous tests, whose server lives in the same event loop."""
    path = executable()
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()


def _missing(reason: str) -> Never:
    if os.environ.get("TOE_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
