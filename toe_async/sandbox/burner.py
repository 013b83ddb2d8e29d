"""A process to be profiled: it burns CPU, may leak memory, and serves real pprof of itself as a Go program would.

``python -m toe_async.sandbox.burner [--port 6060] [--cpu-percent 95] [--leak-mib-per-second 0]``

The CPU profile is taken by SIGPROF, which the kernel sends for CPU time used and not for time passed; its handler runs
in the main thread, where the burning happens. heap and allocs come from tracemalloc, goroutine from threads' stacks.
What Python has no counterpart for (mutex, block, trace) is answered 404, as any program without that profile does.
"""

import argparse
import signal
import sys
import threading
import time
import tracemalloc
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from urllib.parse import parse_qs, urlsplit

from toe_async.profiles.model import Frame, Profile, Sample, ValueType
from toe_async.profiles.pprof import encode

_PREFIX = "/debug/pprof/"
_HERTZ = 100
_LONGEST_SECONDS = 600.0
_DEEPEST = 64
_MIB = 1 << 20

Stack = tuple[Frame, ...]


class CpuSampler:
    """Counts stacks of the main thread at each SIGPROF; one profile at a time, as in Go."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self._counts: Counter[Stack] = Counter()
        signal.signal(signal.SIGPROF, self._tick)

    def _tick(self, number: int, frame: FrameType | None) -> None:
        self._counts[_stack(frame)] += 1

    def profile(self, seconds: float) -> Profile | None:
        """Sample for some seconds; None when somebody else is sampling already."""
        if not self._busy.acquire(blocking=False):
            return None
        try:
            self._counts.clear()
            began = time.time_ns()
            signal.setitimer(signal.ITIMER_PROF, 1 / _HERTZ, 1 / _HERTZ)
            time.sleep(seconds)
            signal.setitimer(signal.ITIMER_PROF, 0)
            period = 1_000_000_000 // _HERTZ
            cpu = ValueType("cpu", "nanoseconds")
            samples = tuple(Sample(stack, (count, count * period)) for stack, count in self._counts.items())
            return Profile(
                sample_types=(ValueType("samples", "count"), cpu),
                samples=samples,
                default_type="cpu",
                period_type=cpu,
                period=period,
                time_nanos=began,
                duration_nanos=time.time_ns() - began,
            )
        finally:
            self._busy.release()


def heap(default: str) -> Profile:
    """What is allocated now, by where it was allocated; tracemalloc knows no freed objects, so both types are equal."""
    kinds = [("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes")]
    samples = []
    for held in tracemalloc.take_snapshot().statistics("traceback"):
        stack = tuple(Frame(f"{line.filename}:{line.lineno}", line.filename, line.lineno) for line in held.traceback)
        samples.append(Sample(stack[::-1], (held.count, held.size, held.count, held.size)))
    return Profile(
        sample_types=tuple(ValueType(*kind) for kind in kinds),
        samples=tuple(samples),
        default_type=default,
        time_nanos=time.time_ns(),
    )


def threads() -> Profile:
    """Where each thread is."""
    stacks = Counter(_stack(frame) for frame in sys._current_frames().values())  # noqa: SLF001 -- its documented use
    return Profile(
        sample_types=(ValueType("goroutine", "count"),),
        samples=tuple(Sample(stack, (count,)) for stack, count in stacks.items()),
        time_nanos=time.time_ns(),
    )


def _stack(frame: FrameType | None) -> Stack:
    frames: list[Frame] = []
    while frame is not None and len(frames) < _DEEPEST:
        code = frame.f_code
        module = frame.f_globals.get("__name__", "?")
        frames.append(Frame(f"{module}.{code.co_qualname}", code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return tuple(frames)


def handler(cpu: CpuSampler) -> type[BaseHTTPRequestHandler]:
    """The request handler over a sampler."""

    class Pprof(BaseHTTPRequestHandler):
        """Answers GET /debug/pprof/NAME."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answer one request."""
            url = urlsplit(self.path)
            name = url.path.removeprefix(_PREFIX)
            found: Profile | None
            match name if url.path.startswith(_PREFIX) else "":
                case "profile":
                    seconds = parse_qs(url.query).get("seconds", ["30"])[0]
                    if not seconds.isdecimal() or not 1 <= int(seconds) <= _LONGEST_SECONDS:
                        return self._answer(400, b"seconds must be a whole number from 1 to 600\n")
                    found = cpu.profile(float(seconds))
                    if found is None:
                        return self._answer(500, b"CPU profiling is already in use\n")
                case "heap":
                    found = heap("inuse_space")
                case "allocs":
                    found = heap("alloc_space")
                case "goroutine" | "threadcreate":
                    found = threads()
                case _:
                    return self._answer(404, b"there is no such profile\n")
            return self._answer(200, encode(found), "application/octet-stream")

        def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
            """Say one line a request."""
            print(f"served {format % args}", flush=True)

    return Pprof


def burn_cpu_here(until: float) -> int:
    """Use CPU until a moment of the performance counter; the function that a profile must show."""
    value = 1
    while time.perf_counter() < until:
        for _ in range(2000):
            value = value * 6364136223846793005 % 18446744073709551557
    return value


def leak_memory_here(kept: list[bytearray], mib: int) -> None:
    """Keep some more memory for good; the function that a heap profile must show."""
    kept.append(bytearray(mib * _MIB))


def main() -> None:
    """Serve and burn until somebody ends the process."""
    parser = argparse.ArgumentParser(description="A process that burns CPU and serves pprof of itself.")
    parser.add_argument("--host", default="0.0.0.0", help="address of the pprof server")  # noqa: S104 -- a pod's port
    parser.add_argument("--port", type=int, default=6060)
    parser.add_argument("--cpu-percent", type=int, default=95, help="of one core")
    parser.add_argument("--leak-mib-per-second", type=int, default=0)
    parser.add_argument("--leak-most-mib", type=int, default=128, help="where leaking stops")
    given = parser.parse_args()
    tracemalloc.start(8)
    server = ThreadingHTTPServer((given.host, given.port), handler(CpuSampler()))
    threading.Thread(target=server.serve_forever, name="pprof", daemon=True).start()
    kept: list[bytearray] = []
    print(f"burning {given.cpu_percent} % of a core, pprof on port {server.server_address[1]}", flush=True)
    leaked_at = time.perf_counter()
    while True:
        began = time.perf_counter()
        burn_cpu_here(began + 0.1 * min(given.cpu_percent, 100) / 100)
        rate = given.leak_mib_per_second
        if rate and len(kept) * rate < given.leak_most_mib and time.perf_counter() - leaked_at >= 1:
            leak_memory_here(kept, rate)
            leaked_at = time.perf_counter()
        time.sleep(max(0.0, began + 0.1 - time.perf_counter()))


if __name__ == "__main__":
    main()
