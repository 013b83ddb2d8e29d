"""What every effect has in common: it begins, is kept up for a while, and ends; each step is a JSON line on stdout."""

import json
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from typing import Any

TICK_SECONDS = 0.1


class ChaosError(Exception):
    """The effect cannot be had; the sentence says why and what to do."""


class Effect(ABC):
    """One fault. `tick` is called about ten times a second between `begin` and `end`; all three may raise ChaosError.

    `end` only makes it quick and tidy: the effect is gone without it as soon as this process is.
    """

    @abstractmethod
    def begin(self) -> None:
        """Check that the effect can be had, and bring it about."""

    def tick(self, elapsed: float) -> bool:
        """Keep it up; False when there is nothing left to do. `elapsed` are seconds since `begin`."""
        return elapsed >= 0

    @abstractmethod
    def end(self) -> None:
        """Take it back."""


def tell(event: str, **fields: Any) -> None:
    """One line for the run's output."""
    print(json.dumps({"event": event, **fields}), flush=True)


class Stopped(BaseException):
    """Somebody asked us to end."""


def _stop(number: int, frame: object) -> None:
    raise Stopped(signal.Signals(number).name)


def keep_up(effect: Effect, seconds: float) -> int:
    """Hold an effect for so long, or until we are asked to end or our parent is gone. Returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    parent = os.getppid()
    began = time.monotonic()
    code = 0
    try:
        try:
            effect.begin()
            tell("begun", seconds=seconds)
            while (elapsed := time.monotonic() - began) < seconds and effect.tick(elapsed):
                if os.getppid() != parent:
                    raise Stopped("the supervisor is gone")
                time.sleep(min(TICK_SECONDS, max(0.0, seconds - elapsed)))
        except Stopped as stopped:
            tell("stopped", why=str(stopped))
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            effect.end()
            tell("ended", seconds=round(time.monotonic() - began, 3))
    except ChaosError as error:
        tell("failed", why=str(error))
        print(f"chaos: {error}", file=sys.stderr)
        code = 1
    return code
