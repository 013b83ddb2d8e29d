"""The service put together: what runs, the application in front of it, and the sockets it is served on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from aiohttp import web
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from toe_async.collector import bodies, settings
from toe_async.collector.auth import Gate, Sender
from toe_async.collector.captures import Manifest
from toe_async.collector.catalog.catalog import Catalog, open_catalog
from toe_async.collector.disk import Directory, Disk
from toe_async.collector.errors import Refused, SettingsError, StoreError
from toe_async.collector.index import Index
from toe_async.collector.ingest import Ingest
from toe_async.collector.layout import Layout
from toe_async.collector.listener import Listener, accepting, bind
from toe_async.collector.reading import Reading
from toe_async.collector.records import PRIVATE
from toe_async.collector.replies import SAFE_HEADERS, refusal
from toe_async.collector.settings import CollectorSettings, parse_address
from toe_async.collector.storage import DirectoryStore
from toe_async.collector.tls import Certificate
from toe_async.lib.backoff import Backoff
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner
from toe_async.telemetry import log
from toe_async.telemetry.health import Health
from toe_async.telemetry.metrics import CollectorMetrics

_FORGET_SECONDS = 60.0
_PROBE_BELIEVED_SECONDS = 5.0
_END_SECONDS = 1.0
_INDEX = "index.sqlite"
_EVERYWHERE = {"::", "0.0.0.0"}  # noqa: S104 -- recognised, not bound
_log = log.get("collector")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Served(Struct, frozen=True):
    """Where a collector answers."""

    host: str
    port: int
    url: str
    metrics_port: int | None


class Service:
    """Everything that runs behind the handlers. Made by `running`."""

    def __init__(
        self,
        *,
        wanted: CollectorSettings,
        gate: Gate,
        root: Directory,
        disk: Disk,
        catalog: Catalog,
        clock: Clock,
        metrics: CollectorMetrics,
    ) -> None:
        self.settings, self.clock, self.metrics = wanted, clock, metrics
        self.health, self.layout = Health(), Layout(wanted.config_dir)
        self.gate, self.catalog, self._index = gate, catalog, Index()
        self.artifacts = DirectoryStore(root, disk)
        self.ingest = Ingest(
            settings=wanted,
            gate=gate,
            root=root,
            disk=disk,
            layout=self.layout,
            artifacts=self.artifacts,
            usage=self._usage,
            told=self._stored,
            clock=clock,
            metrics=metrics,
        )
        self.reading = Reading(gate, self.artifacts, self._index, clock)
        self.certificate: Certificate | None = None
        self._store_trouble: str | None = None
        self._probed_at = float("-inf")
        self.health.add("store", lambda: self._store_trouble)
        self.health.add("index", lambda: None if self.reading.complete else "the store is still being read")

    async def prepare(self) -> None:
        """Put the store in order after whatever ended the last process."""
        await asyncio.to_thread(self.layout.reload)
        finished = await self.artifacts.recover()
        removed = await self.ingest.uploads.parts.recover()
        if finished or removed:
            _log.info("uploads of a dead process put in order", finished=finished, removed=removed)
        await self.ingest.records.load()
        await self.ingest.uploads.sweep(self.clock.now())

    async def build_index(self) -> None:
        """Read every manifest, from the start again after an error; lists are answered once this is done."""
        backoff = Backoff(1.0, 60.0)
        while not self.reading.complete:
            try:
                await self.catalog.build(self.artifacts)
                await self._read_manifests()
                self.reading.complete = True
            except StoreError as failed:
                wait = backoff.next()
                _log.error("the store cannot be read to its end", error=str(failed), again_in=round(wait))
                await asyncio.sleep(wait)

    async def _read_manifests(self) -> None:
        count = 0
        async for found in self.artifacts.manifests():
            self._index.add(found)
            count += len(found)
        _log.info("the store is read", artifacts=count)

    async def keep_up(self) -> None:
        """Take changed files into use, every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(self.settings.limits.reload_seconds)
            await asyncio.to_thread(self.layout.reload)
            if self.certificate is not None:
                await asyncio.to_thread(self.certificate.reload)

    async def forget(self) -> None:
        """Drop the parts of captures that are over and the records of those long over, each minute, until cancelled."""
        while True:
            try:
                await self.ingest.uploads.sweep(self.clock.now())
                await self.ingest.records.forget(self.clock.now())
            except StoreError as failed:
                _log.warning("old records and parts cannot be removed", error=str(failed))
            await asyncio.sleep(_FORGET_SECONDS)

    async def probe(self) -> None:
        """Find out whether the store can be written, at most every few seconds however often it is asked."""
        if self.clock.monotonic() - self._probed_at < _PROBE_BELIEVED_SECONDS:
            return
        self._probed_at = self.clock.monotonic()
        try:
            await self.artifacts.probe()
            self.metrics.store_free_bytes.set(await self.artifacts.free_bytes())
            self._store_trouble = None
        except StoreError as failed:
            self._store_trouble = f"the store cannot be written ({failed})"
        self.metrics.captures_open.set(self.ingest.records.count_open(self.clock.now()))

    def notes(self) -> list[str]:
        """Troubles that a person should know and that do not make the collector unready."""
        troubles = {"dateFormat": self.layout.trouble, "tokenReview": self.gate.trouble}
        if self.certificate is not None:
            troubles["certificate"] = self.certificate.trouble
        return [f"[!]{name}: {trouble}" for name, trouble in troubles.items() if trouble]

    async def _stored(self, manifest: Manifest) -> None:
        await self.catalog.add([manifest])
        self._index.add([manifest])

    async def _usage(self, namespace: str) -> tuple[int, int]:
        held = await self.catalog.usage(namespace)
        return held.artifacts, held.bytes


