"""The raw client: requests out, bytes or streams back, every failure one of kube.errors.

What is promised: every wait has a bound; a body in memory is at most ``LARGEST_ANSWER`` bytes; redirects are never
followed; an answer that is no JSON where JSON was asked is an error; a verb that is not idempotent is never sent twice,
unless the server certainly did nothing with it; cancelling leaves no task and no connection behind.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from aiohttp import ClientResponse, ClientTimeout
from msgspec import Struct
from yarl import URL

from toe_async.kube import answers, websockets
from toe_async.kube.answers import LARGEST_ANSWER, Chunks, mapped
from toe_async.kube.auth import Credentials, Material
from toe_async.kube.errors import ApiError, KubeError, TransportError, Unauthorized, UntrustedServer
from toe_async.kube.kubeconfig import Identity, from_kubeconfig, in_cluster
from toe_async.kube.requests import Query, Request
from toe_async.kube.retry import ATTEMPTS, FIRST_WAIT, LONGEST_WAIT, may_repeat, wait_for
from toe_async.kube.transport import SOCK_CONNECT, Sessions, Transport
from toe_async.kube.websockets import WebSocket
from toe_async.lib.backoff import Backoff
from toe_async.lib.clock import Clock, SystemClock
from toe_async.lib.tasks import TaskOwner
from toe_async.telemetry import log

DEFAULT_TIMEOUT = 30.0
STREAM_SILENCE = 75.0
"""Seconds without a byte after which a stream is dead; a watch has a bookmark about once a minute."""
_POOL_WAIT = 15.0

Observer = Callable[[str, str, str], None]
T = TypeVar("T")
Opened = tuple[T, int]  # what was opened, and the HTTP status to count
_log = log.get("kube.client")


class ClientSettings(Struct, frozen=True, kw_only=True):
    """How to find and reach the API server.

    ``kubeconfig`` None: the pod's service account where there is one, else KUBECONFIG, else ~/.kube/config.
    ``disable_strict_tls`` accepts CAs without the key identifiers that Python 3.13 insists on.
    """

    kubeconfig: str | None = None
    context: str | None = None
    user_agent: str = "toe-async"
    disable_strict_tls: bool = False


class Answer(Struct, frozen=True):
    """The beginning of a good answer whose body is still to come. Header names are read in any case of letters."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes]


def load_identity(settings: ClientSettings, environ: Mapping[str, str]) -> Identity:
    """Read who and where we are, as the settings say. Blocks."""
    if settings.kubeconfig is None and environ.get("KUBERNETES_SERVICE_HOST"):
        return in_cluster(environ)
    if settings.kubeconfig is not None:
        paths = [settings.kubeconfig]
    else:
        paths = [path for path in environ.get("KUBECONFIG", "").split(os.pathsep) if path] or ["~/.kube/config"]
    return from_kubeconfig([Path(path).expanduser().absolute() for path in paths], settings.context, environ)


