"""Reads everything that a decision about one PowerTool depends on, from memory, at one moment."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from msgspec import Struct

from toe_async.apis.captures import CollectorRef, S3Ref, SinkRef
from toe_async.apis.core import NamespaceObject
from toe_async.apis.meta import ConditionStatus, find_condition
from toe_async.apis.pods import Pod
from toe_async.apis.powertool import PowerTool, PowerToolSpec
from toe_async.apis.powertoolconfig import PowerToolConfig
from toe_async.apis.reasons import Reason
from toe_async.capture import toolconfig
from toe_async.capture.arguments import render
from toe_async.capture.refusals import Refused
from toe_async.capture.toolconfig import ToolPolicy
from toe_async.capture.toolrun import Progress
from toe_async.controllers.powertool.batching import demand
from toe_async.controllers.powertool.facts import (
    Observed,
    Slots,
    ToolKey,
)
from toe_async.controllers.powertool.occupancy import Occupancy
from toe_async.controllers.powertool.podbook import PodBook
from toe_async.controllers.powertool.preparing import Prepared
from toe_async.controllers.powertool.reach import Reach
from toe_async.controllers.powertool.schedule import may_begin
from toe_async.lib.clock import Clock
from toe_async.runtime.informer import Informer
from toe_async.sinks import allow
from toe_async.sinks.allow import Allows

BY_TOOL = "tool"
TOOL_INDEXES: Mapping[str, Callable[[PowerTool], Iterable[str]]] = {
    BY_TOOL: lambda tool: [tool.spec.tool.name],
}
"""The index by which the informer finds the PowerTools that name one configuration."""


class Limits(Struct, frozen=True, kw_only=True):
    """How many tools may run at a time, as the administrator's flags say."""

    cluster: int
    per_node: int


