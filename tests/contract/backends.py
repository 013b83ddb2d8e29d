"""A backend for aggregated APIs: a TLS server of this process that the API server under test finds by an EndpointSlice.

It serves one kind, Thing, and remembers what it was asked, so that a test sees what a proxied request looks like there.
"""

import asyncio
import base64
import hashlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit

from aiohttp import web

from tests.contract.clusters import JSON, Answer, Server
from toe_async.sandbox.certificates import Authority, KeyPair, server_context

APISERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
VERSION = "v1alpha1"
SERVICE = "backend"
_CLUSTERS_OWN = ("system:kube-", "system:aggregator", "system:apiserver", "system:serviceaccount:kube-system:")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CONTENT = bytes(range(256)) * 4096


class Seen:
    """One request as it arrived."""

    def __init__(self, request: web.Request) -> None:
        self.method = request.method
        self.path = request.path
        self.query = dict(request.query)
        self.headers = request.headers.copy()
        held = request.transport.get_extra_info("peercert") if request.transport is not None else None
        pairs = [pair for relative in (held or {}).get("subject", ()) for pair in relative]
        self.certified = next((value for kind, value in pairs if kind == "commonName"), "")

    @property
    def user(self) -> str:
        return self.headers.get("X-Remote-User", "")


class Backend:
    """What the server answers can be changed while it runs.

    `healthy` and `discovery` are about the list of its resources, `more` adds subresources of things.
    """

    def __init__(self, group: str, authority: Authority) -> None:
        self.group = group
        self.authority = authority
        self.address = ""
        self.port = 0
        self.healthy = True
        self.seen: list[Seen] = []
        self.go_on = asyncio.Event()
        self.discovery: Handler = self._discovery
        self.more: dict[str, Handler] = {}

    @property
    def base(self) -> str:
        return f"/apis/{self.group}/{VERSION}"

    @property
    def apiservice(self) -> str:
        return f"{VERSION}.{self.group}"

    def things(self, namespace: str, name: str = "", sub: str = "") -> str:
        parts = [f"{self.base}/namespaces/{namespace}/things", name, sub]
        return "/".join(part for part in parts if part)

    def of_users(self) -> list[Seen]:
        """What came for somebody else than the cluster's own parts."""
        return [one for one in self.seen if not one.user.startswith(_CLUSTERS_OWN)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(Seen(request))
        parts = request.path.strip("/").split("/")
        match parts:
            case ["apis", self.group, version] if version == VERSION:
                return await self.discovery(request)
            case ["openapi", "v3"]:
                return web.json_response({"paths": {self.base[1:]: {"serverRelativeURL": f"/openapi/v3{self.base}"}}})
            case ["openapi", "v3", *rest] if "/" + "/".join(rest) == self.base:
                return web.json_response(self._openapi())
            case ["apis", self.group, _, "namespaces", namespace, "things", *rest]:
                return await self._things(request, namespace, rest)
        return web.json_response(_status(404, "NotFound", "nothing is served there"), status=404)

    async def _discovery(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._resources()) if self.healthy else web.Response(status=500)

    async def _things(self, request: web.Request, namespace: str, rest: list[str]) -> web.StreamResponse:
        match rest:
            case []:
                return web.json_response(self._list(request, namespace))
            case ["missing"]:
                return web.json_response(_status(404, "NotFound", 'things "missing" not found'), status=404)
            case ["held"]:
                return web.json_response(_status(409, "Conflict", "it is held"), status=409, headers={"X-Own": "kept"})
            case [name]:
                return web.json_response(self._thing(namespace, name))
            case [_, "content"] if request.method in {"GET", "HEAD"}:
                return self._content(request)
            case [_, "content"]:
                digest = hashlib.sha256()
                async for piece in request.content.iter_any():
                    digest.update(piece)
                return web.json_response({"sha256": digest.hexdigest()}, status=201)
            case [_, "log" | "slow"]:
                return await self._slow(request)
            case [_, sub] if sub in self.more:
                return await self.more[sub](request)
        raise AssertionError(f"nobody asks for {request.path}")

    def _content(self, request: web.Request) -> web.Response:
        found, status = CONTENT * int(request.query.get("times", "1")), 200
        headers = {
            "ETag": '"e"',
            "Content-Type": "application/octet-stream",
            "Content-Disposition": "attachment",
            "Cache-Control": "private",
            "Access-Control-Allow-Origin": "*",
        }
        if "Range" in request.headers:
            piece = request.http_range
            headers["Content-Range"] = f"bytes {piece.start}-{piece.stop - 1}/{len(found)}"
            found, status = found[piece], 206
        return web.Response(body=found, status=status, headers=headers)

    async def _slow(self, request: web.Request) -> web.StreamResponse:
        """A first piece at once, the rest when the test says so."""
        response = web.StreamResponse(headers={"Content-Length": "12"} if "sized" in request.query else None)
        await response.prepare(request)
        await response.write(b"first ")
        await self.go_on.wait()
        await response.write(b"second")
        await response.write_eof()
        return response

    def _thing(self, namespace: str, name: str) -> JSON:
        made = datetime(2026, 1, 1, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        meta = {"name": name, "namespace": namespace, "creationTimestamp": made}
        return {"apiVersion": f"{self.group}/{VERSION}", "kind": "Thing", "metadata": meta}

    def _list(self, request: web.Request, namespace: str) -> JSON:
        one = self._thing(namespace, "one")
        if "as=Table" in request.headers.get("Accept", ""):
            columns = [{"name": name, "type": "string", "format": "", "description": "", "priority": 0}
                       for name in ("Name", "Color")]  # fmt: skip
            rows = [{"cells": ["one", "green"], "object": {**one, "kind": "PartialObjectMetadata",
                                                           "apiVersion": "meta.k8s.io/v1"}}]  # fmt: skip
            head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "1"}}
            return {**head, "columnDefinitions": columns, "rows": rows}
        head = {"kind": "ThingList", "apiVersion": f"{self.group}/{VERSION}", "metadata": {"resourceVersion": "1"}}
        return {**head, "items": [one]}

    def _resources(self) -> JSON:
        def entry(name: str, verbs: list[str], **more: object) -> JSON:
            return {"name": name, "singularName": "", "namespaced": True, "kind": "Thing", "verbs": verbs, **more}

        listed = [
            # Without `delete`, or the namespace controller of a real cluster would wait for things to go.
            entry("things", ["get", "list"], shortNames=["th"], categories=["toys"], singularName="thing"),
            entry("things/content", ["get", "create"]),
            entry("things/log", ["get"]),
        ]
        head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{self.group}/{VERSION}"}
        return {**head, "resources": listed}

    def _openapi(self) -> JSON:
        kind = {"group": self.group, "version": VERSION, "kind": "Thing"}
        color = {"type": "string", "description": "Which color a thing has."}
        schema = {"type": "object", "description": "Thing is for tests.", "properties": {"color": color}}
        operation = {
            "x-kubernetes-group-version-kind": kind,
            "x-kubernetes-action": "list",
            "responses": {"200": {"description": "OK"}},
        }
        return {
            "openapi": "3.0.0",
            "info": {"title": "things", "version": VERSION},
            "paths": {f"{self.base}/namespaces/{{namespace}}/things": {"get": operation}},
            "components": {"schemas": {"run.toe.Thing": {**schema, "x-kubernetes-group-version-kind": [kind]}}},
        }


