"""How long to wait before the next try."""

import random
from collections.abc import Callable


class Backoff:
    """Exponential waits with jitter: initial, initial*factor, ... up to ``cap`` seconds, each stretched by
    at most ``jitter``.

    The jitter only adds, so the stated wait is a lower bound and many clients that failed together spread out after it.
    Not shared between tasks; one caller counts its own failures.
    """

    def __init__(
        self,
        initial: float,
        cap: float,
        factor: float = 2.0,
        jitter: float = 1.0,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._initial, self._cap, self._factor, self._jitter, self._rng = initial, cap, factor, jitter, rng
        self.failures = 0

    def next(self) -> float:
        """Count one more failure and return the seconds to wait for it."""
        # The exponent is bounded so that a year of failures does not overflow a float.
        base = min(self._cap, self._initial * self._factor ** min(self.failures, 64))
        self.failures += 1
        return base * (1 + self._jitter * self._rng())

    def reset(self) -> None:
        """Forget the failures: the next wait is the first one again."""
        self.failures = 0
