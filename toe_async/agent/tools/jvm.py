"""Thread dumps, heap histograms, JFR recordings and async-profiler's stacks of a running JVM, by dynamic attach.

    jvm --pid PID --root /proc/PID/root --output FOLDER --duration SECONDS [--allow-heap-dump] MODE [OPTION...]

MODE is thread-dump, heap-histogram, jfr, profile or heap-dump (the last only with --allow-heap-dump: it holds all of
the program's data). `jfr` and `profile` run until SIGTERM or for SECONDS. What the JVM writes goes through a folder of
its own in the target's /tmp, which is removed at the end together with what JFR made there; killed midway, a recording
ends by itself soon after SECONDS. A JVM wants its attacher to be of its own user: jattach becomes that where it may.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path

from toe_async.agent.tools import child
from toe_async.agent.tools.jvmfolder import TargetFolder

JATTACH = "jattach"
PROFILER = Path("/opt/toe/libasyncProfiler.so")
LIBRARY = ".toe-async-profiler-4.0.so"
"""The profiler's name in the target's /tmp. Always the same: a JVM that has it loaded does not load a second one."""
ATTACH_SECONDS = 60.0
MOST_ANSWER = 64 << 20
"""Bytes of a thread dump or a histogram; a thousand threads take about 1 MiB."""
_SAFETY = 30
"""Seconds after which a recording ends by itself when nobody was left to end it."""
_EVENTS = ("cpu", "alloc", "lock", "wall", "itimer", "ctimer")
_NOISE = re.compile(r"^(Connected to (the )?remote JVM|(JVM )?[Rr]esponse code = ?\d*)\s*$")


def main(arguments: list[str]) -> int:
    """0 when what was asked for is in the folder."""
    return child.run(_run, arguments)


def _run(arguments: list[str], stop: child.Stop) -> int:
    wanted = _parser().parse_args(arguments)
    modes: dict[str, Callable[[argparse.Namespace, child.Stop], None]] = {
        "thread-dump": _thread_dump,
        "heap-histogram": _heap_histogram,
        "jfr": _jfr,
        "profile": _profile,
        "heap-dump": _heap_dump,
    }
    modes[wanted.mode](wanted, stop)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jvm", allow_abbrev=False)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--duration", type=float, required=True)
    parser.add_argument("--allow-heap-dump", action="store_true")
    parser.add_argument(
        "--profiler", type=Path, default=PROFILER, help="async-profiler's library, where an image has it"
    )
    parser.add_argument("--event", choices=_EVENTS, default="cpu")
    parser.add_argument("--interval", default="10ms")
    parser.add_argument("--settings", choices=("default", "profile"), default="default")
    parser.add_argument("--live", action="store_true", help="after a full collection, which stops the program")
    modes = ("thread-dump", "heap-histogram", "jfr", "profile", "heap-dump")
    parser.add_argument("mode", choices=modes, nargs="?", default="thread-dump")
    return parser


def attach(pid: int, *words: str) -> str:
    """What the JVM answers to a command of its attach interface; raises ToolError when it refuses or is none."""
    code, text = child.output_of([JATTACH, str(pid), *words], ATTACH_SECONDS, MOST_ANSWER)
    answer = "\n".join(line for line in text.splitlines() if not _NOISE.match(line)).strip()
    if code:
        said = " ".join(answer.split())[:400] or "no words"
        raise child.ToolError(
            f"the JVM did not take the command {words[0]} ({said}); attaching needs a HotSpot JVM without "
            "-XX:+DisableAttachMechanism, a writable /tmp in the target, and its own user or root"
        )
    return answer


def _thread_dump(wanted: argparse.Namespace, _stop: child.Stop) -> None:
    text = attach(wanted.pid, "threaddump", "-l")
    if "thread dump" not in text:
        raise child.ToolError("the JVM answered with no thread dump")
    (wanted.output / "threads.txt").write_text(text + "\n", encoding="utf-8")


def _heap_histogram(wanted: argparse.Namespace, _stop: child.Stop) -> None:
    text = attach(wanted.pid, "inspectheap", "-live" if wanted.live else "-all")
    if "#instances" not in text:
        raise child.ToolError("the JVM answered with no heap histogram")
    (wanted.output / "heap-histogram.txt").write_text(text + "\n", encoding="utf-8")


def _heap_dump(wanted: argparse.Namespace, _stop: child.Stop) -> None:
    if not wanted.allow_heap_dump:
        raise child.ToolError(
            "heap dumps hold all of the program's data: an administrator allows them with --allow-heap-dump in the "
            "defaultArgs of a PowerToolConfig of its own"
        )
    with TargetFolder(wanted.root, wanted.pid) as folder:
        attach(wanted.pid, "dumpheap", folder.inside("heap.hprof"), *([] if wanted.live else ["-all"]))
        folder.copy_out("heap.hprof", wanted.output / "heap.hprof")


def _jfr(wanted: argparse.Namespace, stop: child.Stop) -> None:
    with TargetFolder(wanted.root, wanted.pid) as folder:
        before = folder.neighbours(_is_repository)
        name = folder.name.lstrip(".")
        safety = int(wanted.duration) + _SAFETY
        options = f"name={name} settings={wanted.settings} duration={safety}s maxsize=256m"
        text = attach(wanted.pid, "jcmd", f"JFR.start {options}")
        if "Started recording" not in text:
            raise child.ToolError(f"the JVM starts no flight recording: {' '.join(text.split())[:300]}")
        stop.wait(wanted.duration)
        text = attach(wanted.pid, "jcmd", f"JFR.stop name={name} filename={folder.inside('recording.jfr')}")
        if "Stopped recording" not in text:
            raise child.ToolError(f"the JVM did not hand its recording over: {' '.join(text.split())[:300]}")
        folder.copy_out("recording.jfr", wanted.output / "recording.jfr")
        # The JVM's repository is empty once nobody records, and made anew when somebody does.
        folder.remove_empty_neighbours(folder.neighbours(_is_repository) - before)


def _is_repository(name: str) -> bool:
    return re.fullmatch(r"\d{4}(_\d\d){5}_\d+", name) is not None


def _profile(wanted: argparse.Namespace, stop: child.Stop) -> None:
    if not re.fullmatch(r"[1-9][0-9]{0,8}(us|ms|s|k|m)?", wanted.interval):
        raise child.ToolError(f"{wanted.interval[:20]!r} is no interval: 10ms, 500us; for alloc a size as 512k")
    with TargetFolder(wanted.root, wanted.pid) as folder, folder.lent(wanted.profiler, LIBRARY) as library:

        def tell(command: str) -> None:
            try:
                attach(wanted.pid, "load", library, "true", f"{command},log={folder.inside('log')}")
            except child.ToolError as error:
                said = " ".join(folder.read("log", 4096).split())
                raise child.ToolError(f"async-profiler in the JVM: {said[:400]}" if said else str(error)) from error

        safety = int(wanted.duration) + _SAFETY
        amount = {"alloc": "alloc", "lock": "lock", "wall": "wall"}.get(wanted.event, "interval")
        extra = f"event={wanted.event}," if amount == "interval" else ""
        tell(f"start,{extra}{amount}={wanted.interval},timeout={safety}")
        stop.wait(wanted.duration)
        tell(f"stop,collapsed,file={folder.inside('out')}")
        folder.copy_out("out", wanted.output / "profile.folded")
    if not os.path.getsize(wanted.output / "profile.folded"):
        (wanted.output / "profile.folded").unlink()
        raise child.ToolError(f"no sample was taken: nothing of the event {wanted.event} happened while it looked")
