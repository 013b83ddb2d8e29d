"""Everything that runs behind the handlers: the store, what is known of it, and what keeps both in order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from toe_async.collector.api.frontproxy import RequestHeaderConfig
from toe_async.collector.api.local import Holdings
from toe_async.collector.api.rights import Rights
from toe_async.collector.auth import Gate
from toe_async.collector.captures import Manifest
from toe_async.collector.catalog.catalog import Catalog, open_catalog
from toe_async.collector.catalog.janitor import Janitor
from toe_async.collector.catalog.orphans import Orphans
from toe_async.collector.catalog.policy import Policies
from toe_async.collector.disk import Directory, Disk
from toe_async.collector.errors import SettingsError, StoreError
from toe_async.collector.ingest import Ingest
from toe_async.collector.layout import Layout
from toe_async.collector.records import PRIVATE
from toe_async.collector.registration import Registration
from toe_async.collector.rendering.renderer import Renderer
from toe_async.collector.s3orphans import S3Orphans
from toe_async.collector.s3store import S3Store
from toe_async.collector.settings import CollectorSettings
from toe_async.collector.storage import DirectoryStore
from toe_async.collector.store_url import parse_store_url
from toe_async.collector.tls import Certificate
from toe_async.kube.sender import Sender
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner
from toe_async.telemetry import log
from toe_async.telemetry.health import Health
from toe_async.telemetry.metrics import CollectorMetrics

_TIDY_SECONDS = 60.0
_PROBE_BELIEVED_SECONDS = 5.0
_INDEX = "index.sqlite"
_log = log.get("collector")

Step = Callable[[], Awaitable[None]]


class Service:
    """Made by `running`. `certificates` are those of its listeners, looked at again like every other file."""

    def __init__(
        self,
        *,
        wanted: CollectorSettings,
        client: Sender,
        gate: Gate,
        root: Directory,
        disk: Disk,
        store: DirectoryStore | S3Store,
        catalog: Catalog,
        renderer: Renderer,
        clock: Clock,
        metrics: CollectorMetrics,
    ) -> None:
        self.settings, self.clock, self.metrics, self.gate = wanted, clock, metrics, gate
        self.health, self.layout, self._policies = Health(), Layout(wanted.config_dir), Policies(wanted.config_dir)
        self.store, self._catalog = store, catalog
        rights = Rights(gate, clock, wanted.limits.review_seconds)
        self.holdings = Holdings(catalog=catalog, artifacts=store, renderer=renderer, rights=rights, clock=clock)
        self.request_headers = RequestHeaderConfig(clock)
        self.registration = Registration(client, wanted.register_ca) if wanted.register_ca is not None else None
        self.certificates: list[Certificate] = []
        self.ingest = Ingest(
            settings=wanted,
            gate=gate,
            root=root,
            disk=disk,
            layout=self.layout,
            artifacts=store,
            usage=self._usage,
            told=self._stored,
            clock=clock,
            metrics=metrics,
        )
        self._orphans: Orphans | S3Orphans = (
            Orphans(root, disk, store, self.ingest.records, clock)
            if isinstance(store, DirectoryStore)
            else S3Orphans(store, clock)
        )
        self._janitor = Janitor(catalog, store, self._policies, clock, self._orphans)
        self._store_trouble: str | None = None
        self._ended: str | None = None
        self._probed_at = float("-inf")
        self.health.add("store", lambda: self._store_trouble)
        self.health.add("tasks", lambda: self._ended, live=True)

    async def prepare(self) -> None:
        """Put the store in order after whatever ended the last process."""
        await asyncio.to_thread(self._look_at_files)
        finished = await self.store.recover()
        removed = await self.ingest.uploads.parts.recover()
        if finished or removed:
            _log.info("uploads of a dead process put in order", finished=finished, removed=removed)
        await self.ingest.records.load()
        await self.ingest.uploads.sweep(self.clock.now())

    def start(self, tasks: TaskOwner, client: Sender) -> None:
        """Begin everything that goes on by itself."""
        tasks.start(self._catalog.keep(self.store), name="catalog")
        tasks.start(self._keep_up(), name="reload files")
        tasks.start(self._tidy(), name="tidy")
        if self.settings.aggregation_listen:
            tasks.start(self.request_headers.keep(client), name="request headers")
        if self.registration is not None:
            tasks.start(self.registration.keep(), name="registration")

    async def probe(self) -> None:
        """Find out whether the store can be written, at most every few seconds however often it is asked."""
        if self.clock.monotonic() - self._probed_at < _PROBE_BELIEVED_SECONDS:
            return
        self._probed_at = self.clock.monotonic()
        try:
            await self.store.probe()
            self.metrics.store_free_bytes.set(await self.store.free_bytes())
            kept = await self._catalog.usage("")
            self.metrics.artifacts.set(kept.artifacts)
            self.metrics.stored_bytes.set(kept.bytes)
            self._store_trouble = None
        except StoreError as failed:
            self._store_trouble = f"the store cannot be written ({failed})"
        self.metrics.captures_open.set(self.ingest.records.count_open(self.clock.now()))

    def notes(self) -> list[str]:
        """Troubles that a person should know and that do not make the collector unready."""
        troubles = {
            "dateFormat": self.layout.trouble,
            "retention": self._policies.trouble,
            "tokenReview": self.gate.trouble,
            "index": None
            if self._catalog.complete
            else "the store is still being read; lists are answered 503 until then",
            "certificate": next((one.trouble for one in self.certificates if one.trouble), None),
            "aggregation": self.request_headers.trouble if self.settings.aggregation_listen else None,
            "registration": self.registration.trouble if self.registration is not None else None,
        }
        return [f"[!]{name}: {trouble}" for name, trouble in troubles.items() if trouble]

    def failed(self, name: str, error: BaseException) -> None:
        """Note that one of our tasks ended by an error: what it did is done by nobody now, and only a restart helps."""
        self._ended = f"{name} ended by {type(error).__name__}"
        _log.error("a task of the collector ended", task=name, error=repr(error)[:500])

    async def close(self) -> None:
        """Give back what an interrupted pass holds."""
        if isinstance(self._orphans, Orphans):
            await self._orphans.close()

    def _look_at_files(self) -> None:
        self.layout.reload()
        self._policies.reload()
        for certificate in self.certificates:
            certificate.reload()

    async def _keep_up(self) -> None:
        """Take changed files into use, every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(self.settings.limits.reload_seconds)
            await asyncio.to_thread(self._look_at_files)

    async def _tidy(self) -> None:
        """Drop what is over, each minute, until cancelled: parts and records of captures, artifacts by retention."""
        steps: tuple[Step, ...] = (self._drop_parts, self._drop_records, self._retain)
        while True:
            for step in steps:
                try:
                    await step()
                except StoreError as failed:
                    self.metrics.tidy_errors.inc()
                    _log.warning("what is over cannot be removed", error=str(failed))
            await asyncio.sleep(_TIDY_SECONDS)

    async def _drop_parts(self) -> None:
        await self.ingest.uploads.sweep(self.clock.now())

    async def _drop_records(self) -> None:
        await self.ingest.records.forget(self.clock.now())

    async def _retain(self) -> None:
        swept = await self._janitor.sweep()
        self.metrics.removed.inc(swept.removed)
        self.metrics.removed_bytes.inc(swept.bytes)
        self.metrics.orphans.inc(swept.orphans)
        self.metrics.tidy_errors.inc(swept.failed)
        self.metrics.held.set(swept.kept_by_hold)

    async def _stored(self, manifest: Manifest) -> None:
        # As it is now: it may have been deleted since, or taken under hold.
        async with self._catalog.changing(manifest.namespace, manifest.name):
            held = await self.store.find(manifest.directory, manifest.file)
            if held is not None:
                await self._catalog.add([held])

    async def _usage(self, namespace: str) -> tuple[int, int]:
        held = await self._catalog.usage(namespace)
        return held.artifacts, held.bytes


