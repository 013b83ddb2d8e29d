"""Starts and stops a whole sandbox, in this process and event loop: store, API server, controllers, kubelet, metrics.

Leaving the context ends everything: streams, tasks, listeners and every process of every pod.
"""

import asyncio
import base64
import json
import random
import secrets
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import yaml
from aiohttp import web
from msgspec import Struct

from toe_async.lib.clock import Clock, SystemClock
from toe_async.lib.tasks import TaskOwner
from toe_async.sandbox import bodies, cel, certificates, rbac
from toe_async.sandbox.admission import Admission
from toe_async.sandbox.aggregation import aggregating
from toe_async.sandbox.certificates import Authority, KeyPair
from toe_async.sandbox.controllers import Controllers
from toe_async.sandbox.endpoints import Endpoints
from toe_async.sandbox.images import Image
from toe_async.sandbox.kubelet import Kubelet
from toe_async.sandbox.remotecommand import RemoteCommands
from toe_async.sandbox.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    NAMESPACES,
    POD_METRICS,
    ROLES,
    SERVICE_ACCOUNTS,
    Registry,
    Resource,
)
from toe_async.sandbox.server import ApiServer
from toe_async.sandbox.status import JsonObject
from toe_async.sandbox.store import Key, Store
from toe_async.sandbox.streams import Streams
from toe_async.sandbox.tokens import ISSUER, Tokens
from toe_async.sandbox.usage import Metrics
from toe_async.sandbox.verbs import Verbs
from toe_async.telemetry import log

_log = log.get(__name__)
_FRONT_PROXY = "front-proxy-client"
_CERTIFIED_PODS = 16


class SandboxSettings(Struct, frozen=True, kw_only=True):
    """What a sandbox can be asked to be. The defaults suit the demo."""

    port: int = 0
    """TCP port on 127.0.0.1; 0 takes a free one."""
    tls: bool = True
    """kubectl sends no token without TLS; benchmarks may do without it."""
    watch_window: int = 10_000
    """Changes per resource that a watch can resume from; older ones are 410."""
    bookmark_seconds: float = 60.0
    """Time between the bookmarks of one watch."""
    metrics_resolution_seconds: float = 2.0
    """How often the processes' CPU and memory are read; metrics-server's own default is 15 s."""
    request_seconds: float = 60.0
    """Longest time for a request to an aggregated API, but for a watch and the subresources log, exec and the like."""
    apiservice_check_seconds: float = 30.0
    """Time between two checks of an APIService that nothing happens to; failed ones are repeated sooner."""
    node_name: str = "sandbox"
    namespaces: tuple[str, ...] = ("default", "kube-system", "kube-public")
    images: tuple[Image, ...] = ()
    """Which images there are, and what stands for their programs; other images are there, with local programs."""


