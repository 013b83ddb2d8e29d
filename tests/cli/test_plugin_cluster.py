"""`kubectl toe` through an API server that aggregates a real collector: the sandbox, with users of several kinds."""

import asyncio
import base64
import hashlib
import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from tests.cli.aggregated import Plugin
from tests.contract.clusters import Server, sandbox_server
from toe_async.collector.app import Served, serve
from toe_async.collector.settings import CollectorSettings
from toe_async.kube.client import ClientSettings, connect
from toe_async.lib.clock import SystemClock
from toe_async.sandbox.cluster import Sandbox
from toe_async.telemetry.metrics import CollectorMetrics

# A process of its own for each command, beside a whole cluster: a busy machine needs its time for that.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"
APISERVICE = "v1alpha1.artifacts.toe.run"
STACKS = b"main;serve;render 300\nmain;serve 100\nmain;gc 50\n"


@dataclass
class Cluster:
    """A sandbox with a collector behind its aggregation."""

    server: Server
    sandbox: Sandbox
    served: Served
    session: aiohttp.ClientSession
    folder: Path

    async def store(
        self, number: int, data: bytes, *, leaf: str = "cpu.folded", namespace: str = "", **more: Any
    ) -> str:
        """Register a capture and upload its one artifact, as operator and uploader; returns its name."""
        capture = f"{number:010d}".translate(str.maketrans("0189", "abcd")) + "z" * 22
        registration = {
            "id": capture, "namespace": namespace or self.server.namespace, "labels": {"app": "shop"}, "run": "night",
            "runUID": "1", "kind": "ProfilingConfig", "pod": f"web-{number}", "podUID": "2", "container": "app",
            "node": "n1", "service": "web", "tool": "pprof", "reason": "threshold-exceeded", "trigger": "cpu at 93 %",
            "maxBytes": 1 << 30, "triggeredAt": "2026-01-24T20:44:08Z", "leaves": [leaf],
            "expires": (datetime.now(UTC) + timedelta(hours=1)).isoformat(), **more,
        }  # fmt: skip
        token = self.sandbox.service_account_token("kube-system", "toe-operator", "toe-collector")
        operator = {"Authorization": f"Bearer {token}"}
        async with self.session.post(f"{self.served.url}/v1/captures", json=registration, headers=operator) as reply:
            assert reply.status in {200, 201}, await reply.text()
        token = self.sandbox.service_account_token("kube-system", "toe-uploader", f"toe-collector/{capture}")
        path = f"{self.served.url}/v1/captures/{capture}/artifacts/{leaf}"
        headers = {"Authorization": f"Bearer {token}", "Content-Length": str(len(data))}

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(data), 1 << 20):
                yield data[at : at + (1 << 20)]

        async with self.session.put(path, data=pieces(), headers=headers) as reply:
            assert reply.status == 201, await reply.text()
        return f"{capture[:10]}-{leaf}"

    async def plugin(self, user: str = "admin", groups: tuple[str, ...] | None = None) -> Plugin:
        """The plugin as a user, who signs in by token or, with groups, by certificate."""
        path = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        await asyncio.to_thread(self.sandbox.write_kubeconfig, path, user, groups)
        home = self.folder / f"home-{user.replace(':', '-')}"
        home.mkdir(exist_ok=True)
        return Plugin(home, path)

    async def allow(self, user: str, namespace: str, *rules: tuple[str, str]) -> None:
        """Grant `(resource, verb)` pairs in a namespace."""
        wanted = [{"apiGroups": ["artifacts.toe.run"], "resources": [one], "verbs": [verb]} for one, verb in rules]
        await self.server.make(f"{RBAC}/{namespace}/roles", {"metadata": {"name": user}, "rules": wanted})
        subject = {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user}
        binding = {"metadata": {"name": user}, "subjects": [subject], "roleRef": reference}
        await self.server.make(f"{RBAC}/{namespace}/rolebindings", binding)


@asynccontextmanager
async def _collector(server: Server, sandbox: Sandbox, folder: Path) -> AsyncIterator[Served]:
    pair = sandbox.serving_certificate("collector", server.namespace)
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)
    await asyncio.to_thread(sandbox.write_kubeconfig, folder / "collector.kubeconfig")
    (folder / "store").mkdir()
    settings = CollectorSettings(
        root=folder / "store",
        listen="127.0.0.1:0",
        aggregation_listen="127.0.0.1:0",
        tls_cert=folder / "tls.crt",
        tls_key=folder / "tls.key",
        operator_users=frozenset({"system:serviceaccount:kube-system:toe-operator"}),
        uploader_users=frozenset({"system:serviceaccount:kube-system:toe-uploader"}),
    )
    async with (
        connect(ClientSettings(kubeconfig=str(folder / "collector.kubeconfig")), environ={}) as client,
        serve(settings, client, SystemClock(), CollectorMetrics(CollectorRegistry())) as served,
    ):
        yield served


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster whose collector is reachable by the aggregated API; the test's namespace is empty."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(sandbox_server())
        assert server.sandbox is not None
        for name in ("toe-operator", "toe-uploader"):
            await server.make("/api/v1/namespaces/kube-system/serviceaccounts", {"metadata": {"name": name}})
        served = await stack.enter_async_context(_collector(server, server.sandbox, tmp_path))
        await _register(server, served)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)))
        yield Cluster(server, server.sandbox, served, session, tmp_path)


