"""How soon a hot pod is claimed, and what looking out for it costs: 200 ProfilingConfigs over 5,000 pods.

``python -m benchmarks.detection [--pods N] [--configs N] [--namespaces N] [--quick]``. The operator runs as it is
deployed, against ``benchmarks.hotpods``; every pod opted in, every configuration asks every 10 s, which is as often as
it may. First nothing is hot for a while: calls, CPU and memory are those. Then one pod of each configuration crosses
its threshold at a random moment; the delay ends with the status that claims it.

The baseline is the controller that one would write first: for every configuration a task that asks metrics.k8s.io for
its pods at every interval. It is spared whatever else such a controller does: it lists its pods but once and keeps
nothing of them but UID and request, follows no change and captures nothing. An extra row tells what waiting for a poll
costs whoever polls at that interval: half of it in the median.
"""

import argparse
import asyncio
import contextlib
import json
import math
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.hotpods import INTERVAL_SECONDS, THRESHOLD_PERCENT
from benchmarks.measure import Column, cpu_seconds, kept_folder, memory, order, service, table, this, told, unlogged

OURS, NAIVE = "toe-async", "one poll per configuration"
COLUMNS = (
    Column("delay p50 s", 2),
    Column("delay p99 s", 2),
    Column("calls/min", 1),
    Column("CPU % of a core", 2),
    Column("RSS MB", 1),
)
LIMIT = (
    "Limit: the delay is the wait for the next poll, 10 s being the shortest interval that a configuration may have; "
    "CPU is the decoding of metrics, once a namespace and interval, and judging every pod for its config."
)
_SETTLE_SECONDS = 25.0


class Found(NamedTuple):
    """One controller: seconds to each claim, calls per minute while nothing was hot, CPU share and MB then."""

    delays: list[float]
    missing: int
    calls: dict[str, float]
    cpu_share: float
    megabytes: float

    def row(self) -> list[float | None]:
        """Its row of the table."""
        ordered = sorted(self.delays)
        p50, p99 = (ordered[math.ceil(len(ordered) * share) - 1] for share in (0.5, 0.99))
        return [p50, p99, sum(self.calls.values()), self.cpu_share * 100, self.megabytes]


class Scale(NamedTuple):
    """How much of everything there is, and how long it is looked at (seconds)."""

    pods: int
    configs: int
    namespaces: int
    quiet: float
    hot: float


def measure(command: Sequence[str], folder: Path, scale: Scale) -> Found:
    """Run one controller in a fresh process against a fresh server. ``{url}`` in the command is the server's."""
    folder.mkdir()
    sizes = [str(each) for each in (scale.pods, scale.configs, scale.namespaces)]
    with service(this("hotpods", str(folder), *sizes)) as server:
        found = told(server)
        filled = [each.format(folder=folder, **found) for each in command]
        with unlogged(filled, folder) as running:
            time.sleep(_SETTLE_SECONDS + scale.pods / 1000)
            _count(server)
            cpu, begin = cpu_seconds(running.pid), time.monotonic()
            time.sleep(scale.quiet)
            calls, took = _count(server), time.monotonic() - begin
            share, resident = (cpu_seconds(running.pid) - cpu) / took, memory(running.pid, "VmRSS") / 1024
            order(server, f"heat {scale.configs} {scale.hot}")
            delays: list[float] = told(server)["delays"]
            if running.poll() is not None or not delays:
                raise RuntimeError(f"{command[2:4]} claimed nothing: {(folder / 'log').read_text()[-2000:]}")
    per_minute = {name: count * 60 / took for name, count in sorted(calls.items())}
    return Found(delays, scale.configs - len(delays), per_minute, share, resident)


def _count(server: Any) -> dict[str, int]:
    order(server, "count")
    return told(server)


