"""What the supervisor of a tool costs beside its target: processor and memory while it watches.

``python -m benchmarks.supervisor [--quick]``: a tool that only sleeps, for 60 s (10 s with --quick), under the
supervisor with nothing to cap and with a CPU cap to keep. Baseline: a python3 that waits for the same child and does
nothing else, which is the least that a supervisor in Python can cost.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.measure import ROOT, Column, cpu_seconds, memory, table
from toe_async.agent.protocol import Orders, digest, orders_message

COLUMNS = (Column("CPU ms a minute", 0), Column("RSS MB", 1))
BASE, WATCHING, CAPPING = "python3 that waits", "supervisor", "supervisor with a CPU cap"
LIMIT = (
    "Limit: the interpreter and its modules are the memory; five looks a second at the tool's processes are the CPU of "
    "a cap, one a second without."
)
_SETTLE_SECONDS = 2.0


@contextmanager
def waiting() -> Iterator[int]:
    """The baseline."""
    program = "import subprocess; subprocess.run(['sleep', '600'])"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", program], start_new_session=True) as process:
        try:
            yield process.pid
        finally:
            subprocess.run(["pkill", "-KILL", "-g", str(process.pid)], check=False)


@contextmanager
def supervised(cpu_percent: float) -> Iterator[int]:
    """A supervisor with a tool that sleeps."""
    told = Orders(
        capture="benchmark",
        tool="sleep",
        argv=("sleep", "600"),
        duration=600.0,
        mode="ephemeral",
        max_bytes=1 << 20,
        max_output_bytes=1 << 20,
        upload_seconds=1.0,
        keep_seconds=0.0,
        cpu_percent=cpu_percent,
    )
    with tempfile.TemporaryDirectory(prefix="toe-bench-") as folder:
        argv = [
            sys.executable,
            "-S",
            "-m",
            "toe_async.agent",
            "run",
            "--capture",
            told.capture,
            "--orders",
            digest(told),
        ]
        argv += ["--wait", "30", "--termination-log", f"{folder}/log", "--state-root", folder]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, bufsize=0) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(orders_message(told))
            for line in process.stdout:
                if b'"running"' in line:
                    break
            try:
                yield process.pid
            finally:
                process.terminate()
                process.wait(30)


def measured(pid: int, seconds: float) -> tuple[float, float]:
    """Milliseconds of CPU a minute, and megabytes, once it has settled."""
    time.sleep(_SETTLE_SECONDS)
    began, used = time.monotonic(), cpu_seconds(pid)
    time.sleep(seconds)
    spent = (cpu_seconds(pid) - used) * 60_000 / (time.monotonic() - began)
    return spent, memory(pid, "VmRSS") / 1024


def main(argv: list[str] | None = None) -> None:
    """Measure one after the other and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.supervisor")
    parser.add_argument("--quick", action="store_true", help="ten seconds each")
    seconds = 10.0 if parser.parse_args(argv).quick else 60.0
    rows = {}
    for name, held in ((BASE, waiting()), (WATCHING, supervised(0.0)), (CAPPING, supervised(20.0))):
        with held as pid:
            rows[name] = measured(pid, seconds)
    print(table("a tool that sleeps", COLUMNS, rows))
    print(LIMIT)


if __name__ == "__main__":
    main()
