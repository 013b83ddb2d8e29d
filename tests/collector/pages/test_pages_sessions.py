"""Signing in with a token: sessions that end when they should, and nobody gets in sideways."""

import asyncio
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import aiohttp
import pytest

from tests.collector.pages.conftest import Connect, Watch
from tests.collector.pages.shelf import NOW, Shelf, Viewer
from toe_async.apis.core import UserInfo
from toe_async.collector.errors import Refused
from toe_async.collector.pages import sessions
from toe_async.collector.pages.sessions import Attempts, SignedIn, TokenSessions

SAME = {"Sec-Fetch-Site": "same-origin"}


@dataclass
class Reviewer:
    """TokenReview: knows some tokens and whose they are."""

    users: dict[str, str] = field(default_factory=lambda: {"good-token": "ada", "other-token": "bob"})
    expires: datetime | None = None
    down: bool = False
    asked: list[str] = field(default_factory=list)

    async def __call__(self, token: str) -> SignedIn:
        self.asked.append(token)
        await asyncio.sleep(0)
        if self.down:
            raise Refused(
                503, "ReviewUnavailable", "the API server cannot be asked who you are; try again", retry_after=5
            )
        if token not in self.users:
            raise Refused(401, "Unauthenticated", "the token is not one that this cluster knows")
        return SignedIn(UserInfo(username=self.users[token]), self.expires)


@pytest.fixture
def reviewer() -> Reviewer:
    return Reviewer()


@pytest.fixture
def access(reviewer: Reviewer, shelf: Shelf, watch: Watch) -> TokenSessions:
    shelf.put()
    return TokenSessions(reviewer, lambda user: Viewer(shelf, frozenset({"shop"})), watch, secure=False)


async def sign_in(client: aiohttp.ClientSession, token: str = "good-token", **fields: str) -> aiohttp.ClientResponse:
    return await client.post("/ui/login", data={"token": token, **fields}, headers=SAME, allow_redirects=False)


async def csrf(client: aiohttp.ClientSession) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', await (await client.get("/")).text())
    assert found is not None
    return found[1]


def port(client: aiohttp.ClientSession) -> int:
    assert client._base_url is not None
    assert client._base_url.port is not None
    return client._base_url.port


def cookie(client: aiohttp.ClientSession) -> str:
    (one,) = client.cookie_jar
    return one.value


async def test_a_token_opens_a_session_and_leads_back(connect: Connect, access: TokenSessions) -> None:
    """Unknown people are asked, and then are where they wanted to be."""
    async with connect(access) as client:
        asked = await client.get("/?namespace=shop&q=web")
        assert asked.status == 401
        assert 'value="/?namespace=shop&amp;q=web"' in await asked.text()
        reply = await sign_in(client, next="/?namespace=shop&q=web")
        assert (reply.status, reply.headers["Location"]) == (303, "/?namespace=shop&q=web")
        shown = await client.get("/?namespace=shop&q=web")
        assert shown.status == 200
        assert "ada" in await shown.text()


async def test_a_bad_token_is_said_to_be_bad_and_opens_nothing(connect: Connect, access: TokenSessions) -> None:
    """The token is not in the answer."""
    async with connect(access) as client:
        reply = await sign_in(client, "bad-token-xyz")
        text = await reply.text()
        assert reply.status == 401
        assert "not one that this cluster knows" in text
        assert "bad-token-xyz" not in text
        assert "Set-Cookie" not in reply.headers
        assert (await client.get("/")).status == 401


@pytest.mark.parametrize("token", ["", " ", "a\nb", "ä", "x" * (17 << 10)])
async def test_what_is_no_token_is_not_even_asked_about(
    connect: Connect, access: TokenSessions, reviewer: Reviewer, token: str
) -> None:
    """Pasted by mistake, or on purpose."""
    async with connect(access) as client:
        assert (await sign_in(client, token)).status == 401
        assert reviewer.asked == []


@pytest.mark.parametrize(
    "after", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "", "/" + "x" * 5000]
)
async def test_signing_in_never_leads_elsewhere(connect: Connect, access: TokenSessions, after: str) -> None:
    """An address that is not ours becomes the list."""
    async with connect(access) as client:
        assert (await sign_in(client, next=after)).headers["Location"] == "/"