class Sandbox:
    """A running cluster."""

    def __init__(
        self, url: str, authority: Authority, *, verbs: Verbs, tokens: Tokens, server: ApiServer, kubelet: Kubelet
    ) -> None:
        self.url = url
        self.verbs = verbs
        self._authority = authority
        self._tokens = tokens
        self._server = server
        self._kubelet = kubelet

    @property
    def admin_token(self) -> str:
        """The bearer token of the cluster's administrator."""
        return self._tokens.admin_token

    @property
    def certificate_authority(self) -> bytes:
        """PEM of the authority that signed the server's and every client's certificate."""
        return self._authority.certificate

    def service_account_token(self, namespace: str, name: str, audience: str = ISSUER, seconds: int = 3600) -> str:
        """A token of a service account. Raises Refusal when there is no such account."""
        answer = self._tokens.issue(namespace, name, {"audiences": [audience], "expirationSeconds": seconds})
        token: str = answer["status"]["token"]
        return token

    def client_certificate(self, user: str, groups: Sequence[str] = ()) -> KeyPair:
        """A client certificate that this API server takes for a user with these groups."""
        return self._authority.client(user, groups)

    def serving_certificate(self, service: str, namespace: str, hosts: Sequence[str] = ()) -> KeyPair:
        """A server certificate for a Service by all its names and for `hosts`, signed by `certificate_authority`.

        That is so the `caBundle` of an APIService. No name is resolved in the sandbox, so other pods ask for an
        address: the certificate holds for those of the first 16 pods, too, whichever the Service's own is.
        """
        names = [f"{service}{rest}" for rest in ("", f".{namespace}", f".{namespace}.svc")]
        names.append(f"{names[-1]}.cluster.local")
        return self._authority.server(names[2], [*names, *hosts, *self._kubelet.first_addresses(_CERTIFIED_PODS)])

    def write_kubeconfig(self, path: Path, user: str = "admin", groups: Sequence[str] | None = None) -> None:
        """Write a kubeconfig for `admin`, a service account, or with `groups` for whom a client certificate names.

        A service account is named `system:serviceaccount:NAMESPACE:NAME`.

        Raises:
            Refusal: there is no such service account.
            ValueError: a user of neither form without groups, or a client certificate for a server without TLS.
        """
        cluster: JsonObject = {"server": self.url}
        secure = self.url.startswith("https:")
        if groups is not None:
            if not secure:
                raise ValueError("a client certificate needs a sandbox with TLS")
            pair = self.client_certificate(user, groups)
            held = {"client-certificate-data": pair.certificate, "client-key-data": pair.key}
            credential = {name: base64.b64encode(value).decode() for name, value in held.items()}
        else:
            credential = {"token": self._token(user)}
        if secure:
            authority = path.with_suffix(".ca.crt")
            authority.write_bytes(self.certificate_authority)
            cluster["certificate-authority"] = str(authority.resolve())
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "sandbox", "cluster": cluster}],
            "users": [{"name": user, "user": credential}],
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": user}}],
            "current-context": "sandbox",
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config, sort_keys=False))

    def _token(self, user: str) -> str:
        if user == "admin":
            return self.admin_token
        match user.split(":"):
            case ["system", "serviceaccount", namespace, name]:
                return self.service_account_token(namespace, name)
        forms = "neither admin nor system:serviceaccount:NAMESPACE:NAME"
        raise ValueError(f"{user!r} is {forms}; give its groups to make a client certificate")

    def compact(self) -> None:
        """Forget all history and end all watches, as a restart of the real server does: what is older is 410."""
        self.verbs.store.compact()
        self._server.end_streams()


@asynccontextmanager
async def start(settings: SandboxSettings | None = None, clock: Clock | None = None) -> AsyncIterator[Sandbox]:
    """Run a cluster until the context is left."""
    settings, clock = settings or SandboxSettings(), clock or SystemClock()
    rng = random.Random(secrets.randbits(64))  # noqa: S311 names and UIDs, no secrets
    store, registry = Store(settings.watch_window), Registry()
    verbs = Verbs(store, registry, Admission(store), clock, rng)
    tokens = Tokens(store, clock, secrets.token_bytes(32), verbs.new_uid)
    authority, front_proxy = Authority("toe sandbox authority", clock.now()), Authority("front-proxy-ca", clock.now())
    controllers, endpoints = Controllers(verbs), Endpoints(verbs)
    kubelet = Kubelet(verbs, settings.node_name, clock, rng, settings.images)
    metrics = Metrics(store, kubelet, clock, settings.metrics_resolution_seconds)
    streams, remote = Streams(store, kubelet), RemoteCommands(store, kubelet, clock)
    async with AsyncExitStack() as stack:
        tasks = TaskOwner(_failed)
        aggregator = await stack.enter_async_context(
            aggregating(
                verbs,
                clock,
                rng,
                front_proxy.client(_FRONT_PROXY),
                _failed,
                request_seconds=settings.request_seconds,
                check_seconds=settings.apiservice_check_seconds,
            )
        )
        server = ApiServer(verbs, tokens, aggregator, clock, bookmark_seconds=settings.bookmark_seconds, rng=rng)
        server.connectors = {
            "log": streams.log,
            "portforward": streams.port_forward,
            "attach": remote.attach,
            "exec": remote.execute,
        }
        server.computed = {POD_METRICS.group: metrics.answer}
        _bootstrap(verbs, settings)
        _publish_authentication(verbs, authority, front_proxy)
        await asyncio.to_thread(cel.warm_up)
        context = await asyncio.to_thread(_server_context, authority) if settings.tls else None
        await stack.enter_async_context(kubelet)
        await stack.enter_async_context(tasks)
        port = await stack.enter_async_context(_listening(server, settings.port, context))
        tasks.start(controllers.run(), name="sandbox controllers")
        tasks.start(endpoints.run(), name="sandbox endpoints")
        tasks.start(metrics.run(), name="sandbox metrics")
        url = f"{'https' if context else 'http'}://127.0.0.1:{port}"
        yield Sandbox(url, authority, verbs=verbs, tokens=tokens, server=server, kubelet=kubelet)


