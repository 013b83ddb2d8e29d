"""The API server's HTTP: who asks, may they, and which answer in which form.

Everything that decides lives in other modules; here a request is taken apart, handed on, and its answer written.
Subresources that reach into pods (log, portforward, attach, exec) and computed resources (metrics) are plugged in by
the cluster.
"""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from toe_async.lib.clock import Clock
from toe_async.sandbox import bodies, discovery, listing, tables
from toe_async.sandbox.aggregation import Aggregator
from toe_async.sandbox.apply import Applier, apply
from toe_async.sandbox.patches import APPLY, BY_TYPE
from toe_async.sandbox.proxying import is_long_running
from toe_async.sandbox.rbac import ANONYMOUS, MASTERS, Attributes, User, authorize, refusal
from toe_async.sandbox.resources import PODS, Resource
from toe_async.sandbox.reviews import Reviews
from toe_async.sandbox.routes import Route, route
from toe_async.sandbox.selection import selection
from toe_async.sandbox.status import (
    JsonObject,
    Refusal,
    bad_request,
    forbidden,
    method_not_allowed,
    no_such_path,
    not_found,
    unauthorized,
)
from toe_async.sandbox.store import Item, Key, whole
from toe_async.sandbox.tokens import Rejected, Tokens
from toe_async.sandbox.verbs import Context, Verbs, Written
from toe_async.sandbox.watching import Watch, line

Connector = Callable[[web.Request, Route], Awaitable[web.StreamResponse]]
Computed = Callable[[Resource, Route, Callable[[JsonObject], bool]], JsonObject]

_TABLE = "as=Table"
_PARTIAL = "as=PartialObjectMetadata"
_UPGRADED = frozenset({"attach", "exec", "portforward"})
_HEALTH = frozenset({"/healthz", "/livez", "/readyz"})


