"""What the demo installs in its sandbox: the real manifests' rights and policy, and three pods."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from toe_async.apis.crd import all_crds
from toe_async.apis.kinds import (
    API_SERVICES,
    ARTIFACTS,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CRDS,
    NAMESPACES,
    PODS,
    POLICIES,
    POLICY_BINDINGS,
    PROFILING_CONFIGS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from toe_async.kube.client import Client
from toe_async.kube.errors import AlreadyExists
from toe_async.kube.requests import create, get
from toe_async.sandbox.certificates import KeyPair
from toe_async.sandbox.checkout import RIGHTS, Object, deployed, http_probe, python_pod
from toe_async.sandbox.cluster import Sandbox

_KINDS = {
    kind.kind: kind
    for kind in (
        NAMESPACES,
        SERVICE_ACCOUNTS,
        SERVICES,
        ROLES,
        ROLE_BINDINGS,
        CLUSTER_ROLES,
        CLUSTER_ROLE_BINDINGS,
        POLICIES,
        POLICY_BINDINGS,
        API_SERVICES,
        CRDS,
        PODS,
        PROFILING_CONFIGS,
    )
}
_OPERATOR = "system:serviceaccount:toe-system:toe-operator"
_COLLECTOR = "system:serviceaccount:toe-system:toe-collector"

Tell = Callable[[str, str], None]


class DemoFailed(Exception):  # noqa: N818 -- it is what happened
    """The demo cannot go on; one sentence or a few lines for the user."""


class Installed(Struct, frozen=True):
    """What came of the installation: where the collector answers, and the CA of its certificate."""

    collector: str
    authority: Path


async def install(client: Client, sandbox: Sandbox, folder: Path, tell: Tell) -> Installed:
    """Install everything, start collector, operator and target, apply the configuration.

    Raises:
        DemoFailed: this is no checkout, or a pod ended.
    """
    await _apply(client, await asyncio.to_thread(_manifests))
    await _apply(client, all_crds())
    await _apply(client, [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}])
    tell("install", "CRDs, service accounts, rights and the admission policy of deploy/")

    await asyncio.to_thread(sandbox.write_kubeconfig, folder / "operator", _OPERATOR)
    await asyncio.to_thread(sandbox.write_kubeconfig, folder / "collector", _COLLECTOR)
    token = folder / "collector-token"
    await asyncio.to_thread(token.touch, 0o600)
    text = sandbox.service_account_token("toe-system", "toe-operator", "toe-collector", 7200)
    await asyncio.to_thread(token.write_text, text)

    pair = sandbox.serving_certificate("toe-collector", "toe-system")
    authority = folder / "tls" / "ca.crt"
    await asyncio.to_thread(_write, authority.parent, pair, sandbox.certificate_authority)
    await _apply(client, [_collector(folder)])
    collector = f"https://{await _address(client, 'toe-system', 'toe-collector')}:8443"
    tell("collector", f"pod toe-system/toe-collector stores artifacts at {collector}")
    await _registered(client)
    tell("collector", "the API server has it as artifacts.toe.run: kubectl get artifacts")
    await _apply(client, [_operator(folder, collector, authority)])
    await _address(client, "toe-system", "toe-operator")
    tell("operator", "pod toe-system/toe-operator runs as its service account, with its rights and no more")
    await _apply(client, [_target()])
    await _address(client, "demo", "checkout")
    tell("target", "pod demo/checkout burns CPU and serves pprof on port 6060; it asks for a fifth of a core")
    await _apply(client, [_config()])
    tell("config", "ProfilingConfig demo/hot: above 80 % of the request, take heap, cpu, goroutine and mutex")
    return Installed(collector, authority)


def _write(folder: Path, pair: KeyPair, authority: bytes) -> None:
    folder.mkdir()
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").touch(0o600)
    (folder / "tls.key").write_bytes(pair.key)
    (folder / "ca.crt").write_bytes(authority)


async def _registered(client: Client) -> None:
    """Wait until the API server reaches the collector."""
    while True:
        raw = await client.send(get(API_SERVICES, None, ARTIFACTS.api_service))
        conditions = msgspec.json.decode(raw).get("status", {}).get("conditions", ())
        if any(one["type"] == "Available" and one["status"] == "True" for one in conditions):
            return
        await asyncio.sleep(0.1)


def _manifests() -> list[Object]:
    try:
        return deployed((*RIGHTS, "program/collector.yaml"))
    except FileNotFoundError as error:
        raise DemoFailed(f"the demo needs a checkout of the project: {error.filename} is missing") from error


async def _apply(client: Client, objects: Iterable[Object]) -> None:
    for one in objects:
        kind = _KINDS[one["kind"]]
        namespace = one["metadata"].get("namespace") if kind.namespaced else None
        try:
            await client.send(create(kind, namespace, msgspec.json.encode(one)))
        except AlreadyExists:
            continue


async def _address(client: Client, namespace: str, name: str) -> str:
    """Wait until a pod runs; returns its address."""
    while True:
        pod = msgspec.json.decode(await client.send(get(PODS, namespace, name)))
        status = pod.get("status", {})
        if status.get("phase") in {"Failed", "Succeeded"}:
            raise DemoFailed(f"pod {namespace}/{name} ended: {status}")
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ()))
        if ready:
            address: str = status["podIP"]
            return address
        await asyncio.sleep(0.1)


def _collector(folder: Path) -> Object:
    command = [
        "toe_async",
        "collector",
        f"--root={folder / 'store'}",
        "--listen=$(POD_IP):8443",
        "--aggregation-listen=$(POD_IP):8444",
        "--metrics-address=$(POD_IP):8080",
        f"--tls-cert={folder / 'tls' / 'tls.crt'}",
        f"--tls-key={folder / 'tls' / 'tls.key'}",
        f"--register-ca={folder / 'tls' / 'ca.crt'}",
        f"--kubeconfig={folder / 'collector'}",
        "--title=demo",
    ]
    ports = [{"name": "https", "containerPort": 8443}, {"name": "aggregation", "containerPort": 8444}]
    ready = http_probe("/readyz", 8080)
    pod = python_pod("toe-system", "toe-collector", command, ports=ports, readinessProbe=ready)
    pod["metadata"]["labels"]["app.kubernetes.io/name"] = "toe-collector"  # what its Service selects
    return pod


def _operator(folder: Path, collector: str, authority: Path) -> Object:
    command = [
        "toe_async",
        "operator",
        f"--kubeconfig={folder / 'operator'}",
        f"--collector-url={collector}",
        f"--collector-ca={authority}",
        f"--collector-token-file={folder / 'collector-token'}",
        f"--spool-dir={folder / 'spool'}",
        "--spool-bytes=512Mi",
        "--max-capture-bytes=128Mi",
        "--identity=toe-operator",
        "--metrics-address=$(POD_IP):8080",
        "--health-address=$(POD_IP):8081",
    ]
    return python_pod("toe-system", "toe-operator", command, readinessProbe=http_probe("/readyz", 8081))


def _target() -> Object:
    return python_pod(
        "demo",
        "checkout",
        ["toe_async.sandbox.burner", "--host=$(POD_IP)", "--port=6060"],
        profiled=True,
        ports=[{"name": "pprof", "containerPort": 6060}],
        resources={"requests": {"cpu": "200m", "memory": "256Mi"}},
    )


def _config() -> Object:
    return {
        "apiVersion": PROFILING_CONFIGS.api_version,
        "kind": "ProfilingConfig",
        "metadata": {"name": "hot", "namespace": "demo"},
        "spec": {
            "selector": {"labelSelector": {"app": "checkout"}},
            "thresholds": {"cpuThresholdPercent": 80, "checkIntervalSeconds": 10, "cooldownSeconds": 600},
            "cpuSeconds": 5,
            "collector": {},
        },
    }
