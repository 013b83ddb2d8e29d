"""The sandbox's API server without its sockets: its rules hold, every write is on record, and time may be virtual."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, NamedTuple

import msgspec

from toe_async.apis.crd import all_crds
from toe_async.kube.errors import KubeError, parse_error
from toe_async.kube.requests import Request
from toe_async.lib.clock import Clock
from toe_async.sandbox import bodies, cel, crds, listing
from toe_async.sandbox.admission import Admission
from toe_async.sandbox.patches import BY_TYPE
from toe_async.sandbox.resources import NAMESPACES, Registry, Resource
from toe_async.sandbox.routes import Route, route
from toe_async.sandbox.selection import selection
from toe_async.sandbox.status import JsonObject, Refusal, method_not_allowed, no_such_path, not_found
from toe_async.sandbox.store import Change, Key, Store, whole
from toe_async.sandbox.verbs import Verbs, Written
from toe_async.sandbox.watching import Watch, line

_NEVER = 1e9
cel.warm_up()  # reads files, which no test on a loop may do


class Call(NamedTuple):
    """One request that was answered."""

    verb: str
    resource: str
    namespace: str
    name: str
    body: Any

    @property
    def is_write(self) -> bool:
        return self.verb in {"create", "patch", "update", "delete"}


Answer = Callable[[Request], bytes | None]


class DirectApi:
    """A client's `send` and `stream` over the sandbox's verbs.

    `calls` holds all requests but reads of collections, `changes` every version that was written. `before` may raise a
    KubeError in the place of an answer, `after` in the place of the answer to a write that was made: a lost reply.
    `computed` answers for what is no stored resource. `seconds` is how long an answer takes, `lag` by how many
    seconds watches are behind.
    """

    def __init__(self, clock: Clock) -> None:
        store, registry = Store(10_000), Registry()
        self.store, self.registry = store, registry
        self.verbs = Verbs(store, registry, Admission(store), clock, random.Random(7))
        self.calls: list[Call] = []
        self.changes: list[Change] = []
        self.before: Callable[[Call], KubeError | None] = lambda call: None
        self.after: Callable[[Call], KubeError | None] = lambda call: None
        self.computed: Answer = lambda request: None
        self.seconds = self.lag = 0.0
        self._end = asyncio.Event()
        store.listeners.append(lambda resource, change: self.changes.append(change))

    def install(self, *namespaces: str) -> None:
        """Make namespaces and serve our kinds."""
        for name in namespaces:
            self.verbs.create(NAMESPACES, "", {"metadata": {"name": name}})
        for resource in _our_kinds():
            self.registry.add(resource)

    @property
    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.is_write]

    def resource(self, plural: str) -> Resource:
        (found,) = (one for one in self.registry if one.plural == plural and not one.virtual)
        return found

    def create(self, plural: str, namespace: str, body: JsonObject) -> JsonObject:
        return self.verbs.create(self.resource(plural), namespace, body).item.obj

    def change(self, plural: str, namespace: str, name: str, patch: JsonObject, *, subresource: str = "") -> JsonObject:
        """Merge a patch as somebody else would; that is no call of ours."""
        key = Key(namespace, name)
        merge = BY_TYPE["application/merge-patch+json"]
        return self.verbs.update(
            self.resource(plural), key, lambda live: merge(live, patch), subresource=subresource
        ).item.obj

    def delete(self, plural: str, namespace: str, name: str, *, at_once: bool = False) -> None:
        options = bodies.delete_options(b"", "", {"gracePeriodSeconds": "0"} if at_once else {})
        self.verbs.delete(self.resource(plural), Key(namespace, name), options)

    def get(self, plural: str, namespace: str, name: str) -> JsonObject | None:
        held = self.store.get(self.resource(plural), Key(namespace, name))
        return held.obj if held is not None else None

    # ---- a client ------------------------------------------------------------------------------------------------

    async def send(self, request: Request) -> bytes:
        await asyncio.sleep(self.seconds)
        asked = self._asked(request)
        call = Call(
            asked.verb,
            "/".join(part for part in (asked.resource, asked.subresource) if part),
            asked.namespace,
            asked.name,
            msgspec.json.decode(request.body) if request.body else None,
        )
        self.calls.append(call)
        if (error := self.before(call)) is not None:
            raise error
        if (answer := self.computed(request)) is not None:
            return answer
        try:
            body = self._answer(request, asked)
        except Refusal as refused:
            raise parse_error(refused.code, msgspec.json.encode(refused.body()), request=str(request)) from refused
        await asyncio.sleep(self.seconds)
        if (error := self.after(call)) is not None:
            raise error
        return body

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[bytes]]:
        await asyncio.sleep(0)
        asked, query = self._asked(request), dict(request.query)
        try:
            resource = self._resource(asked)
            want = listing.options(query)
            selected = selection(resource, want.labels, want.fields)
            if asked.verb == "list":
                page = listing.page(self.store, resource, asked.scope, want, selected)
                chunks = _once(listing.encode_list(resource, resource.api_version, resource.list_kind, page))
            else:
                watch = Watch(
                    resource=resource,
                    namespace=asked.scope,
                    want=want,
                    selected=selected,
                    render=lambda kind, item: line(kind, whole(resource, item.raw)),
                    bookmark_seconds=30.0,
                    timeout_seconds=want.timeout_seconds or _NEVER,
                )
                chunks = watch.events(self.store, self._end)
        except Refusal as refused:
            raise parse_error(refused.code, msgspec.json.encode(refused.body()), request=str(request)) from refused
        try:
            yield self._late(chunks)
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]

    async def _late(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            await asyncio.sleep(self.lag)
            yield chunk

    def _asked(self, request: Request) -> Route:
        return route(request.method, request.target.partition("?")[0], dict(request.query))

    def _resource(self, asked: Route) -> Resource:
        found = self.registry.find(asked.group, asked.version, asked.resource)
        if found is None:
            raise no_such_path()
        return found

    def _answer(self, request: Request, asked: Route) -> bytes:
        resource, key = self._resource(asked), Key(asked.scope, asked.name)
        raw = request.body or b""
        match asked.verb:
            case "get":
                held = self.store.get(resource, key)
                if held is None:
                    raise not_found(resource.group, resource.plural, key.name)
                return whole(resource, held.raw)
            case "list":
                want = listing.options(dict(request.query))
                page = listing.page(self.store, resource, asked.scope, want, selection(resource, want.labels, ""))
                return listing.encode_list(resource, resource.api_version, resource.list_kind, page)
            case "create":
                written = self.verbs.create(resource, asked.scope, bodies.decode(raw, request.content_type, ""))
            case "patch":
                written = self._patch(request, resource, key, asked.subresource)
            case "delete":
                options = bodies.delete_options(raw, request.content_type, dict(request.query))
                return whole(resource, self.verbs.delete(resource, key, options)[0].raw)
            case _:
                raise method_not_allowed()
        return whole(resource, written.item.raw)

    def _patch(self, request: Request, resource: Resource, key: Key, subresource: str) -> Written:
        kind, patch = bodies.patch(request.body or b"", request.content_type, resource)
        return self.verbs.update(resource, key, lambda live: BY_TYPE[kind](live, patch), subresource=subresource)


@cache
def _our_kinds() -> tuple[Resource, ...]:
    """What our CRDs define; their rules are compiled once for all tests."""
    found: list[Resource] = []
    for crd in all_crds():
        crds.default(crd)
        found += crds.resources(crd)
    return tuple(found)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
