"""The applications in front of the service, and the sockets they are served on.

On the main address are uploads, the read API for bearer tokens, and the pages; on the aggregation address only the read
API, for the API server alone; on the metrics address only probes and metrics.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from toe_async.apis.core import UserInfo
from toe_async.collector import bodies, settings
from toe_async.collector.api.frontproxy import FrontProxy
from toe_async.collector.api.identity import Bearer, Identity, ProxyOrBearer, TrustedProxy
from toe_async.collector.api.local import LocalLibrary
from toe_async.collector.api.routes import Api
from toe_async.collector.errors import Refused, StoreError
from toe_async.collector.listener import MOST_HEADERS, Listener, accepting, bind
from toe_async.collector.pages.access import Access
from toe_async.collector.pages.routes import build_pages
from toe_async.collector.pages.sessions import TokenSessions
from toe_async.collector.pages.viewers import ProxyAccess
from toe_async.collector.replies import SAFE_HEADERS, refusal
from toe_async.collector.service import Service, running
from toe_async.collector.settings import CollectorSettings, parse_address
from toe_async.collector.signin import SignIn
from toe_async.collector.tls import Certificate
from toe_async.kube.sender import Sender
from toe_async.lib.clock import Clock
from toe_async.telemetry import log
from toe_async.telemetry.metrics import CollectorMetrics

_END_SECONDS = 1.0
_MOST_HEADERS_OF_API_SERVER = 1024  # one for each group of its user, and people are in hundreds of groups
_EVERYWHERE = {"::", "0.0.0.0"}  # noqa: S104 -- recognised, not bound
_log = log.get("collector")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Served(Struct, frozen=True):
    """Where a collector answers."""

    host: str
    port: int
    url: str
    metrics_port: int | None
    aggregation_port: int | None = None


def build_app(service: Service) -> web.Application:
    """What is served on the main address."""
    proxy = TrustedProxy(service.settings.trusted_proxies) if service.settings.trusted_proxies else None
    identity: Identity = ProxyOrBearer(proxy, service.gate) if proxy is not None else Bearer(service.gate)
    app = web.Application(middlewares=[_answers])
    app.add_routes(service.ingest.routes())
    app.add_routes(Api(service.holdings, identity, service.settings.limits).routes())
    app.add_routes(build_pages(_access(service, proxy), title=service.settings.title, clock=service.clock))
    _add_probes(app, service)
    return app


def build_aggregated_app(service: Service) -> web.Application:
    """What the API server is served, whose word for the user counts there and nobody else's."""
    app = web.Application(middlewares=[_answers])
    app.add_routes(Api(service.holdings, FrontProxy(service.request_headers), service.settings.limits).routes())
    _add_probes(app, service)
    return app


def build_metrics_app(service: Service) -> web.Application:
    """Metrics and probes alone, for an address of their own."""
    app = web.Application(middlewares=[_answers])
    _add_probes(app, service)
    return app


@contextlib.asynccontextmanager
async def serve(
    wanted: CollectorSettings, client: Sender, clock: Clock, metrics: CollectorMetrics
) -> AsyncIterator[Served]:
    """A collector that answers for as long as the block lasts.

    At the end it takes no new bodies, waits `drain_seconds` for those under way, and closes what is left.

    Raises:
        SettingsError: it cannot start; one sentence with the way out.
    """
    settings.check(wanted)
    async with contextlib.AsyncExitStack() as stack:
        # Read before anything is opened: a collector without its key pair does not start.
        client_ca = wanted.client_ca.read_bytes if wanted.client_ca is not None else None
        certificate = await _certificate(wanted, client_ca)
        service = await stack.enter_async_context(running(wanted, client, clock, metrics))
        if certificate is not None:
            service.certificates.append(certificate)
        app = await asyncio.to_thread(build_app, service)
        host, port = await stack.enter_async_context(_served(app, wanted.listen, service, certificate, drained=True))
        metrics_port = aggregation_port = None
        if wanted.metrics_address:
            _, metrics_port = await stack.enter_async_context(
                _served(build_metrics_app(service), wanted.metrics_address, service, None)
            )
        if wanted.aggregation_listen:
            await service.request_headers.refresh(client)
            aggregated = await _certificate(wanted, service.request_headers.client_ca)
            assert aggregated is not None
            service.certificates.append(aggregated)
            app = await asyncio.to_thread(build_aggregated_app, service)
            _, aggregation_port = await stack.enter_async_context(
                _served(app, wanted.aggregation_listen, service, aggregated, most_headers=_MOST_HEADERS_OF_API_SERVER)
            )
        url = f"{'https' if certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        _log.info("the collector answers", url=url)
        yield Served(host, port, url, metrics_port, aggregation_port)