@contextlib.asynccontextmanager
async def running(
    wanted: CollectorSettings, client: Sender, clock: Clock, metrics: CollectorMetrics
) -> AsyncIterator[Service]:
    """Everything but the sockets, for as long as the block lasts.

    Raises:
        SettingsError: the root or the store cannot be used.
    """
    place = parse_store_url(wanted.store_url) if wanted.store_url else None
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
                store: DirectoryStore | S3Store = DirectoryStore(root, disk)
                if place is not None:
                    store = await stack.enter_async_context(S3Store(place, root, disk, clock))
                catalog = await stack.enter_async_context(open_catalog(wanted.root / PRIVATE / _INDEX, disk, clock))
                renderer = await stack.enter_async_context(Renderer(clock=clock))
                service = Service(
                    wanted=wanted,
                    client=client,
                    gate=gate,
                    root=root,
                    disk=disk,
                    store=store,
                    catalog=catalog,
                    renderer=renderer,
                    clock=clock,
                    metrics=metrics,
                )
                await service.prepare()
            except StoreError as failed:
                where = str(place or repr(str(wanted.root)))
                raise SettingsError(f"the store at {where} cannot be used: {failed}") from failed
            stack.push_async_callback(service.close)
            tasks = await stack.enter_async_context(TaskOwner(service.failed))
            service.start(tasks, client)
            yield service


def _open_root(path: Path) -> Directory:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Directory.root(path)
    except OSError as failed:
        raise SettingsError(
            f"the root {str(path)!r} cannot be used ({failed.strerror}): give --root a directory that can be written"
        ) from failed
