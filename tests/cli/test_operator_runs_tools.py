"""The whole way in the sandbox: operator and collector as pods with their own rights, a tool beside its target."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from toe_async.agent.protocol import SUPERVISOR
from toe_async.apis.kinds import ARTIFACTS, PODS, POWER_TOOL_CONFIGS, POWER_TOOLS, Kind
from toe_async.apis.powertool import Phase, PowerTool, TargetState, decode_power_tool
from toe_async.cli.demo_cluster import install
from toe_async.kube.client import Client, ClientSettings, connect
from toe_async.kube.requests import Request, create, delete, get
from toe_async.sandbox.cluster import SandboxSettings, start
from toe_async.sandbox.images import Image, Program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

IMAGE = "registry.example/tools/python:1"
WORDS = "seen by the tool"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Client]:
    """Everything that deploy/ has, and an image whose supervisor is this checkout's."""
    supervisor = Program(
        (sys.executable, "-m", "toe_async.agent"),
        append=("--target-pid", "{target_pid}", "--termination-log", "{termination_log}", "--state-root", "{tmp}"),
        exec_append=("--state-root", "{tmp}"),
    )
    async with start(SandboxSettings(images=(Image(IMAGE, {SUPERVISOR: supervisor}),))) as sandbox:
        kubeconfig = tmp_path / "kubeconfig"
        await asyncio.to_thread(sandbox.write_kubeconfig, kubeconfig)
        async with connect(ClientSettings(kubeconfig=str(kubeconfig))) as client:
            await install(client, sandbox, tmp_path, lambda topic, text: None)
            yield client


async def make(client: Client, kind: Kind, namespace: str, name: str, spec: dict[str, Any]) -> None:
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec}
    await client.send(create(kind, namespace, msgspec.json.encode(body)))


async def read(client: Client, name: str) -> PowerTool:
    return decode_power_tool(await client.send(get(POWER_TOOLS, "demo", name)))


async def finished(client: Client, name: str) -> PowerTool:
    async with asyncio.timeout(90):
        while True:
            tool = await read(client, name)
            if tool.status.finished_at is not None and not tool.metadata.finalizers:
                return tool
            await asyncio.sleep(0.2)


async def approve(client: Client, program: str) -> None:
    """Approve a Python program as the tool `words`."""
    await make(
        client,
        POWER_TOOL_CONFIGS,
        "toe-system",
        "words",
        {
            "name": "words",
            "image": IMAGE,
            "securityContext": {},
            "command": [sys.executable, "-c", program, "{target_pid}"],
        },
    )


async def ask(client: Client, name: str, duration: str) -> None:
    """Ask for it in the pod that the installation brings."""
    await make(
        client,
        POWER_TOOLS,
        "demo",
        name,
        {
            "targets": {"labelSelector": {"matchLabels": {"app": "checkout"}}},
            "tool": {"name": "words", "duration": duration},
            "output": {"mode": "collector", "collector": {}, "compress": "none"},
        },
    )


async def content_of(client: Client, uri: str) -> bytes:
    """An artifact's bytes, by way of the API server."""
    path = ARTIFACTS.path("demo", uri.rpartition("/")[2], "content")
    return await client.send(Request("GET", path, accept="application/octet-stream"))


async def containers(client: Client) -> list[str]:
    """Names of the ephemeral containers of the target."""
    pod = msgspec.json.decode(await client.send(get(PODS, "demo", "checkout")))
    return [one["name"] for one in pod["spec"].get("ephemeralContainers", ())]


async def test_a_powertool_brings_what_its_tool_wrote_into_the_collector(cluster: Client) -> None:
    """Applied like any user's: the operator adds the container, the tool runs, its output can be read back."""
    asked = "'HOSTNAME=checkout' in open('/proc/' + sys.argv[1] + '/environ').read()"
    await approve(cluster, f"import sys; print({WORDS!r}, {asked})")
    await ask(cluster, "look", "2s")
    tool = await finished(cluster, "look")
    assert tool.status.phase is Phase.COMPLETED, tool.status
    assert (tool.status.selected_pods, tool.status.completed_pods) == (1, 1)
    (stored,) = tool.status.artifacts
    assert (await content_of(cluster, stored.uri)).decode().strip() == f"{WORDS} True", (
        "it is told its target's process"
    )
    assert len(await containers(cluster)) == 1


async def test_an_operator_that_is_killed_in_the_middle_costs_neither_a_container_nor_an_artifact(
    cluster: Client,
) -> None:
    """The tool goes on by itself; the next operator finds it, and what it wrote."""
    await approve(cluster, f"import time; time.sleep(8); print({WORDS!r})")
    await ask(cluster, "look", "10s")
    async with asyncio.timeout(60):
        while [row.state for row in (await read(cluster, "look")).status.targets] != [TargetState.RUNNING]:
            await asyncio.sleep(0.1)
    await again(cluster, "toe-operator")
    tool = await finished(cluster, "look")
    assert tool.status.phase is Phase.COMPLETED, tool.status
    assert [row.attempt for row in tool.status.targets] == [1]
    (stored,) = tool.status.artifacts
    assert (await content_of(cluster, stored.uri)).decode().strip() == WORDS
    assert len(await containers(cluster)) == 1


async def again(client: Client, name: str) -> None:
    """Kill a pod of the program at once and make it anew, as a Deployment would."""
    old = msgspec.json.decode(await client.send(get(PODS, "toe-system", name)))
    await client.send(delete(PODS, "toe-system", name, grace_period_seconds=0))
    meta = {key: old["metadata"][key] for key in ("name", "namespace", "labels")}
    spec = {key: value for key, value in old["spec"].items() if key != "nodeName"}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
    await client.send(create(PODS, "toe-system", msgspec.json.encode(body)))
