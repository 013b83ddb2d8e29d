"""API aggregation: groups and versions that somebody else serves, and whether they can be reached.

For each APIService with a Service a check runs when it, its Service or its endpoints change, and again after a while.
A check that failed on the network is repeated sooner, with growing waits. What a backend says about itself is kept for
discovery; when it is away, the last word is told as stale.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from aiohttp import web

from toe_async.lib.backoff import Backoff
from toe_async.lib.clock import Clock, rfc3339
from toe_async.lib.tasks import TaskOwner
from toe_async.sandbox import apiservices, proxying
from toe_async.sandbox.apiservices import LOCAL, Backend, Condition, Served
from toe_async.sandbox.certificates import KeyPair
from toe_async.sandbox.probing import DISCOVERY_SECONDS, Prober
from toe_async.sandbox.rbac import User
from toe_async.sandbox.resources import APISERVICES, ENDPOINT_SLICES, SERVICES, Resource
from toe_async.sandbox.status import JsonObject
from toe_async.sandbox.store import Change, Key
from toe_async.sandbox.verbs import Verbs


class Aggregator:
    """Knows the backends, checks them and passes requests on to them. Made by `aggregating`."""

    def __init__(
        self,
        verbs: Verbs,
        clock: Clock,
        rng: random.Random,
        session: aiohttp.ClientSession,
        front_proxy: KeyPair,
        *,
        request_seconds: float,
        check_seconds: float,
    ) -> None:
        self._verbs = verbs
        self._store = verbs.store
        self._clock = clock
        self._rng = rng
        self._session = session
        self._prober = Prober(verbs, rng, session, front_proxy)
        self._request_seconds = request_seconds
        self._check_seconds = check_seconds
        self._served: dict[str, Served] = {}
        self._due: dict[str, float] = {}
        self._waits: dict[str, Backoff] = {}
        self._checking: set[str] = set()
        self._woken = asyncio.Event()
        self._store.listeners.append(self._note)

    def find(self, group: str, version: str) -> Backend | None:
        """The backend of a group and version; None when they are served here, or not at all."""
        item = self._store.get(APISERVICES, Key("", f"{version}.{group}"))
        return None if item is None else apiservices.backend(item.obj)

    def served(self) -> list[Served]:
        """What discovery tells, by the priorities of groups and versions."""
        found = []
        for item in self._store.collection(APISERVICES).items.values():
            if (one := apiservices.backend(item.obj)) is not None:
                held = self._served.get(one.name)
                resources, fresh, openapi = (held.resources, held.fresh, held.openapi) if held else ([], False, False)
                found.append(Served(one, resources, fresh, openapi))
        return sorted(found, key=lambda held: (-held.backend.group_priority, held.backend.group,
                                               -held.backend.version_priority, held.backend.version))  # fmt: skip

    async def proxy(
        self, request: web.Request, one: Backend, user: User, *, long_running: bool = False, discovery: bool = False
    ) -> web.StreamResponse:
        """Pass an authorized request on. Raises as `proxying.forward` does."""
        item = self._store.get(APISERVICES, Key("", one.name))
        if item is None or not apiservices.available(item.obj):
            return proxying.unavailable("service unavailable")
        target = await self._prober.target(one)
        if target is None:
            return proxying.unavailable("service unavailable")
        seconds = min(DISCOVERY_SECONDS, self._request_seconds) if discovery else self._request_seconds
        return await proxying.forward(request, self._session, target, user, None if long_running else seconds)

    async def run(self) -> None:
        """Check what is due until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._woken.clear()
                now = self._clock.monotonic()
                idle = {name: due for name, due in self._due.items() if name not in self._checking}
                for name in [name for name, due in idle.items() if due <= now]:
                    del idle[name]
                    self._due[name] = now + self._check_seconds
                    self._checking.add(name)
                    group.create_task(self._check(name), name=f"check {name}")
                try:
                    async with asyncio.timeout(min(idle.values()) - now if idle else None):
                        await self._woken.wait()
                except TimeoutError:
                    continue

    def _note(self, resource: Resource, change: Change) -> None:
        key, obj = change.item.key, change.item.obj
        if resource is APISERVICES:
            if change.type == "DELETED":
                self._served.pop(key.name, None)
                self._due.pop(key.name, None)
                self._waits.pop(key.name, None)
            elif change.old is None or change.old.obj["spec"] != obj["spec"]:
                self._wake(key.name)
        elif resource is SERVICES:
            self._wake_users(key)
        elif resource is ENDPOINT_SLICES:
            labels = obj["metadata"].get("labels") or {}
            self._wake_users(Key(key.namespace, labels.get(apiservices.SERVICE_LABEL, "")))

    def _wake_users(self, service: Key) -> None:
        for item in self._store.collection(APISERVICES).items.values():
            reference = item.obj["spec"].get("service") or {}
            if (reference.get("namespace"), reference.get("name")) == service:
                self._wake(item.key.name)

    def _wake(self, name: str) -> None:
        self._due[name] = 0.0
        self._woken.set()

    async def _check(self, name: str) -> None:
        """One check, one at a time for each APIService."""
        try:
            await self._look(name)
        finally:
            self._checking.discard(name)
            self._woken.set()

    async def _look(self, name: str) -> None:
        item = self._store.get(APISERVICES, Key("", name))
        if item is None:
            self._due.pop(name, None)
            return
        one = apiservices.backend(item.obj)
        if one is None:
            self._served.pop(name, None)
            self._write(name, LOCAL)
            return
        found = await self._prober.check(one)
        # Discovery comes first, so that who waits for the condition finds the resources at once.
        known = await self._prober.discover(one) if found.status == "True" else None
        now = self._store.get(APISERVICES, Key("", name))
        if now is None or now.obj["spec"] != item.obj["spec"]:  # a check of what it is now follows
            return
        if known is not None:
            self._served[name] = known
        elif (held := self._served.get(name)) is not None:
            self._served[name] = msgspec.structs.replace(held, fresh=False)
        self._write(name, found)
        waits = self._waits.setdefault(name, Backoff(0.05, self._check_seconds, jitter=0.1, rng=self._rng.random))
        if found.reason == "FailedDiscoveryCheck":
            self._due[name] = min(self._due.get(name, 0.0), self._clock.monotonic() + waits.next())
        else:
            waits.reset()

    def _write(self, name: str, found: Condition) -> None:
        def change(obj: JsonObject) -> JsonObject:
            status = obj.get("status") or {}
            held = [one for one in status.get("conditions") or () if one["type"] == "Available"]
            said = {"type": "Available", **msgspec.structs.asdict(found)}
            kept = bool(held) and held[0]["status"] == found.status
            since = held[0]["lastTransitionTime"] if kept else rfc3339(self._clock.now())
            return {**obj, "status": {**status, "conditions": [{**said, "lastTransitionTime": since}]}}

        self._verbs.write_status(APISERVICES, Key("", name), change)


@asynccontextmanager
async def aggregating(
    verbs: Verbs,
    clock: Clock,
    rng: random.Random,
    front_proxy: KeyPair,
    on_error: Callable[[str, BaseException], None],
    *,
    request_seconds: float,
    check_seconds: float,
) -> AsyncIterator[Aggregator]:
    """An aggregator whose checks run until the context is left; `on_error` hears when they end before."""
    # A connection serves one request: nothing is ever sent on one that its backend has just closed.
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
    # Headers are the client's own, and a packed body stays packed.
    skipped = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, auto_decompress=False, skip_auto_headers=skipped
    ) as session:
        aggregator = Aggregator(
            verbs, clock, rng, session, front_proxy, request_seconds=request_seconds, check_seconds=check_seconds
        )
        async with TaskOwner(on_error) as tasks:
            tasks.start(aggregator.run(), name="sandbox aggregation")
            yield aggregator
