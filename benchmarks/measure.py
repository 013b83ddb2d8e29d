"""What every benchmark shares: processes that are asked line by line, the kernel's account of them, and the table.

A measured process is a fresh one; it prints one JSON value a line, and obeys the lines that it gets. Everything ends
with the benchmark, however that one ends.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_NAME_WIDTH = 34
_STOP_SECONDS = 30.0

Process = subprocess.Popen[str]


class Column(NamedTuple):
    """A figure's heading and digits. Without ``ratio`` the figure stands alone."""

    heading: str
    digits: int = 0
    ratio: bool = True


def table(title: str, columns: Sequence[Column], rows: Mapping[str, Sequence[float | None]], base: str = "") -> str:
    """Lay out figures, each with its ratio to the row ``base`` (the first one); None is a figure that there is not."""
    widths = [max(len(column.heading) + 2, 20 if column.ratio else 12) for column in columns]
    heads = zip(columns, widths, strict=True)
    lines = ["\n" + title.ljust(_NAME_WIDTH) + "".join(column.heading.rjust(width) for column, width in heads)]
    compared = rows[base or next(iter(rows))]
    for name, row in rows.items():
        cells = [_cell(*cell) for cell in zip(columns, row, compared, strict=True)]
        aligned = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append(name.ljust(_NAME_WIDTH) + "".join(aligned))
    return "\n".join(lines)


def _cell(column: Column, figure: float | None, compared: float | None) -> str:
    if figure is None:
        return "-"
    text = f"{figure:,.{column.digits}f}"
    return f"{text} ({figure / compared:.2f}x)" if column.ratio and compared else text


def say(**what: object) -> None:
    """Answer in one line, from a measured process."""
    print(json.dumps(what, separators=(",", ":")), flush=True)


@contextlib.contextmanager
def process(command: Sequence[str]) -> Iterator[Process]:
    """A process that is asked and answers by lines; it is killed in the end."""
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, bufsize=1)
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def order(running: Process, line: str) -> None:
    """Tell a process what to do."""
    assert running.stdin is not None
    running.stdin.write(line + "\n")


def told(running: Process) -> dict[str, Any]:
    """The next answer of a process that answers by ``say``."""
    assert running.stdout is not None
    line = running.stdout.readline()
    if not line.startswith("{"):
        raise RuntimeError(f"{running.args!r} said {line!r} instead of an answer; its exit: {running.poll()}")
    read: dict[str, Any] = json.loads(line)
    return read


@contextlib.contextmanager
def service(command: Sequence[str]) -> Iterator[Process]:
    """A process that ends cleanly when it is told ``end``."""
    with process(command) as running:
        try:
            yield running
        finally:
            with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
                order(running, "end")
                running.wait(_STOP_SECONDS)


@contextlib.contextmanager
def unlogged(command: Sequence[str], folder: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process as it is deployed, its output in ``folder``; it is asked to end, then killed."""
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **environment}
        )
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


@contextlib.contextmanager
def kept_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="toe-bench-") as folder:
        yield Path(folder)


def memory(pid: int, field: str) -> int:
    """Kilobytes that the kernel counts for a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"the kernel tells no {field} of process {pid}")


def cpu_seconds(pid: int) -> float:
    """Processor seconds of all threads, in the kernel and outside of it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kubeconfig(url: str, token: str = "") -> dict[str, Any]:
    """A kubeconfig for one API server; without a token its caller is nobody."""
    return {
        "current-context": "bench",
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "clusters": [{"name": "bench", "cluster": {"server": url}}],
        "users": [{"name": "bench", "user": {"token": token} if token else {}}],
    }


def this(module: str, *arguments: str) -> list[str]:
    """The command that runs a benchmark's module in a fresh process."""
    return [sys.executable, "-m", f"benchmarks.{module}", *arguments]
