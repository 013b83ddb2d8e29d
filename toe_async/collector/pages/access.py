"""Who looks at the pages: what each way in gives, and what holds for all of them.

A change is made by POST alone, from a page of ours: the browser itself must say that the request comes from this
origin (`Sec-Fetch-Site`, which no script can forge; without it `Origin` must name this host), and the form must carry
a token bound to the session. Cookies are SameSite=Strict, unreadable to scripts, and over TLS bound to this very host.
"""

import hashlib
import hmac
from typing import Protocol

from aiohttp import web
from msgspec import Struct

from toe_async.collector.errors import Refused
from toe_async.collector.library import Library


class Viewer(Struct, frozen=True, kw_only=True):
    """Somebody who was let in, for one request."""

    library: Library
    name: str
    csrf: str
    """What a form of this session has to send back."""
    may_leave: bool = False
    """Whether there is a session here to sign out of."""


class NeedsSignIn(Exception):  # noqa: N818 -- what has to happen, not what broke
    """Nobody is signed in. The message is one sentence that says how to be."""


class Access(Protocol):
    """A way in."""

    async def viewer(self, request: web.Request) -> Viewer:
        """Say who is looking.

        Raises:
            NeedsSignIn: nobody that is known.
            Refused: it cannot be told now, or the request is not one of a browser that was pointed here.
        """


def check_origin(request: web.Request) -> None:
    """Let a change pass only when it was asked for on a page of this server.

    A page without referrers sends `Origin: null`, and a proxy may have changed the name of the host, so that header
    counts only where the browser does not say it better. Sandboxed drawings have no origin and are refused like any
    foreign page.

    Raises:
        Refused: 403.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is None:
        same = request.headers.get("Origin") in {f"https://{request.host}", f"http://{request.host}"}
    else:
        same = site == "same-origin"
    if not same:
        raise Refused(
            403, "ForeignOrigin", "this change was not asked for on a page of this server; open it here and try again"
        )


def csrf_of(secret: bytes) -> str:
    """The form token of a session, which tells nothing of the secret it is made from."""
    return hmac.new(secret, b"form", hashlib.sha256).hexdigest()


def check_csrf(viewer: Viewer, form: dict[str, str]) -> None:
    """Let a form pass only when it was made for this session.

    Raises:
        Refused: 403.
    """
    if not hmac.compare_digest(viewer.csrf.encode(), form.get("csrf", "").encode()):
        raise Refused(403, "StaleForm", "this form is of another session; go back, reload the page and try again")


def set_cookie(reply: web.StreamResponse, name: str, value: str, *, secure: bool) -> None:
    """Give a cookie that ends with the browser and goes nowhere but here."""
    reply.set_cookie(name, value, path="/", httponly=True, secure=secure, samesite="Strict")


def cookie_name(request: web.Request, *, secure: bool) -> str:
    """Name of the session's cookie; cookies of a host are shared by its ports, so on plain HTTP the port is in it."""
    if secure:
        return "__Host-toe"
    port = request.host.rpartition(":")[2]
    return f"toe-{port if port.isdecimal() else 80}"