async def test_the_cookie_is_for_this_server_alone(
    connect: Connect, reviewer: Reviewer, shelf: Shelf, watch: Watch
) -> None:
    """Over TLS it is bound to the host; without TLS, on loopback, to the port by its name."""
    for secure in (True, False):
        access = TokenSessions(reviewer, lambda user: Viewer(shelf), watch, secure=secure)
        async with connect(access) as client:
            made = (await sign_in(client)).headers["Set-Cookie"]
            name, _, rest = made.partition("=")
            value = rest.partition(";")[0]
            assert len(value) >= 43  # 256 bits in base64
            assert all(part in made for part in ("HttpOnly", "SameSite=Strict", "Path=/"))
            assert ("Secure" in made) is secure
            assert "Domain" not in made
            assert name == "__Host-toe" if secure else re.fullmatch(r"toe-\d+", name)


async def test_each_sign_in_gets_a_new_session_and_ends_the_old_one(connect: Connect, access: TokenSessions) -> None:
    """A cookie that somebody planted or took before is worth nothing afterwards."""
    async with connect(access) as client:
        await sign_in(client)
        first = cookie(client)
        await sign_in(client, "other-token")
        second = cookie(client)
        assert first != second
        client.cookie_jar.clear()
        name = f"toe-{port(client)}"
        assert (await client.get("/", cookies={name: first})).status == 401
        assert (await client.get("/", cookies={name: second})).status == 200


async def test_signing_out_ends_the_session_on_the_server_too(connect: Connect, access: TokenSessions) -> None:
    """The old cookie does not come back to life."""
    async with connect(access) as client:
        await sign_in(client)
        old, form = cookie(client), await csrf(client)
        reply = await client.post("/ui/logout", data={"csrf": form}, headers=SAME, allow_redirects=False)
        assert (reply.status, reply.headers["Location"]) == (303, "/ui/login")
        assert not list(client.cookie_jar)
        name = f"toe-{port(client)}"
        assert (await client.get("/", cookies={name: old})).status == 401


async def test_a_session_ends_when_it_is_not_used(connect: Connect, access: TokenSessions, watch: Watch) -> None:
    """Each use begins the wait anew."""
    async with connect(access) as client:
        await sign_in(client)
        for _ in range(3):
            watch.forward(sessions.IDLE - timedelta(seconds=1))
            assert (await client.get("/")).status == 200
        watch.forward(sessions.IDLE)
        assert (await client.get("/")).status == 401


async def test_a_session_ends_however_much_it_is_used(connect: Connect, access: TokenSessions, watch: Watch) -> None:
    """After its longest life."""
    async with connect(access) as client:
        await sign_in(client)
        while watch.instant + sessions.IDLE / 2 < NOW + sessions.LONGEST:
            assert (await client.get("/")).status == 200
            watch.forward(sessions.IDLE / 2)
        watch.forward(sessions.IDLE / 2)
        assert (await client.get("/")).status == 401


async def test_a_session_never_outlives_its_token(
    connect: Connect, access: TokenSessions, reviewer: Reviewer, watch: Watch
) -> None:
    """The token's own end is the session's, though the reviewer would still say yes."""
    reviewer.expires = NOW + timedelta(minutes=10)
    async with connect(access) as client:
        await sign_in(client)
        watch.forward(timedelta(minutes=9, seconds=59))
        assert (await client.get("/")).status == 200
        watch.forward(timedelta(seconds=1))
        assert (await client.get("/")).status == 401
        assert (await sign_in(client)).status == 401


async def test_a_revoked_token_ends_its_session(connect: Connect, access: TokenSessions, reviewer: Reviewer) -> None:
    """At the next request; that the reviewer is down ends nothing."""
    async with connect(access) as client:
        await sign_in(client)
        reviewer.down = True
        assert (await client.get("/")).status == 503
        reviewer.down = False
        assert (await client.get("/")).status == 200
        del reviewer.users["good-token"]
        assert (await client.get("/")).status == 401
        reviewer.users["good-token"] = "ada"
        assert (await client.get("/")).status == 401, "a session that ended does not come back"


async def test_a_token_that_becomes_another_persons_ends_its_session(
    connect: Connect, access: TokenSessions, reviewer: Reviewer
) -> None:
    """A session is one person's."""
    async with connect(access) as client:
        await sign_in(client)
        reviewer.users["good-token"] = "eve"
        assert (await client.get("/")).status == 401


