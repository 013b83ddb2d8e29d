"""Sessions to one API server: one pool for requests, one for streams, made anew when the TLS material changes.

Streams live for minutes and hold a connection each; in a shared pool they would starve the requests. kubernetes_asyncio
builds the TLS context and the connector from its Configuration. The session on top is ours, since the library's takes
proxies and netrc passwords from the environment and keeps cookies.
"""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp.client_middlewares import ClientMiddlewareType
from kubernetes_asyncio.client import ApiClient, Configuration

from toe_async.kube.errors import ConfigurationError, clip
from toe_async.kube.kubeconfig import Pem, Tls
from toe_async.telemetry import log

REQUEST_CONNECTIONS = 64
STREAM_CONNECTIONS = 512
SOCK_CONNECT = 5.0
_POOL_WAIT = 15.0
_HANDSHAKE = 30.0
_log = log.get("kube.transport")
_READ_BUFFER = 1 << 18  # aiohttp stops reading from the socket at twice this: the bound of a slow reader's memory


class Sessions:
    """Both pools of one TLS material, and what every request through them has to name."""

    def __init__(self, tls: Tls, requests: aiohttp.ClientSession, streams: aiohttp.ClientSession) -> None:
        self.tls, self.requests, self.streams = tls, requests, streams
        self.leases = 0
        self._stack = AsyncExitStack()

    def owns(self, stack: AsyncExitStack) -> "Sessions":
        """Take over what has to be closed with these sessions."""
        self._stack = stack
        return self

    async def close(self) -> None:
        """Close every connection, the busy ones too."""
        await self._stack.aclose()


class Transport:
    """Hands out the sessions for a TLS material and keeps the newest ones open."""

    def __init__(self, user_agent: str, middleware: ClientMiddlewareType, *, disable_strict_tls: bool) -> None:
        """``middleware`` sees every answer on the stream pool before aiohttp follows a redirect or gives up on it."""
        self._user_agent, self._middleware, self._disable_strict_tls = user_agent, middleware, disable_strict_tls
        self._lock = asyncio.Lock()
        self._current: Sessions | None = None
        self._retired: set[Sessions] = set()
        self._unusable: Tls | None = None
        self._closed = False

    @asynccontextmanager
    async def lease(self, tls: Tls) -> AsyncIterator[Sessions]:
        """Borrow the sessions for as long as an answer is read; a rotation meanwhile does not cut it.

        Material that does not load after some that did (a certificate whose key is not written yet) is passed over: the
        sessions before it serve until the next change.

        Raises:
            ConfigurationError: the first TLS material cannot be loaded.
        """
        async with self._lock:
            sessions = await self._for(tls)
            sessions.leases += 1
        try:
            yield sessions
        finally:
            sessions.leases -= 1
            await self._sweep()

    async def close(self) -> None:
        """Close everything, leased or not, for good."""
        self._closed = True
        for sessions in [*self._retired, *([self._current] if self._current else [])]:
            await sessions.close()
        self._retired.clear()
        self._current = None

    async def _for(self, tls: Tls) -> Sessions:
        if self._closed:
            raise RuntimeError("the client has been closed; its requests belong inside of connect()")
        present = self._current
        if present is not None and tls in (present.tls, self._unusable):
            return present
        try:
            self._current = await self._build(tls)
        except ConfigurationError as error:
            if present is None:
                raise
            self._unusable = tls
            _log.warning("new TLS material cannot be used, keeping the present one", error=str(error))
            return present
        if present is not None:
            self._retired.add(present)
        return self._current

    async def _sweep(self) -> None:
        for sessions in [old for old in self._retired if old.leases == 0]:
            self._retired.discard(sessions)
            await sessions.close()

    async def _build(self, tls: Tls) -> Sessions:
        files = await asyncio.to_thread(_Files, tls)
        try:
            async with AsyncExitStack() as stack:
                sessions = [
                    await self._session(stack, files.configuration(limit, self._disable_strict_tls), middlewares)
                    for limit, middlewares in ((REQUEST_CONNECTIONS, ()), (STREAM_CONNECTIONS, (self._middleware,)))
                ]
                return Sessions(tls, *sessions).owns(stack.pop_all())
        except (OSError, ValueError) as error:  # SSLError is an OSError
            what = error.reason if isinstance(error, ssl.SSLError) else error
            raise ConfigurationError(clip(f"the certificates for {tls.server} cannot be loaded: {what}")) from error
        finally:
            await asyncio.to_thread(files.remove)

    async def _session(
        self, stack: AsyncExitStack, configuration: Configuration, middlewares: tuple[ClientMiddlewareType, ...]
    ) -> aiohttp.ClientSession:
        api = ApiClient(configuration)
        stack.push_async_callback(api.close)
        session = aiohttp.ClientSession(
            connector=api.rest_client.pool_manager.connector,
            connector_owner=False,
            headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
            # Only a websocket's handshake takes these; every other request names its own.
            timeout=aiohttp.ClientTimeout(
                total=None, connect=_POOL_WAIT, sock_connect=SOCK_CONNECT, sock_read=_HANDSHAKE
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=middlewares,
            read_bufsize=_READ_BUFFER,
            trust_env=False,
        )
        stack.push_async_callback(session.close)
        return session


class _Files:
    """The PEMs of a TLS material as files, which is the only form the ssl module loads keys in.

    Those that came from files stay where they are; the others live in a private folder for the moment of loading.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._ca, self._certificate, self._key = (
            self._path(pem, name) for pem, name in ((tls.ca, "ca"), (tls.certificate, "certificate"), (tls.key, "key"))
        )

    def configuration(self, connections: int, disable_strict_tls: bool) -> Configuration:
        configuration = Configuration(host=self._tls.server, ssl_ca_cert=self._ca)
        configuration.cert_file, configuration.key_file = self._certificate, self._key
        configuration.tls_server_name = self._tls.server_name
        configuration.verify_ssl = not self._tls.insecure
        configuration.disable_strict_ssl_verification = disable_strict_tls
        configuration.proxy = self._tls.proxy
        configuration.connection_pool_maxsize = connections
        return configuration

    def remove(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def _path(self, pem: Pem | None, name: str) -> str | None:
        if pem is None:
            return None
        if pem.path is not None:
            return pem.path
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="toe-")  # mode 0700
        path = Path(self._folder.name, name)
        path.write_bytes(pem.data)
        return str(path)
