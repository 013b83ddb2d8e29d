"""Ways in without a token in the browser: a proxy that vouches, and one viewer on loopback."""

import secrets

import aiohttp
import pytest
from aiohttp import web

from tests.collector.pages.conftest import Connect, Watch
from tests.collector.pages.shelf import Shelf, Viewer
from toe_async.apis.core import UserInfo
from toe_async.collector.errors import Refused
from toe_async.collector.pages.sessions import SignedIn, TokenSessions
from toe_async.collector.pages.viewers import OneViewer, ProxyAccess

SAME = {"Sec-Fetch-Site": "same-origin"}
KEY = secrets.token_urlsafe(32)


def told_by_proxy(request: web.Request) -> UserInfo | None:
    name = request.headers.get("X-Remote-User")
    return UserInfo(username=name) if name is not None else None


def port(client: aiohttp.ClientSession) -> int:
    assert client._base_url is not None
    assert client._base_url.port is not None
    return client._base_url.port


def form_token(text: str) -> str:
    return text.partition('name="csrf" value="')[2][:64]


async def test_whom_the_proxy_names_sees_what_they_may(connect: Connect, shelf: Shelf) -> None:
    """There is nothing to sign out of; nobody else gets further than one sentence."""
    shelf.put()
    access = ProxyAccess(
        told_by_proxy, lambda user: Viewer(shelf, frozenset({"shop"} if user.username == "ada" else ()))
    )
    async with connect(access) as client:
        seen = await (await client.get("/", headers={"X-Remote-User": "ada"})).text()
        assert "cpu.folded" in seen
        assert "Sign out" not in seen
        assert "cpu.folded" not in await (await client.get("/", headers={"X-Remote-User": "bob"})).text()
        for headers in ({}, {"X-Remote-User": ""}):
            refused = await client.get("/", headers=headers)
            assert refused.status == 401
            assert "through the sign-in proxy" in await refused.text()
        assert (await client.get("/ui/login")).status == 401


async def test_a_form_of_one_proxied_user_is_not_anothers(connect: Connect, shelf: Shelf) -> None:
    """Forms are bound to who got them."""
    held = shelf.put()
    access = ProxyAccess(told_by_proxy, lambda user: Viewer(shelf))
    path = f"/ui/artifacts/shop/{held.name}"
    async with connect(access) as client:
        token = form_token(await (await client.get(path, headers={"X-Remote-User": "ada"})).text())
        form = {"csrf": token, "reason": "mine"}
        stolen = await client.post(path + "/hold", data=form, headers=SAME | {"X-Remote-User": "eve"})
        assert (stolen.status, held.hold) == (403, "")
        own = await client.post(path + "/hold", data=form, headers=SAME | {"X-Remote-User": "ada"})
        assert (own.status, held.hold) == (200, "mine")


async def test_who_comes_without_the_proxy_may_sign_in(connect: Connect, shelf: Shelf, watch: Watch) -> None:
    """When there is a second way in."""
    shelf.put()

    async def review(token: str) -> SignedIn:
        if token != "good-token":
            raise Refused(401, "Unauthenticated", "the token is not known")
        return SignedIn(UserInfo(username="bob"))

    sessions = TokenSessions(review, lambda user: Viewer(shelf), watch, secure=False)
    async with connect(ProxyAccess(told_by_proxy, lambda user: Viewer(shelf), otherwise=sessions)) as client:
        assert (await client.get("/", headers={"X-Remote-User": "ada"})).status == 200
        assert (await client.get("/")).status == 401
        await client.post("/ui/login", data={"token": "good-token"}, headers=SAME)
        shown = await (await client.get("/")).text()
        assert "bob" in shown
        assert "Sign out" in shown


async def test_the_first_address_opens_the_pages_once(connect: Connect, shelf: Shelf) -> None:
    """Whoever finds it later, in a history or a process list, finds it used."""
    shelf.put()
    access = OneViewer(Viewer(shelf), KEY, name="kubeconfig prod")
    async with connect(access) as client:
        assert (await client.get("/")).status == 401
        opened = await client.get(access.first_path, allow_redirects=False)
        assert (opened.status, opened.headers["Location"]) == (303, "/")
        made = opened.headers["Set-Cookie"]
        assert all(part in made for part in (f"toe-{port(client)}=", "HttpOnly", "SameSite=Strict"))
        assert KEY not in made
        shown = await client.get("/")
        assert shown.status == 200
        assert "kubeconfig prod" in await shown.text()
        client.cookie_jar.clear()
        again = await client.get(access.first_path)
        assert again.status == 403
        assert "opened before" in await again.text()
        assert (await client.get("/")).status == 401


@pytest.mark.parametrize(
    "key", ["", "x", KEY[:-1], KEY + "x", "ä"], ids=["none", "short", "cut", "longer", "not ASCII"]
)
async def test_another_key_opens_nothing_and_uses_nothing_up(connect: Connect, shelf: Shelf, key: str) -> None:
    """The right one still works."""
    access = OneViewer(Viewer(shelf), KEY)
    async with connect(access) as client:
        refused = await client.get("/ui/open", params={"key": key})
        assert (refused.status, "Set-Cookie" in refused.headers) == (403, False)
        assert (await client.get(access.first_path, allow_redirects=False)).status == 303


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "127.0.0.1:1", "localhost",
             "0.0.0.0:{port}", "[::1]", "127.0.0.1:x", "localhost:{port}.evil.example", "127.1:{port}"],
)  # fmt: skip
async def test_a_name_that_was_rebound_to_loopback_is_refused(connect: Connect, shelf: Shelf, host: str) -> None:
    """With the right cookie and the right key too: the name in the request is not ours."""
    shelf.put()
    access = OneViewer(Viewer(shelf), KEY)
    async with connect(access) as client:
        headers = {"Host": host.format(port=port(client))}
        refused = await client.get(access.first_path, headers=headers, allow_redirects=False)
        assert (refused.status, "Set-Cookie" in refused.headers) == (403, False)
        opened = await client.get(access.first_path, allow_redirects=False)
        value = opened.headers["Set-Cookie"].partition("=")[2].partition(";")[0]
        for name in (f"toe-{port(client)}", "toe-80", "toe-1"):
            reply = await client.get("/", headers=headers | {"Cookie": f"{name}={value}"})
            assert reply.status == 403
            assert "cpu.folded" not in await reply.text()


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}"])
async def test_every_name_of_loopback_is_known(connect: Connect, shelf: Shelf, host: str) -> None:
    """Browsers open whichever they are given."""
    access = OneViewer(Viewer(shelf), KEY)
    async with connect(access) as client:
        headers = {"Host": host.format(port=port(client))}
        assert (await client.get(access.first_path, headers=headers, allow_redirects=False)).status == 303