def _status(code: int, reason: str, message: str) -> JSON:
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**head, "message": message, "reason": reason, "code": code}


@asynccontextmanager
async def backend(server: Server, names: tuple[str, ...] = ()) -> AsyncIterator[Backend]:
    """Run a backend whose certificate is for the Service of the test's namespace, or for other names."""
    authority = Authority("contract authority", datetime.now(UTC))
    pair = authority.server(SERVICE, names or (f"{SERVICE}.{server.namespace}.svc",))
    held = Backend(f"{server.namespace}.toe.run", authority)
    path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
    front_proxies = (await server.call("GET", path)).body["data"]["requestheader-client-ca-file"]
    async with _listening(held, server, pair, front_proxies.encode()):
        yield held


@asynccontextmanager
async def _listening(held: Backend, server: Server, pair: KeyPair, front_proxies: bytes) -> AsyncIterator[None]:
    context = await asyncio.to_thread(server_context, pair, front_proxies)
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", held.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    try:
        held.address = _own_address(server.url)
        site = web.TCPSite(runner, held.address, 0, ssl_context=context)
        await site.start()
        held.port = runner.addresses[0][1]
        yield
    finally:
        await runner.cleanup()


def _own_address(url: str) -> str:
    """The address that this machine shows to the API server, and by which it is reached from there."""
    at = urlsplit(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((at.hostname, at.port))
        return str(probe.getsockname()[0])


def service(port: int = 443) -> JSON:
    return {"metadata": {"name": SERVICE}, "spec": {"ports": [{"name": "https", "port": port}]}}


def endpoints(held: Backend, *, ready: bool = True) -> JSON:
    return {
        "metadata": {"name": SERVICE, "labels": {"kubernetes.io/service-name": SERVICE}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [held.address], "conditions": {"ready": ready}}],
        "ports": [{"name": "https", "port": held.port, "protocol": "TCP"}],
    }