async def _certificate(wanted: CollectorSettings, client_ca: Callable[[], bytes | None] | None) -> Certificate | None:
    if wanted.tls_cert is None or wanted.tls_key is None:
        return None
    return await asyncio.to_thread(Certificate, wanted.tls_cert, wanted.tls_key, client_ca)


@contextlib.asynccontextmanager
async def _served(
    app: web.Application,
    where: str,
    service: Service,
    certificate: Certificate | None,
    *,
    drained: bool = False,
    most_headers: int = MOST_HEADERS,
) -> AsyncIterator[tuple[str, int]]:
    """Serve an application; `drained` lets the uploads under way end first when the block is over."""
    address = parse_address(where)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_END_SECONDS)
    sock = bind(address)
    await runner.setup()
    try:
        assert runner.server is not None
        listener = Listener(
            sock,
            runner.server,
            lambda: certificate.context if certificate is not None else None,
            service.settings.limits,
            service.clock,
            most_headers=most_headers,
        )
        service.health.add(f"listener {where}", lambda: listener.trouble, live=True)
        try:
            async with accepting(listener, sock):
                host, port = sock.getsockname()[:2]
                yield ("127.0.0.1" if host in _EVERYWHERE else host), port
        finally:
            if drained:
                await service.ingest.uploads.drain(service.settings.limits.drain_seconds)
    finally:
        await runner.cleanup()


def _access(service: Service, proxy: TrustedProxy | None) -> Access:
    """Who may see the pages: whoever signs in with a token, and whom a trusted proxy names."""

    def library(user: UserInfo) -> LocalLibrary:
        return LocalLibrary(user, service.holdings)

    secure = service.settings.tls_cert is not None
    sessions = TokenSessions(SignIn(service.gate, service.clock), library, service.clock, secure=secure)
    return ProxyAccess(proxy.user, library, otherwise=sessions) if proxy is not None else sessions


def _add_probes(app: web.Application, service: Service) -> None:
    async def healthz(request: web.Request) -> web.Response:
        healthy, text = service.health.livez()
        return web.Response(status=200 if healthy else 500, text=text, headers=SAFE_HEADERS)

    async def readyz(request: web.Request) -> web.Response:
        await service.probe()
        ready, text = service.health.readyz()
        text = "\n".join([*service.notes(), text]) if "verbose" in request.query else text.splitlines()[-1] + "\n"
        return web.Response(status=200 if ready else 503, text=text, headers=SAFE_HEADERS)

    async def check(request: web.Request) -> web.Response:
        await service.probe()
        try:
            ready, text = service.health.readyz(request.match_info["check"])
        except KeyError:
            raise Refused(404, "NotFound", "there is no check of that name; see /readyz?verbose") from None
        return web.Response(status=200 if ready else 503, text=text, headers=SAFE_HEADERS)

    async def scrape(request: web.Request) -> web.Response:
        await service.probe()
        body = generate_latest(service.metrics.registry)
        return web.Response(body=body, headers=SAFE_HEADERS | {"Content-Type": CONTENT_TYPE_LATEST})

    async def nothing(request: web.Request) -> web.StreamResponse:
        raise Refused(404, "NotFound", "there is no such call here")

    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/readyz/{check}", check)])
    app.add_routes([web.get("/metrics", scrape)])
    app.router.add_route("*", "/{rest:(?s:.*)}", nothing, expect_handler=bodies.postpone_continue)


@web.middleware
async def _answers(request: web.Request, handler: Handler) -> web.StreamResponse:
    reply: web.StreamResponse
    try:
        reply = await handler(request)
    except Refused as refused:
        _log.info("refused", status=refused.status, reason=refused.reason, method=request.method)
        reply = refusal(refused)
    except StoreError as failed:
        _log.error("the store failed", error=str(failed))
        reply = refusal(failed.refusal())
    except web.HTTPException as odd:
        reply = refusal(Refused(odd.status, "BadRequest", "the request cannot be served"))
    except ConnectionError:
        raise
    except Exception as failed:
        _log.exception("a request failed unexpectedly", method=request.method)
        if request.writer.output_size:
            raise ConnectionError("an answer had begun, and no second one can be given") from failed
        reply = refusal(Refused(500, "Internal", "the collector failed at this request; its log says why"))
    if not request.content.is_eof() and not reply.prepared:
        # What may still come of the body is not the next request.
        reply.force_close()
    return reply
