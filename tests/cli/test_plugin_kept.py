"""`kubectl toe get powertool/NAME` of mode ephemeral: files out of the pods that keep them, by the user's own exec."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tests.cli.aggregated import Aggregated, Plugin
from toe_async.kube.remotechannels import V5

RUN = "/apis/codriverlabs.ai.toe.run/v1alpha1/namespaces/shop/powertools/look"
EXEC = "/api/v1/namespaces/shop/pods/web-0/exec"
SUCCESS = b'\x03{"status":"Success"}'
CONTAINER = "toe-abcdefghijklmnopqrst"


@dataclass
class Supervisor:
    """Keeps files in a container. `breaks` says how often a file's connection is closed half-way, without a status."""

    files: dict[str, bytes]
    listed: tuple[str, ...]
    breaks: int = 0
    commands: list[list[str]] = field(default_factory=list)

    async def __call__(self, request: web.Request) -> web.StreamResponse | None:
        if request.path == RUN:
            return web.json_response(self._run())
        if request.path != EXEC:
            return None
        command = request.query.getall("command")[1:]
        self.commands.append(command)
        ws = web.WebSocketResponse(protocols=(V5,))
        await ws.prepare(request)
        if command[0] == "list":
            leaves = [{"name": name, "size": len(data), "sha256": ""} for name, data in self.files.items()]
            await ws.send_bytes(b"\x01" + json.dumps({"seconds": 900, "leaves": leaves}).encode())
        elif command[0] == "fetch":
            rest = self.files[command[1]][int(command[3]) :]
            if self.breaks:
                self.breaks -= 1
                await ws.send_bytes(b"\x01" + rest[: len(rest) // 2])
                await ws.close(code=1001)
                return ws
            await ws.send_bytes(b"\x01" + rest)
        await ws.send_bytes(SUCCESS)
        await ws.close()
        return ws

    def _run(self) -> dict[str, Any]:
        artifacts = [
            {
                "uri": f"pod://shop/web-0/{CONTAINER}/{name}",
                "size": len(self.files[name]),
                "sha256": hashlib.sha256(self.files[name]).hexdigest(),
            }
            for name in self.listed
        ]
        spec = {
            "targets": {"labelSelector": {"matchLabels": {"app": "web"}}},
            "tool": {"name": "probe", "duration": "30s"},
            "output": {"mode": "ephemeral"},
        }
        status = {"phase": "Completed", "artifacts": artifacts}
        return {"metadata": {"name": "look", "namespace": "shop", "uid": "u"}, "spec": spec, "status": status}

    def count(self, command: str) -> int:
        return sum(one[0] == command for one in self.commands)


async def test_a_broken_connection_goes_on_where_it_was_and_the_container_is_let_go(
    api: Aggregated, plugin: Plugin
) -> None:
    api.on_any = pod = Supervisor({"a.txt": b"first " * 1000, "b.txt": b"second"}, ("a.txt", "b.txt"), breaks=1)
    ran = await plugin.run("get", "powertool/look")
    assert (ran.code, ran.err) == (0, ""), ran.err
    assert sorted((plugin.home / line).read_bytes() for line in ran.lines) == sorted(pod.files.values())
    assert pod.count("fetch") == 3
    assert pod.count("fetched") == 1


async def test_a_container_that_keeps_more_than_was_fetched_is_not_told_to_let_go(
    api: Aggregated, plugin: Plugin
) -> None:
    """A status does not name all of very many files; what it left out would be lost."""
    api.on_any = pod = Supervisor({"a.000.txt": b"old", "a.001.txt": b"new"}, ("a.001.txt",))
    ran = await plugin.run("get", "powertool/look")
    assert (ran.code, len(ran.lines)) == (0, 1), ran.err
    assert "The pods keep 1 files more" in ran.err
    assert pod.count("fetched") == 0


@pytest.mark.slow
async def test_a_server_that_always_closes_early_is_given_up(api: Aggregated, plugin: Plugin) -> None:
    """Closed in order, but without a status and without a byte: five times, and not for ever."""
    api.on_any = pod = Supervisor({"a.txt": b"x"}, ("a.txt",), breaks=1000)
    ran = await plugin.run("get", "powertool/look")
    assert (ran.code, ran.out) == (1, "")
    assert "closed before the end" in ran.err
    assert pod.count("fetch") == 5
