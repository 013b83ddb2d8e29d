"""perf record over all processes of the target, its samples written as text and folded while they are taken.

    perf --pid PID --root /proc/PID/root --output FOLDER [--frequency HZ] [--event EVENT] [--call-graph fp|dwarf]

Records until SIGTERM, whose sender says how long that is, and leaves `perf.script.txt` and `perf.folded`. perf record
writes into perf script, so that next to nothing is left to do at the end and no perf.data, which can hold the target's
memory, is ever on a disk. Without an event it takes processor cycles where the machine counts them and the processor
clock elsewhere.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from toe_async.agent.tools import child, folding
from toe_async.agent.tools.processes import family

PROGRAM = "perf"
MOST_SCRIPT = 256 << 20
"""Bytes of perf.script.txt; what is beyond is in the folded stacks only."""
_FORBIDDEN = ("No permission", "Operation not permitted", "Permission denied", "Access to performance monitoring")


def main(arguments: list[str]) -> int:
    """0 when there are samples."""
    return child.run(_run, arguments)


def _run(arguments: list[str], stop: child.Stop) -> int:
    wanted = _parser().parse_args(arguments)
    processes = family(wanted.pid)
    if not processes:
        raise child.ToolError(f"process {wanted.pid} of the target is gone")
    event = wanted.event or usable_event(wanted.pid)
    pids = ",".join(str(pid) for pid in processes)
    options = ["-F", str(wanted.frequency), "-e", event, "--call-graph", wanted.call_graph, "-p", pids]
    count = record(options, wanted.root, Path(wanted.output), stop)
    if not count:
        raise child.ToolError("no sample was taken: the target used no processor time while perf looked")
    child.say(f"perf took {count} samples of {event} at {wanted.frequency} Hz from {len(processes)} processes")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="perf", allow_abbrev=False)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--frequency", type=int, default=99)
    parser.add_argument("--event", default="")
    parser.add_argument("--call-graph", choices=("fp", "dwarf"), default="fp")
    return parser


def usable_event(pid: int) -> str:
    """Processor cycles where they are counted, else the clock. Raises ToolError where nothing may be sampled."""
    code, text = child.output_of([PROGRAM, "stat", "-x", ",", "-e", "cycles", "-p", str(pid), "--", "sleep", "0.05"])
    _check_permission(text)
    return "cpu-clock" if code or "<not supported>" in text or "<not counted>" in text else "cycles"


def record(options: list[str], root: str, folder: Path, stop: child.Stop) -> int:
    """Sample until `stop` and write both files, symbols from the target's own; returns how many samples there are.

    Raises ToolError with perf's words.
    """
    said: list[bytes] = []
    sampler = child.start(
        [PROGRAM, "record", "-q", *options, "-o", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert sampler.stdout is not None
    script = [PROGRAM, "script", "-i", "-", "-F", folding.FIELDS, "--no-inline", "--symfs", "."]
    # From inside the target's root: given the path /proc/PID/root itself, perf 6.1 finds no file below it.
    printer = child.start(
        script, deaf=True, folder=Path(root), stdin=sampler.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    sampler.stdout.close()
    stacks: Counter[str] = Counter()
    helpers = [
        threading.Thread(target=_drain, args=(sampler, said), daemon=True),
        threading.Thread(target=_fold, args=(printer, folder / "perf.script.txt", stacks), daemon=True),
    ]
    for helper in helpers:
        helper.start()
    code = child.until_stopped(sampler, stop, signal.SIGINT)
    for helper in helpers:
        helper.join(child.PATIENCE)
    printer.kill()
    printer.wait()
    text = b"".join(said).decode("utf-8", "replace")
    _check_permission(text)
    # perf ends by the signal that stopped it, after it has written everything.
    if code not in (0, -signal.SIGINT, -signal.SIGTERM):
        raise child.ToolError(f"perf record ended with {child.exit_code(code)}: {_last(text)}")
    (folder / "perf.folded").write_text(folding.text(stacks), encoding="utf-8")
    return sum(stacks.values())


def _fold(printer: subprocess.Popen[bytes], path: Path, into: Counter[str]) -> None:
    with path.open("wb") as script:
        into.update(folding.fold(_copied(printer, script)))


def _copied(printer: subprocess.Popen[bytes], script: IO[bytes]) -> Iterator[str]:
    assert printer.stdout is not None
    size = 0
    for line in printer.stdout:
        size += len(line)
        if size <= MOST_SCRIPT:
            script.write(line)
        yield line.decode("utf-8", "replace")
    if size > MOST_SCRIPT:
        child.say(
            f"perf.script.txt ends after {MOST_SCRIPT >> 20} MiB; perf.folded has all {size >> 20} MiB of samples"
        )


def _drain(sampler: subprocess.Popen[bytes], into: list[bytes]) -> None:
    assert sampler.stderr is not None
    kept = 0
    for line in sampler.stderr:
        if kept < 64 << 10:
            into.append(line)
            kept += len(line)


def _check_permission(text: str) -> None:
    if any(words in text for words in _FORBIDDEN):
        raise child.ToolError(
            "the kernel does not let perf sample the target: the container needs the capability PERFMON (SYS_ADMIN "
            "before Linux 5.8) and a seccomp profile that has perf_event_open, which namespaces at Pod Security "
            "baseline and restricted refuse; py-spy or jvm need less for Python and Java"
        )


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[-3:])[:500] or "it said nothing"
