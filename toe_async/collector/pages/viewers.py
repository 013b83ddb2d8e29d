"""Access without a token in the browser: behind a proxy that vouches for people, and for one person on loopback."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from urllib.parse import urlsplit

from aiohttp import web

from toe_async.apis.core import UserInfo
from toe_async.collector.errors import Refused
from toe_async.collector.library import Library
from toe_async.collector.pages.access import NeedsSignIn, Viewer, cookie_name, csrf_of, set_cookie
from toe_async.collector.pages.filters import Filters
from toe_async.collector.pages.sessions import LibraryFor, TokenSessions

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_THROUGH_PROXY = "This page is reached through the sign-in proxy in front of it; open the proxy's address."
_OPEN_PRINTED = "Open the address that the command printed; it works once, in the browser that opens it first."
_KEY_IS_USED = "this address was opened before, or is not whole; start the command again for a new one"
_FOREIGN_HOST = "this server answers on its loopback address alone; open the address that it printed"


class ProxyAccess:
    """Access for whoever an authenticating proxy names; `viewer_of` decides which proxy is believed.

    There is no session here: a form's token is bound to the user, and to this process. Who comes without the proxy may
    sign in at `otherwise`, if there is one.
    """

    def __init__(
        self,
        viewer_of: Callable[[web.Request], UserInfo | None],
        library_for: LibraryFor,
        *,
        otherwise: TokenSessions | None = None,
    ) -> None:
        self._viewer_of, self._library_for, self.otherwise = viewer_of, library_for, otherwise
        self._secret = secrets.token_bytes(32)

    async def viewer(self, request: web.Request) -> Viewer:
        """Read the identity that the proxy gives; see `Access.viewer`."""
        user = self._viewer_of(request)
        if user is None or not user.username:
            if self.otherwise is not None:
                return await self.otherwise.viewer(request)
            raise NeedsSignIn(_THROUGH_PROXY)
        secret = hmac.new(self._secret, user.username.encode(), hashlib.sha256).digest()
        return Viewer(library=self._library_for(user), name=user.username, csrf=csrf_of(secret))


class OneViewer:
    """Access for the person who started this server on loopback, over whatever rights `library` has.

    `key` (of at least 128 bits, in the first address that is opened: `first_path`) is taken once, for a cookie. Every
    request must be addressed to loopback and this port by name, which a page of a foreign name that was rebound to
    127.0.0.1 cannot do.
    """

    def __init__(self, library: Library, key: str, *, name: str = "", namespace: str = "") -> None:
        """`namespace` is what is shown first; empty: whatever the viewer may see."""
        self._library, self._key, self._name = library, key, name
        self.first_page = Filters(namespace=namespace).address()
        self._cookie = secrets.token_urlsafe(32)
        self._used = False

    @property
    def first_path(self) -> str:
        """Where the browser is sent first; path and query."""
        return f"/ui/open?key={self._key}"

    async def viewer(self, request: web.Request) -> Viewer:
        """Let the one viewer in; see `Access.viewer`."""
        self._check_host(request)
        value = request.cookies.get(cookie_name(request, secure=False), "")
        if not hmac.compare_digest(value.encode("utf-8", "replace"), self._cookie.encode()):
            raise NeedsSignIn(_OPEN_PRINTED)
        return Viewer(library=self._library, name=self._name, csrf=csrf_of(self._cookie.encode()))

    def open(self, request: web.Request, reply: web.StreamResponse) -> None:
        """Take the key for a cookie.

        Raises:
            Refused: 403 it is not the key, was used before, or the request is not addressed to loopback.
        """
        self._check_host(request)
        right = hmac.compare_digest(request.query.get("key", "").encode("utf-8", "replace"), self._key.encode())
        if self._used or not right:
            raise Refused(403, "UsedKey", _KEY_IS_USED)
        self._used = True
        set_cookie(reply, cookie_name(request, secure=False), self._cookie, secure=False)

    def _check_host(self, request: web.Request) -> None:
        named = urlsplit(f"//{request.host}")
        here = request.transport.get_extra_info("sockname") if request.transport is not None else None
        try:
            fits = named.hostname in _LOOPBACK and here is not None and (named.port or 80) == here[1]
        except ValueError:
            fits = False
        if not fits:
            raise Refused(403, "ForeignHost", _FOREIGN_HOST)
