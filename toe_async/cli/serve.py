"""The small HTTP servers of a process: metrics on one address, health on another."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from toe_async.telemetry.health import Health

# Scrapes and probes are small and local: what holds a connection longer than this is a mistake.
_KEEPALIVE_SECONDS = 15.0


def metrics_app(registry: CollectorRegistry) -> web.Application:
    """``/metrics`` of a registry."""

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app


def health_app(health: Health) -> web.Application:
    """``/healthz`` and ``/readyz`` (with ``?verbose``), and ``/readyz/<check>`` for one check."""

    def answer(outcome: tuple[bool, str], *, verbose: bool) -> web.Response:
        healthy, lines = outcome
        return web.Response(status=200 if healthy else 503, text=lines if verbose or not healthy else "ok")

    async def livez(request: web.Request) -> web.Response:
        return answer(health.livez(), verbose="verbose" in request.query)

    async def readyz(request: web.Request) -> web.Response:
        return answer(health.readyz(), verbose="verbose" in request.query)

    async def one(request: web.Request) -> web.Response:
        try:
            return answer(health.readyz(request.match_info["check"]), verbose=True)
        except KeyError:
            return web.Response(status=404, text="there is no such check; GET /readyz?verbose lists them\n")

    app = web.Application()
    app.add_routes([web.get("/healthz", livez), web.get("/readyz", readyz), web.get("/readyz/{check}", one)])
    return app


@asynccontextmanager
async def serving(app: web.Application, address: tuple[str, int]) -> AsyncIterator[tuple[str, int]]:
    """Serve an application over plain HTTP; yields the bound address.

    Raises:
        OSError: the address cannot be bound.
    """
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=_KEEPALIVE_SECONDS, shutdown_timeout=2.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, address[0] or None, address[1]).start()
        bound = runner.addresses[0]
        yield bound[0], bound[1]
    finally:
        await runner.cleanup()
