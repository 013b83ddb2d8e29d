"""Reads everything that a decision about one ProfilingConfig depends on, from memory, at one moment."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from toe_async.apis.core import GRANT_ANNOTATIONS, NamespaceObject, Node
from toe_async.apis.pods import Pod
from toe_async.apis.profilingconfig import ProfilingConfig
from toe_async.apis.selectors import Selector
from toe_async.capture.triggers import History
from toe_async.controllers.profilingconfig.choosing import sink_of
from toe_async.controllers.profilingconfig.facts import ConfigKey, Observed, PodFacts
from toe_async.controllers.profilingconfig.matching import Matched, PodIndex
from toe_async.controllers.profilingconfig.monitor import NamespaceUsage
from toe_async.lib.clock import Clock
from toe_async.lib.globs import matches
from toe_async.runtime.informer import Informer
from toe_async.runtime.keys import Key
from toe_async.sinks.allow import Allows, Refused


class Memory(Struct):
    """What this process remembers of one incarnation of a configuration and the status does not hold."""

    uid: str
    histories: Mapping[str, History] = {}
    started: dict[str, datetime] = {}
    soft_written: datetime | None = None


class Usages(Protocol):
    """What is known of the pods' usage."""

    def usage(self, namespace: str) -> NamespaceUsage:
        """Return the samples of a namespace."""


class Views:
    """The read side of the controller."""

    def __init__(
        self,
        *,
        pods: Informer[Pod],
        nodes: Informer[Node],
        namespaces: Informer[NamespaceObject],
        configs: Mapping[str, Informer[ProfilingConfig]],
        index: PodIndex,
        usages: Usages,
        allow: Allows,
        clock: Clock,
        holder: str,
        own_namespace: str,
        policy_problem: Callable[[], str | None],
        sink_answer: Callable[[ProfilingConfig], tuple[bool, str | None]],
        spool_problem: Callable[[], str | None],
    ) -> None:
        self._pods, self._nodes, self._namespaces, self._configs = pods, nodes, namespaces, configs
        self._index, self._usages, self._allow, self._clock = index, usages, allow, clock
        self.holder, self._own_namespace = holder, own_namespace
        self._policy_problem, self._sink_answer, self._spool_problem = policy_problem, sink_answer, spool_problem

    def observe(
        self,
        key: ConfigKey,
        config: ProfilingConfig,
        memory: Memory,
        *,
        reserved: frozenset[str],
        running: frozenset[str],
        free_captures: int,
    ) -> Observed:
        """Gather the facts. ``reserved`` are UIDs of pods that a claim is being written for right now."""
        namespace = config.target_namespace
        usage = self._usages.usage(namespace)
        matched = self._match(config)
        probed, store_problem = self._sink_answer(config)
        decision = self._allow.allow(sink_of(config.spec, self._allow.collector), key.namespace)
        return Observed(
            now=self._clock.now(),
            holder=self.holder,
            group=key.group,
            config=config,
            policy_problem=self._policy_problem(),
            granted=self._granted(config),
            sink_problem=decision.message if isinstance(decision, Refused) else None,
            pods_problem=self._pods.forbidden,
            metrics_problem=usage.problem,
            metrics_polled=usage.polled,
            store_problem=store_problem,
            store_probed=probed,
            spool_problem=self._spool_problem(),
            matched=matched.total,
            pods=tuple(self._facts(pod, usage, config, memory) for pod in matched.opted_in),
            busy=reserved | self._busy(matched),
            running=running,
            gone=self._gone(config),
            free_captures=free_captures,
            collector=self._allow.collector,
            soft_written=memory.soft_written,
        )

    def _match(self, config: ProfilingConfig) -> Matched:
        try:
            selector = config.spec.selector.compiled()
        except ValueError:  # the plan says so; nothing is selected
            return Matched(0, ())
        return self._index.match(config.target_namespace, selector)

    def _facts(self, pod: Pod, usage: NamespaceUsage, config: ProfilingConfig, memory: Memory) -> PodFacts:
        rows = [row.started_at for row in config.status.recent if row.pod_uid == pod.uid]
        if (started := memory.started.get(pod.uid)) is not None:
            rows.append(started)
        return PodFacts(
            pod=pod,
            usage=usage.usage.get(pod.name),
            node=self._nodes.store.get(Key("", pod.node)),
            history=memory.histories.get(pod.uid, History()),
            last_started=max(rows, default=None),
        )

    def _busy(self, matched: Matched) -> frozenset[str]:
        return frozenset(
            pod.uid
            for pod in matched.opted_in
            if any(informer.store.by_index("capturing", pod.uid) for informer in self._configs.values())
        )

    def _granted(self, config: ProfilingConfig) -> bool:
        target, own = config.target_namespace, config.metadata.namespace
        if target == own:
            return True
        found = self._namespaces.store.get(Key("", target))
        return found is not None and grants(found, own)

    def _gone(self, config: ProfilingConfig) -> frozenset[str]:
        # Holders are pods only where this process is one itself and can see it; elsewhere deadlines must do.
        if self._pods.store.get(Key(self._own_namespace, self.holder)) is None:
            return frozenset()
        others = {row.holder for row in config.status.recent if not row.state.final} - {self.holder}
        return frozenset(one for one in others if self._pods.store.get(Key(self._own_namespace, one)) is None)


def grants(namespace: NamespaceObject, other: str) -> bool:
    """Whether a namespace lets configurations of another one profile its pods: names or globs, comma-separated."""
    for annotation in GRANT_ANNOTATIONS:
        if annotation in namespace.annotations:
            return any(_is(pattern.strip(), other) for pattern in namespace.annotations[annotation].split(","))
    return False


def _is(pattern: str, name: str) -> bool:
    try:
        return bool(pattern) and matches(pattern, name)
    except ValueError:  # a broken glob grants nothing
        return False


def selector_keys(config: ProfilingConfig) -> frozenset[str]:
    """The label keys by which a configuration can be answered from an index."""
    try:
        selector: Selector = config.spec.selector.compiled()
    except ValueError:
        return frozenset()
    return frozenset(selector.equality)
