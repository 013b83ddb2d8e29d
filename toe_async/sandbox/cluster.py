"""Starts and stops a whole sandbox, in this process and event loop: store, API server, controllers, kubelet, metrics.

Leaving the context ends everything: streams, tasks, listeners and every process of every pod.
"""

import asyncio
import random
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml
from aiohttp import web
from msgspec import Struct

from toe_async.lib.clock import Clock, SystemClock
from toe_async.lib.tasks import TaskOwner
from toe_async.sandbox import bodies, cel, certificates, rbac
from toe_async.sandbox.admission import Admission
from toe_async.sandbox.controllers import Controllers
from toe_async.sandbox.kubelet import Kubelet
from toe_async.sandbox.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    NAMESPACES,
    POD_METRICS,
    SERVICE_ACCOUNTS,
    Registry,
    Resource,
)
from toe_async.sandbox.server import ApiServer
from toe_async.sandbox.status import JsonObject
from toe_async.sandbox.store import Store
from toe_async.sandbox.streams import Streams
from toe_async.sandbox.tokens import ISSUER, Tokens
from toe_async.sandbox.usage import Metrics
from toe_async.sandbox.verbs import Verbs
from toe_async.telemetry import log

_log = log.get(__name__)


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
    node_name: str = "sandbox"
    namespaces: tuple[str, ...] = ("default", "kube-system", "kube-public")


class Sandbox:
    """A running cluster."""

    def __init__(self, url: str, authority: bytes, verbs: Verbs, tokens: Tokens, server: ApiServer) -> None:
        self.url = url
        self.verbs = verbs
        self._authority = authority
        self._tokens = tokens
        self._server = server

    @property
    def admin_token(self) -> str:
        """The bearer token of the cluster's administrator."""
        return self._tokens.admin_token

    @property
    def certificate_authority(self) -> bytes:
        """PEM of the authority that signed the server's certificate; empty without TLS."""
        return self._authority

    def service_account_token(self, namespace: str, name: str, audience: str = ISSUER, seconds: int = 3600) -> str:
        """A token of a service account. Raises Refusal when there is no such account."""
        answer = self._tokens.issue(namespace, name, {"audiences": [audience], "expirationSeconds": seconds})
        token: str = answer["status"]["token"]
        return token

    def write_kubeconfig(self, path: Path, user: str = "admin") -> None:
        """Write a kubeconfig for `admin` or for a service account named `system:serviceaccount:NAMESPACE:NAME`.

        Raises:
            Refusal: there is no such service account.
            ValueError: neither of the two forms.
        """
        if user == "admin":
            token = self.admin_token
        else:
            match user.split(":"):
                case ["system", "serviceaccount", namespace, name]:
                    token = self.service_account_token(namespace, name)
                case _:
                    raise ValueError(f"{user!r} is neither admin nor system:serviceaccount:NAMESPACE:NAME")
        cluster: JsonObject = {"server": self.url}
        if self._authority:
            authority = path.with_suffix(".ca.crt")
            authority.write_bytes(self._authority)
            cluster["certificate-authority"] = str(authority.resolve())
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "sandbox", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": user}}],
            "current-context": "sandbox",
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config, sort_keys=False))

    def compact(self) -> None:
        """Forget all history and end all watches, as a restart of the real server does: what is older is 410."""
        self.verbs.store.compact()
        self._server.end_streams()

    def drop_watches(self) -> None:
        """End all watches cleanly, as a server's own timeout does; they can be resumed."""
        self._server.end_streams()


@asynccontextmanager
async def start(settings: SandboxSettings | None = None, clock: Clock | None = None) -> AsyncIterator[Sandbox]:
    """Run a cluster until the context is left."""
    settings, clock = settings or SandboxSettings(), clock or SystemClock()
    rng = random.Random(secrets.randbits(64))  # noqa: S311 names and UIDs, no secrets
    store, registry = Store(settings.watch_window), Registry()
    verbs = Verbs(store, registry, Admission(store), clock, rng)
    tokens = Tokens(store, clock, secrets.token_bytes(32), verbs.new_uid)
    server = ApiServer(verbs, tokens, clock, bookmark_seconds=settings.bookmark_seconds, rng=rng)
    controllers = Controllers(verbs)
    kubelet = Kubelet(verbs, settings.node_name, clock, rng)
    metrics = Metrics(store, kubelet, clock, settings.metrics_resolution_seconds)
    streams = Streams(store, kubelet)
    server.connectors = {"log": streams.log, "portforward": streams.port_forward}
    server.computed = {POD_METRICS.group: metrics.answer}
    _bootstrap(verbs, settings)
    await asyncio.to_thread(cel.warm_up)
    issued = certificates.issue(clock.now()) if settings.tls else None
    context = await asyncio.to_thread(issued.server_context) if issued else None
    async with kubelet, TaskOwner(_failed) as tasks, _listening(server, settings.port, context) as port:
        tasks.start(controllers.run(), name="sandbox controllers")
        tasks.start(metrics.run(), name="sandbox metrics")
        url = f"{'https' if context else 'http'}://127.0.0.1:{port}"
        yield Sandbox(url, issued.authority if issued else b"", verbs, tokens, server)


@asynccontextmanager
async def _listening(server: ApiServer, port: int, context: ssl.SSLContext | None) -> AsyncIterator[int]:
    app = web.Application(client_max_size=bodies.LARGEST)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, keepalive_timeout=75, shutdown_timeout=1)
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


def _failed(name: str, error: BaseException) -> None:
    _log.error("a part of the sandbox failed", part=name, error=repr(error))
