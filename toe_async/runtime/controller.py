"""Workers that take keys from a queue and reconcile them, each key by itself.

What holds: a key is never reconciled twice at a time; a reconcile that fails, hangs or has a bug costs the others
nothing; a failure is tried again under the queue's rate limits, a TerminalError never by itself; every outcome is
counted under controller-runtime's names. A reconcile is cancelled after `timeout` seconds and counts as failed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from itertools import count
from traceback import walk_tb
from typing import Final, Generic, Protocol, TypeVar, runtime_checkable

import structlog
from msgspec import Struct

from toe_async.kube.errors import KubeError
from toe_async.lib.clock import Clock
from toe_async.runtime.errors import TerminalError, TransientError
from toe_async.runtime.workqueue import QueueShutDownError, WorkQueue
from toe_async.telemetry import log as logs
from toe_async.telemetry.metrics import OperatorMetrics

log = logs.get("runtime.controller")

K = TypeVar("K", bound=Hashable)

RECONCILE_TIMEOUT: Final = 60.0
_DEEPEST: Final = 20


@runtime_checkable
class _ObjectKey(Protocol):
    """A key that names one object, as runtime.keys.Key does."""

    @property
    def namespace(self) -> str: ...

    @property
    def name(self) -> str: ...


class Result(Struct, frozen=True):
    """A reconcile that went well; `requeue_after` in seconds asks for another look without any event."""

    requeue_after: float | None = None


class Controller(Generic[K]):
    """See the module. `run` may be called again after a cancellation: a lease can be lost and won again."""

    def __init__(
        self,
        name: str,
        queue: WorkQueue[K],
        reconcile: Callable[[K], Awaitable[Result]],
        *,
        clock: Clock,
        metrics: OperatorMetrics,
        workers: int = 4,
        timeout: float = RECONCILE_TIMEOUT,
    ) -> None:
        self.name = name
        self.queue = queue
        self._reconcile = reconcile
        self._clock = clock
        self._workers, self._timeout = workers, timeout
        self._ids = count(1)
        self._errors = metrics.reconcile_errors.labels(name)
        self._terminal_errors = metrics.reconcile_terminal_errors.labels(name)
        self._panics = metrics.reconcile_panics.labels(name)
        self._time = metrics.reconcile_time.labels(name)
        self._active = metrics.active_workers.labels(name)
        # Made once with zero values: a dashboard must not have a hole until the first error.
        self._results = {
            result: metrics.reconcile_total.labels(name, result)
            for result in ("success", "requeue_after", "requeue", "error")
        }
        metrics.max_concurrent_reconciles.labels(name).set(workers)

    async def run(self) -> None:
        """Reconcile until cancelled (which cancels the reconciles in flight) or until the queue is shut down."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(), name=f"{self.name} worker {number}")

    async def drain(self) -> None:
        """Take no new keys and wait for the reconciles in flight. Unbounded: the caller brings a deadline."""
        await self.queue.drain()

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except QueueShutDownError:
                return
            try:
                with self._active.track_inprogress():
                    await self._handle(key)
            except asyncio.CancelledError:
                self.queue.add(key)  # it was not finished: whoever runs next begins with it again
                raise
            finally:
                self.queue.done(key)

    async def _handle(self, key: K) -> None:
        started = self._clock.monotonic()
        with structlog.contextvars.bound_contextvars(controller=self.name, reconcileID=next(self._ids), **_named(key)):
            try:
                async with asyncio.timeout(self._timeout) as limit:
                    result = await self._reconcile(key)
            except TerminalError as error:
                self._failed(key, str(error))
                self._terminal_errors.inc()
            except TimeoutError:
                self._failed(key, f"not finished within {self._timeout:g} s" if limit.expired() else "timed out")
                self.queue.add_rate_limited(key)
            except (KubeError, TransientError) as error:
                self._failed(key, str(error))
                self.queue.add_rate_limited(key)
            except Exception as error:  # noqa: BLE001 -- a bug met by one object must not end the work on all others
                self._panics.inc()
                self._failed(key, f"{type(error).__name__}: {error}", trace=_frames(error))
                self.queue.add_rate_limited(key)
            else:
                self._succeeded(key, result)
            finally:
                self._time.observe(self._clock.monotonic() - started)

    def _failed(self, key: K, error: str, **more: object) -> None:
        self._errors.inc()
        self._results["error"].inc()
        log.error("reconcile failed", error=error, failures=self.queue.failures(key), **more)

    def _succeeded(self, key: K, result: Result) -> None:
        self.queue.forget(key)
        if result.requeue_after is None:
            self._results["success"].inc()
            return
        self._results["requeue_after"].inc()
        self.queue.add_after(key, result.requeue_after)


def _named(key: object) -> dict[str, str]:
    return {"namespace": key.namespace, "name": key.name} if isinstance(key, _ObjectKey) else {"key": str(key)}


def _frames(error: Exception) -> list[str]:
    """Where it happened, innermost last. Without source lines: reading files would block the loop."""
    frames = [
        f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}" for frame, line in walk_tb(error.__traceback__)
    ]
    return frames[-_DEEPEST:]
