"""What only the sandbox offers: its handles, its fault hooks, and that it leaves nothing behind."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from toe_async.sandbox.cluster import Sandbox, SandboxSettings, start
from toe_async.sandbox.status import Refusal

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
SLEEPER = {
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "c", "image": "none", "command": ["sh", "-c", "sleep 600 & sleep 600"]}]},
}


async def make(session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> dict[str, Any]:
    async with session.post(path, json=body) as response:
        assert response.status == 201, await response.text()
        held: dict[str, Any] = await response.json()
        return held


async def events(response: aiohttp.ClientResponse, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(10):
        return [json.loads(await response.content.readline()) for _ in range(count)]


async def running(session: aiohttp.ClientSession, name: str = "p") -> None:
    query = {"watch": "1", "fieldSelector": f"metadata.name={name}"}
    async with asyncio.timeout(10), session.get(PODS, params=query) as response:
        async for line in response.content:
            if json.loads(line)["object"]["status"]["phase"] == "Running":
                return


def processes_with(text: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if text.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


async def test_a_kubeconfig_carries_server_authority_and_token(sandbox: Sandbox, kubeconfig: Path) -> None:
    held = yaml.safe_load(kubeconfig.read_text())
    cluster = held["clusters"][0]["cluster"]
    assert cluster["server"] == sandbox.url
    assert Path(cluster["certificate-authority"]).read_bytes() == sandbox.certificate_authority
    assert held["users"][0]["user"] == {"token": sandbox.admin_token}
    assert kubeconfig.stat().st_mode & 0o077 == 0


async def test_a_service_accounts_kubeconfig_has_its_rights_only(
    sandbox: Sandbox, admin: aiohttp.ClientSession, tmp_path: Path
) -> None:
    path = tmp_path / "account"
    await asyncio.to_thread(sandbox.write_kubeconfig, path, "system:serviceaccount:default:default")
    token = yaml.safe_load(path.read_text())["users"][0]["user"]["token"]
    async with admin.get(PODS, headers={"Authorization": f"Bearer {token}"}) as response:
        assert response.status == 403
    with pytest.raises(ValueError, match="neither admin nor"):
        sandbox.write_kubeconfig(path, "eve")
    with pytest.raises(Refusal, match="not found"):
        sandbox.service_account_token("default", "nobody")


async def test_compaction_ends_watches_and_makes_old_versions_410(
    sandbox: Sandbox, admin: aiohttp.ClientSession
) -> None:
    old = (await make(admin, MAPS, {"metadata": {"name": "a"}}))["metadata"]["resourceVersion"]
    await make(admin, MAPS, {"metadata": {"name": "b"}})
    async with admin.get(MAPS, params={"watch": "1", "resourceVersion": old}) as response:
        assert [one["object"]["metadata"]["name"] for one in await events(response, 1)] == ["b"]
        sandbox.compact()
        assert await response.content.read() == b""
    async with admin.get(MAPS, params={"watch": "1", "resourceVersion": old}) as response:
        (error,) = await events(response, 1)
        assert (error["type"], error["object"]["code"], error["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert await response.content.read() == b""


async def test_a_page_after_compaction_is_410_with_a_token_to_go_on(
    sandbox: Sandbox, admin: aiohttp.ClientSession
) -> None:
    for name in ("a", "b", "c"):
        await make(admin, MAPS, {"metadata": {"name": name}})
    async with admin.get(MAPS, params={"limit": "1"}) as response:
        token = (await response.json())["metadata"]["continue"]
    await make(admin, MAPS, {"metadata": {"name": "d"}})
    sandbox.compact()
    async with admin.get(MAPS, params={"limit": "9", "continue": token}) as response:
        status = await response.json()
        assert (response.status, status["reason"]) == (410, "Expired")
        assert status["message"].startswith("The provided continue parameter is too old")
    async with admin.get(MAPS, params={"limit": "9", "continue": status["metadata"]["continue"]}) as response:
        assert [one["metadata"]["name"] for one in (await response.json())["items"]] == ["b", "c", "d"]


async def test_history_is_bounded_by_its_window(sandbox: Sandbox, admin: aiohttp.ClientSession) -> None:
    """The window of this fixture is 10 changes; at twice as many the older half is forgotten."""
    first = (await make(admin, MAPS, {"metadata": {"name": "first"}}))["metadata"]["resourceVersion"]
    for number in range(20):
        await make(admin, MAPS, {"metadata": {"name": f"m{number}"}})
    async with admin.get(MAPS, params={"watch": "1", "resourceVersion": first}) as response:
        assert (await events(response, 1))[0]["object"]["code"] == 410


async def test_two_pods_can_use_one_port(sandbox: Sandbox, admin: aiohttp.ClientSession) -> None:
    program = (
        "import http.server, os\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(os.environ['HOSTNAME'].encode())\n"
        "http.server.HTTPServer((os.environ['POD_LOOPBACK'], 8080), H).serve_forever()\n"
    )
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 0.05}
    container = {"name": "c", "image": "x", "command": ["python3", "-c", program], "readinessProbe": probe}
    answers = []
    for name in ("one", "two"):
        await make(admin, PODS, {"metadata": {"name": name}, "spec": {"containers": [container]}})
    for name in ("one", "two"):
        query = {"watch": "1", "fieldSelector": f"metadata.name={name}"}
        async with asyncio.timeout(10), admin.get(PODS, params=query) as response:
            async for line in response.content:
                if '"type":"Ready","status":"True"' in line.decode():
                    break
        url = f"{PODS}/{name}/portforward?ports=8080"
        async with admin.ws_connect(url, protocols=("v4.channel.k8s.io",)) as socket:
            await socket.send_bytes(b"\0GET / HTTP/1.0\r\n\r\n")
            frames = [message.data async for message in socket]
        answers.append(b"".join(frame[1:] for frame in frames[2:]).rpartition(b"\r\n\r\n")[2])
    assert answers == [b"one", b"two"]


async def test_a_pod_without_a_command_or_with_a_bad_one_waits_and_says_why(
    sandbox: Sandbox, admin: aiohttp.ClientSession
) -> None:
    for name, container in {"image": {}, "typo": {"command": ["/no/such/program"]}}.items():
        body = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x", **container}]}}
        await make(admin, PODS, body)
    reasons = {}
    for name in ("image", "typo"):
        query = {"watch": "1", "fieldSelector": f"metadata.name={name}"}
        async with asyncio.timeout(10), admin.get(PODS, params=query) as response:
            async for line in response.content:
                status = json.loads(line)["object"]["status"].get("containerStatuses", [{}])[0]
                waiting = status.get("state", {}).get("waiting", {})
                if waiting.get("message"):
                    reasons[name] = (waiting["reason"], waiting["message"])
                    break
    assert reasons["image"][0] == "CreateContainerConfigError"
    assert "give the container a command" in reasons["image"][1]
    assert reasons["typo"][0] == "CrashLoopBackOff"


async def test_leaving_the_sandbox_ends_every_process_of_every_pod() -> None:
    async with start(SandboxSettings(tls=False)) as held:
        headers = {"Authorization": f"Bearer {held.admin_token}"}
        async with aiohttp.ClientSession(held.url, headers=headers) as session:
            body = await make(session, PODS, {**SLEEPER, "metadata": {"name": "mark-leaving"}})
            await running(session, "mark-leaving")
        assert processes_with("HOSTNAME=mark-leaving")
    assert body["metadata"]["uid"]
    assert processes_with("HOSTNAME=mark-leaving") == []


HOLDER = """
import asyncio, aiohttp, sys
from toe_async.sandbox.cluster import SandboxSettings, start
async def main():
    async with start(SandboxSettings(tls=False)) as held:
        print(held.url, held.admin_token, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.slow
async def test_sigkill_of_the_sandbox_leaves_no_process_and_no_file_behind(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", HOLDER)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, env=environment)
    assert process.stdout is not None
    url, token = (await process.stdout.readline()).decode().split()
    daemon = "import os, time; os.fork() or os.setsid(); time.sleep(600)"
    container = {"name": "c", "image": "x", "command": ["python3", "-c", daemon]}
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {token}"}) as session:
        await make(session, PODS, {"metadata": {"name": "mark-killed"}, "spec": {"containers": [container]}})
        await running(session, "mark-killed")
    assert any(tmp_path.iterdir())
    process.send_signal(signal.SIGKILL)
    await process.wait()
    async with asyncio.timeout(10):
        while processes_with("HOSTNAME=mark-killed") or any(tmp_path.iterdir()):
            await asyncio.sleep(0.05)
