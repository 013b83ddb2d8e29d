"""Which namespaces and pods a PowerTool can reach now, what stands against a tool there, and who else is there."""

from collections.abc import Mapping

from toe_async.apis.core import POWERTOOLS_GRANT, NamespaceObject, PodUsage
from toe_async.apis.pods import Pod
from toe_async.apis.powertool import FINAL_STATES, PowerTool
from toe_async.apis.powertoolconfig import PowerToolConfig
from toe_async.apis.reasons import Reason
from toe_async.capture.preflight import level_of, output_fault
from toe_async.capture.refusals import Refused
from toe_async.capture.security import chosen, level_faults, security_context
from toe_async.capture.targets import is_running
from toe_async.controllers.powertool.choosing import container_of
from toe_async.controllers.powertool.facts import NamespaceFacts, Occupant, PodNow, TargetFacts, ToolKey
from toe_async.controllers.powertool.occupancy import Occupancy
from toe_async.controllers.powertool.podbook import PodBook
from toe_async.lib.globs import matches
from toe_async.runtime.informer import Informer
from toe_async.runtime.keys import Key


class Reach:
    """Reads pods, namespaces and claims from memory."""

    def __init__(self, book: PodBook, namespaces: Informer[NamespaceObject], occupancy: Occupancy) -> None:
        self._book, self._namespaces, self._occupancy = book, namespaces, occupancy

    def where(self, tool: PowerTool) -> tuple[NamespaceFacts, ...]:
        """The namespaces in which a PowerTool may look for pods, or would like to."""
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

    def candidates(
        self,
        tool: PowerTool,
        config: PowerToolConfig | None,
        namespaces: tuple[NamespaceFacts, ...],
        usage: Mapping[tuple[str, str], PodUsage],
    ) -> tuple[TargetFacts, ...]:
        """The pods that the selector matches in granted namespaces, of whatever phase."""
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
                    found.append(TargetFacts(pod, problem, _cpu(pod, usage.get((pod.namespace, pod.name)))))
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

    def frozen(self, key: ToolKey, tool: PowerTool) -> dict[str, PodNow]:
        """What has become of the pods that the ledger names, by UID."""
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

    def busy(
        self, key: ToolKey, tool: PowerTool, candidates: tuple[TargetFacts, ...], pods: Mapping[str, PodNow]
    ) -> dict[tuple[str, str], tuple[Occupant, ...]]:
        """Who else has, or queues for, a container that is, or may become, a target."""
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