async def test_attempts_are_bounded_and_say_when_to_come_back(
    connect: Connect, access: TokenSessions, reviewer: Reviewer, watch: Watch
) -> None:
    """Of one address; a good token waits like a bad one."""
    async with connect(access) as client:
        for number in range(sessions.ATTEMPTS):
            assert (await sign_in(client, f"guess-{number}")).status == 401
        refused = await sign_in(client)
        assert refused.status == 429
        assert len(reviewer.asked) == sessions.ATTEMPTS
        watch.forward(timedelta(seconds=int(refused.headers["Retry-After"])))
        assert (await sign_in(client)).status == 303


async def test_only_some_sign_in_at_once(connect: Connect, shelf: Shelf, watch: Watch) -> None:
    """The API server is not flooded through us, and places are given back."""
    going, came = asyncio.Event(), asyncio.Semaphore(0)

    async def slow(token: str) -> SignedIn:
        came.release()
        await going.wait()
        return SignedIn(UserInfo(username="ada"))

    access = TokenSessions(slow, lambda user: Viewer(shelf), watch, secure=False)
    async with connect(access) as client, asyncio.TaskGroup() as group:
        waiting = [group.create_task(sign_in(client, f"token-{number}")) for number in range(sessions.MOST_SIGNING_IN)]
        for _ in waiting:
            await came.acquire()
        assert (await sign_in(client)).status == 429
        going.set()
        assert [(await one).status for one in waiting] == [303] * len(waiting)
        assert (await sign_in(client)).status == 303


async def test_sessions_are_bounded_and_the_one_unused_longest_goes(
    connect: Connect, access: TokenSessions, reviewer: Reviewer, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One person's many sessions never push out another's."""
    monkeypatch.setattr(sessions, "MOST_PER_USER", 3)
    async with connect(access) as client:
        name = f"toe-{port(client)}"
        values = []
        for token in ["other-token"] + ["good-token"] * 5:
            client.cookie_jar.clear()
            await sign_in(client, token)
            values.append(cookie(client))
            watch.forward(timedelta(seconds=10))
        client.cookie_jar.clear()
        alive = [(await client.get("/", cookies={name: value})).status == 200 for value in values]
        assert alive == [True, False, False, True, True, True]


def test_attempts_of_one_network_count_together_and_memory_is_bounded() -> None:
    """An IPv6 customer has 2^64 addresses; the oldest of many networks is forgotten."""
    attempts = Attempts()
    waits = [attempts.take(f"2001:db8::{number:x}", 0.0) for number in range(sessions.ATTEMPTS + 1)]
    assert [wait > 0 for wait in waits] == [False] * sessions.ATTEMPTS + [True]
    assert attempts.take("2001:db8:0:1::1", 0.0) == 0
    assert attempts.take("192.0.2.1", 0.0) == 0
    for number in range(5000):
        attempts.take(f"10.0.{number >> 8}.{number & 255}", 0.0)
    assert attempts.take("2001:db8::1", 0.0) == 0


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"},
        {"Origin": "null"}, {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1"},
    ],
)  # fmt: skip
async def test_a_sign_in_from_elsewhere_is_refused(
    connect: Connect, access: TokenSessions, reviewer: Reviewer, headers: dict[str, str]
) -> None:
    """Nobody is signed in as somebody else behind their back."""
    async with connect(access) as client:
        reply = await client.post("/ui/login", data={"token": "good-token"}, headers=headers)
        assert reply.status == 403
        assert reviewer.asked == []


async def test_an_older_browser_is_known_by_its_origin(connect: Connect, access: TokenSessions) -> None:
    """Without Sec-Fetch-Site the origin must be this very host."""
    async with connect(access) as client:
        base = f"http://127.0.0.1:{port(client)}"
        reply = await client.post(
            "/ui/login", data={"token": "good-token"}, headers={"Origin": base}, allow_redirects=False
        )
        assert reply.status == 303


async def test_a_link_from_elsewhere_asks_again_before_it_asks_to_sign_in(
    connect: Connect, access: TokenSessions
) -> None:
    """The browser holds a strict cookie back at the first step and gives it at the second."""
    async with connect(access) as client:
        arrived = await client.get("/?q=web", headers={"Sec-Fetch-Site": "cross-site"})
        text = await arrived.text()
        assert (arrived.status, 'http-equiv="refresh"' in text, 'href="/?q=web"' in text) == (200, True, True)
        assert (await client.get("/?q=web", headers=SAME)).status == 401
