"""The demo's target: a process that gets hot and serves its own profiles as Go's net/http/pprof does.

`python -m toe_async.sandbox.burner --port 6060 [--cpu-percent 95] [--leak-mib-per-second 4]`. The main thread burns CPU
in one function, `mix_bits`, and may keep memory in another, `remember`; HTTP is served by threads. Under /debug/pprof/:
profile (CPU), heap, allocs and goroutine; what Python has no equal of (mutex, block, threadcreate, trace) is 404.
"""

import argparse
import os
import sys
import threading
import time
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from toe_async.profiles import pprof
from toe_async.profiles.model import Profile
from toe_async.sandbox import selfprofile
from toe_async.sandbox.environment import LOOPBACK
from toe_async.sandbox.selfprofile import BusyError, CpuProfiler

_PREFIX = "/debug/pprof/"
_PERIOD = 0.1
"""Seconds of one turn of work and rest."""
_LONGEST = 300.0
_FRAMES = 8
_ROUNDS = 2_000
_KEPT_MIB = 8.0
"""Kept from the start, so that the heap profile has something to show without a leak, too."""


def mix_bits(rounds: int) -> int:
    """Where the CPU time goes."""
    total = 0
    for number in range(rounds):
        total = (total * 31 + number) & 0xFFFF
    return total


def remember(kept: list[bytes], mib: float) -> None:
    """Where the memory goes; filled, so that it is resident."""
    kept.append(b"x" * int(mib * (1 << 20)))


def work(cpu_percent: float, leak_mib_per_second: float) -> None:
    """Burn a share of one core and leak, for ever."""
    kept: list[bytes] = []
    remember(kept, _KEPT_MIB)
    while True:
        turn = time.monotonic()
        if leak_mib_per_second:
            remember(kept, leak_mib_per_second * _PERIOD)
        while time.monotonic() - turn < _PERIOD * cpu_percent / 100:
            mix_bits(_ROUNDS)
        time.sleep(max(_PERIOD - (time.monotonic() - turn), 0.0))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    profiler: CpuProfiler

    def do_GET(self) -> None:
        """Answer with a profile."""
        url = urlsplit(self.path)
        match url.path.removeprefix(_PREFIX):
            case "":
                self._answer(200, b"profile heap allocs goroutine\n", "text/plain; charset=utf-8")
            case "profile":
                self._profile(url.query)
            case "heap":
                self._send(selfprofile.heap(allocated=False), "heap")
            case "allocs":
                self._send(selfprofile.heap(allocated=True), "allocs")
            case "goroutine":
                self._send(selfprofile.threads(), "goroutine")
            case _:
                self._answer(404, b"Unknown profile\n", "text/plain; charset=utf-8")

    def _profile(self, query: str) -> None:
        try:
            profile = self.profiler.take(_seconds(query))
        except BusyError:
            said = b"Could not enable CPU profiling: cpu profiling already in use\n"
            self._answer(500, said, "text/plain; charset=utf-8")
            return
        self._send(profile, "profile")

    def _send(self, profile: Profile, name: str) -> None:
        self._answer(200, pprof.encode(profile), "application/octet-stream", name)

    def _answer(self, status: int, body: bytes, content_type: str, name: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        if name:
            self.send_header("Content-Disposition", f'attachment; filename="{name}"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 named by the base class
        """One line a request on stdout, where the pod's log is."""
        sys.stdout.write(f"{self.command} {self.path} {args[1] if len(args) > 1 else ''}\n")
        sys.stdout.flush()


def _seconds(query: str) -> float:
    """The length asked for; like Go, 30 seconds for what is no positive number."""
    try:
        asked = float(parse_qs(query).get("seconds", ["30"])[0])
    except ValueError:
        return 30.0
    return min(asked, _LONGEST) if asked > 0 else 30.0


def main(argv: list[str] | None = None) -> None:
    """Serve profiles and burn until killed."""
    parser = argparse.ArgumentParser(prog="toe_async.sandbox.burner", description=__doc__)
    parser.add_argument("--host", default=os.environ.get(LOOPBACK, ""), help="address to listen on")
    parser.add_argument("--port", type=int, default=6060)
    parser.add_argument("--cpu-percent", type=float, default=95.0, help="share of one core, 0 to 100")
    parser.add_argument("--leak-mib-per-second", type=float, default=0.0)
    chosen = parser.parse_args(argv)
    tracemalloc.start(_FRAMES)
    _Handler.profiler = CpuProfiler()
    with ThreadingHTTPServer((chosen.host, chosen.port), _Handler) as server:
        threading.Thread(target=server.serve_forever, name="pprof", daemon=True).start()
        sys.stdout.write(f"serving {_PREFIX} on port {server.server_address[1]}\n")
        sys.stdout.flush()
        work(chosen.cpu_percent, chosen.leak_mib_per_second)


if __name__ == "__main__":
    main()