def build_app(service: Service) -> web.Application:
    """The collector's whole HTTP surface."""
    app = web.Application(middlewares=[_answers])
    app.add_routes(service.ingest.routes())
    app.add_routes(service.reading.routes())
    _add_probes(app, service)
    return app


def build_metrics_app(service: Service) -> web.Application:
    """Metrics and probes alone, for an address of their own."""
    app = web.Application(middlewares=[_answers])
    _add_probes(app, service)
    return app


@contextlib.asynccontextmanager
async def running(
    wanted: CollectorSettings, client: Sender, clock: Clock, metrics: CollectorMetrics
) -> AsyncIterator[Service]:
    """Everything but the sockets, for as long as the block lasts.

    Raises:
        SettingsError: the root cannot be used.
    """
    root = await asyncio.to_thread(_open_root, wanted.root)
    with root:
        async with (
            Gate(client, clock, metrics, wanted.limits.review_seconds) as gate,
            contextlib.AsyncExitStack() as stack,
        ):
            disk = Disk()
            stack.push_async_callback(disk.close)
            try:
                await disk.run(lambda: root.make((PRIVATE,)))
                catalog = await stack.enter_async_context(open_catalog(wanted.root / PRIVATE / _INDEX, disk, clock))
                service = Service(
                    wanted=wanted, gate=gate, root=root, disk=disk, catalog=catalog, clock=clock, metrics=metrics
                )
                await service.prepare()
            except StoreError as failed:
                raise SettingsError(f"the store at {str(wanted.root)!r} cannot be used: {failed}") from failed
            tasks = await stack.enter_async_context(TaskOwner(_task_failed))
            tasks.start(service.build_index(), name="build index")
            tasks.start(service.keep_up(), name="reload files")
            tasks.start(service.forget(), name="forget records")
            yield service


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
        certificate = None
        if wanted.tls_cert is not None and wanted.tls_key is not None:
            client_ca = wanted.client_ca.read_bytes if wanted.client_ca is not None else None
            certificate = await asyncio.to_thread(Certificate, wanted.tls_cert, wanted.tls_key, client_ca)
        service = await stack.enter_async_context(running(wanted, client, clock, metrics))
        service.certificate = certificate
        host, port = await stack.enter_async_context(_served(build_app(service), wanted.listen, service, main=True))
        metrics_port = None
        if wanted.metrics_address:
            _, metrics_port = await stack.enter_async_context(
                _served(build_metrics_app(service), wanted.metrics_address, service, main=False)
            )
        url = f"{'https' if certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        _log.info("the collector answers", url=url)
        yield Served(host, port, url, metrics_port)


@contextlib.asynccontextmanager
async def _served(app: web.Application, where: str, service: Service, *, main: bool) -> AsyncIterator[tuple[str, int]]:
    address = parse_address(where)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_END_SECONDS)
    sock = bind(address)
    await runner.setup()
    try:
        assert runner.server is not None
        listener = Listener(
            sock,
            runner.server,
            lambda: service.certificate.context if main and service.certificate else None,
            service.settings.limits,
            service.clock,
        )
        service.health.add(f"listener {where}", lambda: listener.trouble, live=True)
        try:
            async with accepting(listener, sock):
                host, port = sock.getsockname()[:2]
                yield ("127.0.0.1" if host in _EVERYWHERE else host), port
        finally:
            if main:
                await service.ingest.uploads.drain(service.settings.limits.drain_seconds)
    finally:
        await runner.cleanup()


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
    except Exception:  # noqa: BLE001 -- one broken request is answered and logged, it must not end more than itself
        _log.exception("a request failed unexpectedly", method=request.method)
        reply = refusal(Refused(500, "Internal", "the collector failed at this request; its log says why"))
    if not request.content.is_eof() and not reply.prepared:
        # What may still come of the body is not the next request.
        reply.force_close()
    return reply


def _open_root(path: Path) -> Directory:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Directory.root(path)
    except OSError as failed:
        raise SettingsError(
            f"the root {str(path)!r} cannot be used ({failed.strerror}): give --root a directory that can be written"
        ) from failed


def _task_failed(name: str, error: BaseException) -> None:
    _log.error("a task of the collector ended", task=name, error=repr(error)[:500])
