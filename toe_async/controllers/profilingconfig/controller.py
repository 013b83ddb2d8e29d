"""The ProfilingConfig controller: what wakes it, and observe -> plan -> apply for one key.

Woken by: the configurations themselves, a poll of metrics in their target namespace, opted-in pods that come, go or
withdraw, namespaces (grants), the policy, a sink that changes, a capture that ends, and time (slots of an interval).
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from toe_async.apis.core import NamespaceObject
from toe_async.apis.meta import ObjectRef
from toe_async.apis.pods import Pod
from toe_async.apis.profilingconfig import ProfilingConfig
from toe_async.apis.reasons import Reason
from toe_async.capture.targets import is_running, opted_in
from toe_async.controllers.profilingconfig.accounting import find
from toe_async.controllers.profilingconfig.accounts import Accounts
from toe_async.controllers.profilingconfig.choosing import sink_of
from toe_async.controllers.profilingconfig.claims import Claims
from toe_async.controllers.profilingconfig.facts import ConfigKey, Observed, Plan, Start
from toe_async.controllers.profilingconfig.ledger import KINDS, Ledger
from toe_async.controllers.profilingconfig.matching import PodIndex
from toe_async.controllers.profilingconfig.monitor import MetricsMonitor
from toe_async.controllers.profilingconfig.observe import Memory, Views, selector_keys
from toe_async.controllers.profilingconfig.plan import SOFT_SECONDS, plan
from toe_async.controllers.profilingconfig.runner import CaptureRunner
from toe_async.controllers.profilingconfig.sentences import needs_metrics
from toe_async.controllers.profilingconfig.sinkhealth import Place, SinkHealth, Wanted, place_of
from toe_async.kube.errors import Conflict, NotFound
from toe_async.lib.clock import Clock
from toe_async.runtime.controller import Result
from toe_async.runtime.informer import Informer
from toe_async.runtime.keys import Key
from toe_async.runtime.statuses import OwnWrites
from toe_async.runtime.workqueue import WorkQueue
from toe_async.telemetry import log
from toe_async.telemetry.metrics import OperatorMetrics

_log = log.get("profilingconfig")

_AFTER_CONFLICT = 0.2  # seconds until the watch has most likely brought what we conflicted with
_SETTLE = 0.5  # several changes at once (a rollout, a kustomize apply) are looked at once


class ProfilingConfigController:
    """Wires the watches to the queue and applies plans. Handlers are added at construction, before informers run."""

    def __init__(
        self,
        *,
        views: Views,
        configs: Mapping[str, Informer[ProfilingConfig]],
        pods: Informer[Pod],
        namespaces: Informer[NamespaceObject],
        index: PodIndex,
        monitor: MetricsMonitor,
        sinks: SinkHealth,
        runner: CaptureRunner,
        accounts: Accounts,
        ledger: Ledger,
        queue: WorkQueue[ConfigKey],
        fence: Callable[[], None],
        policy_known: Callable[[], bool],
        clock: Clock,
        metrics: OperatorMetrics,
        collector: str,
        max_captures: int,
    ) -> None:
        self._views, self._configs, self._pods, self._index = views, configs, pods, index
        self._monitor, self._sinks, self._runner, self._accounts, self._ledger = (
            monitor,
            sinks,
            runner,
            accounts,
            ledger,
        )
        self._queue, self._fence, self._clock, self._metrics = queue, fence, clock, metrics
        self._policy_known = policy_known
        self._collector, self._max_captures = collector, max_captures
        self._memories: dict[ConfigKey, Memory] = {}
        self._own: OwnWrites[ConfigKey, ProfilingConfig] = OwnWrites()
        self._claims = Claims()
        self._due: dict[ConfigKey, float] = {}
        self._waiting: dict[ConfigKey, None] = {}  # those with a pod that found no place, the longest waiting first
        self._demand_changed = asyncio.Event()
        for group, informer in configs.items():
            informer.add_handler(partial(self._config_changed, group))
        pods.add_handler(self._pod_changed)
        namespaces.add_handler(self._namespace_changed)
        runner.on_end = self._capture_ended

    # ---- what wakes it -------------------------------------------------------------------------------------------

    def polled(self, namespace: str) -> None:
        """New metrics of a namespace are there: wake whoever is due by his own interval."""
        now = self._clock.monotonic()
        for key, config in self._watching(namespace):
            if needs_metrics(config.spec) and now >= self._due.get(key, 0.0):
                # A tenth less than the interval, so that a poll that comes a moment early is not missed.
                self._due[key] = now + 0.9 * config.spec.thresholds_in_force().check_interval_seconds
                self._queue.add(key)

    def wake_all(self) -> None:
        """Something that concerns every configuration changed."""
        for group, informer in self._configs.items():
            for config in informer.store.list():
                self._queue.add(ConfigKey(group, config.metadata.namespace, config.metadata.name))

    def sink_changed(self, place: Place) -> None:
        """A sink answers differently: wake those who use it."""
        for group, informer in self._configs.items():
            for config in informer.store.list():
                if place_of(self.wanted(config)) == place:
                    self._queue.add(ConfigKey(group, config.metadata.namespace, config.metadata.name))

    def wanted(self, config: ProfilingConfig) -> Wanted:
        """The sink of a configuration as it is probed."""
        return Wanted(sink_of(config.spec, self._collector), config.metadata.namespace)

    def _capture_ended(self, key: ConfigKey) -> None:
        """A place is free: wake its configuration, and as many of those that wait as there are places at most."""
        self._queue.add(key)
        for waiting in list(self._waiting)[: self._max_captures]:
            del self._waiting[waiting]
            self._queue.add(waiting)

    def _config_changed(self, group: str, old: ProfilingConfig | None, new: ProfilingConfig | None) -> None:
        config = new or old
        assert config is not None
        key = ConfigKey(group, config.metadata.namespace, config.metadata.name)
        if old is None or new is None or old.metadata.generation != new.metadata.generation:
            self._due.pop(key, None)
            self._demand_changed.set()
        self._queue.add(key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        self._index.handle(old, new)
        before = old is not None and opted_in(old), old is not None and is_running(old)
        after = new is not None and opted_in(new), new is not None and is_running(new)
        pod = new or old
        if before == after or pod is None or not (before[0] or after[0]):
            return
        for key, _ in self._watching(pod.namespace):
            self._queue.add_after(key, _SETTLE)

    def _namespace_changed(self, old: NamespaceObject | None, new: NamespaceObject | None) -> None:
        before = old.annotations if old else None
        after = new.annotations if new else None
        namespace = new or old
        if before == after or namespace is None:
            return
        for key, _ in self._watching(namespace.name):
            self._queue.add(key)

    def _watching(self, namespace: str) -> list[tuple[ConfigKey, ProfilingConfig]]:
        return [
            (ConfigKey(group, config.metadata.namespace, config.metadata.name), config)
            for group, informer in self._configs.items()
            for config in informer.store.by_index("target", namespace)
        ]

    async def keep_demand(self) -> None:
        """Keep polls, probes and label indexes to what the configurations need, until cancelled."""
        while True:
            await self._demand_changed.wait()
            await asyncio.sleep(_SETTLE)
            self._demand_changed.clear()
            intervals: dict[str, float] = {}
            wanted: list[Wanted] = []
            keys: set[str] = set()
            for informer in self._configs.values():
                for config in informer.store.list():
                    keys |= selector_keys(config)
                    wanted.append(self.wanted(config))
                    if needs_metrics(config.spec) and not config.spec.suspend:
                        namespace = config.target_namespace
                        seconds = float(config.spec.thresholds_in_force().check_interval_seconds)
                        intervals[namespace] = min(seconds, intervals.get(namespace, seconds))
            self._index.use_keys(keys)
            self._sinks.demand(wanted)
            self._monitor.demand(intervals)

    # ---- one reconcile -------------------------------------------------------------------------------------------

    async def reconcile(self, key: ConfigKey) -> Result:
        """Observe, plan, apply."""
        config = self._own.newest(key, self._configs[key.group].store.get(Key(key.namespace, key.name)))
        if config is None:
            self._forget(key)
            return Result()
        if not self._policy_known():
            # A new leader that judged by a policy it has not read would refuse, and cancel, everything.
            return Result(requeue_after=_SETTLE)
        memory = self._memory(key, config)
        for start in self._claims.answered(key, config, self._views.holder, self._clock.now()):
            self._begin(key, memory, start)
        claimed = self._claims.taken(key)
        seen = self._views.observe(
            key,
            config,
            memory,
            reserved=frozenset(claimed.values()),
            running=self._runner.running,
            free_captures=self._max_captures - len(self._runner.running | claimed.keys()),
        )
        return await self._apply(key, memory, seen, plan(seen))

    async def _apply(self, key: ConfigKey, memory: Memory, seen: Observed, decided: Plan) -> Result:
        config = seen.config
        for id_ in decided.cancel:
            self._cancel(config, id_)
        self._count(decided)
        if Reason.BUSY in decided.not_fired:
            self._waiting.setdefault(key)
        due = memory.soft_written is None or (seen.now - memory.soft_written).total_seconds() >= SOFT_SECONDS
        if decided.urgent or (due and decided.status != config.status):
            # From here to the answer other reconciles run: what is about to be claimed must look taken to them.
            self._fence()
            try:
                with self._claims.writing(key, config, decided.starts):
                    self._own.wrote(key, await self._ledger.write(key, config, decided.status))
            except NotFound:
                return Result()
            except Conflict:
                return Result(requeue_after=_AFTER_CONFLICT)
            memory.soft_written = seen.now
            for start in decided.starts:
                self._begin(key, memory, start)
            for id_ in decided.lost:
                if (row := find(decided.status, id_)) is not None:
                    self._accounts.tell_end(_reference(key, config), row)
        memory.histories = decided.histories
        return Result(requeue_after=decided.recheck_seconds)

    def _begin(self, key: ConfigKey, memory: Memory, start: Start) -> None:
        memory.started[start.record.target.pod_uid] = self._clock.now()
        self._runner.start(key, start)

    def _cancel(self, config: ProfilingConfig, id_: str) -> None:
        row = find(config.status, id_)
        pod = self._pods.store.get(Key(config.target_namespace, row.pod)) if row is not None else None
        if row is not None and (pod is None or pod.uid != row.pod_uid or not is_running(pod)):
            # A runtime may hold a forward to a force-deleted pod open until its deadline; the watch knows better.
            self._runner.cancel(id_, Reason.POD_GONE, f"pod {row.pod} ended in the middle of the capture")
        else:
            self._runner.cancel(id_, Reason.CANCELLED, "the pod, its namespace or the configuration withdrew")

    def _count(self, decided: Plan) -> None:
        for reason, number in decided.not_fired.items():
            self._metrics.not_fired.labels(reason).inc(number)
        for resource in decided.violations:
            self._metrics.profiling_threshold_violations.labels(resource).inc()
        self._metrics.duplicate_captures_prevented.inc(decided.duplicates)

    def _memory(self, key: ConfigKey, config: ProfilingConfig) -> Memory:
        memory = self._memories.get(key)
        if memory is None or memory.uid != config.metadata.uid:
            memory = self._memories[key] = Memory(config.metadata.uid)
        current = {pod.uid for pod in self._index.opted_in(config.target_namespace).values()}
        memory.started = {uid: at for uid, at in memory.started.items() if uid in current}
        return memory

    def _forget(self, key: ConfigKey) -> None:
        self._memories.pop(key, None)
        self._own.forget(key)
        self._due.pop(key, None)
        self._waiting.pop(key, None)
        self._claims.forget(key)
        self._runner.forget(key)


def _reference(key: ConfigKey, config: ProfilingConfig) -> ObjectRef:
    kind = KINDS[key.group]
    return ObjectRef(
        api_version=kind.api_version,
        kind=kind.kind,
        namespace=key.namespace,
        name=key.name,
        uid=config.metadata.uid,
    )
