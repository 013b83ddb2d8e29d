"""A Python process that profiles itself in pprof's terms: CPU by SIGPROF, heap by tracemalloc, stacks of its threads.

CPU: ITIMER_PROF sends a signal for every 10 ms of CPU time that the process uses. Python runs the handler in the main
thread, so samples show the main thread's stack: a program keeps its work there. Heap: tracemalloc knows what is live,
not what was freed, so the allocation counts are those of live objects: a lower bound.
"""

import gc
import signal
import sys
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any

from toe_async.profiles.model import Frame, Profile, Sample, ValueType

_PERIOD_NS = 10_000_000
_DEEPEST = 64
_MOST_STACKS = 20_000
_OTHER = (Frame("other"),)

Stack = tuple[Frame, ...]


class BusyError(Exception):
    """A CPU profile is being taken already."""


class CpuProfiler:
    """Takes one CPU profile at a time. Must be made in the main thread, which is where Python handles signals."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Stack] = Counter()
        signal.signal(signal.SIGPROF, self._sample)

    def take(self, seconds: float) -> Profile:
        """Sample for a while, in any thread but the main one. Raises BusyError."""
        if not self._lock.acquire(blocking=False):
            raise BusyError
        try:
            self._counts.clear()
            began, clock = time.time_ns(), time.monotonic_ns()
            signal.setitimer(signal.ITIMER_PROF, _PERIOD_NS / 1e9, _PERIOD_NS / 1e9)
            time.sleep(seconds)
            signal.setitimer(signal.ITIMER_PROF, 0)
            lasted = time.monotonic_ns() - clock
            samples = [Sample(stack, (count, count * _PERIOD_NS)) for stack, count in self._counts.items()]
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._lock.release()
        cpu = ValueType("cpu", "nanoseconds")
        return Profile(
            sample_types=(ValueType("samples", "count"), cpu),
            samples=tuple(samples),
            default_type="cpu",
            period_type=cpu,
            period=_PERIOD_NS,
            time_nanos=began,
            duration_nanos=lasted,
        )

    def _sample(self, _: int, frame: FrameType | None) -> None:
        stack = stack_of(frame)
        known = stack in self._counts or len(self._counts) < _MOST_STACKS
        self._counts[stack if known else _OTHER] += 1


def stack_of(frame: FrameType | None) -> Stack:
    """A Python stack, leaf first, with module and qualified names."""
    found: list[Frame] = []
    while frame is not None and len(found) < _DEEPEST:
        code = frame.f_code
        found.append(Frame(f"{_module(frame.f_globals)}.{code.co_qualname}", code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return tuple(found)


def _module(names: dict[str, Any]) -> str:
    """A module's name; for the one that was started by `-m`, the name it was started by."""
    spec = names.get("__spec__")
    return str(spec.name if spec is not None else names.get("__name__", ""))


def threads() -> Profile:
    """The stacks of all threads, as a goroutine profile counts them."""
    counts = Counter(stack_of(frame) for frame in sys._current_frames().values())  # noqa: SLF001 documented for this
    count = ValueType("goroutine", "count")
    samples = tuple(Sample(stack, (number,)) for stack, number in counts.items())
    return Profile(sample_types=(count,), samples=samples, period_type=count, period=1, time_nanos=time.time_ns())


def heap(*, allocated: bool) -> Profile:
    """What is live on the heap; `allocated` only chooses which of the values is shown first."""
    statistics = tracemalloc.take_snapshot().statistics("traceback")[:_MOST_STACKS]
    names = _functions({frame.filename for one in statistics for frame in one.traceback})
    samples = []
    for one in statistics:
        stack = tuple(  # tracemalloc puts the newest frame last
            Frame(_name(names, frame.filename, frame.lineno), frame.filename, frame.lineno)
            for frame in reversed(one.traceback)
        )
        samples.append(Sample(stack, (one.count, one.size, one.count, one.size)))
    space = ValueType("space", "bytes")
    return Profile(
        sample_types=(
            ValueType("alloc_objects", "count"),
            ValueType("alloc_space", "bytes"),
            ValueType("inuse_objects", "count"),
            ValueType("inuse_space", "bytes"),
        ),
        samples=tuple(samples),
        default_type="alloc_space" if allocated else "inuse_space",
        period_type=space,
        period=1,
        time_nanos=time.time_ns(),
    )


def _functions(files: set[str]) -> dict[str, list[tuple[int, int, str]]]:
    """First line, last line and name of the functions of some files: tracemalloc knows files and lines only."""
    found: dict[str, list[tuple[int, int, str]]] = {}
    for one in gc.get_objects():
        # type() and not isinstance: that would ask dead weak proxies for their class
        if type(one) is FunctionType and one.__code__.co_filename in files:
            code = one.__code__
            last = max((line for *_, line in code.co_lines() if line is not None), default=code.co_firstlineno)
            place = (code.co_firstlineno, last, f"{_module(one.__globals__)}.{code.co_qualname}")
            found.setdefault(code.co_filename, []).append(place)
    return found


def _name(names: dict[str, list[tuple[int, int, str]]], filename: str, line: int) -> str:
    inside = [place for place in names.get(filename, ()) if place[0] <= line <= place[1]]
    return max(inside)[2] if inside else f"{Path(filename).stem}.<module>"
