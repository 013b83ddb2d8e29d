"""Sessions of people who pasted a token.

A token is held in memory alone and is judged anew at every request (the judge may remember its verdict for seconds),
so whoever is revoked is out at once and a session gives no right that its token does not. A session ends when it is
left, unused for `IDLE`, `LONGEST` after it began, or with the token itself, whichever is first. Nothing kept here is
the cookie's value: only its digest.
"""

import hashlib
import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from aiohttp import web
from msgspec import Struct

from toe_async.apis.core import UserInfo
from toe_async.collector.errors import Refused
from toe_async.collector.library import Library
from toe_async.collector.pages.access import NeedsSignIn, Viewer, cookie_name, csrf_of, set_cookie
from toe_async.lib.clock import Clock
from toe_async.telemetry import log

IDLE = timedelta(hours=1)
LONGEST = timedelta(hours=12)
MOST_SESSIONS = 1000
MOST_PER_USER = 20
MOST_SIGNING_IN = 8
ATTEMPTS = 10
SECONDS_PER_ATTEMPT = 6.0

_MOST_ADDRESSES = 4096
_LONGEST_TOKEN = 16 << 10
_log = log.get("collector.pages")
_PLEASE = "Sign in with a token to see what is stored here."
_ENDED = "The session has ended; sign in again."


class SignedIn(Struct, frozen=True):
    """What the API server says of a token: whose it is, and when it ends if it tells."""

    user: UserInfo
    expires: datetime | None = None


SignIn = Callable[[str], Awaitable[SignedIn]]
LibraryFor = Callable[[UserInfo], Library]


class Session(Struct):
    """One browser's session. `token` is the credential itself and is never shown."""

    token: str
    username: str
    secret: bytes
    used: datetime
    until: datetime

    def is_over(self, now: datetime) -> bool:
        """Whether it may not be used any more."""
        return now >= min(self.until, self.used + IDLE)


class Attempts:
    """Counts attempts of each address, so that tokens cannot be tried in bulk: some at once, then one every while.

    An IPv6 network of 64 bits counts as one address. The oldest addresses are forgotten beyond a bound.
    """

    def __init__(self) -> None:
        self._free_at: OrderedDict[str, float] = OrderedDict()

    def take(self, address: str, now: float) -> float:
        """Count one; the seconds after which it would have been allowed, 0 when it is."""
        key = _network(address)
        free_at = max(self._free_at.get(key, now), now)
        wait = free_at - now - (ATTEMPTS - 1) * SECONDS_PER_ATTEMPT
        if wait > 0:
            return wait
        self._free_at[key] = free_at + SECONDS_PER_ATTEMPT
        self._free_at.move_to_end(key)
        if len(self._free_at) > _MOST_ADDRESSES:
            self._free_at.popitem(last=False)
        return 0.0


class TokenSessions:
    """Access by a pasted token.

    `sign_in` asks whose a token is and raises Refused (401) for a bad one, (503) when that cannot be told. `secure` is
    False only where pages are served without TLS, on loopback.
    """

    def __init__(self, sign_in: SignIn, library_for: LibraryFor, clock: Clock, *, secure: bool) -> None:
        self._ask, self._library_for, self._clock, self._secure = sign_in, library_for, clock, secure
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._attempts = Attempts()
        self._signing_in = 0

    async def viewer(self, request: web.Request) -> Viewer:
        """Continue a session; see `Access.viewer`."""
        key = self._key(request)
        session = self._sessions.get(key) if key else None
        now = self._clock.now()
        if key is None or session is None:
            raise NeedsSignIn(_PLEASE)
        if session.is_over(now):
            del self._sessions[key]
            raise NeedsSignIn(_ENDED)
        signed = await self._still_valid(key, session)
        session.used = now
        if key in self._sessions:
            self._sessions.move_to_end(key)
        return Viewer(
            library=self._library_for(signed.user),
            name=signed.user.username,
            csrf=csrf_of(session.secret),
            may_leave=True,
        )

    async def enter(self, request: web.Request, token: str, reply: web.StreamResponse) -> None:
        """Begin a session under a new id, ending the one that the browser had; the cookie goes into `reply`.

        Raises:
            Refused: 401 the token is not good, 429 too many attempts, 503 it cannot be judged now.
        """
        wait = self._attempts.take(request.remote or "", self._clock.monotonic())
        if wait > 0 or self._signing_in >= MOST_SIGNING_IN:
            raise Refused(
                429, "TooManyAttempts", "too many attempts to sign in; wait a little", retry_after=int(wait) + 1
            )
        if not token or len(token) > _LONGEST_TOKEN or not token.isascii() or not token.isprintable():
            raise Refused(401, "Unauthenticated", "that is no token; paste it whole, without quotes or line breaks")
        self._signing_in += 1
        try:
            signed = await self._ask(token)
        finally:
            self._signing_in -= 1
        now = self._clock.now()
        until = min(now + LONGEST, signed.expires or now + LONGEST)
        if until <= now:
            raise Refused(401, "Unauthenticated", "the token has expired; make a new one")
        self._drop(request)
        _log.info("signed in", user=signed.user.username)
        value = secrets.token_urlsafe(32)
        self._keep(_digest(value), Session(token, signed.user.username, secrets.token_bytes(32), now, until), now)
        set_cookie(reply, cookie_name(request, secure=self._secure), value, secure=self._secure)

    def leave(self, request: web.Request, reply: web.StreamResponse) -> None:
        """End the session, here and in the browser."""
        self._drop(request)
        reply.del_cookie(
            cookie_name(request, secure=self._secure), path="/", secure=self._secure, httponly=True, samesite="Strict"
        )

    async def _still_valid(self, key: bytes, session: Session) -> SignedIn:
        try:
            signed = await self._ask(session.token)
        except Refused as refused:
            if refused.status != 401:
                raise
            self._sessions.pop(key, None)
            raise NeedsSignIn(_ENDED) from refused
        if signed.user.username != session.username:
            self._sessions.pop(key, None)
            raise NeedsSignIn(_ENDED)
        return signed

    def _keep(self, key: bytes, session: Session, now: datetime) -> None:
        for old in [held for held, one in self._sessions.items() if one.is_over(now)]:
            del self._sessions[old]
        same = [held for held, one in self._sessions.items() if one.username == session.username]
        for old in same[: max(0, len(same) - MOST_PER_USER + 1)]:
            del self._sessions[old]
        if len(self._sessions) >= MOST_SESSIONS:
            self._sessions.popitem(last=False)
        self._sessions[key] = session

    def _drop(self, request: web.Request) -> None:
        key = self._key(request)
        if key is not None:
            self._sessions.pop(key, None)

    def _key(self, request: web.Request) -> bytes | None:
        value = request.cookies.get(cookie_name(request, secure=self._secure))
        return _digest(value) if value else None


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "replace")).digest()


def _network(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))
