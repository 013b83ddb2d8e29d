"""What the sandbox makes of a tool's container: another program, a target, files of its own, a claim's folder."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.sandbox.test_cluster import PODS, make, processes_with, running
from toe_async.lib.clock import SystemClock
from toe_async.sandbox import enclosure
from toe_async.sandbox.cluster import SandboxSettings, start
from toe_async.sandbox.environment import ConfigError
from toe_async.sandbox.images import Image, Program
from toe_async.sandbox.launching import Machine, launch, message
from toe_async.sandbox.processes import Output, Process

REPORT = """
import json, os, sys, time
words = sys.argv[1:]
log = words[words.index("--log") + 1]
open(log, "w").write(json.dumps({"argv": words, "pid": int(words[words.index("--pid") + 1])}))
"""
SUPERVISOR = "/opt/tool/supervisor"
PROGRAM = Program(
    (sys.executable, "-c", REPORT),
    append=("--pid", "{target_pid}", "--log", "{termination_log}", "--tmp", "{tmp}"),
    target_label="target-uid",
)
IMAGES = (Image("tools/*", {SUPERVISOR: PROGRAM}),)
needs_root = pytest.mark.skipif(not enclosure.possible(), reason="mounts need root")
CONTAINER = {"name": "tool", "image": "tools/one:1", "command": [SUPERVISOR], "args": ["run", "$(HOSTNAME)"]}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with start(SandboxSettings(tls=False, images=IMAGES)) as held:
        headers = {"Authorization": f"Bearer {held.admin_token}"}
        async with aiohttp.ClientSession(held.url, headers=headers) as found:
            yield found


async def sleeper(session: aiohttp.ClientSession, name: str = "p", **spec: object) -> dict[str, Any]:
    container = {"name": "c", "image": "x", "command": ["sleep", "600"], **spec}
    made = await make(session, PODS, {"metadata": {"name": name}, "spec": {"containers": [container]}})
    await running(session, name)
    return made


async def until(session: aiohttp.ClientSession, name: str, kind: str, state: str) -> dict[str, Any]:
    """Wait for a container's state; returns what is in it."""
    query = {"watch": "1", "fieldSelector": f"metadata.name={name}"}
    async with asyncio.timeout(10), session.get(PODS, params=query) as response:
        async for line in response.content:
            for one in json.loads(line)["object"]["status"].get(kind, ()):
                if state in one["state"]:
                    found: dict[str, Any] = one["state"][state]
                    return found
    raise AssertionError("the watch ended")


async def add(session: aiohttp.ClientSession, container: dict[str, Any], to: str = "p") -> int:
    body = {"spec": {"ephemeralContainers": [container]}}
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    path = f"{PODS}/{to}/ephemeralcontainers"
    async with session.patch(path, data=json.dumps(body), headers=headers) as response:
        return response.status


async def test_a_program_of_an_image_is_told_its_target_and_its_files(session: aiohttp.ClientSession) -> None:
    await sleeper(session)
    assert await add(session, {**CONTAINER, "targetContainerName": "c"}) == 200
    said = json.loads((await until(session, "p", "ephemeralContainerStatuses", "terminated"))["message"])
    assert said["argv"][:2] == ["run", "p"]
    assert said["pid"] in processes_with("HOSTNAME=p")


async def test_a_pod_for_another_is_told_the_others_process(session: aiohttp.ClientSession) -> None:
    target = await sleeper(session)
    labels = {"target-uid": target["metadata"]["uid"]}
    spec = {"restartPolicy": "Never", "containers": [CONTAINER]}
    await make(session, PODS, {"metadata": {"name": "agent", "labels": labels}, "spec": spec})
    said = json.loads((await until(session, "agent", "containerStatuses", "terminated"))["message"])
    assert said["pid"] in processes_with("HOSTNAME=p")


async def test_a_pod_for_nobody_waits_and_says_so(session: aiohttp.ClientSession) -> None:
    await make(session, PODS, {"metadata": {"name": "agent"}, "spec": {"containers": [CONTAINER]}})
    waiting = await until(session, "agent", "containerStatuses", "waiting")
    while waiting["reason"] == "ContainerCreating":
        waiting = await until(session, "agent", "containerStatuses", "waiting")
    assert waiting["message"] == "the process that the container is for does not run on this node"