async def _register(server: Server, served: Served) -> None:
    assert server.sandbox is not None
    name = "collector"
    spec = {"ports": [{"name": "https", "port": 443}]}
    await server.make(server.core("services"), {"metadata": {"name": name}, "spec": spec})
    endpoints = {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": served.aggregation_port, "protocol": "TCP"}],
    }  # fmt: skip
    await server.make(f"/apis/discovery.k8s.io/v1/namespaces/{server.namespace}/endpointslices", endpoints)
    authority = base64.b64encode(server.sandbox.certificate_authority).decode()
    told = {
        "group": "artifacts.toe.run", "version": "v1alpha1", "service": {"namespace": server.namespace, "name": name},
        "caBundle": authority, "groupPriorityMinimum": 1000, "versionPriority": 15,
    }  # fmt: skip
    apiservices = "/apis/apiregistration.k8s.io/v1/apiservices"
    await server.make_cluster_wide(apiservices, {"metadata": {"name": APISERVICE}, "spec": told})
    await server.until(
        f"{apiservices}/{APISERVICE}",
        lambda one: any(
            c["type"] == "Available" and c["status"] == "True" for c in one.get("status", {}).get("conditions", ())
        ),
    )


async def test_each_filter_of_a_list_means_the_same_to_the_collector(cluster: Cluster) -> None:
    """Names, times, labels, fields and text; the type by us."""
    names = [await cluster.store(number, STACKS * (number + 1)) for number in range(3)]
    other = await cluster.store(7, b"x", leaf="heap.pb.gz", run="day", labels={"app": "other"})
    plugin, at = await cluster.plugin(), ("-n", cluster.server.namespace)

    async def listed(*flags: str) -> set[str]:
        ran = await plugin.run("list", "-o", "name", *at, *flags)
        assert (ran.code, ran.err if ran.out else "") == (0, "")
        return {line.partition("/")[2] for line in ran.lines}

    assert await listed() == {*names, other}
    assert await listed("--run", "night") == set(names)
    assert await listed("--pod", "web-7") == {other}
    assert await listed("--type", "heap") == {other}
    assert await listed("-l", "app in (other)", "--kind", "ProfilingConfig", "--tool", "pprof") == {other}
    assert await listed("--search", "WEB-7") == {other}
    assert await listed("--since", "1h") == {*names, other}
    assert await listed("--until", "1h") == set()
    wide = await plugin.run("list", "-o", "wide", "-A")
    assert len(wide.lines) == 5


async def test_an_artifact_s_life_by_the_plugin(cluster: Cluster) -> None:
    """Fetched, looked at, compared, held, released and deleted, by an administrator."""
    names = [await cluster.store(number, STACKS * (number + 1)) for number in range(3)]
    other = await cluster.store(7, b"x", leaf="heap.pb.gz", labels={"web": "1"})
    plugin, at = await cluster.plugin(), ("-n", cluster.server.namespace)
    got = await plugin.run("get", *names, *at)
    assert (got.code, got.err, len(got.lines)) == (0, "", 3)
    assert hashlib.sha256((plugin.home / got.lines[0]).read_bytes()).digest() in {
        hashlib.sha256(STACKS * (number + 1)).digest() for number in range(3)
    }
    top = await plugin.run("open", names[0], "--as", "top", *at)
    assert (top.code, top.err) == (0, "")
    assert top.lines[2].split()[-1] == "render"
    page = await plugin.run("open", names[0], "-O", "flame.html", *at)
    assert (page.code, page.err) == (0, "")
    assert b"<script" in (plugin.home / "flame.html").read_bytes()
    changed = await plugin.run("diff", names[0], names[1], "--top", *at)
    assert (changed.code, changed.err) == (0, "")
    compared = await plugin.run("diff", names[0], names[1], "-O", "diff.html", *at)
    assert (compared.code, compared.err) == (0, "")
    nothing = await plugin.run("open", other, "--as", "top", *at)
    assert (nothing.code, nothing.out) == (1, "")

    assert (await plugin.run("hold", names[0], "--reason", "case 7", *at)).code == 0
    refused = await plugin.run("delete", "-y", *names, *at)
    assert (refused.code, len(refused.lines)) == (5, 2)
    assert names[0] in refused.err
    left = {
        item["metadata"]["name"]: item
        for item in json.loads((await plugin.run("list", *at, "-o", "json")).out)["items"]
    }
    assert set(left) == {names[0], other}
    assert left[names[0]]["metadata"]["annotations"] == {"toe.run/hold": "case 7"}
    assert (await plugin.run("release", names[0], *at)).code == 0
    gone = await plugin.run("delete", "-y", "-l", "app", *at)
    assert (gone.code, gone.out) == (0, f'artifact.artifacts.toe.run "{names[0]}" deleted\n')


