"""Which containers of which pods a run takes: chosen once, when it begins, and frozen by pod UID. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec.structs import replace

from toe_async.apis.pods import DEFAULT_CONTAINER, Pod
from toe_async.apis.powertool import MAX_TARGETS, Pick, TargetState
from toe_async.apis.reasons import Reason
from toe_async.capture.refusals import Refused
from toe_async.capture.targets import is_running
from toe_async.controllers.powertool.facts import Observed, TargetFacts
from toe_async.controllers.powertool.members import Member, row_of
from toe_async.lib.globs import matches
from toe_async.lib.names import digest

_NEVER = datetime.max.replace(tzinfo=UTC)
_LINUX = ("", "linux")  # spec.os is mostly left out, and then Linux is meant


def container_of(pod: Pod, wanted: str) -> str | Refused:
    """The container that a tool looks at: the one named, else the pod's default container, else the first.

    A name that the pod has no container of is refused, never replaced. Sidecars among the init containers may be named.
    """
    names = [one.name for one in pod.containers]
    if wanted:
        if wanted in names:
            return wanted
        known = ", ".join(names[:10]) or "none"
        return Refused(
            Reason.TARGET_CONTAINER_MISSING,
            f"pod {pod.namespace}/{pod.name} has no container {wanted[:63]}; it has: {known}",
        )
    default = pod.annotations.get(DEFAULT_CONTAINER, "")
    found = default if default in names else next(iter(names), "")
    return found or Refused(Reason.TARGET_CONTAINER_MISSING, f"pod {pod.namespace}/{pod.name} has no container")


def eligible(pod: Pod) -> bool:
    """Running, not on its way out, on Linux, and no static pod, which a kubelet takes no ephemeral containers for."""
    return is_running(pod) and not pod.mirror and pod.os in _LINUX


def within_reach(seen: Observed) -> frozenset[str]:
    """The namespaces whose pods may be taken: they grant it, and the tool is allowed there."""
    return frozenset(one.name for one in seen.namespaces if one.granted and allowed(seen, one.name))


def allowed(seen: Observed, namespace: str) -> bool:
    """Whether the tool's administrator allows it there; an empty list allows any namespace, a broken glob none."""
    globs = seen.config.spec.allowed_namespaces if seen.config else ()
    return not globs or any(_covers(glob, namespace) for glob in globs)


def _covers(glob: str, namespace: str) -> bool:
    try:
        return matches(glob, namespace)
    except ValueError:
        return False


def chosen(seen: Observed, run: str) -> tuple[Member, ...] | Refused:
    """The members of a run in the order in which they are begun, or why there is none.

    A pod in which the tool cannot run is a member that has failed already, so that it is told; a sample takes such ones
    only when there are too few others.
    """
    targets = seen.tool.spec.targets
    reach = within_reach(seen)
    here = [one for one in seen.candidates if one.pod.namespace in reach]
    found = [one for one in here if eligible(one.pod)]
    if not found:
        return Refused(Reason.NO_MATCHING_PODS, _nobody(seen, len(here)))
    limit = min(targets.max_targets or MAX_TARGETS, MAX_TARGETS)
    if len(found) > MAX_TARGETS and (targets.max_targets or MAX_TARGETS + 1) > MAX_TARGETS:
        return Refused(
            Reason.TOO_MANY_TARGETS,
            f"{len(found)} pods match, but one run takes {MAX_TARGETS} at most: narrow spec.targets.labelSelector, or "
            "take a sample with spec.targets.maxTargets",
        )
    faults = {one.pod.uid: fault for one in found if (fault := _fault(one, targets.container)) is not None}
    good = [one for one in found if one.pod.uid not in faults]
    if targets.pick == "Hottest" and len(good) > limit and all(one.cpu is None for one in good):
        return Refused(
            Reason.METRICS_UNAVAILABLE,
            "spec.targets.pick is Hottest and no matching pod has metrics: install metrics.k8s.io, or set another pick",
        )
    seed = digest(seen.tool.metadata.uid, run)
    bad = [one for one in found if one.pod.uid in faults]
    picked = [*spread(ordered(good, targets.pick, seed)), *spread(ordered(bad, "All", seed))][:limit]
    return tuple(_member(seen, one, faults.get(one.pod.uid)) for one in picked)


def ordered(found: Iterable[TargetFacts], pick: Pick, seed: str) -> list[TargetFacts]:
    """Those that `pick` prefers first; equal ones by name. What is not known of a pod makes it the last."""
    by_name = sorted(found, key=lambda one: (one.pod.namespace, one.pod.name))
    match pick:
        case "All":
            return by_name
        case "Random":  # the seed is the run's, so whoever plans it again draws the same
            return sorted(by_name, key=lambda one: digest(seed, one.pod.uid))
        case "Oldest":
            return sorted(by_name, key=lambda one: _born(one.pod) or _NEVER)
        case "Newest":
            return sorted(by_name, key=lambda one: _NEVER - (_born(one.pod) or datetime.min.replace(tzinfo=UTC)))
        case "Hottest":
            return sorted(by_name, key=lambda one: (one.cpu is None, -(one.cpu or 0.0)))


def spread(found: Iterable[TargetFacts]) -> list[TargetFacts]:
    """The same pods, one of each node in turn; the nodes in the order of their first pod."""
    nodes: dict[str, list[TargetFacts]] = {}
    for one in found:
        nodes.setdefault(one.pod.node, []).append(one)
    out: list[TargetFacts] = []
    for turn in range(max(map(len, nodes.values()), default=0)):
        out += [pods[turn] for pods in nodes.values() if turn < len(pods)]
    return out


def _born(pod: Pod) -> datetime | None:
    return pod.created or pod.start_time


def _fault(one: TargetFacts, wanted: str) -> Refused | None:
    container = container_of(one.pod, wanted)
    return container if isinstance(container, Refused) else one.problem


def _member(seen: Observed, one: TargetFacts, fault: Refused | None) -> Member:
    container = container_of(one.pod, seen.tool.spec.targets.container)
    named = seen.tool.spec.targets.container if isinstance(container, Refused) else container
    row = row_of(one.pod, one.pod.uid, named)
    if fault is None:
        return Member(row)
    moment = seen.now.replace(microsecond=0)
    return Member(
        replace(row, state=TargetState.FAILED, reason=fault.reason, message=fault.message, finished_at=moment)
    )


def starting(seen: Observed) -> int:
    """How many pods match that do not run yet: who applies pods and a PowerTool together means those."""
    reach = within_reach(seen)
    pods = (one.pod for one in seen.candidates if one.pod.namespace in reach)
    return sum(pod.phase == "Pending" and not pod.terminating and not pod.mirror for pod in pods)


def _nobody(seen: Observed, matching: int) -> str:
    where = ", ".join(sorted(within_reach(seen))[:5]) or "the chosen namespaces"
    if matching:
        return (
            f"{matching} pods in {where} match spec.targets.labelSelector, but none is a running Linux pod of its own"
        )
    return f"no pod in {where} matches spec.targets.labelSelector"
