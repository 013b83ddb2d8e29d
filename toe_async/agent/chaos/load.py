"""Effects on CPU and memory: used by this process and its children, and given back when they die."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import time

from toe_async.agent.chaos.effect import ChaosError, Effect, tell

_PR_SET_PDEATHSIG = 1
_SLICE_SECONDS = 0.1
_PAGE = mmap.PAGESIZE
_MIB = 1 << 20
_SPARE = 1.1  # what must be free, for each byte that we take: nobody is to be killed for memory


class Cpu(Effect):
    """So many per cent of one core, in as many processes as whole cores are needed."""

    def __init__(self, percent: int) -> None:
        if not 1 <= percent <= 100 * (os.cpu_count() or 1):
            raise ChaosError(f"cpu takes 1 to {100 * (os.cpu_count() or 1)} per cent of one core here, not {percent}")
        self._percent = percent
        self._workers: list[int] = []

    def begin(self) -> None:
        parent = os.getpid()
        left = self._percent
        while left > 0:
            share, left = min(left, 100) / 100, left - 100
            child = os.fork()
            if child == 0:
                _burn(share, parent)
            self._workers.append(child)

    def tick(self, elapsed: float) -> bool:
        for worker in self._workers:
            if os.waitpid(worker, os.WNOHANG)[0]:
                self._workers.remove(worker)
                raise ChaosError("a process that used CPU for us was killed")
        return True

    def end(self) -> None:
        for worker in self._workers:
            os.kill(worker, signal.SIGKILL)
        for worker in self._workers:
            os.waitpid(worker, 0)


def _burn(share: float, parent: int) -> None:
    """Never returns. Asks how much CPU it really got, so that a busy machine does not leave it short."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        began, used_before = time.monotonic(), time.process_time()
        while os.getppid() == parent:
            owed = share * (time.monotonic() - began + _SLICE_SECONDS) - (time.process_time() - used_before)
            until = time.process_time() + min(owed, _SLICE_SECONDS)
            while time.process_time() < until:
                pass
            if owed < _SLICE_SECONDS:
                time.sleep(max(0.0, _SLICE_SECONDS * (1 - share)))
    finally:
        os._exit(0)


class Memory(Effect):
    """So many MiB that are really there: written, held, and given back. The shape says how they come and go."""

    def __init__(self, mib: int, shape: str, seconds: float) -> None:
        if mib < 1:
            raise ChaosError("memory pressure takes at least 1 MiB")
        self._bytes, self._shape, self._seconds = mib * _MIB, shape, seconds
        self._held: list[mmap.mmap] = []

    def begin(self) -> None:
        free = headroom()
        if free is not None and self._bytes * _SPARE > free:
            raise ChaosError(
                f"{self._bytes // _MIB} MiB would bring the target near its memory limit: {free // _MIB} MiB are free "
                "here, and the kernel would kill somebody for the rest; ask for less"
            )

    def tick(self, elapsed: float) -> bool:
        wanted = int(self._share(elapsed) * self._bytes) // _MIB
        while len(self._held) < wanted:
            block = mmap.mmap(-1, _MIB)
            for at in range(0, _MIB, _PAGE):
                block[at] = 1
            self._held.append(block)
        while len(self._held) > wanted:
            self._held.pop().close()
        return True

    def end(self) -> None:
        tell("memory", mib=len(self._held))
        while self._held:
            self._held.pop().close()

    def _share(self, elapsed: float) -> float:
        """0 to 1: linear reaches all of it at four fifths of the time, oscillating goes up and down five times."""
        if self._shape == "spike":
            return 1.0
        at = elapsed / max(self._seconds, 0.001)
        if self._shape == "linear":
            return min(1.0, at / 0.8)
        turn = (at * 5) % 1.0
        return 1.0 - abs(2 * turn - 1.0)


def headroom() -> int | None:
    """Bytes that may still be used before somebody is killed: the least of our cgroup's limits and the machine's."""
    found = []
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            with open(limit) as most, open(used) as now:
                text = most.read().strip()
                if text != "max" and int(text) < 1 << 60:
                    found.append(int(text) - int(now.read()))
        except (OSError, ValueError):
            continue
    try:
        with open("/proc/meminfo") as file:
            available = next((line for line in file if line.startswith("MemAvailable:")), "")
        found.append(int(available.split()[1]) * 1024)
    except (OSError, IndexError, ValueError):
        pass
    return min(found) if found else None
