"""The pods' CPU and memory, polled once per namespace and interval for all configurations that need it.

metrics.k8s.io has no watch. A namespace is polled at the smallest interval that any configuration asks for (D7), only
pods that opted in are kept, and whoever listens is told after each poll. A poll that fails keeps the samples: their age
alone decides whether they still count.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from toe_async.apis.core import PodUsage, decode_pod_metrics_list
from toe_async.apis.kinds import POD_METRICS
from toe_async.kube.errors import ApiError, Forbidden, KubeError, NotFound
from toe_async.kube.requests import list_
from toe_async.kube.sender import Sender
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner, cancel_and_wait
from toe_async.telemetry import log
from toe_async.telemetry.metrics import OperatorMetrics

_log = log.get("profilingconfig.monitor")


@dataclass(frozen=True)
class NamespaceUsage:
    """What the last polls of a namespace brought. ``problem`` is one sentence while the latest poll failed."""

    usage: Mapping[str, PodUsage]
    problem: str | None = None
    polled: bool = False


_NOTHING = NamespaceUsage({})


class MetricsMonitor:
    """Polls the namespaces in demand. ``run`` owns one task per namespace; ``demand`` may change at any time."""

    def __init__(
        self,
        client: Sender,
        keep: Callable[[str], Mapping[str, object]],
        on_poll: Callable[[str], None],
        clock: Clock,
        metrics: OperatorMetrics,
    ) -> None:
        self._client, self._keep, self._on_poll, self._clock = client, keep, on_poll, clock
        self._polls = metrics.metrics_polls
        for result in ("ok", "error"):
            self._polls.labels(result)
        self._demand: dict[str, float] = {}
        self._seen: dict[str, NamespaceUsage] = {}
        self._turn = asyncio.Event()  # set, and replaced by a new one, at each change of the demand

    def usage(self, namespace: str) -> NamespaceUsage:
        """Return what is known of a namespace; nothing before its first poll."""
        return self._seen.get(namespace, _NOTHING)

    def demand(self, intervals: Mapping[str, float]) -> None:
        """Say which namespaces to poll and how often (seconds); the others are forgotten."""
        if dict(intervals) != self._demand:
            self._demand = dict(intervals)
            self._turn.set()
            self._turn = asyncio.Event()

    async def run(self) -> None:
        """Poll until cancelled."""
        running: dict[str, asyncio.Task[None]] = {}
        async with TaskOwner(lambda name, error: _log.error("poller ended", poller=name, error=repr(error))) as owner:
            while True:
                turn = self._turn
                for namespace in running.keys() - self._demand.keys():
                    await cancel_and_wait(running.pop(namespace))
                    self._seen.pop(namespace, None)
                for namespace in self._demand.keys() - running.keys():
                    running[namespace] = owner.start(self._poll_forever(namespace), name=f"metrics {namespace}")
                await turn.wait()

    async def _poll_forever(self, namespace: str) -> None:
        while True:
            began = self._clock.monotonic()
            await self._poll(namespace)
            self._on_poll(namespace)
            # A new configuration may shorten the interval while we wait for the next poll.
            # Less than a millisecond is rounding, too short for the clock to show that it passed.
            while (left := began + self._demand.get(namespace, 30.0) - self._clock.monotonic()) > 0.001:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._turn.wait()

    async def _poll(self, namespace: str) -> None:
        before = self.usage(namespace)
        try:
            body = await self._client.send(list_(POD_METRICS, namespace, timeout=10.0))
            found = decode_pod_metrics_list(body)
        except (KubeError, msgspec.DecodeError) as error:
            problem = explain(error)
            self._polls.labels("error").inc()
            if problem != before.problem:
                _log.warning("metrics cannot be read", namespace=namespace, problem=problem)
            self._seen[namespace] = NamespaceUsage(before.usage, problem, polled=True)
            return
        self._polls.labels("ok").inc()
        if before.problem is not None:
            _log.info("metrics can be read again", namespace=namespace)
        keep = self._keep(namespace)
        self._seen[namespace] = NamespaceUsage({one.name: one for one in found if one.name in keep}, polled=True)


def explain(error: Exception) -> str:
    """Say in one sentence why metrics are not there and what to do about it."""
    match error:
        case NotFound():
            return "the cluster has no metrics.k8s.io API: install metrics-server (or an adapter that serves it)"
        case Forbidden():
            return f"the operator may not list pods.metrics.k8s.io: {error.message}"
        case ApiError(status=503):
            return "metrics.k8s.io answers 503: its server (metrics-server) is down or not ready yet"
        case ApiError():
            return f"metrics.k8s.io answers {error.status}: {error.message}"
        case msgspec.DecodeError():
            return f"metrics.k8s.io sent what is no PodMetricsList: {error}"
        case _:
            return f"metrics.k8s.io cannot be reached: {error}"