async def test_only_the_tables_image_has_its_program(session: aiohttp.ClientSession) -> None:
    await sleeper(session)
    await add(session, {**CONTAINER, "image": "other/one:1"})
    waiting = await until(session, "p", "ephemeralContainerStatuses", "waiting")
    while waiting["reason"] != "ImagePullBackOff":
        waiting = await until(session, "p", "ephemeralContainerStatuses", "waiting")
    assert 'Back-off pulling image "other/one:1"' in waiting["message"]


@needs_root
async def test_a_tools_tmp_is_its_own_and_the_machines_files_are_there(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.write_text("visible")
    program = f"cat {mine}; touch /tmp/toe-own; ls -d /tmp/toe-*; ls /dev/null /dev/termination-log"
    await sleeper(session)
    shell = {"name": "tool", "image": "x", "command": ["sh", "-c", program]}
    await add(session, {**shell, "terminationMessagePolicy": "FallbackToLogsOnError"})
    await until(session, "p", "ephemeralContainerStatuses", "terminated")
    async with session.get(f"{PODS}/p/log", params={"container": "tool"}) as response:
        assert (await response.text()).split() == ["visible/tmp/toe-own", "/dev/null", "/dev/termination-log"]
    assert not Path("/tmp/toe-own").exists()


@needs_root
async def test_a_claim_is_one_folder_for_all_that_mount_it(session: aiohttp.ClientSession) -> None:
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}}
    claims = "/api/v1/namespaces/default/persistentvolumeclaims"
    made = await make(session, claims, {"metadata": {"name": "data"}, "spec": claim})
    mounts = [{"name": "v", "mountPath": "/toe/pvc"}]
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    container = {"name": "c", "image": "x", "command": ["sleep", "600"], "volumeMounts": mounts}
    await make(session, PODS, {"metadata": {"name": "p"}, "spec": {"containers": [container], "volumes": volumes}})
    await running(session)
    writing = {"name": "tool", "image": "x", "command": ["sh", "-c", "echo kept > /toe/pvc/file"]}
    await add(session, {**writing, "volumeMounts": mounts})
    await until(session, "p", "ephemeralContainerStatuses", "terminated")
    reading = {**container, "command": ["sh", "-c", "cat /toe/pvc/file > /dev/termination-log"]}
    spec = {"restartPolicy": "Never", "containers": [reading], "volumes": volumes}
    await make(session, PODS, {"metadata": {"name": "reader"}, "spec": spec})
    ended = await until(session, "reader", "containerStatuses", "terminated")
    assert made["status"]["phase"] == "Bound"
    assert ended["message"] == "kept\n"
    assert not Path("/toe/pvc").exists()


async def test_without_root_a_tool_is_told_where_its_files_are(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "mark", lambda *_: None, lambda _: None, IMAGES)
    pod = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"ephemeralContainers": [CONTAINER]}}
    (tmp_path / "u").mkdir()
    made = await launch(machine, pod, CONTAINER, "127.0.0.2", target=os.getpid(), attempt=0)
    process = await Process.start(made.command, Output(), SystemClock())
    code = await process.wait()
    said = json.loads(await asyncio.to_thread(message, made.message_file))
    own = tmp_path / "u" / "tool.0"
    assert (code, said["pid"]) == (0, os.getpid())
    assert said["argv"][-4:] == ["--log", str(own / "termination-log"), "--tmp", str(own / "tmp")]
    assert made.command.enclosure is None


async def test_without_root_a_claim_cannot_be_mounted(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "mark", lambda *_: {}, lambda _: None)
    container = {"name": "c", "command": ["true"], "volumeMounts": [{"name": "v", "mountPath": "/data"}]}
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
    pod = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"volumes": [volume]}}
    with pytest.raises(ConfigError, match="only when it runs as root"):
        await launch(machine, pod, container, "127.0.0.2", target=None, attempt=0)