async def test_rights_are_the_api_server_s_to_give(cluster: Cluster) -> None:
    """A certificate's user sees one namespace and not the other; bytes, views and deletion are rights of their own."""
    name = await cluster.store(1, STACKS)
    here = cluster.server.namespace
    await cluster.allow("jane", here, ("artifacts", "list"), ("artifacts", "get"))
    jane = await cluster.plugin("jane", ("devs",))
    assert (await jane.run("list", "-n", here, "-o", "name")).lines == [f"artifact.artifacts.toe.run/{name}"]
    for arguments in (
        ["list", "-n", "default"], ["list", "-A"], ["get", name, "-n", here], ["open", name, "-n", here, "--as", "top"],
        ["delete", "-y", name, "-n", here], ["hold", name, "--reason", "x", "-n", here],
    ):  # fmt: skip
        ran = await jane.run(*arguments)
        assert (ran.code, ran.out) == (3, ""), arguments
        assert "jane" in ran.err
    assert jane.files() == []
    candidates = await jane.run("get", "-n", here, "", program="complete")
    assert candidates.lines == [f"{name}\tcpu.folded of web-1", ":4"]


async def test_a_large_one_comes_in_pieces_through_the_api_server(cluster: Cluster) -> None:
    """70 MiB in three ranges, killed in the middle and gone on with."""
    data = hashlib.shake_128(b"x").digest(70 << 20)
    name = await cluster.store(1, data, leaf="heap.pb.gz")
    plugin, at = await cluster.plugin(), ("-n", cluster.server.namespace)
    process = await plugin.start("get", name, *at)

    def part() -> int:
        return sum(path.stat().st_size for path in plugin.home.glob("*.part"))

    while process.returncode is None and part() < 20 << 20:
        await asyncio.sleep(0.005)
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    await process.communicate()
    ran = await plugin.run("get", name, *at)
    assert (ran.code, ran.err) == (0, "")
    assert hashlib.sha256((plugin.home / ran.lines[0]).read_bytes()).digest() == hashlib.sha256(data).digest()
    assert len(plugin.files()) == 1


async def test_the_pages_on_loopback_work_under_the_user_s_rights(cluster: Cluster) -> None:
    """List, flame and download of what the user may see, with a cookie for a key."""
    name = await cluster.store(1, STACKS)
    plugin = await cluster.plugin()
    process = await plugin.start("ui")
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    root = url.partition("/ui/")[0]
    one = f"{root}/ui/artifacts/{cluster.server.namespace}/{name}"
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            async with browser.get(url) as first:
                page = await first.text()
            assert re.search(rf"{name}|web-1", page)
            for path, wanted in ((one, 200), (f"{one}/flame", 200), (f"{one}/top", 200), (f"{one}/content", 200)):
                async with browser.get(path) as reply:
                    body = await reply.read()
                    assert reply.status == wanted, (path, body[:300])
            assert body == STACKS
    finally:
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


async def test_a_collector_that_is_away_is_told_apart_from_one_that_was_never_there(cluster: Cluster) -> None:
    """Both in a sentence that names the APIService."""
    plugin, at = await cluster.plugin(), ("-n", cluster.server.namespace)
    await cluster.server.call("DELETE", cluster.server.core("services", "collector"))
    apiservice = f"/apis/apiregistration.k8s.io/v1/apiservices/{APISERVICE}"
    await cluster.server.until(
        apiservice,
        lambda one: any(c["type"] == "Available" and c["status"] == "False" for c in one["status"]["conditions"]),
    )
    away = await plugin.run("list", *at)
    assert (away.code, "cannot reach the collector" in away.err) == (1, True), away.err
    await cluster.server.call("DELETE", apiservice)
    never = await plugin.run("list", *at)
    assert (never.code, "is not registered here" in never.err) == (1, True), never.err
