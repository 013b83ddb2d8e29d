"""A collector that is killed at its n-th call to the disk: run as a program, one process for each n.

`python -m tests.collector.crashing ROOT N` serves, registers a capture, uploads two artifacts whole and one in pieces,
completes it, and writes a line to standard output for each answer as soon as it has it. At the N-th call that a thread
of the store makes to the operating system the process kills itself with SIGKILL, before the call. N = 0: no kill; the
number of calls is printed.
"""

import asyncio
import io
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry

from tests.collector.rig import CAPTURE, OPERATOR, UPLOADER, FakeApi, registration, sha256
from toe_async.collector.app import serve
from toe_async.collector.settings import CollectorSettings
from toe_async.lib.clock import SystemClock
from toe_async.telemetry import log
from toe_async.telemetry.metrics import CollectorMetrics

CALLS = ("open", "write", "fsync", "link", "replace", "unlink", "mkdir", "close", "stat", "fstat", "lseek")
BODIES = {"heap.pprof": b"heap " * 70_000, "cpu.pprof": b"cpu " * 10, "mutex.pprof": bytes(range(250)) * 1000}
IN_PIECES, PIECE = "mutex.pprof", 100_000


def install(kill_at: int) -> Callable[[], int]:
    """Count the calls of the store's threads from now on, and die at one of them."""
    counter, last = itertools.count(1), [0]

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **more: Any) -> Any:
            if threading.current_thread().name.startswith("collector-disk"):
                last[0] = next(counter)
                if last[0] == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        return called

    for name in CALLS:
        setattr(os, name, wrap(getattr(os, name)))
    return lambda: last[0]


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def main(root: Path, kill_at: int) -> None:
    api = FakeApi()
    wanted = CollectorSettings(
        root=root, operator_users=frozenset({OPERATOR}), uploader_users=frozenset({UPLOADER}), listen="127.0.0.1:0",
        insecure_http=True,
    )  # fmt: skip
    async with serve(wanted, api, SystemClock(), CollectorMetrics(CollectorRegistry())) as served:
        counted = install(kill_at)
        auth = {"Authorization": f"Bearer {api.token(OPERATOR, 'toe-collector')}"}
        upload = {"Authorization": f"Bearer {api.token(UPLOADER, f'toe-collector/{CAPTURE}')}"}
        async with aiohttp.ClientSession(served.url) as http:
            async with http.post("/v1/captures", json=registration(leaves=[*BODIES]), headers=auth) as reply:
                say("registered", reply.status)
            for leaf, body in BODIES.items():
                path = f"/v1/captures/{CAPTURE}/artifacts/{leaf}"
                if leaf == IN_PIECES:
                    await in_pieces(http, path, body, upload)
                    continue
                async with http.put(path, data=io.BytesIO(body), headers=upload, expect100=True) as reply:
                    say("stored", leaf, reply.status)
            done = [{"name": leaf, "size": len(body), "sha256": sha256(body)} for leaf, body in BODIES.items()]
            async with http.post(f"/v1/captures/{CAPTURE}/complete", json={"artifacts": done}, headers=upload) as reply:
                say("completed", reply.status)
        say("calls", counted())


async def in_pieces(http: aiohttp.ClientSession, path: str, body: bytes, upload: dict[str, str]) -> None:
    for first in range(0, len(body), PIECE):
        end = min(first + PIECE, len(body))
        total = str(len(body)) if end == len(body) else "*"
        headers = upload | {"Content-Range": f"bytes {first}-{end - 1}/{total}"}
        async with http.put(path, data=io.BytesIO(body[first:end]), headers=headers, expect100=True) as reply:
            if reply.status == 202:
                say("kept", IN_PIECES, reply.headers["Upload-Offset"])
            else:
                say("stored", IN_PIECES, reply.status)


if __name__ == "__main__":
    log.configure("json", "error")
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
