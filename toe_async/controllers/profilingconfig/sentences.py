"""The conditions of a ProfilingConfig, and the sentence that answers "why did nothing happen?" (D12). Pure.

A sentence is a function of what matters only: figures far below a threshold are left out and others are rounded to
tens, so that a quiet cluster gives the same words again and again and nothing has to be written (D40).
"""

from msgspec import Struct

from toe_async.apis.meta import Condition, ConditionStatus, find_condition, set_condition
from toe_async.apis.profilingconfig import ProfilingConfigSpec
from toe_async.apis.profilingstatus import CaptureState, CaptureStatus, ProfilingConfigStatus
from toe_async.apis.reasons import Reason
from toe_async.capture.triggers import Sample
from toe_async.controllers.profilingconfig.facts import Observed

_LONGEST = 1024


class Outlook(Struct, frozen=True, kw_only=True):
    """What the plan found, for the conditions to tell. ``hottest`` is a pod's name and its sample."""

    seen: Observed
    refusal: tuple[Reason, str] | None
    above: int
    hottest: tuple[str, Sample] | None
    status: ProfilingConfigStatus


def conditions(outlook: Outlook, held: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """Accepted, Ready, Degraded, StoreReachable and MetricsUnavailable, each with its reason and way out."""
    generation = outlook.seen.config.metadata.generation
    unknown = _not_known_yet(outlook.seen) if outlook.refusal is None else frozenset()
    for type_, (truth, reason, message) in (
        ("Accepted", _accepted(outlook)),
        ("Ready", _ready(outlook)),
        ("Degraded", _degraded(outlook)),
        ("StoreReachable", _store(outlook)),
        ("MetricsUnavailable", _metrics(outlook)),
    ):
        if type_ in unknown and find_condition(held, type_) is not None:
            continue
        new = Condition(
            type=type_,
            status=_truth(truth),
            reason=str(reason),
            message=message[:_LONGEST],
            last_transition_time=outlook.seen.now,  # set_condition keeps the older one while the truth is the same
            observed_generation=generation,
        )
        held = set_condition(held, new, outlook.seen.now)
    return held


def _not_known_yet(seen: Observed) -> frozenset[str]:
    """Conditions that a new leader has not looked into: what the last one said of them stands until then."""
    store = frozenset() if seen.store_probed else frozenset({"StoreReachable", "Degraded"})
    metrics = frozenset() if seen.metrics_polled else frozenset({"MetricsUnavailable"})
    return store | metrics


Said = tuple[bool | None, Reason, str]


def _truth(value: bool | None) -> ConditionStatus:
    if value is None:
        return ConditionStatus.UNKNOWN
    return ConditionStatus.TRUE if value else ConditionStatus.FALSE


def _accepted(outlook: Outlook) -> Said:
    if outlook.refusal is not None:
        return (False, *outlook.refusal)
    return True, Reason.ACCEPTED, "the configuration is taken over"


def _ready(outlook: Outlook) -> Said:
    seen, spec = outlook.seen, outlook.seen.config.spec
    if outlook.refusal is not None:
        return (False, *outlook.refusal)
    if seen.pods_problem is not None:
        return False, Reason.WATCH_FORBIDDEN, f"pods cannot be watched: {seen.pods_problem}"
    if spec.suspend:
        return False, Reason.SUSPENDED, "spec.suspend is true: nothing new is captured; set it to false to go on"
    if seen.metrics_problem is not None and needs_metrics(spec) and not spec.on_demand.enabled:
        return False, Reason.METRICS_UNAVAILABLE, seen.metrics_problem
    where = seen.config.target_namespace
    if seen.matched == 0:
        return True, Reason.NO_MATCHING_PODS, f"no pod in namespace {where} matches spec.selector"
    if not seen.pods:
        return (
            True,
            Reason.NO_OPTED_IN_PODS,
            f"{_pods(seen.matched, 'match', 'matches')}, none opted in: annotate them with profiling.io/enabled=true",
        )
    return True, Reason.WATCHING, "; ".join(_watching(outlook))


def _watching(outlook: Outlook) -> list[str]:
    seen, spec = outlook.seen, outlook.seen.config.spec
    parts = [f"{_pods(seen.matched, 'match', 'matches')}, {len(seen.pods)} opted in"]
    if needs_metrics(spec):
        parts[0] += f", {outlook.above} above"
        parts.append(_heat(outlook))
        if seen.metrics_problem is None:
            parts.append(f"metrics are read every {spec.thresholds_in_force().check_interval_seconds} s")
    if spec.on_demand.enabled:
        parts.append(f"each is captured every {spec.on_demand.interval_seconds} s")
    if seen.spool_problem:
        parts.append(f"nothing new is captured: {seen.spool_problem}")
    if seen.store_problem:
        parts.append(f"the sink is not reachable: {seen.store_problem}")
    elif seen.store_probed:
        parts.append("the sink is reachable")
    return parts


def _heat(outlook: Outlook) -> str:
    if outlook.seen.metrics_problem is not None:
        return f"no metrics: {outlook.seen.metrics_problem}"
    if outlook.hottest is None:
        return "no pod has metrics and a base to compare them with yet"
    name, sample = outlook.hottest
    hot = sample.measures[0]
    spec = outlook.seen.config.spec.thresholds_in_force()
    threshold = (spec.cpu_threshold_percent if hot.resource == "cpu" else spec.memory_threshold_percent) or 0
    if hot.percent <= threshold / 2:
        return "all are below half of their threshold"
    if hot.above(threshold):
        return f"hottest is {name}: {hot.resource} at {hot.percent:.0f}% of its {hot.base_name}, above {threshold}%"
    tens = int(hot.percent // 10 * 10)
    return f"hottest is {name}: {hot.resource} at {tens} to {tens + 10}% of its {hot.base_name}, threshold {threshold}%"


def _degraded(outlook: Outlook) -> Said:
    seen = outlook.seen
    if seen.spool_problem is not None:
        return True, Reason.STORE_FULL, seen.spool_problem
    if seen.store_problem is not None:
        return True, Reason.STORE_UNREACHABLE, seen.store_problem
    last = _last_finished(outlook.status)
    if last is not None and last.state in {CaptureState.FAILED, CaptureState.LOST}:
        why = next((f"{one.reason}: {one.message}" for one in last.artifacts if one.reason), str(last.state))
        return True, Reason.CAPTURES_FAILING, f"the last capture, of pod {last.pod}, brought nothing: {why}"
    return False, Reason.AS_EXPECTED, "captures arrive in their sink"


def _last_finished(status: ProfilingConfigStatus) -> CaptureStatus | None:
    finished = [row for row in status.recent if row.state.final]
    return max(finished, key=lambda row: row.finished_at or row.started_at, default=None)


def _store(outlook: Outlook) -> Said:
    seen = outlook.seen
    if outlook.refusal is not None or not seen.store_probed:
        return None, Reason.STORE_NOT_PROBED, "the sink has not been tried yet"
    if seen.store_problem is not None:
        return False, Reason.STORE_UNREACHABLE, seen.store_problem
    return True, Reason.STORE_REACHABLE, "the sink answers"


def _metrics(outlook: Outlook) -> Said:
    if not needs_metrics(outlook.seen.config.spec):
        return False, Reason.METRICS_NOT_NEEDED, "no threshold is switched on"
    if outlook.seen.metrics_problem is not None:
        return True, Reason.METRICS_UNAVAILABLE, outlook.seen.metrics_problem
    return False, Reason.METRICS_AVAILABLE, "metrics.k8s.io answers"


def needs_metrics(spec: ProfilingConfigSpec) -> bool:
    """Whether a threshold is switched on."""
    named = spec.thresholds_in_force()
    return bool(named.cpu_threshold_percent or named.memory_threshold_percent)


def _pods(count: int, many: str, one: str) -> str:
    return f"1 pod {one}" if count == 1 else f"{count} pods {many}"
