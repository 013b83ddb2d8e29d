"""Reads everything that a decision about one PowerTool depends on, from memory, at one moment."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from msgspec import Struct

from toe_async.apis.captures import CollectorRef, S3Ref, SinkRef
from toe_async.apis.core import POWERTOOLS_GRANT, NamespaceObject, PodUsage
from toe_async.apis.meta import ConditionStatus, find_condition
from toe_async.apis.pods import Pod
from toe_async.apis.powertool import FINAL_STATES, PowerTool, PowerToolSpec
from toe_async.apis.powertoolconfig import PowerToolConfig
from toe_async.apis.reasons import Reason
from toe_async.capture import toolconfig
from toe_async.capture.arguments import render
from toe_async.capture.preflight import level_of, output_fault
from toe_async.capture.refusals import Refused
from toe_async.capture.security import chosen, level_faults, security_context
from toe_async.capture.targets import is_running
from toe_async.capture.toolconfig import ToolPolicy
from toe_async.capture.toolrun import Progress
from toe_async.controllers.powertool.batching import demand
from toe_async.controllers.powertool.choosing import container_of
from toe_async.controllers.powertool.facts import (
    NamespaceFacts,
    Observed,
    Occupant,
    PodNow,
    Slots,
    TargetFacts,
    ToolKey,
)
from toe_async.controllers.powertool.occupancy import Occupancy
from toe_async.controllers.powertool.podbook import PodBook
from toe_async.controllers.powertool.preparing import Prepared
from toe_async.controllers.powertool.schedule import may_begin
from toe_async.lib.clock import Clock
from toe_async.lib.globs import matches
from toe_async.runtime.informer import Informer
from toe_async.runtime.keys import Key
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
        tools: Informer[PowerTool],
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
        self._tools, self._configs, self._pods, self._namespaces = tools, configs, pods, namespaces
        self._book, self._occupancy, self._allow, self._clock = book, occupancy, allow, clock
        self._policy, self._limits, self._policy_problem = policy, limits, policy_problem

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
        config = self._config(tool.spec.tool.name) if isinstance(resolved, Refused) else resolved
        namespaces = self._where(tool)
        candidates = self._candidates(tool, config, namespaces, prepared) if may_begin(tool, prepared.zone, now) else ()
        pods = self._frozen(key, tool)
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
            busy=self._busy(key, tool, candidates, pods),
            progress=progress,
            running=running,
            slots=self._slots(tool, now),
        )

    def config(self, name: str) -> PowerToolConfig | None:
        """The configuration of a tool's name, usable or not."""
        return self._config(name)

    def compatible_with(self, name: str) -> tuple[str, ...]:
        """The tools that a tool's configuration says it gets along with."""
        config = self._config(name)
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
        return tuple(one.name for one in self._where(tool) if one.granted)

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

    def _config(self, name: str) -> PowerToolConfig | None:
        found = self._configs.store.by_index(BY_TOOL, name)
        return min(found, key=lambda one: one.metadata.name, default=None)

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

    # ---- namespaces and pods -------------------------------------------------------------------------------------

    def _where(self, tool: PowerTool) -> tuple[NamespaceFacts, ...]:
        own, selector = tool.metadata.namespace, tool.spec.targets.namespace_selector
        if selector is None:
            return (NamespaceFacts(own, granted=True, named=True),)
        found = {name: NamespaceFacts(name, self._granted(name, own), named=True) for name in selector.match_names}
        for namespace in self._namespaces.store.list():
            name = namespace.name
            # An expression is tried only on those that grant it: what it finds elsewhere is nobody's business.
            if name not in found and self._granted(name, own) and _covers(tool, name):
                found[name] = NamespaceFacts(name, granted=True, named=False)
        return tuple(found.values())

    def _granted(self, target: str, own: str) -> bool:
        if target == own:
            return True
        namespace = self._namespaces.store.get(Key("", target))
        return namespace is not None and grants(namespace, own)

    def _candidates(
        self,
        tool: PowerTool,
        config: PowerToolConfig | None,
        namespaces: tuple[NamespaceFacts, ...],
        prepared: Prepared,
    ) -> tuple[TargetFacts, ...]:
        try:
            selector = tool.spec.targets.label_selector.compiled()
        except ValueError:  # admission refuses it; nothing is selected
            return ()
        found: list[TargetFacts] = []
        for one in namespaces:
            if not one.granted:
                continue
            level_fault = self._level_fault(tool, config, one.name)
            for pod in self._book.of(one.name).values():
                if selector.matches(pod.labels):
                    problem = level_fault or _claim_fault(tool, pod)
                    found.append(TargetFacts(pod, problem, _cpu(pod, prepared.usage.get((pod.namespace, pod.name)))))
        return tuple(found)

    def _level_fault(self, tool: PowerTool, config: PowerToolConfig | None, name: str) -> Refused | None:
        if config is None:
            return None
        level = level_of(self._namespaces.store.get(Key("", name)))
        if (fault := output_fault(tool.spec.output.mode, config.spec, level)) is not None:
            return fault
        wanted = chosen(config.spec, level)
        if wanted.allow_host_pid:  # a pod in the agents' namespace; the runner looks at what the namespace allows
            return None
        faults = level_faults(level, security_context(wanted, None))
        if not faults:
            return None
        return Refused(
            Reason.POD_SECURITY_DENIED,
            f"namespace {name} enforces Pod Security level {level}, which does not take {' and '.join(faults)} of tool "
            f"{config.spec.name}",
        )

    def _frozen(self, key: ToolKey, tool: PowerTool) -> dict[str, PodNow]:
        held = self._occupancy.of(key)
        own = tool.metadata.namespace
        found: dict[str, PodNow] = {}
        for entry in held.entries if held is not None else ():
            pod = self._book.get(entry.uid)
            if pod is None:
                found[entry.uid] = PodNow("gone", None)
            elif pod.phase in {"Succeeded", "Failed"}:
                found[entry.uid] = PodNow("ended", pod, self._granted(pod.namespace, own))
            elif is_running(pod):
                found[entry.uid] = PodNow("running", pod, self._granted(pod.namespace, own))
            else:
                found[entry.uid] = PodNow("terminating", pod, self._granted(pod.namespace, own))
        return found

    def _busy(
        self, key: ToolKey, tool: PowerTool, candidates: tuple[TargetFacts, ...], pods: Mapping[str, PodNow]
    ) -> dict[tuple[str, str], tuple[Occupant, ...]]:
        wanted: dict[tuple[str, str], Pod] = {}
        for one in candidates:
            container = container_of(one.pod, tool.spec.targets.container)
            if isinstance(container, str):
                wanted[one.pod.uid, container] = one.pod
        held = self._occupancy.of(key)
        for entry in held.entries if held is not None else ():
            now = pods.get(entry.uid)
            if entry.state not in FINAL_STATES and now is not None and now.pod is not None:
                wanted[entry.uid, entry.container] = now.pod
        found = {at: self._occupancy.occupants(key, pod, at[1]) for at, pod in wanted.items()}
        return {at: occupants for at, occupants in found.items() if occupants}


