"""An API server with thousands of pods that get hot when told, which counts every call and times every claim.

``python -m benchmarks.hotpods FOLDER PODS CONFIGS NAMESPACES`` is made of the sandbox's parts, without its kubelet: the
pods are synthetic, their metrics computed, their ports answer 404. It writes ``FOLDER/kubeconfig`` and obeys:

- ``count``: the calls since the last count, by verb and resource
- ``heat N SECONDS``: N pods, each of another configuration if there are so many, cross their threshold at random
  moments of so many seconds; once all are claimed in a status, or 30 s after the last, it tells the delays.
"""

import asyncio
import contextlib
import json
import logging
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from aiohttp import WSMsgType, web

from benchmarks import generate_data
from benchmarks.measure import kubeconfig, say
from toe_async.apis.crd import all_crds
from toe_async.lib.clock import SystemClock, rfc3339
from toe_async.lib.quantities import parse_quantity
from toe_async.sandbox.admission import Admission
from toe_async.sandbox.aggregation import aggregating
from toe_async.sandbox.certificates import Authority
from toe_async.sandbox.resources import CRDS, NAMESPACES, NODES, POD_METRICS, PODS, Registry, Resource
from toe_async.sandbox.routes import Route, route
from toe_async.sandbox.server import ApiServer
from toe_async.sandbox.status import JsonObject
from toe_async.sandbox.store import Change, Key, Store
from toe_async.sandbox.tokens import Tokens
from toe_async.sandbox.verbs import Verbs
from toe_async.telemetry import log

INTERVAL_SECONDS = 10
THRESHOLD_PERCENT = 80
_NODES = 250
_WINDOW = 20_000
_PATIENCE_SECONDS = 30.0
_GROUP = "bench-group"


class Pod:
    """What its metrics are made of: the CPU and memory that each container asked for."""

    def __init__(self, obj: JsonObject) -> None:
        self.meta = {name: obj["metadata"][name] for name in ("name", "namespace", "labels")}
        self.uid: str = obj["metadata"]["uid"]
        self.asked = [
            (one["name"], parse_quantity(one["resources"]["requests"]["cpu"]), one["resources"]["requests"]["memory"])
            for one in obj["spec"]["containers"]
        ]

    def usage(self, percent: float, now: str) -> JsonObject:
        """Its PodMetrics at so many per cent of its request; memory is always at a third."""
        containers = [
            {
                "name": name,
                "usage": {
                    "cpu": f"{int(float(cpu) * percent * 1e7)}n",
                    "memory": f"{int(parse_quantity(memory)) // 3}",
                },
            }
            for name, cpu, memory in self.asked
        ]
        return {"metadata": self.meta, "timestamp": now, "window": "10s", "containers": containers}