def apiservice(held: Backend, server: Server, **spec: object) -> JSON:
    """An APIService; `spec` replaces fields, and one that is None is left out."""
    whole = {
        "group": held.group,
        "version": VERSION,
        "service": {"namespace": server.namespace, "name": SERVICE},
        "caBundle": base64.b64encode(held.authority.certificate).decode(),
        "groupPriorityMinimum": 1000,
        "versionPriority": 15,
        **spec,
    }
    given = {name: value for name, value in whole.items() if value is not None}
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": held.apiservice},
        "spec": given,
    }


async def register(server: Server, held: Backend, reason: str = "Passed", **spec: object) -> None:
    """Register a backend and wait until its condition has a reason; none is waited for when it is empty."""
    await server.make(server.core("services"), service())
    await server.make(SLICES.format(server.namespace), endpoints(held))
    await server.make_cluster_wide(APISERVICES, apiservice(held, server, **spec))
    if reason:
        await available(server, held, reason)


async def reachable(server: Server, held: Backend) -> None:
    """Wait until requests arrive: the part of a real API server that proxies learns of the condition a moment later."""
    await server.eventually(lambda: server.call("GET", held.base), lambda one: one.status == 200)
    held.seen.clear()


async def available(server: Server, held: Backend, reason: str) -> JSON:
    """Wait until the condition Available has a reason; returns the condition."""
    found = await server.until(f"{APISERVICES}/{held.apiservice}", lambda one: condition(one).get("reason") == reason)
    return condition(found)


def condition(obj: JSON) -> JSON:
    held = [one for one in obj.get("status", {}).get("conditions", ()) if one["type"] == "Available"]
    return held[0] if held else {}


async def allow(server: Server, held: Backend, account: str, resources: list[str], verbs: list[str]) -> None:
    """Let a service account of the test's namespace do something with the backend's resources in that namespace."""
    at = f"{RBAC}/namespaces/{server.namespace}"
    rules = [{"apiGroups": [held.group], "resources": resources, "verbs": verbs}]
    await server.make(f"{at}/roles", {"metadata": {"name": account}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": account, "namespace": server.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
    binding = {"metadata": {"name": account}, "subjects": [subject], "roleRef": reference}
    await server.make(f"{at}/rolebindings", binding)


async def group_of(server: Server, held: Backend, form: str) -> JSON:
    """The backend's group in aggregated discovery, once it is there with its resources."""

    async def ask() -> Answer:
        return await server.call("GET", "/apis", accept=f"{form},application/json")

    def mine(answer: Answer) -> JSON:
        found = [one for one in answer.body["items"] if one["metadata"]["name"] == held.group]
        return found[0] if found else {"versions": []}

    answer = await server.eventually(ask, lambda one: any(held.get("resources") for held in mine(one)["versions"]))
    return mine(answer)
