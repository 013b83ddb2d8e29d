"""The sandbox in a process of its own, with the project's rights and policy installed as deploy/ has them.

``python -m benchmarks.cluster FOLDER`` writes kubeconfigs ``operator`` and ``collector`` and the operator's token for
the collector into the folder, then obeys its standard input: ``pod {...}`` runs a pod and answers with its UID and
address once it is ready; ``end`` ends it all.
"""

import asyncio
import json
import sys
from pathlib import Path

from benchmarks.measure import say
from toe_async.apis.crd import all_crds
from toe_async.sandbox.checkout import RIGHTS, Object, deployed, http_probe, python_pod
from toe_async.sandbox.cluster import Sandbox, SandboxSettings, start
from toe_async.sandbox.resources import PODS
from toe_async.sandbox.store import Key
from toe_async.telemetry import log

NAMESPACE = "bench"
_ACCOUNT = "system:serviceaccount:toe-system:toe-{}"
_TOKEN_SECONDS = 7200
_READY_SECONDS = 120.0


def collector(folder: Path) -> Object:
    """The collector's pod; it listens on port 8443, in plain HTTP, and stores in ``folder/store``."""
    command = [
        "toe_async",
        "collector",
        f"--root={folder / 'store'}",
        "--max-artifact-bytes=64Gi",
        "--listen=$(POD_IP):8443",
        "--metrics-address=$(POD_IP):8080",
        "--insecure-http",
        f"--kubeconfig={folder / 'collector'}",
    ]
    return python_pod("toe-system", "toe-collector", command, readinessProbe=http_probe("/readyz", 8080))


async def serve(folder: Path) -> None:
    """Run the cluster until standard input ends or says so."""
    commands = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with start(SandboxSettings(tls=False)) as sandbox:
        _install(sandbox)
        for name in ("operator", "collector"):
            sandbox.write_kubeconfig(folder / name, _ACCOUNT.format(name))
        token = sandbox.service_account_token("toe-system", "toe-operator", "toe-collector", _TOKEN_SECONDS)
        (folder / "token").write_text(token)
        say(url=sandbox.url)
        while (line := await commands.readline()) and line != b"end\n":
            say(**await _run(sandbox, json.loads(line.removeprefix(b"pod "))))


def _install(sandbox: Sandbox) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    for one in (*deployed(RIGHTS), *all_crds(), namespace):
        resource = sandbox.verbs.registry.of_kind(one["apiVersion"], one["kind"])
        assert resource is not None, one["kind"]
        sandbox.verbs.create(resource, one["metadata"].get("namespace", ""), one)


async def _run(sandbox: Sandbox, obj: Object) -> Object:
    key = Key(obj["metadata"]["namespace"], obj["metadata"]["name"])
    sandbox.verbs.create(PODS, key.namespace, obj)
    async with asyncio.timeout(_READY_SECONDS):
        while True:
            held = sandbox.verbs.store.get(PODS, key)
            assert held is not None
            status = held.obj["status"]
            if any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ())):
                return {"address": status["podIP"], "uid": held.obj["metadata"]["uid"]}
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    log.configure("json", "error")
    asyncio.run(serve(Path(sys.argv[1])))