class Cluster:
    """The objects, who is hot since when, and who was claimed."""

    def __init__(self, pods: int, configs: int, namespaces: int) -> None:
        self.clock, self._rng = SystemClock(), random.Random(1)
        self.store = Store(_WINDOW)
        self.verbs = Verbs(self.store, Registry(), Admission(self.store), self.clock, self._rng)
        self.pods: dict[str, list[Pod]] = {f"team-{number}": [] for number in range(namespaces)}
        self.groups: dict[tuple[str, str], list[Pod]] = {}
        self._hot: dict[str, float] = {}
        self.delays: list[float] = []
        self._fill(pods, configs, max(1, configs // namespaces))
        self.store.listeners.append(self._note)

    def _fill(self, pods: int, configs: int, groups: int) -> None:
        for name in (*self.pods, "toe-system", "toe-agents"):
            self.verbs.create(NAMESPACES, "", {"metadata": {"name": name}})
        for number in range(_NODES):
            status = {"allocatable": {"cpu": "64", "memory": "256Gi"}}
            self.verbs.create(NODES, "", {"metadata": {"name": f"node-{number}"}, "status": status})
        for definition in all_crds():
            self.verbs.create(CRDS, "", definition)
        for number in range(pods):
            obj = generate_data.pod(number)
            namespace, group = f"team-{number % len(self.pods)}", f"g{number // len(self.pods) % groups}"
            meta = obj["metadata"]
            meta["namespace"] = namespace
            meta["labels"] = {**meta["labels"], _GROUP: group}
            meta["annotations"] = {**meta["annotations"], "profiling.io/enabled": "true"}
            self.store.put(PODS, Key(namespace, meta["name"]), obj)
            pod = Pod(obj)
            self.pods[namespace].append(pod)
            self.groups.setdefault((namespace, group), []).append(pod)
        kind = self.verbs.registry.find("profiling.io", "v1alpha1", "profilingconfigs")
        assert kind is not None
        for number in range(configs):
            namespace, group = f"team-{number % len(self.pods)}", f"g{number // len(self.pods) % groups}"
            spec = {
                "selector": {"labelSelector": {_GROUP: group}},
                "thresholds": {"cpuThresholdPercent": THRESHOLD_PERCENT, "checkIntervalSeconds": INTERVAL_SECONDS},
                "profileTypes": ["heap"],
                "collector": {},
            }
            meta = {"name": f"config-{number}"}
            config = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "spec": spec}
            self.verbs.create(kind, namespace, config)

    def metrics(self, resource: Resource, asked: Route, selected: Callable[[JsonObject], bool]) -> JsonObject:
        """A PodMetricsList as fresh as can be: 20 to 35 % for the cold, just above the threshold for the hot."""
        now = rfc3339(self.clock.now(), micro=True)
        items = [
            pod.usage(THRESHOLD_PERCENT + 10 if pod.uid in self._hot else self._rng.uniform(20, 35), now)
            for pod in self.pods.get(asked.namespace, ())
            if selected({"metadata": pod.meta})
        ]
        return {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": {}, "items": items}

    async def heat(self, count: int, seconds: float) -> None:
        """Make pods hot, one of each group in turn, then wait until they are claimed."""
        turns = [pods[turn] for turn in range(1 + count // len(self.groups)) for pods in self.groups.values()][:count]
        moments = sorted(self._rng.uniform(0, seconds) for _ in turns)
        begin = self.clock.monotonic()
        for pod, moment in zip(turns, moments, strict=True):
            await asyncio.sleep(begin + moment - self.clock.monotonic())
            self._hot[pod.uid] = self.clock.monotonic()
        until = self.clock.monotonic() + _PATIENCE_SECONDS
        while self._hot and self.clock.monotonic() < until:
            await asyncio.sleep(0.1)

    def _note(self, resource: Resource, change: Change) -> None:
        if not self._hot or resource.plural != "profilingconfigs":
            return
        for row in change.item.obj.get("status", {}).get("recent", ()):
            if (since := self._hot.pop(row["podUID"], None)) is not None:
                self.delays.append(self.clock.monotonic() - since)


async def serve(folder: Path, pods: int, configs: int, namespaces: int) -> None:
    """Serve until standard input ends or says so."""
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    cluster, calls = Cluster(pods, configs, namespaces), Counter[str]()
    async with _listening(cluster, calls) as (url, token):
        (folder / "kubeconfig").write_text(json.dumps(kubeconfig(url, token)))
        say(url=url, token=token)
        while (words := (await commands.readline()).split()) and words != [b"end"]:
            if words[0] == b"heat":
                await cluster.heat(int(words[1]), float(words[2]))
                say(delays=cluster.delays)
            else:
                say(**calls)
            calls.clear()


@contextlib.asynccontextmanager
async def _listening(cluster: Cluster, calls: Counter[str]) -> AsyncIterator[tuple[str, str]]:
    """The API server, which counts its calls; its URL and the administrator's token."""
    tokens = Tokens(cluster.store, cluster.clock, bytes(32), cluster.verbs.new_uid)
    front_proxy = Authority("front-proxy-ca", cluster.clock.now()).client("front-proxy")
    async with aggregating(
        cluster.verbs, cluster.clock, random.Random(3), front_proxy, _failed, request_seconds=60.0, check_seconds=30.0
    ) as aggregator:
        server = ApiServer(
            cluster.verbs, tokens, aggregator, cluster.clock, bookmark_seconds=60.0, rng=random.Random(2)
        )
        server.computed = {POD_METRICS.group: cluster.metrics}
        server.connectors = {"portforward": _nothing_there}

        async def counted(request: web.Request) -> web.StreamResponse:
            asked = route(request.method, request.rel_url.raw_path, dict(request.query))
            plural = f"{asked.resource}.{asked.group}" if asked.group else asked.resource
            calls[f"{asked.verb} {plural}{asked.subresource and '/'}{asked.subresource}"] += 1
            return await server.handle(request)

        async def collector(request: web.Request) -> web.Response:  # all that it is asked while nothing is stored
            return web.Response(text="ok")

        app = web.Application()
        app.router.add_get("/readyz", collector)
        app.router.add_route("*", "/{path:.*}", counted)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}", tokens.admin_token
        finally:
            await runner.cleanup()


def _failed(name: str, error: BaseException) -> None:
    print(f"{name} ended: {error!r}", file=sys.stderr)


async def _nothing_there(request: web.Request, asked: Route) -> web.StreamResponse:
    """A port-forward to a pod that serves no profile: no capture goes on after its claim."""
    socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",), compress=False)
    await socket.prepare(request)
    port = int(request.query["ports"]).to_bytes(2, "little")
    await socket.send_bytes(b"\x00" + port)
    await socket.send_bytes(b"\x01" + port)
    message = await socket.receive()
    if message.type is WSMsgType.BINARY:
        await socket.send_bytes(b"\x00HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await socket.close()
    return socket


if __name__ == "__main__":
    log.configure("json", "error")
    # A controller that is ended leaves its watches open; aiohttp calls that an error of ours.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    asyncio.run(serve(Path(sys.argv[1]), *map(int, sys.argv[2:5])))