def run(scale: Scale) -> None:
    """Measure both controllers and print the tables."""
    operator = [
        sys.executable, "-m", "toe_async", "operator", "--kubeconfig={folder}/kubeconfig", "--collector-url={url}",
        "--spool-dir={folder}/spool", "--identity=bench", "--policy=optional", "--max-concurrent-captures=64",
        "--metrics-address=127.0.0.1:0", "--health-address=127.0.0.1:0", "--log-level=error",
    ]  # fmt: skip
    with kept_folder() as folder:
        found = {
            OURS: measure(operator, folder / "ours", scale),
            NAIVE: measure(this("detection", "--naive", "{url}", "{token}"), folder / "naive", scale),
        }
    rows = {name: one.row() for name, one in found.items()}
    polls = scale.namespaces * 60 / INTERVAL_SECONDS
    rows["the wait for a poll every 10 s"] = [INTERVAL_SECONDS * 0.5, INTERVAL_SECONDS * 0.99, polls, None, None]
    print(table(f"{scale.configs:,} configs, {scale.pods:,} pods", COLUMNS, rows, base=NAIVE))
    for name, one in found.items():
        if one.missing:
            print(f"{name} did not claim {one.missing} of {scale.configs} pods within 30 s.")
    print(LIMIT)
    kinds = sorted({kind for one in found.values() for kind in one.calls})
    columns = [Column(name, 1, ratio=False) for name in found]
    counts = {kind: [one.calls.get(kind) for one in found.values()] for kind in kinds}
    print(table("calls/min, nothing hot", columns, counts))
    print(
        f"Limit: one list of metrics a namespace and interval, {polls:.0f} a minute for {scale.namespaces} namespaces; "
        "the Lease is renewed every 2 s.",
        flush=True,
    )


# ---- the baseline ----------------------------------------------------------------------------------------------------


async def naive(url: str, token: str) -> None:
    """A task for each configuration."""
    import aiohttp

    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(url, headers=headers, connector=aiohttp.TCPConnector(limit=100)) as session:
        async with session.get("/apis/profiling.io/v1alpha1/profilingconfigs") as response:
            configs = (await response.json())["items"]
        async with asyncio.TaskGroup() as tasks:
            for config in configs:
                tasks.create_task(_poll(session, config))


async def _poll(session: Any, config: dict[str, Any]) -> None:
    namespace, name = config["metadata"]["namespace"], config["metadata"]["name"]
    labels = config["spec"]["selector"]["labelSelector"]
    query = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())}
    async with session.get(f"/api/v1/namespaces/{namespace}/pods", params=query) as response:
        pods = {
            pod["metadata"]["name"]: (pod["metadata"]["uid"], sum(map(_cores, pod["spec"]["containers"])))
            for pod in (await response.json())["items"]
        }
    claimed: set[str] = set()
    await asyncio.sleep(random.uniform(0, INTERVAL_SECONDS))
    while True:
        began = time.monotonic()
        path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods"
        async with session.get(path, params=query) as response:
            items = (await response.json())["items"]
        for item in items:
            pod = item["metadata"]["name"]
            uid, asked = pods[pod]
            used = sum(int(one["usage"]["cpu"].removesuffix("n")) / 1e9 for one in item["containers"])
            if used / asked * 100 > THRESHOLD_PERCENT and pod not in claimed:
                claimed.add(pod)
                row = {
                    "id": f"naive-{pod}", "pod": pod, "podUID": uid, "container": "app",
                    "reason": "threshold-exceeded", "state": "Capturing", "holder": "naive",
                    "startedAt": item["timestamp"], "deadline": item["timestamp"],
                }  # fmt: skip
                path = f"/apis/profiling.io/v1alpha1/namespaces/{namespace}/profilingconfigs/{name}/status"
                kind = {"Content-Type": "application/merge-patch+json"}
                async with session.patch(
                    path, data=json.dumps({"status": {"recent": [row]}}), headers=kind
                ) as response:
                    response.raise_for_status()
        await asyncio.sleep(began + INTERVAL_SECONDS - time.monotonic())


def _cores(container: dict[str, Any]) -> float:
    return float(container["resources"]["requests"]["cpu"].removesuffix("m")) / 1000


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--configs", type=int, default=200)
    parser.add_argument("--namespaces", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="half a minute of quiet and of heat instead of two")
    options = parser.parse_args(argv)
    seconds = 30.0 if options.quick else 120.0
    run(Scale(options.pods, options.configs, options.namespaces, seconds, seconds))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--naive", url, token]:
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(naive(url, token))
        case _:
            main()
