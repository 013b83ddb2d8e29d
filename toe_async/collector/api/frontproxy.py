"""The aggregation listener's callers: an API server that has authenticated its user and says so in headers.

How its requests are known is written down by the API server itself, in ConfigMap
kube-system/extension-apiserver-authentication: whose certificates to accept, under which names, and which headers to
read. Until that was read, and from some minutes after it could be read last, nobody is believed.
"""

import asyncio
import ssl
from collections.abc import Mapping

import msgspec
from aiohttp import web
from msgspec import Struct, field

from toe_async.apis.core import UserInfo
from toe_async.apis.kinds import CONFIG_MAPS
from toe_async.apis.meta import Decoder, ObjectMeta, Wire
from toe_async.collector.api.identity import common_names, tls, told
from toe_async.collector.errors import Refused
from toe_async.collector.tls import ServerContext
from toe_async.kube import requests
from toe_async.kube.errors import KubeError
from toe_async.kube.sender import Sender
from toe_async.lib.clock import Clock
from toe_async.telemetry import log

NAMESPACE, NAME = "kube-system", "extension-apiserver-authentication"
_EVERY_SECONDS = 60.0
_RETRY_SECONDS = 5.0
_BELIEVED_SECONDS = 300.0
_TIMEOUT = 10.0
_log = log.get("collector.frontproxy")


class RequestHeaders(Struct, frozen=True, kw_only=True):
    """How an API server's requests are known; names of headers in the order in which they are looked at."""

    client_ca: bytes
    """PEM certificates of those who sign the API server's client certificates."""
    names: frozenset[str] = frozenset()
    """Common names that such a certificate may have; empty: any."""
    user: tuple[str, ...]
    group: tuple[str, ...] = ()
    uid: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    """What the names of further headers begin with."""


class _ConfigMap(Wire, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    data: dict[str, str] = field(default_factory=dict)


_decode_config_map = Decoder(_ConfigMap)
_decode_names = msgspec.json.Decoder(tuple[str, ...])


def parse(data: Mapping[str, str]) -> RequestHeaders:
    """Read the ConfigMap's data.

    Raises:
        ValueError: what is needed to know the API server is not there or cannot be read; which key.
    """
    ca, user = data.get("requestheader-client-ca-file", "").strip(), _names(data, "requestheader-username-headers")
    if not ca or not user:
        missing = "requestheader-username-headers" if ca else "requestheader-client-ca-file"
        raise ValueError(f"it has no {missing}: the API server runs without an aggregation layer")
    try:
        # What is no certificate must not reach the listener, where it would only break the handshake.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=ca)
    except (ssl.SSLError, ValueError):
        raise ValueError("its requestheader-client-ca-file holds no PEM certificate") from None
    return RequestHeaders(
        client_ca=ca.encode(),
        names=frozenset(_names(data, "requestheader-allowed-names")),
        user=user,
        group=_names(data, "requestheader-group-headers"),
        uid=_names(data, "requestheader-uid-headers"),
        extra=_names(data, "requestheader-extra-headers-prefix"),
    )


def _names(data: Mapping[str, str], key: str) -> tuple[str, ...]:
    try:
        found = _decode_names.decode(data.get(key) or "[]")
    except (msgspec.DecodeError, UnicodeError):
        raise ValueError(f"its {key} is no JSON list of names") from None
    return tuple(filter(None, (name.strip() for name in found)))


class RequestHeaderConfig:
    """What was read last, for as long as it may be believed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._read: RequestHeaders | None = None
        self._until = float("-inf")
        self.trouble: str | None = "it was not read yet"
        """Why the last attempt failed; None when it did not."""

    @property
    def current(self) -> RequestHeaders | None:
        """What holds now; None when nobody can be believed."""
        return self._read if self._clock.monotonic() < self._until else None

    def client_ca(self) -> bytes | None:
        """What was read last to verify clients by, for the listener's `Certificate`, which asks in a thread."""
        held = self._read
        return held.client_ca if held is not None else None

    async def refresh(self, client: Sender) -> None:
        """Read it once more; a failure is told in `trouble` and leaves what was read before, for its time."""
        try:
            raw = await client.send(requests.get(CONFIG_MAPS, NAMESPACE, NAME, timeout=_TIMEOUT))
            read = parse(_decode_config_map(raw).data)
        except (KubeError, msgspec.DecodeError, ValueError) as failed:
            if self.trouble is None or self._read is None:
                _log.error("the API server's request headers are not known", error=str(failed)[:500])
            self.trouble = f"ConfigMap {NAMESPACE}/{NAME} cannot be used: {str(failed)[:300]}"
            return
        if self._read != read:
            _log.info("the API server's request headers are known", user=read.user, names=sorted(read.names))
        self._read, self.trouble = read, None
        self._until = self._clock.monotonic() + _BELIEVED_SECONDS

    async def keep(self, client: Sender) -> None:
        """Read it every minute, sooner while it cannot be read, until cancelled."""
        while True:
            await self.refresh(client)
            await asyncio.sleep(_EVERY_SECONDS if self.trouble is None else _RETRY_SECONDS)


class FrontProxy:
    """Identity on the aggregation listener: whom the API server names, when it is the API server who says it."""

    def __init__(self, config: RequestHeaderConfig) -> None:
        self._config = config

    async def viewer(self, request: web.Request) -> UserInfo:
        wanted = self._config.current
        if wanted is None:
            raise Refused(
                503,
                "RequestHeadersUnknown",
                f"the collector cannot read ConfigMap {NAMESPACE}/{NAME}, so it cannot tell whose requests the API "
                "server sends; bind the collector's service account to the role "
                f"extension-apiserver-authentication-reader in {NAMESPACE}",
                retry_after=5,
            )
        if not self._is_api_server(request, wanted):
            raise Refused(
                401, "Unauthenticated", "only the API server's aggregation layer is served here; ask it, or use a token"
            )
        return told(request, wanted.user, wanted.group, wanted.uid, wanted.extra)

    def _is_api_server(self, request: web.Request, wanted: RequestHeaders) -> bool:
        connection = tls(request)
        # Verified, and by the CA that holds now: a connection may be older than a change of it.
        if connection is None or not isinstance(connection.context, ServerContext):
            return False
        names = common_names(request)
        if names is None or connection.context.client_ca != wanted.client_ca:
            return False
        return not wanted.names or (len(names) == 1 and names[0] in wanted.names)
