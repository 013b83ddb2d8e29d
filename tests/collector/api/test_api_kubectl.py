"""The real kubectl through the sandbox's aggregation layer: every verb, as users of every kind."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.collector.api.forging import listening
from tests.collector.api.shelf import folded, holding, manifest, on_disk, put_on_disk
from tests.contract.backends import RBAC, SERVICE, Backend, reachable, register
from tests.contract.clusters import Server, sandbox_server
from tests.sandbox.kubectl import NEEDED, Kubectl
from toe_async.collector.api.frontproxy import FrontProxy, RequestHeaderConfig
from toe_async.collector.api.local import Holdings
from toe_async.collector.api.routes import Api
from toe_async.collector.auth import Gate
from toe_async.collector.settings import Limits
from toe_async.collector.tls import Certificate
from toe_async.kube.errors import ServerError
from toe_async.kube.requests import Request
from toe_async.lib.clock import SystemClock
from toe_async.sandbox.certificates import Authority
from toe_async.telemetry.metrics import CollectorMetrics

pytestmark = [pytest.mark.slow, NEEDED]
GROUP = "artifacts.toe.run"
NAMES = ["aaaaaaaaaa-heap.pprof", "aaaaaaaaab-heap.pprof", "aaaaaaaaa2-heap.pprof"]


class Administrator:
    """The collector's client of the sandbox."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def send(self, request: Request) -> bytes:
        answer = await self._server.call(request.method, request.target, request.body)
        if answer.status >= 300:
            raise ServerError(answer.status, "Refused", answer.message)
        return answer.raw


@dataclass
class Aggregated:
    """A sandbox with artifacts in it, three in the test's namespace and one in another."""

    server: Server
    root: Path
    folder: Path
    holdings: Holdings

    @property
    def namespace(self) -> str:
        return self.server.namespace

    async def kubectl(self, user: str = "admin", groups: tuple[str, ...] | None = None) -> Kubectl:
        assert self.server.sandbox is not None
        path = self.folder / user.replace(":", "-")
        await asyncio.to_thread(self.server.sandbox.write_kubeconfig, path, user, groups)
        return Kubectl(path)


@pytest.fixture
async def aggregated(tmp_path: Path) -> AsyncIterator[Aggregated]:
    clock, root = SystemClock(), tmp_path / "store"
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(sandbox_server())
        client = Administrator(server)
        gate = await stack.enter_async_context(Gate(client, clock, CollectorMetrics(CollectorRegistry()), 10.0))
        holdings = await stack.enter_async_context(holding(root, gate, clock))
        for number, namespace in enumerate([server.namespace] * 3 + ["default"]):
            content = folded(f"main;serve {number + 1}\n")
            held = manifest(number, content, namespace=namespace, stored_at=clock.now())
            put_on_disk(root, held, content)
            await holdings.catalog.add([held])
        config = RequestHeaderConfig(clock)
        await config.refresh(client)
        assert config.trouble is None
        backend = Backend(GROUP, Authority("toe-ca", clock.now()))
        pair = backend.authority.server(SERVICE, (f"{SERVICE}.{server.namespace}.svc",))
        (tmp_path / "tls.crt").write_bytes(pair.certificate)
        (tmp_path / "tls.key").write_bytes(pair.key)
        certificate = await asyncio.to_thread(Certificate, tmp_path / "tls.crt", tmp_path / "tls.key", config.client_ca)
        api = Api(holdings, FrontProxy(config), Limits())
        backend.address, backend.port = "127.0.0.1", await stack.enter_async_context(listening(api, certificate))
        await register(server, backend)
        await reachable(server, backend)
        yield Aggregated(server, root, tmp_path, holdings)


async def test_kubectl_lists_shows_and_explains_artifacts(aggregated: Aggregated) -> None:
    """Tables, wide tables, JSON, names, selectors and descriptions."""
    kubectl, at = await aggregated.kubectl(), ("-n", aggregated.namespace)
    header, *rows = (await kubectl("get", "artifacts", *at)).splitlines()
    assert header.split() == ["NAME", "RUN", "POD", "SIZE", "REASON", "AGE"]
    assert sorted(row.split()[0] for row in rows) == sorted(NAMES)
    everywhere = (await kubectl("get", "art", "-A")).splitlines()
    assert everywhere[0].split()[0] == "NAMESPACE"
    assert sorted(row.split()[0] for row in everywhere[1:]) == sorted([aggregated.namespace] * 3 + ["default"])
    wide = (await kubectl("get", "artifact", NAMES[0], "-o", "wide", *at)).splitlines()[0]
    assert wide.split()[6:] == ["KIND", "TOOL", "CONTAINER", "NODE", "SERVICE", "HOLD", "SHA256"]
    found: dict[str, Any] = json.loads(await kubectl("get", "art", NAMES[1], "-o", "json", *at))
    assert (found["kind"], found["artifact"]["pod"]) == ("Artifact", "cart-1")
    names = await kubectl("get", "toe", "-o", "name", "--field-selector=artifact.pod=cart-2", *at)
    assert names.split() == [f"artifact.{GROUP}/{NAMES[2]}"]
    paged = await kubectl("get", "art", "-o", "name", "--chunk-size=1", "-l", "app=cart", *at)
    assert len(paged.split()) == 3
    assert "No resources found" in await kubectl("get", "art", "-l", "app=none", *at)
    assert "All that is known about the file." in await kubectl("explain", "artifacts")
    assert "SHA-256 digest of the bytes" in await kubectl("explain", "artifacts.artifact.sha256")
    listed = await kubectl("api-resources", f"--api-group={GROUP}", "--no-headers")
    assert listed.split() == ["artifacts", "art", f"{GROUP}/v1alpha1", "true", "Artifact"]