def _server_context(authority: Authority) -> ssl.SSLContext:
    pair = authority.server("toe sandbox", ("localhost", "127.0.0.1"))
    return certificates.server_context(pair, authority.certificate)


@asynccontextmanager
async def _listening(server: ApiServer, port: int, context: ssl.SSLContext | None) -> AsyncIterator[int]:
    app = web.Application(client_max_size=bodies.LARGEST)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=75,
        shutdown_timeout=1,
        auto_decompress=False,  # a packed body is passed on as it is
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=context)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        server.end_streams()
        await runner.cleanup()


def _bootstrap(verbs: Verbs, settings: SandboxSettings) -> None:
    def put(resource: Resource, name: str, body: JsonObject, namespace: str = "") -> None:
        verbs.create(resource, namespace, {**body, "metadata": {"name": name}})

    for name in settings.namespaces:
        put(NAMESPACES, name, {})
        put(SERVICE_ACCOUNTS, "default", {}, name)
    for name, rules in rbac.BOOTSTRAP_ROLES.items():
        put(CLUSTER_ROLES, name, {"rules": rules})
    group = CLUSTER_ROLES.group
    for name, subjects in rbac.BOOTSTRAP_BINDINGS.items():
        held = [{"kind": kind, "name": subject, "apiGroup": group} for kind, subject in subjects]
        reference = {"apiGroup": group, "kind": "ClusterRole", "name": name}
        put(CLUSTER_ROLE_BINDINGS, name, {"subjects": held, "roleRef": reference})


def _publish_authentication(verbs: Verbs, authority: Authority, front_proxy: Authority) -> None:
    """Tell aggregated APIs whose client certificates and whose headers they may believe, as every API server does."""
    if verbs.store.get(NAMESPACES, Key("", "kube-system")) is None:
        return
    data = {
        "client-ca-file": authority.certificate.decode(),
        "requestheader-client-ca-file": front_proxy.certificate.decode(),
        "requestheader-allowed-names": [_FRONT_PROXY],
        "requestheader-username-headers": ["X-Remote-User"],
        "requestheader-group-headers": ["X-Remote-Group"],
        "requestheader-extra-headers-prefix": ["X-Remote-Extra-"],
    }
    written = {key: value if isinstance(value, str) else json.dumps(value) for key, value in data.items()}
    verbs.create(CONFIG_MAPS, "kube-system", {"metadata": {"name": rbac.AUTHENTICATION_CONFIG}, "data": written})
    reader = {"metadata": {"name": f"{rbac.AUTHENTICATION_CONFIG}-reader"}, "rules": rbac.AUTHENTICATION_READER}
    verbs.create(ROLES, "kube-system", reader)


def _failed(name: str, error: BaseException) -> None:
    _log.error("a part of the sandbox failed", part=name, error=repr(error))