@asynccontextmanager
async def connect(
    settings: ClientSettings,
    *,
    observer: Observer | None = None,
    environ: Mapping[str, str] = os.environ,
    clock: Clock | None = None,
) -> AsyncIterator["Client"]:
    """Open a client. Nothing is sent yet; an unreachable server is told by the first request.

    ``observer(method, host, code)`` is called for every attempt; the code is ``<error>`` when no answer came.

    Raises:
        ConfigurationError: no usable kubeconfig, or certificates that do not load.
        CredentialsError: the exec plugin fails.
    """
    transport = Transport(
        settings.user_agent, websockets.refuse_handshake, disable_strict_tls=settings.disable_strict_tls
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(transport.close)
        owner = await stack.enter_async_context(TaskOwner(_heard_elsewhere))
        load = partial(load_identity, settings, environ)
        credentials = Credentials(load, environ, clock or SystemClock(), owner)
        material = await credentials.current()
        if material.tls.insecure:
            _log.warning("the kubeconfig says not to verify the server's certificate", server=material.tls.server)
        async with transport.lease(material.tls):
            pass  # certificates that do not load are told here
        yield Client(credentials, transport, material.tls.server, observer)


class Client:
    """One API server as one identity; made by `connect`."""

    def __init__(self, credentials: Credentials, transport: Transport, server: str, observer: Observer | None) -> None:
        self.server = server
        self._credentials, self._transport, self._observer = credentials, transport, observer
        self._host = urlsplit(server).netloc

    async def send(self, request: Request) -> bytes:
        """Send a request and return the whole body of its good answer.

        Lost connections, 429 and 503 are tried again where `retry.may_repeat` allows it, within the request's timeout.

        Raises:
            ApiError: the server refused, or still asks for patience after the last attempt.
            TransportError: no whole answer in time.
            UnexpectedAnswer: not JSON, or larger than ``LARGEST_ANSWER``.
            CredentialsError: there is nothing to sign in with at the moment.
        """
        limit = DEFAULT_TIMEOUT if request.timeout is None else request.timeout
        loop, backoff = asyncio.get_running_loop(), Backoff(FIRST_WAIT, LONGEST_WAIT)
        deadline = loop.time() + limit
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    try:
                        return await self._send_once(request, limit)
                    except KubeError as error:
                        wait = wait_for(error, backoff.next())
                        spent = backoff.failures >= ATTEMPTS or loop.time() + wait >= deadline
                        if spent or not may_repeat(request, error):
                            raise
                    await asyncio.sleep(wait)
        except TimeoutError as error:
            raise TransportError(f"{request}: no whole answer within {limit:g} s") from error

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a request whose answer is read piece by piece, as `open` has it, when only the body counts."""
        async with self.open(request) as answer:
            yield answer.pieces

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Answer]:
        """Open a request whose answer is read piece by piece, at the reader's pace; its status and headers come first.

        Never tried again by itself. ``request.timeout`` bounds the whole stream, ``STREAM_SILENCE`` each wait.
        The iterator ends where the answer ends; a stream that is cut or silent raises TransportError.
        """
        limit = request.timeout
        deadline = None if limit is None else asyncio.get_running_loop().time() + limit
        timeout = ClientTimeout(
            total=None,
            connect=_POOL_WAIT,
            sock_connect=SOCK_CONNECT,
            sock_read=STREAM_SILENCE if limit is None else min(limit, STREAM_SILENCE),
        )
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout_at(deadline):
                    response = await self._open(stack, request, partial(self._http, request, timeout, streams=True))
            except TimeoutError as error:
                raise TransportError(f"{request}: no answer within {limit:g} s") from error
            yield Answer(response.status, response.headers, Chunks(request, response, deadline))

    @asynccontextmanager
    async def websocket(self, path: str, query: Query = (), protocols: Sequence[str] = ()) -> AsyncIterator[WebSocket]:
        """Open a websocket; its ``receive`` raises TimeoutError when the peer is silent for `websockets.SILENCE`.

        Pings go out by themselves. Their answers count only while somebody receives, so that a reader who pauses is not
        taken for a dead peer. A refused handshake raises ApiError with the Status that came; a redirect is a refusal.
        """
        request = Request("GET", path, query)
        async with AsyncExitStack() as stack:
            ws = await self._open(stack, request, partial(self._upgrade, request, protocols))
            owner = await stack.enter_async_context(TaskOwner(_heartbeat_failed))
            owner.start(websockets.beat(ws), name=f"heartbeat of {path}")
            yield ws

    async def _send_once(self, request: Request, limit: float) -> bytes:
        timeout = ClientTimeout(total=None, sock_connect=SOCK_CONNECT, sock_read=limit)
        async with AsyncExitStack() as stack:
            response = await self._open(stack, request, partial(self._http, request, timeout, streams=False))
            with mapped(request):
                return await answers.read(request, response, LARGEST_ANSWER)

    async def _open(
        self,
        stack: AsyncExitStack,
        request: Request,
        opener: Callable[[AsyncExitStack, Sessions, dict[str, str]], Awaitable[Opened[T]]],
    ) -> T:
        """Open an answer with the current credentials, and once more if they were refused and there are fresh ones.

        A refused sign-in did nothing, so this holds for every verb. ``stack`` takes over what has to be closed.
        """
        material = await self._credentials.current()
        try:
            return await self._open_as(material, stack, request, opener)
        except (Unauthorized, UntrustedServer):
            fresh = await self._credentials.refresh(material)
            if fresh == material:
                raise
        return await self._open_as(fresh, stack, request, opener)

    async def _open_as(
        self,
        material: Material,
        stack: AsyncExitStack,
        request: Request,
        opener: Callable[[AsyncExitStack, Sessions, dict[str, str]], Awaitable[Opened[T]]],
    ) -> T:
        async with AsyncExitStack() as trial:
            sessions = await trial.enter_async_context(self._transport.lease(material.tls))
            headers = {"Authorization": f"Bearer {material.token}"} if material.token else {}
            try:
                with mapped(request):
                    opened, status = await opener(trial, sessions, headers)
            except KubeError as error:
                self._observe(request, str(error.status) if isinstance(error, ApiError) else "<error>")
                raise
            self._observe(request, str(status))
            await stack.enter_async_context(trial.pop_all())
        return opened

    async def _http(
        self,
        request: Request,
        timeout: ClientTimeout,
        stack: AsyncExitStack,
        sessions: Sessions,
        headers: dict[str, str],
        *,
        streams: bool,
    ) -> Opened[ClientResponse]:
        headers = {**dict(request.headers), **headers}
        headers["Accept"] = request.accept
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        response = await (sessions.streams if streams else sessions.requests).request(
            request.method,
            _url(sessions, request),
            data=request.body,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            proxy=sessions.tls.proxy,
            server_hostname=sessions.tls.server_name,
        )
        # A body that was not read to its end takes its connection along; after the end it is back in the pool already.
        stack.callback(response.close)
        await answers.check(request, response)
        return response, response.status

    async def _upgrade(
        self,
        request: Request,
        protocols: Sequence[str],
        stack: AsyncExitStack,
        sessions: Sessions,
        headers: dict[str, str],
    ) -> Opened[WebSocket]:
        ws = await websockets.upgrade(sessions, _url(sessions, request), headers, protocols)
        stack.push_async_callback(websockets.close, ws)
        return ws, 101

    def _observe(self, request: Request, code: str) -> None:
        if self._observer is not None:
            self._observer(request.method, self._host, code)


def _url(sessions: Sessions, request: Request) -> URL:
    return URL(sessions.tls.server + request.target, encoded=True)


def _heard_elsewhere(name: str, error: BaseException) -> None:
    """A renewal's error reaches the callers who wait for it; when none is left, the next one meets it again."""


def _heartbeat_failed(name: str, error: BaseException) -> None:
    _log.error("a websocket's heartbeat failed", task=name, error=repr(error))