async def test_kubectl_tells_why_something_cannot_be(aggregated: Aggregated) -> None:
    """Each in one line that starts with the reason."""
    kubectl, at = await aggregated.kubectl(), ("-n", aggregated.namespace)
    told = await kubectl("get", "art", "nothing", *at, fails=True)
    assert f'Error from server (NotFound): artifacts.{GROUP} "nothing" not found' in told
    told = await kubectl("get", "art", "--field-selector=spec.x=1", *at, fails=True)
    assert "BadRequest" in told
    assert "field label not supported: spec.x" in told
    assert "artifacts cannot be watched" in await kubectl("get", "art", "-w", *at, fails=True)
    told = await kubectl("label", "artifact", NAMES[0], "team=a", *at, fails=True)
    assert "metadata.labels.team: cannot be changed" in told


async def test_kubectl_holds_releases_and_deletes(aggregated: Aggregated) -> None:
    """By annotate and patch; a held artifact stays; deleting waits and ends."""
    kubectl, at = await aggregated.kubectl(), ("-n", aggregated.namespace)
    await kubectl("annotate", "artifact", NAMES[0], "toe.run/hold=case 4711", *at)
    assert "case 4711" in await kubectl("get", "art", NAMES[0], "-o", "wide", *at)
    told = await kubectl("annotate", "artifact", NAMES[0], "team=a", *at, fails=True)
    assert "metadata.annotations[team]" in told
    told = await kubectl("delete", "artifact", NAMES[0], *at, fails=True)
    assert "Error from server (Conflict)" in told
    assert "case 4711" in told
    await kubectl("annotate", "artifact", NAMES[0], "toe.run/hold-", *at)
    patch = '[{"op":"add","path":"/metadata/annotations","value":{"toe.run/hold":"x"}}]'
    await kubectl("patch", "artifact", NAMES[0], "--type=json", "-p", patch, *at)
    await kubectl("patch", "artifact", NAMES[0], "--type=merge", "-p", '{"metadata":{"annotations":null}}', *at)
    await kubectl("delete", "artifact", NAMES[0], "--dry-run=server", *at)
    assert len(on_disk(aggregated.root)) == 4
    await kubectl("delete", "artifact", NAMES[0], "--timeout=20s", *at)
    await kubectl("wait", "--for=delete", f"artifact/{NAMES[0]}", "--timeout=20s", *at)
    await kubectl("delete", "art", "-l", "app=cart,nothing!=x", "--field-selector=artifact.pod=cart-1", *at)
    assert len(on_disk(aggregated.root)) == 2
    await kubectl("delete", "artifacts", "--all", *at)
    assert len(on_disk(aggregated.root)) == 1


async def test_kubectl_fetches_bytes_and_views(aggregated: Aggregated) -> None:
    """With `get --raw`, which any kubectl has."""
    kubectl = await aggregated.kubectl()
    base = f"/apis/{GROUP}/v1alpha1/namespaces/{aggregated.namespace}/artifacts/{NAMES[0]}"
    assert (await kubectl("get", "--raw", f"{base}/render?as=folded")).strip() == "main;serve 1"
    answer = await aggregated.server.call("GET", f"{base}/content", headers={"Range": "bytes=0-1"})
    assert (answer.status, answer.raw) == (206, b"\x1f\x8b")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="heap.pprof"'


async def test_a_user_sees_one_namespace_and_not_the_other(aggregated: Aggregated) -> None:
    """By certificate; the right is a Role in that namespace, and bytes are another right."""
    server = aggregated.server
    at = f"{RBAC}/namespaces/{server.namespace}"
    rules = [{"apiGroups": [GROUP], "resources": ["artifacts"], "verbs": ["get", "list"]}]
    await server.make(f"{at}/roles", {"metadata": {"name": "reader"}, "rules": rules})
    subject = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "zoe"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    await server.make(f"{at}/rolebindings", {"metadata": {"name": "zoe"}, "subjects": [subject], "roleRef": reference})
    kubectl = await aggregated.kubectl("zoe", ("system:authenticated",))
    assert len((await kubectl("get", "art", "-n", server.namespace, "-o", "name")).split()) == 3
    assert 'User "zoe" cannot list' in await kubectl("get", "art", "-n", "default", fails=True)
    assert "Forbidden" in await kubectl("get", "art", "-A", fails=True)
    base = f"/apis/{GROUP}/v1alpha1/namespaces/{server.namespace}/artifacts/{NAMES[0]}"
    assert "Forbidden" in await kubectl("get", "--raw", f"{base}/content", fails=True)
    assert "Forbidden" in await kubectl("delete", "art", NAMES[0], "-n", server.namespace, fails=True)