def _age(tool: PowerTool, now: datetime) -> tuple[datetime, str]:
    return tool.metadata.creation_timestamp or now, tool.metadata.uid


def grants(namespace: NamespaceObject, other: str) -> bool:
    """Whether a namespace lets PowerTools of another one run in its pods: names or globs, comma-separated."""
    patterns = namespace.annotations.get(POWERTOOLS_GRANT, "").split(",")
    return any(_is(pattern.strip(), other) for pattern in patterns)


def _is(pattern: str, name: str) -> bool:
    try:
        return bool(pattern) and matches(pattern, name)
    except ValueError:  # a broken glob grants nothing
        return False


def _covers(tool: PowerTool, namespace: str) -> bool:
    selector = tool.spec.targets.namespace_selector
    try:
        return selector is not None and selector.covers(namespace)
    except ValueError:  # a broken expression finds nothing
        return False


def _cpu(pod: Pod, usage: PodUsage | None) -> float | None:
    """What the pod's own containers use. What was measured before it started is of a predecessor of the same name."""
    if usage is None or (pod.start_time is not None and usage.timestamp < pod.start_time):
        return None
    used = [usage.containers[one.name][0] for one in pod.containers if one.name in usage.containers]
    return sum(used) if used and len(used) == len(pod.containers) else None


def _claim_fault(tool: PowerTool, pod: Pod) -> Refused | None:
    pvc = tool.spec.output.pvc
    if tool.spec.output.mode != "pvc" or pvc is None or pvc.claim_name in pod.claims:
        return None
    return Refused(
        Reason.VOLUME_NOT_MOUNTED,
        f"pod {pod.namespace}/{pod.name} has no volume of claim {pvc.claim_name}; add it to the pod, or use another "
        "output.mode",
    )
