"""What it costs to keep a live copy of all pods: our informer, client-go's, and kubernetes_asyncio's list and watch.

``python -m benchmarks.informer [--pods 5000 20000] [--quick]``. Every figure comes from a fresh client process against
a fresh ``benchmarks.serve`` on a loopback socket; a client that does the same work is started for each number of pods.

- sync: seconds from the first request to the first whole state (WatchList for ours and for client-go, LIST in pages of
  500 for kubernetes_asyncio, whose watch has no WatchList).
- KB/pod: resident memory after the sync, less that before it, per pod; peak: the highest of the whole run.
- events/s: MODIFIED events told to a handler per second, sent as fast as the client reads them.
- CPU: the same two in the client's own processor seconds, all threads: they hold on a busy machine, too.

Each is also given as a ratio to ours, which is what holds between machines. client-go is asked to use JSON as the
others do; with protobuf, which custom resources do not have, it decodes about five times faster.
"stripped" is client-go with the usual transform, which drops managedFields.
"""

import argparse
import asyncio
import gc
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.measure import Process, cpu_seconds, kubeconfig, memory, order, process

HERE = Path(__file__).resolve().parent
LIMITS = (
    "What limits it now: four tenths of our CPU is JSON decoding in one thread (each object is scanned whole, few\n"
    "fields are kept), the rest is Python per object: splitting the stream, flattening, store and indexes. What a pod\n"
    "keeps is its own strings and label map; the peak is the interpreter with its libraries."
)
OURS, MODELS, CLIENT_GO, STRIPPED = "toe-async", "kubernetes_asyncio", "client-go", "client-go, stripped"
_BUILD_SECONDS = 900


class Figures(NamedTuple):
    """One client at one number of pods."""

    sync_seconds: float
    sync_cpu_seconds: float
    kilobytes_per_pod: float
    peak_megabytes: float
    events_per_second: float
    events_per_cpu_second: float


# Heading, digits and width of each figure in the table.
COLUMNS = (
    ("sync s", 2, 18),
    ("sync CPU s", 2, 18),
    ("KB/pod", 2, 18),
    ("peak MB", 0, 17),
    ("events/s", 0, 20),
    ("events/CPU s", 0, 20),
)


async def ours(url: str, events: int) -> None:
    """Our informer, with the pod decoder and the indexes that the operator uses."""
    from prometheus_client import CollectorRegistry

    from toe_async.apis.kinds import PODS
    from toe_async.apis.pods import Pod, PodDecoder
    from toe_async.kube.client import ClientSettings, connect
    from toe_async.lib.clock import SystemClock
    from toe_async.runtime.informer import Informer
    from toe_async.runtime.keys import Key
    from toe_async.telemetry import log
    from toe_async.telemetry.metrics import OperatorMetrics

    log.configure("json", "error")
    storm = _Storm(events)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(kubeconfig(url), file)
        file.flush()
        async with connect(ClientSettings(kubeconfig=file.name)) as client:
            decoder = PodDecoder()
            informer: Informer[Pod] = Informer(
                client,
                PODS,
                decoder.decode,
                key_of=lambda pod: Key(pod.namespace, pod.name),
                version_of=lambda pod: pod.resource_version,
                uid_of=lambda pod: pod.uid,
                clock=SystemClock(),
                metrics=OperatorMetrics(CollectorRegistry()),
                indexes={"namespace": lambda pod: (pod.namespace,)},
                split_items=True,
                reset_decoder=decoder.reset,
            )
            informer.add_handler(lambda old, _new: storm.count() if old is not None else None)
            begin = _ready()
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(informer.run())
                await informer.synced.wait()
                _synced(begin)
                await storm.over.wait()
                storm.tell()
                running.cancel()


async def models(url: str, events: int) -> None:
    """kubernetes_asyncio as its documentation shows it: typed list, then typed watch."""
    from kubernetes_asyncio import client, watch

    storm = _Storm(events)
    configuration = client.Configuration(host=url)
    async with client.ApiClient(configuration) as api:
        core = client.CoreV1Api(api)
        begin = _ready()
        store: dict[tuple[str, str], Any] = {}
        page = await core.list_pod_for_all_namespaces(limit=500)
        while True:
            store |= {(pod.metadata.namespace, pod.metadata.name): pod for pod in page.items}
            if not page.metadata._continue:  # noqa: SLF001 -- the generated model's name for it
                break
            page = await core.list_pod_for_all_namespaces(limit=500, _continue=page.metadata._continue)  # noqa: SLF001
        _synced(begin)
        async with watch.Watch() as watching:
            version = page.metadata.resource_version
            async for event in watching.stream(core.list_pod_for_all_namespaces, resource_version=version):
                pod = event["object"]
                store[pod.metadata.namespace, pod.metadata.name] = pod
                storm.count()
                if storm.over.is_set():
                    break
        storm.tell()


