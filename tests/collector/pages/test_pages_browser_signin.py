"""Coming and going in a real browser."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from tests.collector.pages.conftest import WAIT, Seen, Serve, Watch, focused, in_thread
from tests.collector.pages.shelf import Shelf, Viewer
from toe_async.apis.core import UserInfo
from toe_async.collector.errors import Refused
from toe_async.collector.pages import sessions
from toe_async.collector.pages.sessions import SignedIn, TokenSessions

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow  # a browser takes its seconds


class Tokens:
    """Says whose a token is."""

    def __init__(self) -> None:
        self.users = {"good-token": "ada"}

    async def __call__(self, token: str) -> SignedIn:
        if token not in self.users:
            raise Refused(401, "Unauthenticated", "the token is not one that this cluster knows")
        return SignedIn(UserInfo(username=self.users[token]))


@pytest.fixture
def guarded(shelf: Shelf, serve: Serve, watch: Watch) -> Iterator[str]:
    """Pages that ask for a token."""
    shelf.put()
    with serve(TokenSessions(Tokens(), lambda user: Viewer(shelf), watch, secure=False)) as address:
        yield address


@pytest.fixture
def stranger(browser: "Browser", guarded: str, seen: Seen) -> Iterator["Page"]:
    """A page of somebody who is not in yet."""
    context = browser.new_context()
    context.set_default_timeout(WAIT)
    page = context.new_page()
    seen.watch(page, guarded)
    yield page
    context.close()


def sign_in(page: "Page") -> None:
    page.get_by_label("Token").fill("good-token")
    page.get_by_role("button", name="Sign in").click()


def test_signing_in_and_out(stranger: "Page", guarded: str) -> None:
    """A wrong token is said to be wrong; the right one leads to where one wanted to be."""
    stranger.goto(guarded + "/?namespace=shop&q=web")
    assert focused(stranger) == "Token"
    stranger.keyboard.type("bad")
    stranger.keyboard.press("Enter")
    stranger.get_by_role("alert").wait_for()
    assert "not one that this cluster knows" in stranger.get_by_role("alert").inner_text()
    assert stranger.get_by_label("Token").input_value() == ""
    sign_in(stranger)
    stranger.wait_for_url("**/?namespace=shop&q=web")
    assert stranger.locator(".capture").count() == 1
    assert stranger.evaluate("() => document.cookie") == ""
    stranger.get_by_role("button", name="Sign out").click()
    stranger.wait_for_url("**/ui/login")
    stranger.goto(guarded + "/")
    assert stranger.get_by_label("Token").is_visible()


def test_a_session_that_ended_asks_again_and_leads_back(
    stranger: "Page", guarded: str, shelf: Shelf, watch: Watch
) -> None:
    """Nothing of the work is lost but the wait."""
    stranger.goto(guarded + "/")
    sign_in(stranger)
    stranger.locator(".open").click()
    here = stranger.url
    watch.forward(sessions.IDLE)
    stranger.reload()
    assert "ended" in stranger.locator(".said").inner_text()
    sign_in(stranger)
    stranger.wait_for_url(here)
    assert stranger.get_by_role("heading", level=1).inner_text() == shelf.held[0].facts["leaf"]


def test_a_link_in_a_chat_opens_while_signed_in_and_a_foreign_form_changes_nothing(
    browser: "Browser", guarded: str, shelf: Shelf
) -> None:
    """The strict cookie is held back at the first step of the link, and for ever from the form."""
    held = shelf.held[0]
    target = guarded + f"/ui/artifacts/shop/{held.name}"
    body = (
        f"<a href='{target}'>link</a>"
        f"<form method=post action='{target}/delete'><input name=csrf value=x><button>post</button></form>"
    )

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=f"<!doctype html>{body}", content_type="text/html")

    with in_thread([web.get("/", answer)]) as address:
        # Another site: the same machine under another name.
        chat = address.replace("127.0.0.1", "localhost") + "/"
        context = browser.new_context()
        context.set_default_timeout(WAIT)
        page = context.new_page()
        page.goto(guarded + "/")
        sign_in(page)
        page.locator(".capture").wait_for()
        page.goto(chat)
        page.get_by_role("link", name="link").click()
        page.get_by_role("heading", name=held.facts["leaf"]).wait_for()
        page.goto(chat)
        page.get_by_role("button", name="post").click()
        page.get_by_role("alert").wait_for()
        assert "not asked for on a page of this server" in page.get_by_role("alert").inner_text()
        assert held in shelf.held
        context.close()
