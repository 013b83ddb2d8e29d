"""The queue between watches and reconcilers, with client-go's semantics and metric names.

Events only name keys; a key that changes a hundred times while it waits is worked on once. The rules are in
`runtime.queuecore` and `runtime.ratelimit`; here are the waiting, the timer and the figures. Everything but `get` and
`drain` is synchronous and never blocks, so watch handlers may call it. For one event loop.
"""

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from toe_async.lib.clock import Clock
from toe_async.runtime.queuecore import QueueCore
from toe_async.runtime.ratelimit import RateLimiter
from toe_async.telemetry.metrics import OperatorMetrics

K = TypeVar("K", bound=Hashable)


class QueueShutDownError(Exception):
    """The queue has been shut down and everything in it was given out."""


class WorkQueue(Generic[K]):
    """A deduplicating queue of keys with delays and rate limits.

    Whoever gets a key calls `done` with it, whatever happened; until then the key is not given to anybody else.
    """

    def __init__(
        self, name: str, *, clock: Clock, metrics: OperatorMetrics, limiter: RateLimiter[K] | None = None
    ) -> None:
        self.name = name
        self._clock = clock
        self._core: QueueCore[K] = QueueCore()
        self._limiter: RateLimiter[K] = limiter or RateLimiter()
        self._getters: deque[asyncio.Future[None]] = deque()
        self._drainers: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._adds = metrics.workqueue_adds.labels(name)
        self._retries = metrics.workqueue_retries.labels(name)
        self._waited = metrics.workqueue_queue_duration.labels(name)
        self._worked = metrics.workqueue_work_duration.labels(name)
        # Read when they are scraped: an idle queue costs no timer.
        metrics.workqueue_depth.labels(name).set_function(lambda: len(self._core))
        metrics.workqueue_unfinished_work.labels(name).set_function(lambda: self._unfinished()[0])
        metrics.workqueue_longest_running.labels(name).set_function(lambda: self._unfinished()[1])

    def __len__(self) -> int:
        return len(self._core)

    @property
    def shutting_down(self) -> bool:
        """Whether `shut_down` was called."""
        return self._core.shutting_down

    def add(self, key: K) -> None:
        """Queue a key as soon as nobody works on it. Does nothing after `shut_down`."""
        if self._core.add(key, self._clock.monotonic()):
            self._adds.inc()
            self._wake()

    def add_after(self, key: K, seconds: float) -> None:
        """Queue a key after some time; if it waits already, the earlier time counts. Does nothing after `shut_down`."""
        if self._core.shutting_down:
            return
        self._retries.inc()
        if seconds <= 0:
            self.add(key)
            return
        self._core.add_after(key, self._clock.monotonic() + seconds)
        self._arm()

    def add_rate_limited(self, key: K) -> None:
        """Queue a key that failed, after the wait that its failures and everybody's ask for."""
        self.add_after(key, self._limiter.when(key, self._clock.monotonic()))

    def forget(self, key: K) -> None:
        """The key did well: its next failure waits as its first. Does not take it out of the queue."""
        self._limiter.forget(key)

    def failures(self, key: K) -> int:
        """How often the key failed since it was last forgotten."""
        return self._limiter.failures(key)

    async def get(self) -> K:
        """The next key, first come first served among those who wait. Cancelling loses no key.

        Raises:
            QueueShutDownError: the queue is shut down and empty.
        """
        while True:
            found = self._core.pop(self._clock.monotonic())
            if found is not None:
                key, waited = found
                self._waited.observe(waited)
                return key
            if self._core.shutting_down:
                raise QueueShutDownError(f"work queue {self.name} is shut down")
            await self._turn(self._getters)

    def done(self, key: K) -> None:
        """The work on a key has ended. Raises KeyError for a key that nobody works on."""
        self._worked.observe(self._core.done(key, self._clock.monotonic()))
        if self._core:
            self._wake()
        if not self._core.processing:
            _release(self._drainers)

    def shut_down(self) -> None:
        """Take nothing more; what waits for its time is dropped, what is queued is still given out."""
        self._core.shut_down()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        _release(self._getters)

    async def drain(self) -> None:
        """Shut down and wait until nobody works on a key. Unbounded: the caller brings a deadline."""
        self.shut_down()
        while self._core.processing:
            await self._turn(self._drainers)

    async def _turn(self, waiters: "deque[asyncio.Future[None]]") -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # The wake-up may have come together with the cancellation: hand it on, or a key waits for nobody.
            if waiter.done() and not waiter.cancelled() and self._core:
                self._wake()
            raise
        finally:
            if waiter in waiters:
                waiters.remove(waiter)

    def _wake(self) -> None:
        while self._getters:
            waiter = self._getters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _arm(self) -> None:
        due = self._core.next_due()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            delay = max(0.0, due - self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._ripen)

    def _ripen(self) -> None:
        self._timer = None
        for _ in range(self._core.ripen(self._clock.monotonic())):
            self._adds.inc()
            self._wake()
        self._arm()

    def _unfinished(self) -> tuple[float, float]:
        return self._core.unfinished(self._clock.monotonic())


def _release(waiters: "deque[asyncio.Future[None]]") -> None:
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
