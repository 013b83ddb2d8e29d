"""What a process costs before it does anything: imports, the way to ready, and then being idle.

``python -m benchmarks.startup [--quick]``. Imports: the median of fresh interpreters, less one that imports nothing.
Ready: from exec to the first 200 of /readyz, the API server being the sandbox in another process; the operator leads by
its Lease, the collector listens in plain HTTP. Idle: resident memory and CPU over a minute (10 s with --quick).

Baselines: the three libraries that both stand on, imported alone; and an aiohttp server with one route.
"""

import argparse
import contextlib
import http.client
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from benchmarks.measure import ROOT, Column, cpu_seconds, kept_folder, memory, service, table, this, told, unlogged

LIBRARIES = "kubernetes_asyncio, aiohttp, aiobotocore"
IMPORTS = {
    LIBRARIES: f"import {LIBRARIES}, aiobotocore.session",
    "toe_async.cli.operator": "import toe_async.cli.operator",
    "toe_async.cli.collector": "import toe_async.cli.collector",
    "kubernetes_asyncio": "import kubernetes_asyncio",
    "aiohttp": "import aiohttp",
}
IMPORT_COLUMNS = (Column("import ms"), Column("CPU ms"), Column("RSS MB", 1), Column("modules"))
READY_COLUMNS = (Column("ready s", 2), Column("CPU s to ready", 2), Column("idle RSS MB", 1), Column("idle CPU %", 2))
_LOOK_SECONDS = 0.01
_SETTLE_SECONDS = 5.0
_READY_SECONDS = 60.0

IMPORT_LIMIT = (
    "Limit: kubernetes_asyncio, which imports its model of every Kubernetes type whatever is used of it; aiobotocore "
    "is imported only when a configuration names S3."
)
READY_LIMIT = (
    "Limit: to ready, the imports and then the Lease and the first watches; idle, memory is the imported libraries and "
    "CPU the Lease's renewal every 2 s."
)

_BARE = """
import os, sys
from aiohttp import web

async def ready(request):
    return web.Response(text="ok")

app = web.Application()
app.router.add_get("/readyz", ready)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""

_TELL = """
import sys, time
wall, cpu = time.perf_counter(), time.process_time()
{statement}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
status = open("/proc/self/status").read()
rss = int(status.partition("VmRSS:")[2].split()[0])
print(wall, cpu, rss, len(sys.modules))
"""


def imports(rounds: int) -> dict[str, list[float | None]]:
    """Rows of the import table: medians, less what an interpreter costs that imports nothing."""
    found: dict[str, list[list[float]]] = {name: [] for name in ("", *IMPORTS)}
    for _ in range(rounds):  # in turn, so that a busy minute falls on all of them
        for name, runs in found.items():
            source = _TELL.format(statement=IMPORTS.get(name, "pass"))
            told_ = subprocess.run([sys.executable, "-c", source], cwd=ROOT, check=True, capture_output=True, text=True)
            runs.append([float(each) for each in told_.stdout.split()])
    middle = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in found.items()}
    wall, cpu, rss, modules = middle.pop("")
    return {
        name: [(row[0] - wall) * 1e3, (row[1] - cpu) * 1e3, (row[2] - rss) / 1024, row[3] - modules]
        for name, row in middle.items()
    }


def ready(command: Sequence[str], port: int, folder: Path, idle_seconds: float) -> list[float | None]:
    """Start a server once; its row of the other table."""
    folder.mkdir()
    begin = perf_counter()
    with unlogged(command, folder) as running:
        while not _answers(port):
            if running.poll() is not None or perf_counter() - begin > _READY_SECONDS:
                raise RuntimeError(f"{' '.join(command)} does not get ready: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(_LOOK_SECONDS)
        took, cpu = perf_counter() - begin, cpu_seconds(running.pid)
        time.sleep(_SETTLE_SECONDS)
        before, since = _precise_cpu(running.pid), perf_counter()
        time.sleep(idle_seconds)
        share = (_precise_cpu(running.pid) - before) / (perf_counter() - since)
        return [took, cpu, memory(running.pid, "VmRSS") / 1024, share * 100]


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _precise_cpu(pid: int) -> float:
    """Processor seconds of all threads, in nanoseconds' steps: an idle process uses few of the kernel's ticks."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:  # all are held until the last one is found, else one comes twice
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


def servers(folder: Path, idle_seconds: float) -> dict[str, list[float | None]]:
    """Rows of the table about getting ready and being idle."""
    ports = _free_ports(6)
    program = [sys.executable, "-m", "toe_async"]
    commands = {
        "an aiohttp server": ([sys.executable, "-c", _BARE, str(ports[0])], ports[0]),
        "operator": (
            [
                *program, "operator", f"--kubeconfig={folder / 'operator'}", f"--spool-dir={folder / 'spool'}",
                f"--collector-url=http://127.0.0.1:{ports[3]}", f"--collector-token-file={folder / 'token'}",
                "--identity=bench", f"--metrics-address=127.0.0.1:{ports[1]}", f"--health-address=127.0.0.1:{ports[2]}",
            ],
            ports[2],
        ),
        "collector": (
            [
                *program, "collector", f"--kubeconfig={folder / 'collector'}", f"--root={folder / 'store'}",
                f"--listen=127.0.0.1:{ports[4]}", "--insecure-http", f"--metrics-address=127.0.0.1:{ports[5]}",
            ],
            ports[5],
        ),
    }  # fmt: skip
    return {
        name: ready(command, port, folder / f"run-{port}", idle_seconds) for name, (command, port) in commands.items()
    }


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 9, 10 s of idling instead of 60")
    quick = parser.parse_args(argv).quick
    print(table("imports", IMPORT_COLUMNS, imports(3 if quick else 9), base=LIBRARIES))
    print(IMPORT_LIMIT, flush=True)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(kept_folder())
        told(stack.enter_context(service(this("cluster", str(folder)))))
        print(table("processes", READY_COLUMNS, servers(folder, 10.0 if quick else 60.0)))
    print(READY_LIMIT, flush=True)


if __name__ == "__main__":
    main()
