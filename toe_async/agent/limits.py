"""When a tool costs too much: pure rules over samples of what it has used."""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = 0.2
"""Seconds between two looks at a tool whose CPU is capped."""
STRIKES = 3
"""Windows in a row above the cap before a tool that must not be stopped is ended."""
FLOOR = 0.05
"""Cores that an idle target counts as using: against nothing at all every tool would be too much."""
_SHORTEST = 0.02  # a look costs a fraction of a millisecond; the kernel counts CPU in hundredths of a second anyway
_TICK = 0.01


@dataclass(frozen=True)
class Sample:
    """What was used up to `now` (monotonic): CPU seconds since the tool's start; `target` None when it is not known."""

    now: float
    cpu: float
    rss: int = 0
    target: float | None = None


@dataclass(frozen=True)
class Caps:
    """0 is no cap. `cpu` in cores, `overhead` as a share of the target's CPU, `rss` in bytes."""

    cpu: float = 0.0
    overhead: float = 0.0
    rss: int = 0

    def cores(self, target_cores: float) -> float:
        """The tighter of both caps in cores, 0 for none, when the target uses so many."""
        both = [self.cpu, self.overhead * max(target_cores, FLOOR)]
        return min((one for one in both if one > 0), default=0.0)


class DutyCycle:
    """Says when a tool is to be stopped and continued so that it uses `cores` on average.

    A bucket of CPU seconds that fills at the cap and holds one window's worth. What was overdrawn between two looks is
    paid back while stopped, so the average is the cap whatever the number of threads.
    """

    def __init__(self, now: float) -> None:
        self._then, self._used, self._rate = now, 0.0, 1.0
        self._credit = float("inf")  # the first window is free
        self.stopped = False
        self.stopped_seconds = 0.0

    def step(self, now: float, used: float, cores: float) -> float:
        """Take what was used so far, set `stopped`, and return the seconds until the next look is due."""
        passed, spent = max(now - self._then, 1e-6), max(used - self._used, 0.0)
        self._then, self._used = now, max(used, self._used)
        most = cores * WINDOW
        self._credit = min(self._credit + cores * passed - spent, most)
        if self.stopped:
            self.stopped_seconds += passed
        elif spent:
            self._rate = max(spent / passed, _TICK)
        if self._credit <= 0:
            self.stopped = True
        elif self._credit >= most / 2:
            self.stopped = False
        if self.stopped:
            return min(max((most - self._credit) / cores, _SHORTEST), 1.0)
        return min(max(self._credit / self._rate, _SHORTEST), WINDOW)


class Strikes:
    """Ends what may not be stopped: above the CPU cap in three windows running, or above the overhead, counted over the
    whole run so far, in three looks running.
    """

    def __init__(self, now: float) -> None:
        self._start = self._then = now
        self._used = 0.0
        self._cpu = self._overhead = 0

    def step(self, sample: Sample, caps: Caps) -> str:
        """Why the tool must end now, or nothing."""
        passed, spent = sample.now - self._then, sample.cpu - self._used
        if passed < WINDOW / 2:
            return ""
        self._then, self._used = sample.now, sample.cpu
        self._cpu = self._cpu + 1 if caps.cpu and (spent - _TICK) / passed > caps.cpu else 0
        if self._cpu >= STRIKES:
            return f"the tool used {spent / passed:.0%} of a core, more than the {caps.cpu:.0%} that it may"
        if not caps.overhead or sample.target is None or sample.now - self._start < STRIKES:
            return ""
        base = max(sample.target, FLOOR * (sample.now - self._start))
        self._overhead = self._overhead + 1 if (sample.cpu - _TICK) / base > caps.overhead else 0
        if self._overhead >= STRIKES:
            return (
                f"the tool used {sample.cpu / base:.1%} of the target's CPU, more than the {caps.overhead:.1%} it may"
            )
        return ""


def too_much_memory(sample: Sample, caps: Caps) -> str:
    """Why the tool must end now, or nothing. Pages that its processes share are counted for each."""
    if not caps.rss or sample.rss <= caps.rss:
        return ""
    return f"the tool holds {sample.rss >> 20} MiB of memory, more than the {caps.rss >> 20} MiB that it may"


def overhead_percent(cpu: float, target: float | None) -> float | None:
    """The tool's CPU in per cent of the target's own over the same time; None when that is unknown or nothing."""
    return round(100 * cpu / target, 2) if target else None
