"""Looks at what a tool uses, holds it to its caps, and counts for the result."""

from __future__ import annotations

import signal
import time

from toe_async.agent.limits import (
    WINDOW,
    Caps,
    DutyCycle,
    Sample,
    Strikes,
    overhead_percent,
    too_much_memory,
)
from toe_async.agent.process import ToolProcess
from toe_async.agent.procfs import TICKS, read_process
from toe_async.agent.protocol import Orders
from toe_async.agent.target import container_processes

SELDOM = 1.0
"""Seconds between two looks at a tool without a CPU cap, and at the target."""
_MEMBERS_SECONDS = 5.0
_MEMBERS_COST = 500  # times as long as it takes: at most a five-hundredth of a core goes into it


class TargetCpu:
    """CPU seconds that the target's container uses from now on. It never goes down when a process ends unseen."""

    def __init__(self, pid: int, now: float) -> None:
        self._pid = pid
        self._find_members(now)
        self._first = self._seconds()
        self._then, self._at = 0.0, now
        self.used = 0.0
        self.cores = 0.0
        """Used over the last second or so."""

    def look(self, now: float) -> None:
        """Measure again, at most once a second."""
        passed = now - self._at
        if passed < SELDOM:
            return
        if now >= self._members_at:
            self._find_members(now)
        self.used = max(self.used, self._seconds() - self._first)
        self.cores, self._then, self._at = (self.used - self._then) / passed, self.used, now

    def _find_members(self, now: float) -> None:
        """Who is in the container; on a node with very many processes this is asked seldom."""
        began = time.monotonic()
        self._members = container_processes(self._pid)
        self._members_at = now + max(_MEMBERS_SECONDS, _MEMBERS_COST * (time.monotonic() - began))

    def _seconds(self) -> float:
        return sum(one.cpu for pid in self._members if (one := read_process(pid)) is not None) / TICKS


class Meter:
    """One tool against its caps, from its start. Looks happen in the main thread, when `look` says."""

    def __init__(self, tool: ToolProcess, orders: Orders, target: int | None, now: float) -> None:
        self._tool, self._target = tool, TargetCpu(target, now) if target is not None else None
        self._caps = Caps(orders.cpu_percent / 100, orders.overhead_percent / 100, orders.memory_bytes)
        capped = self._caps.cpu > 0 or (self._caps.overhead > 0 and target is not None)
        self._duty = DutyCycle(now) if capped and orders.throttle == "signal" else None
        self._strikes = Strikes(now) if capped and self._duty is None else None
        self._cpu, self.most_rss = 0.0, 0
        self._between = 0.05
        self.harm = ""
        """Why the tool must end now."""

    @property
    def throttled_seconds(self) -> float:
        """How long the tool was stopped for its caps' sake."""
        return round(self._duty.stopped_seconds, 3) if self._duty is not None else 0.0

    @property
    def cpu_seconds(self) -> float:
        """Of the tool with all that it started."""
        return round(self._cpu, 3)

    @property
    def overhead(self) -> float | None:
        """The tool's CPU in per cent of the target's."""
        return overhead_percent(self._cpu, self._target.used if self._target is not None else None)

    def look(self, now: float) -> float:
        """Measure, stop or continue the tool, or say in `harm` that it must end; when to look again."""
        usage = self._tool.usage()
        self._cpu, self.most_rss = usage.cpu, max(self.most_rss, usage.rss)
        if self._target is not None:
            self._target.look(now)
        sample = Sample(now, usage.cpu, usage.rss, self._target.used if self._target is not None else None)
        self.harm = self.harm or too_much_memory(sample, self._caps)
        if self._strikes is not None:
            self.harm = self.harm or self._strikes.step(sample, self._caps)
            return now + WINDOW
        if self._duty is None:
            self._between = min(self._between * 2, SELDOM)  # so that a short run is seen, and a long one costs little
            return now + self._between
        before = self._duty.stopped
        wait = self._duty.step(now, usage.cpu, self._caps.cores(self._target.cores if self._target is not None else 0))
        if self._duty.stopped != before:
            self._tool.signal(signal.SIGSTOP if self._duty.stopped else signal.SIGCONT, strays=True)
        return now + wait

    def finish(self) -> None:
        """Take the last figures, when the tool has ended and before it is reaped."""
        self._cpu = self._tool.usage().cpu