class _Storm:
    """Counts events and times them from the first to the last."""

    def __init__(self, events: int) -> None:
        self._left = self._events = events
        self._begin = self._took = 0.0
        self.over = asyncio.Event()

    def count(self) -> None:
        if self._left == self._events:
            self._begin = perf_counter()
        self._left -= 1
        if self._left == 0:
            self._took = perf_counter() - self._begin
            self.over.set()

    def tell(self) -> None:
        print(f"storm {self._took:.6f}", flush=True)


def _ready() -> float:
    gc.collect()
    print("ready", flush=True)
    sys.stdin.readline()
    return perf_counter()


def _synced(begin: float) -> None:
    took = perf_counter() - begin
    gc.collect()
    print(f"synced {took:.6f}", flush=True)


def build_client_go() -> Path | str:
    """Return the built baseline, or a sentence that says why there is none."""
    go = shutil.which("go")
    if go is None:
        return "client-go is left out: no `go` on PATH"
    target = Path(tempfile.mkdtemp(prefix="toe-bench-")) / "clientgo"
    built = subprocess.run(
        [go, "build", "-o", str(target), "."],
        cwd=HERE / "clientgo", capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False,
    )  # fmt: skip
    if built.returncode:
        return f"client-go is left out: it does not build here: {built.stderr.strip()[-300:]}"
    return target


def measure(command: list[str], pods: int, events: int) -> Figures:
    """Run one client in a fresh process against a fresh server."""
    with process([sys.executable, "-m", "benchmarks.serve", str(pods)]) as server:
        url = f"http://127.0.0.1:{_answer(server)[0]}"
        with process([*command, url, str(events)]) as client:
            _answer(client, "ready")
            rss, cpu = memory(client.pid, "VmRSS"), cpu_seconds(client.pid)
            order(client, "go")
            sync = float(_answer(client, "synced")[1])
            kept, sync_cpu = memory(client.pid, "VmRSS") - rss, cpu_seconds(client.pid) - cpu
            cpu += sync_cpu
            order(server, f"storm {events}")
            storm = float(_answer(client, "storm")[1])
            storm_cpu = cpu_seconds(client.pid) - cpu
            peak = memory(client.pid, "VmHWM")
    return Figures(sync, sync_cpu, kept / pods, peak / 1024, events / storm, events / storm_cpu)


def _answer(running: Process, word: str = "") -> list[str]:
    assert running.stdout is not None
    line = running.stdout.readline().split()
    if not line or (word and line[0] != word):
        raise RuntimeError(f"{running.args!r} said {line} instead of {word or 'its port'}; its exit: {running.poll()}")
    return line


def table(pods: int, rows: dict[str, Figures]) -> str:
    """Lay out one number of pods, each figure with its ratio to ours."""
    base = rows[OURS]
    lines = ["\n" + f"{pods:,} pods".ljust(22) + "".join(heading.rjust(width) for heading, _, width in COLUMNS)]
    for name, row in rows.items():
        cells = [
            f"{value:,.{digits}f} ({value / own:.2f}x)".rjust(width)
            for value, own, (_, digits, width) in zip(row, base, COLUMNS, strict=True)
        ]
        lines.append(name.ljust(22) + "".join(cells))
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.informer", description=__doc__.splitlines()[0])
    parser.add_argument("--pods", type=int, nargs="+", default=[5000, 20000])
    parser.add_argument("--quick", action="store_true", help="one small table, without kubernetes_asyncio's slow part")
    options = parser.parse_args(argv)
    sizes, events = ([1000], 5000) if options.quick else (options.pods, 40_000)

    this = [sys.executable, "-m", "benchmarks.informer", "--client"]
    clients = {OURS: ([*this, "ours"], events), MODELS: ([*this, "models"], events // 20)}
    built = build_client_go()
    if isinstance(built, Path):
        clients[CLIENT_GO] = ([str(built)], events)
        clients[STRIPPED] = ([str(built), "-strip"], events)
    else:
        print(built)
    try:
        for size in sizes:
            rows = {name: measure(command, size, count) for name, (command, count) in clients.items()}
            print(table(size, rows), flush=True)
        print(LIMITS)
    finally:
        if isinstance(built, Path):
            shutil.rmtree(built.parent)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        asyncio.run({"ours": ours, "models": models}[sys.argv[2]](sys.argv[3], int(sys.argv[4])))
    else:
        main()