class Views:
    """The read side of the controller."""

    def __init__(
        self,
        *,
        configs: Informer[PowerToolConfig],
        pods: Informer[Pod],
        namespaces: Informer[NamespaceObject],
        book: PodBook,
        occupancy: Occupancy,
        allow: Allows,
        clock: Clock,
        policy: ToolPolicy,
        limits: Limits,
        policy_problem: Callable[[], str | None],
    ) -> None:
        self._configs, self._pods = configs, pods
        self._book, self._occupancy, self._allow, self._clock = book, occupancy, allow, clock
        self._policy, self._limits, self._policy_problem = policy, limits, policy_problem
        self._reach = Reach(book, namespaces, occupancy)

    def observe(
        self,
        key: ToolKey,
        tool: PowerTool,
        prepared: Prepared,
        *,
        progress: Mapping[str, Progress],
        running: frozenset[str],
    ) -> Observed:
        """Gather the facts. Every claim that is on its way to the API server is in the occupancy already."""
        now = self._clock.now()
        resolved = toolconfig.resolve(tool.spec.tool.name, self._configs.store.list(), self._policy)
        problem = resolved if isinstance(resolved, Refused) else None
        config = self.config(tool.spec.tool.name) if isinstance(resolved, Refused) else resolved
        namespaces = self._reach.where(tool)
        begins = may_begin(tool, prepared.zone, now)
        candidates = self._reach.candidates(tool, config, namespaces, prepared.usage) if begins else ()
        pods = self._reach.frozen(key, tool)
        return Observed(
            now=now,
            tool=tool,
            zone=prepared.zone,
            known=self._configs.synced.is_set() and self._configs.forbidden is None,
            config=config,
            config_problem=problem,
            switched_off=self._switched_off(config),
            policy_problem=self._policy_problem(),
            refusal=self._refusal(tool, config),
            sink_problem=self._sink_problem(tool, prepared),
            pods_problem=self._pods_problem(),
            namespaces=namespaces,
            candidates=candidates,
            pods=pods,
            busy=self._reach.busy(key, tool, candidates, pods),
            progress=progress,
            running=running,
            slots=self._slots(tool, now),
        )

    def config(self, name: str) -> PowerToolConfig | None:
        """The configuration of a tool's name, usable or not; of several the first by its own name."""
        found = self._configs.store.by_index(BY_TOOL, name)
        return min(found, key=lambda one: one.metadata.name, default=None)

    def compatible_with(self, name: str) -> tuple[str, ...]:
        """The tools that a tool's configuration says it gets along with."""
        config = self.config(name)
        return config.spec.compatible_with if config is not None else ()

    def sink_of(self, spec: PowerToolSpec) -> SinkRef | None:
        """Where the operator has a hand in the output's way; None for modes that it has not."""
        output = spec.output
        if output.mode == "collector":
            return CollectorRef(
                endpoint=(output.collector.endpoint if output.collector else "") or self._allow.collector
            )
        if output.mode == "s3" and output.s3 is not None:
            held = output.s3
            return S3Ref(
                bucket=held.bucket,
                prefix=held.prefix,
                region=held.region,
                endpoint=held.endpoint,
                credentials_secret=held.credentials_secret,
            )
        return None

    def namespaces_of(self, tool: PowerTool) -> tuple[str, ...]:
        """The namespaces in which a PowerTool may look for pods now."""
        return tuple(one.name for one in self._reach.where(tool) if one.granted)

    def sink_allowed(self, ref: SinkRef, namespace: str) -> bool:
        """Whether the administrator lets the namespace use the sink: others are not even tried."""
        return not isinstance(self._allow.allow(ref, namespace), allow.Refused)

    def may_match(self, tool: PowerTool, pod: Pod) -> bool:
        """Whether a pod may become a target of a PowerTool that has not chosen yet."""
        try:
            matched = tool.spec.targets.label_selector.compiled().matches(pod.labels)
        except ValueError:
            return False
        return matched and pod.namespace in self.namespaces_of(tool)

    # ---- the run as a whole --------------------------------------------------------------------------------------

    def _switched_off(self, config: PowerToolConfig | None) -> str | None:
        if config is None:
            return None
        if config.spec.suspend:
            return f"the administrator has suspended tool {config.spec.name}"
        if config.spec.heartbeat and not self._policy.heartbeat_tools:
            return f"tools that disturb their target, such as {config.spec.name}, are switched off (--chaos=off)"
        return None

    def _refusal(self, tool: PowerTool, config: PowerToolConfig | None) -> Refused | None:
        if config is None:
            return None
        argv = render(config.spec, tool.spec.tool)
        return argv if isinstance(argv, Refused) else None

    def _sink_problem(self, tool: PowerTool, prepared: Prepared) -> Refused | None:
        ref = self.sink_of(tool.spec)
        if ref is None:
            return None
        decision = self._allow.allow(ref, tool.metadata.namespace)
        if isinstance(decision, allow.Refused):
            return Refused(Reason.SINK_NOT_ALLOWED, decision.message)
        return Refused(Reason.STORE_UNREACHABLE, prepared.sink_problem) if prepared.sink_problem else None

    def _pods_problem(self) -> str | None:
        if self._pods.forbidden is not None:
            return self._pods.forbidden
        return None if self._pods.synced.is_set() else "pods are not all known yet"

    def _slots(self, tool: PowerTool, now: datetime) -> Slots:
        used = Counter(self._node(entry.uid) for _, entry in self._occupancy.claimed())
        free = max(0, self._limits.cluster - used.total())
        return Slots(cluster=free, per_node=self._limits.per_node, used=used, ahead=self._ahead(tool, now))

    def _ahead(self, tool: PowerTool, now: datetime) -> Counter[str]:
        """What those who were there before wait for. One that may not go on at all keeps no place."""
        total: Counter[str] = Counter()
        mine = _age(tool, now)
        for held in self._occupancy.all():
            accepted = find_condition(held.tool.status.conditions, "Accepted")
            if _age(held.tool, now) < mine and (accepted is None or accepted.status is ConditionStatus.TRUE):
                nodes = {entry.uid: node for entry in held.entries if (node := self._node(entry.uid))}
                total += demand(held.tool, held.entries, nodes, now)
        return total

    def _node(self, uid: str) -> str:
        pod = self._book.get(uid)
        return pod.node if pod is not None else ""


def _age(tool: PowerTool, now: datetime) -> tuple[datetime, str]:
    return tool.metadata.creation_timestamp or now, tool.metadata.uid
