"""Who asks: on each listener one way to know it, and never another.

The main listener takes bearer tokens and asks the API server whose they are. The aggregation listener is called by
the API server alone, which names its user in headers (`frontproxy`). On the main listener such headers are worth
nothing, unless the administrator named an authenticating proxy; then that proxy's connections are believed, and only
they.
"""

import ipaddress
import ssl
from typing import Any, Protocol
from urllib.parse import unquote

from aiohttp import web

from toe_async.apis.core import UserInfo
from toe_async.collector.auth import Gate, bearer
from toe_async.collector.errors import Refused

_USER, _GROUP = "X-Remote-User", "X-Remote-Group"
_EXTRA = "X-Remote-Extra-"
_LONGEST = 1024


class Identity(Protocol):
    """How a listener knows its callers."""

    async def viewer(self, request: web.Request) -> UserInfo:
        """Whose request it is; raises Refused: 401 nobody's that is known, 503 it cannot be told now."""


class Bearer:
    """Identity by token, as the API server reviews it."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def viewer(self, request: web.Request) -> UserInfo:
        return await self._gate.user(bearer(request.headers.getall("Authorization", [])))


class TrustedProxy:
    """An authenticating proxy in front of the main listener, which names its user in X-Remote-User.

    It is believed on a connection that comes from this machine itself, or with a client certificate that the listener
    verified and whose common name is one of `names`. Whoever may forward a port to the collector's pod comes from
    this machine too: name a proxy only where that right is as strong as reading everything.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def user(self, request: web.Request) -> UserInfo | None:
        """The user whom the proxy names; None when it is not the proxy, or it names nobody."""
        if _USER not in request.headers or not self._trusted(request):
            return None
        return told(request, (_USER,), (_GROUP,), (), (_EXTRA,))

    def _trusted(self, request: web.Request) -> bool:
        names = common_names(request) or ()
        return loopback(request) or (len(names) == 1 and names[0] in self._names)


class ProxyOrBearer:
    """Identity on a main listener behind a trusted proxy; whoever does not come through it needs a token."""

    def __init__(self, proxy: TrustedProxy, gate: Gate) -> None:
        self._proxy, self._bearer = proxy, Bearer(gate)

    async def viewer(self, request: web.Request) -> UserInfo:
        return self._proxy.user(request) or await self._bearer.viewer(request)


def told(
    request: web.Request,
    user_headers: tuple[str, ...],
    group_headers: tuple[str, ...],
    uid_headers: tuple[str, ...],
    extra_prefixes: tuple[str, ...],
) -> UserInfo:
    """The user whom a request's headers name; the caller has made sure that their sender may say so.

    The first header with a name counts, as in an API server. A comma in a group is part of it: each group has a header
    of its own.

    Raises:
        Refused: 401, there is no user, or more than one, or a text that no user could have.
    """
    groups = [group for header in group_headers for group in request.headers.getall(header, []) if group]
    extra: dict[str, tuple[str, ...]] = {}
    for header, value in request.headers.items():
        for prefix in extra_prefixes:
            if header.lower().startswith(prefix.lower()):
                key = unquote(header[len(prefix) :].lower())
                extra[key] = (*extra.get(key, ()), value)
                break
    found = UserInfo(
        username=_only(request, user_headers), uid=_only(request, uid_headers), groups=tuple(groups), extra=extra
    )
    if not found.username or not all(map(_possible, _texts(found))):
        raise Refused(401, "Unauthenticated", "the request names no user, or one that cannot be")
    return found


def _only(request: web.Request, headers: tuple[str, ...]) -> str:
    for header in headers:
        values = request.headers.getall(header, [])
        if len(values) > 1:
            raise Refused(401, "Unauthenticated", "the request names more than one user")
        if values and values[0]:
            return values[0]
    return ""


def _texts(user: UserInfo) -> list[str]:
    extra = [text for key, values in user.extra.items() for text in (key, *values)]
    return [user.username, user.uid, *user.groups, *extra]


def _possible(text: str) -> bool:
    # Bytes that are no UTF-8 arrive as lone surrogates, which are not printable either.
    return len(text) <= _LONGEST and text.isprintable()


def loopback(request: web.Request) -> bool:
    """Whether the connection comes from this machine."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    if not peer:
        return False
    try:
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def tls(request: web.Request) -> ssl.SSLObject | None:
    """The TLS side of the request's connection; None for plain HTTP."""
    found = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
    return found if isinstance(found, ssl.SSLObject) else None


def common_names(request: web.Request) -> tuple[str, ...] | None:
    """The common names in the client certificate that the listener verified; None when it verified none."""
    connection = tls(request)
    # Python gives the content of a certificate only when it was verified; without a client CA none is.
    held: dict[str, Any] | None = connection.getpeercert() if connection is not None else None
    if not held:
        return None
    return tuple(value for part in held.get("subject", ()) for key, value in part if key == "commonName")
