"""How long a key that failed has to wait: the larger of its own backoff and of a budget that all keys share.

The figures are client-go's defaults for controllers. A single bad key backs off from 5 ms to 1,000 s; a thousand keys
that fail together are let through at 10 a second after a burst of 100. Pure: time is handed in.
"""

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_DELAY: Final = 0.005
LONGEST_DELAY: Final = 1000.0
RATE: Final = 10.0
BURST: Final = 100


class TokenBucket:
    """`rate` tokens a second, at most `burst` saved up. Tokens may be reserved ahead of time."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._at = float(burst), 0.0

    def reserve(self, now: float) -> float:
        """Take one token and say in how many seconds it may be used."""
        self._refill(now)
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)

    def take(self, now: float) -> bool:
        """Take one token if there is one now."""
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _refill(self, now: float) -> None:
        self._tokens = min(float(self._burst), self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = max(now, self._at)


class RateLimiter(Generic[K]):
    """Counts failures per key. Holds one number for each key that failed and was not forgotten."""

    def __init__(
        self, first: float = FIRST_DELAY, longest: float = LONGEST_DELAY, rate: float = RATE, burst: int = BURST
    ) -> None:
        self._first, self._longest = first, longest
        self._bucket = TokenBucket(rate, burst)
        self._failures: dict[K, int] = {}

    def when(self, key: K, now: float) -> float:
        """Count one more failure of the key and say how many seconds it has to wait."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        own = min(self._longest, self._first * 2.0 ** min(failures, 64))
        return max(own, self._bucket.reserve(now))

    def forget(self, key: K) -> None:
        """The key did well: its next failure is its first."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """How often the key has failed since it was last forgotten."""
        return self._failures.get(key, 0)