class ApiServer:
    """Answers one request at a time from the store. `connectors` serve subresources, `computed` serves whole groups."""

    def __init__(
        self,
        verbs: Verbs,
        tokens: Tokens,
        aggregator: Aggregator,
        clock: Clock,
        *,
        bookmark_seconds: float,
        rng: random.Random,
    ) -> None:
        self._verbs = verbs
        self._store = verbs.store
        self._registry = verbs.registry
        self._tokens = tokens
        self._aggregator = aggregator
        self._reviews = Reviews(verbs.store, tokens)
        self._clock = clock
        self._bookmark_seconds = bookmark_seconds
        self._rng = rng
        self._streams_end = asyncio.Event()
        self.connectors: dict[str, Connector] = {}
        self.computed: dict[str, Computed] = {}

    def end_streams(self) -> None:
        """End every open watch, as a server that shuts down does; later ones are served again."""
        self._streams_end.set()
        self._store.wake_watchers()
        self._streams_end = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The one handler of the server."""
        try:
            user = self._authenticate(request)
            asked = route(request.method, request.rel_url.raw_path, dict(request.query))
            self._authorize(user, asked)
            if asked.path:
                return await self._path(request, asked, user)
            if (backend := self._aggregator.find(asked.group, asked.version)) is not None:
                endless = is_long_running(asked.verb, asked.subresource)
                return await self._aggregator.proxy(request, backend, user, long_running=endless)
            return await self._resource(request, asked, user)
        except Refusal as refused:
            return _respond(msgspec.json.encode(refused.body()), status=refused.code)

    def _authenticate(self, request: web.Request) -> User:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if (certified := _certified(request)) is not None:
            user = certified
        elif not token:
            user = ANONYMOUS
        elif scheme.lower() != "bearer":
            raise unauthorized()
        else:
            try:
                user = self._tokens.check(token.strip()).user
            except Rejected as rejected:
                raise unauthorized() from rejected
        impersonated = request.headers.get("Impersonate-User")
        if not impersonated:
            return user
        want = Attributes("impersonate", "", "users", name=impersonated)
        if not authorize(self._store, user, want).allowed:
            raise refusal(user, want)
        groups = [*request.headers.getall("Impersonate-Group", ()), "system:authenticated"]
        if impersonated.startswith("system:serviceaccount:"):
            groups += ["system:serviceaccounts", f"system:serviceaccounts:{impersonated.split(':')[2]}"]
        return User(impersonated, groups=tuple(groups))

    def _authorize(self, user: User, asked: Route) -> None:
        if MASTERS in user.groups:
            return
        want = asked.attributes()
        if not authorize(self._store, user, want).allowed:
            raise refusal(user, want)
        if asked.verb == "get" and asked.subresource in _UPGRADED:  # since 1.35 `create` beside a websocket's `get`
            creating = msgspec.structs.replace(want, verb="create")
            if not authorize(self._store, user, creating).allowed:
                raise forbidden("", "pods", asked.name, "")

    async def _path(self, request: web.Request, asked: Route, user: User) -> web.StreamResponse:
        match asked.path.strip("/").split("/"):
            case ["apis", group, version] | ["openapi", "v3", "apis", group, version]:
                if (backend := self._aggregator.find(group, version)) is not None:
                    return await self._aggregator.proxy(request, backend, user, discovery=True)
        if asked.verb not in {"get", "head"}:
            raise method_not_allowed()
        if asked.path in _HEALTH:
            return web.Response(text="ok")
        remote = self._aggregator.served()
        found = discovery.answer(self._registry, remote, asked.path, request.headers.get("Accept", ""))
        if found is None:
            return web.Response(status=404, text="404 page not found\n")
        form = f"application/json;g={discovery.AGGREGATED};v=v2;as=APIGroupDiscoveryList"
        aggregated = found.get("kind") == "APIGroupDiscoveryList"
        return _respond(msgspec.json.encode(found), form=form if aggregated else "application/json")

    async def _resource(self, request: web.Request, asked: Route, user: User) -> web.StreamResponse:
        resource = self._registry.find(asked.group, asked.version, asked.resource)
        if resource is None:
            path = request.rel_url.raw_path
            found = discovery.answer(self._registry, (), path, "") if request.method == "GET" else None
            if found is not None:
                return _respond(msgspec.json.encode(found))
            if asked.group:
                return web.Response(status=404, text="404 page not found\n")
            raise no_such_path()
        if asked.subresource and asked.subresource not in resource.subresources:
            raise no_such_path()
        if connector := self.connectors.get(asked.subresource):
            return await connector(request, asked)
        if resource.virtual:
            return await self._virtual(request, resource, asked, user)
        if not asked.subresource and asked.verb not in resource.verbs:
            raise method_not_allowed()
        match asked.verb:
            case "get":
                return self._get(request, resource, asked)
            case "list" | "watch":
                return await self._collection(request, resource, asked)
            case "create":
                return await self._create(request, resource, asked, user)
            case "update" | "patch":
                return await self._change(request, resource, asked, user)
            case "delete" | "deletecollection" if not asked.subresource:
                return await self._delete(request, resource, asked, user)
        raise method_not_allowed()

    async def _virtual(self, request: web.Request, resource: Resource, asked: Route, user: User) -> web.StreamResponse:
        if compute := self.computed.get(resource.group):
            if asked.verb not in resource.verbs:
                raise method_not_allowed()
            selected = selection(resource, request.query.get("labelSelector", ""), "")
            return _respond(msgspec.json.encode(compute(resource, asked, selected)))
        if asked.verb != "create":
            raise method_not_allowed()
        body = bodies.decode(await _read(request), request.content_type, resource.kind)
        answer = self._reviews.answer(resource, body, user, self._verbs.now())
        return _respond(msgspec.json.encode(answer), status=201)

    def _get(self, request: web.Request, resource: Resource, asked: Route) -> web.StreamResponse:
        item = self._store.get(resource, Key(asked.scope, asked.name))
        if item is None:
            raise not_found(resource.group, resource.plural, asked.name)
        return self._one(request, resource, item)

    def _one(
        self, request: web.Request, resource: Resource, item: Item, status: int = 200, warnings: tuple[str, ...] = ()
    ) -> web.StreamResponse:
        accept = request.headers.get("Accept", "")
        if _TABLE in accept:
            meta = {"resourceVersion": str(item.revision)}
            include = request.query.get("includeObject", "Metadata")
            body = tables.table(resource, [item.obj], meta, self._clock.now(), include=include)
        elif _PARTIAL in accept:
            body = msgspec.json.encode(tables.partial(item.obj))
        else:
            body = whole(resource, item.raw)
        return _respond(body + b"\n", status=status, warnings=warnings)

    async def _collection(self, request: web.Request, resource: Resource, asked: Route) -> web.StreamResponse:
        want = listing.options(dict(request.query))
        selected = selection(resource, want.labels, want.fields)
        if asked.verb == "watch":
            return await self._watch(request, resource, asked, want)
        found = listing.page(self._store, resource, asked.scope, want, selected)
        accept = request.headers.get("Accept", "")
        if _TABLE in accept:
            meta = {"resourceVersion": str(found.revision), **({"continue": found.token} if found.token else {})}
            include = request.query.get("includeObject", "Metadata")
            objects = [item.obj for item in found.items]
            return _respond(tables.table(resource, objects, meta, self._clock.now(), include=include))
        if _PARTIAL in accept:
            items = [tables.partial(item.obj) for item in found.items]
            meta = {"resourceVersion": str(found.revision)}
            kind = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            return _respond(msgspec.json.encode({**kind, "metadata": meta, "items": items}))
        return _respond(listing.encode_list(resource, resource.api_version, resource.list_kind, found))

    async def _watch(
        self, request: web.Request, resource: Resource, asked: Route, want: listing.ListOptions
    ) -> web.StreamResponse:
        as_table = _TABLE in request.headers.get("Accept", "")
        include = request.query.get("includeObject", "Metadata")
        first = True

        def render(kind: str, item: Item) -> bytes:
            nonlocal first
            if not as_table:
                return line(kind, whole(resource, item.raw))
            meta = {"resourceVersion": str(item.revision)}
            header, first = first, False
            body = tables.table(resource, [item.obj], meta, self._clock.now(), include=include, header=header)
            return line(kind, body)

        watch = Watch(
            resource=resource,
            namespace=asked.scope,
            want=want,
            selected=selection(resource, want.labels, want.fields),
            render=render,
            bookmark_seconds=self._bookmark_seconds,
            timeout_seconds=want.timeout_seconds or 1800 * (1 + self._rng.random()),
        )
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        stop = self._streams_end
        events = watch.events(self._store, stop)
        try:
            await response.prepare(request)
            async for event in events:
                await response.write(event)
        finally:
            await events.aclose()  # type: ignore[attr-defined]
        await response.write_eof()
        return response

    async def _create(self, request: web.Request, resource: Resource, asked: Route, user: User) -> web.StreamResponse:
        if asked.subresource == "token":
            return await self._issue_token(request, asked)
        if asked.name:
            raise method_not_allowed()
        if resource.namespaced and not asked.namespace:
            raise method_not_allowed()
        body = bodies.decode(await _read(request), request.headers.get("Content-Type", ""), resource.kind)
        written = self._verbs.create(resource, asked.scope, body, _context(request, user))
        return self._written(request, resource, written)

    async def _issue_token(self, request: web.Request, asked: Route) -> web.StreamResponse:
        body = bodies.decode(await _read(request), request.headers.get("Content-Type", ""), "TokenRequest")
        complete = self._tokens.issue(asked.namespace, asked.name, body.get("spec") or {})
        meta = {"name": asked.name, "namespace": asked.namespace, "creationTimestamp": self._verbs.now()}
        answer = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": meta, **complete}
        return _respond(msgspec.json.encode(answer), status=201)

    async def _change(self, request: web.Request, resource: Resource, asked: Route, user: User) -> web.StreamResponse:
        raw, key = await _read(request), Key(asked.scope, asked.name)
        context = _context(request, user)
        if not asked.name:
            raise method_not_allowed()
        content_type = request.headers.get("Content-Type", "")
        if asked.verb == "update":
            body = bodies.decode(raw, content_type, resource.kind)
            written = self._verbs.update(
                resource, key, lambda _: body, context, subresource=asked.subresource, replace=True
            )
            return self._written(request, resource, written)
        kind, patch = bodies.patch(raw, content_type, resource)
        if kind == APPLY:
            by = Applier(
                request.query.get("fieldManager", ""), resource.api_version, request.query.get("force") == "true",
                self._verbs.now(), asked.subresource,
            )  # fmt: skip
            if self._store.get(resource, key) is None and not asked.subresource:
                fresh = apply({"metadata": {"name": asked.name}}, patch, by)
                return self._written(request, resource, self._verbs.create(resource, asked.scope, fresh, context))
            change: Callable[[JsonObject], JsonObject] = lambda live: apply(live, patch, by)  # noqa: E731
        else:
            change = lambda live: BY_TYPE[kind](live, patch)  # noqa: E731
        written = self._verbs.update(resource, key, change, context, subresource=asked.subresource)
        return self._written(request, resource, written)

    async def _delete(self, request: web.Request, resource: Resource, asked: Route, user: User) -> web.StreamResponse:
        options = bodies.delete_options(await _read(request), request.headers.get("Content-Type", ""), request.query)
        context = _context(request, user)
        if asked.verb == "deletecollection":
            want = listing.options({k: v for k, v in request.query.items() if k in {"labelSelector", "fieldSelector"}})
            selected = selection(resource, want.labels, want.fields)
            found = listing.page(self._store, resource, asked.scope, want, selected)
            for item in found.items:
                self._verbs.delete(resource, item.key, options, context)
            return _respond(listing.encode_list(resource, resource.api_version, resource.list_kind, found))
        item, gone = self._verbs.delete(resource, Key(asked.scope, asked.name), options, context)
        if not gone or resource is PODS:
            return self._one(request, resource, item)
        details = {"name": asked.name, "group": asked.group, "kind": asked.resource, "uid": item.obj["metadata"]["uid"]}
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {name: value for name, value in details.items() if value},
        }
        return _respond(msgspec.json.encode(status))

    def _written(self, request: web.Request, resource: Resource, written: Written) -> web.StreamResponse:
        return self._one(request, resource, written.item, 201 if written.created else 200, written.warnings)


def _certified(request: web.Request) -> User | None:
    """Whom a client certificate names: TLS has verified it. None without one or without a common name."""
    transport = request.transport
    held = transport.get_extra_info("peercert") if transport is not None else None
    if not held or transport is None:
        return None
    subject = [pair for relative in held["subject"] for pair in relative]
    name = next((value for kind, value in subject if kind == "commonName"), "")
    if not name:
        return None
    groups = tuple(value for kind, value in subject if kind == "organizationName")
    digest = hashlib.sha256(transport.get_extra_info("ssl_object").getpeercert(binary_form=True)).hexdigest()
    extra = {"authentication.kubernetes.io/credential-id": [f"X509SHA256={digest}"]}
    return User(name, groups=(*groups, "system:authenticated"), extra=extra)


def _context(request: web.Request, user: User) -> Context:
    dry_run = request.query.get("dryRun", "")
    if dry_run not in {"", "All"}:
        raise bad_request(f'dryRun: Unsupported value: "{dry_run}": supported values: "All"')
    return Context(user, bool(dry_run), request.query.get("fieldValidation") or "Warn")


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        message = f"limit is {bodies.LARGEST}"
        raise Refusal(413, "RequestEntityTooLarge", f"Request entity too large: {message}") from error


def _respond(
    body: bytes, *, status: int = 200, form: str = "application/json", warnings: tuple[str, ...] = ()
) -> web.Response:
    response = web.Response(
        body=body, status=status, headers={"Content-Type": form, "Cache-Control": "no-cache, private"}
    )
    for warning in warnings:
        quoted = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{quoted}"')
    return response
