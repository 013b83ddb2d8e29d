"""What a pod used, and what that is compared with: PodMetrics, a pod and its node in; figures in per cent out.

Only the pod's own containers are summed, and a container without metrics makes the sum unknown, never zero. The base is
one for the whole pod (D6): a container without a value moves the pod to the next base, `Request` and `Limit` insist.
"""

import math
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from toe_async.apis.core import Node, PodUsage
from toe_async.apis.pods import Container, Pod
from toe_async.apis.profilingconfig import ThresholdBase
from toe_async.apis.reasons import Reason
from toe_async.lib.quantities import format_bytes

__all__ = [
    "ROUNDING",
    "Measure",
    "NotFired",
    "Resource",
    "Rule",
    "Sample",
    "figure",
    "measure",
    "tell_above",
    "tell_missing_base",
]

DEFAULT_WINDOW = 15.0
"""Seconds that a sample without a usable window counts for: metrics-server's default resolution."""
ROUNDING = 1e-12
"""Relative error that sums and products of floats may have: what is equal on paper never counts as above."""


class Resource(StrEnum):
    """What is measured."""

    CPU = "cpu"
    MEMORY = "memory"


class Rule(Struct, frozen=True, kw_only=True):
    """When a config wants a capture. Per cent may exceed 100; 0 switches that condition off."""

    cpu_percent: float = 0
    memory_percent: float = 0
    of: ThresholdBase = ThresholdBase.AUTO
    for_seconds: float = 0
    rise_percent: float = 0
    rearm_percent: float = 0
    interval_seconds: float = 30

    def threshold(self, resource: Resource) -> float:
        """The threshold of one resource, 0 when it is off."""
        return self.cpu_percent if resource is Resource.CPU else self.memory_percent


class Measure(Struct, frozen=True, gc=False):
    """What a pod used of one resource (cores or bytes) and what that is compared with."""

    resource: Resource
    used: float
    base: float
    base_name: str

    @property
    def percent(self) -> float:
        """Usage in per cent of the base."""
        return self.used * 100 / self.base

    def above(self, percent: float) -> bool:
        """Strictly above, rounding errors not counted."""
        return self.used * 100 > percent * self.base * (1 + ROUNDING)


class Sample(Struct, frozen=True):
    """One PodMetrics seen through a rule: a measure for each threshold that is on and has a base, the hottest first.

    Hottest is what is highest in proportion to its own threshold.
    """

    at: datetime
    window_seconds: float
    measures: tuple[Measure, ...]
    without_base: tuple[Resource, ...]


class NotFired(Struct, frozen=True):
    """Not above, or nobody can tell."""

    reason: Reason
    sentence: str


def measure(rule: Rule, pod: Pod, usage: PodUsage | None, node: Node | None) -> Sample | NotFired:
    """What `usage` says about `pod` under `rule`; NotFired(MetricsAbsent) when it does not cover the whole pod.

    Usage carries no UID: what was measured before the pod started belongs to a predecessor of the same name.
    """
    if usage is None:
        return NotFired(Reason.METRICS_ABSENT, "the metrics API has no sample of this pod yet")
    if pod.start_time is not None and usage.timestamp < pod.start_time:
        return NotFired(Reason.METRICS_ABSENT, "the only sample is from before this pod started")
    missing = [one.name for one in pod.containers if one.name not in usage.containers]
    if missing or not pod.containers:
        return NotFired(Reason.METRICS_ABSENT, f"no metrics of container {', '.join(missing)[:120] or '(none)'} yet")
    measures: list[Measure] = []
    without: list[Resource] = []
    for index, resource in enumerate(Resource):
        if rule.threshold(resource) <= 0:
            continue
        found = _base(pod.containers, node, resource, rule.of)
        if found is None:
            without.append(resource)
        else:
            used = sum(usage.containers[one.name][index] for one in pod.containers)
            if not math.isfinite(used):
                return NotFired(Reason.METRICS_ABSENT, f"the {resource} usage of this pod is no finite number")
            measures.append(Measure(resource, used, *found))
    measures.sort(key=lambda one: -one.percent / rule.threshold(one.resource))
    window = usage.window_seconds if usage.window_seconds > 0 else DEFAULT_WINDOW
    return Sample(usage.timestamp, window, tuple(measures), tuple(without))


def _base(
    containers: tuple[Container, ...], node: Node | None, resource: Resource, of: ThresholdBase
) -> tuple[float, str] | None:
    """(size, name) of 100 per cent. A sum of zero is no base, nor is one that no machine could have."""
    cpu = resource is Resource.CPU
    if of is not ThresholdBase.LIMIT:
        total = _sum(tuple(one.cpu_request if cpu else one.memory_request for one in containers))
        if 0 < total < math.inf:
            return total, "request"
    if of is not ThresholdBase.REQUEST:
        total = _sum(tuple(one.cpu_limit if cpu else one.memory_limit for one in containers))
        if 0 < total < math.inf:
            return total, "limit"
    if of is ThresholdBase.AUTO and node is not None:
        total = node.cpu if cpu else node.memory
        if 0 < total < math.inf:
            return total, "node allocatable"
    return None


def _sum(values: tuple[float | None, ...]) -> float:
    """The sum, 0 as soon as one value is missing."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else 0.0


def tell_missing_base(of: ThresholdBase) -> str:
    """What a pod would need so that its usage can be compared."""
    if of is ThresholdBase.AUTO:
        return "no request, no limit, and the node's allocatable is not known"
    return f"every container needs a {of.lower()} (thresholds.of is {of})"


def tell_above(rule: Rule, one: Measure) -> str:
    """For example: cpu 187% of request 500m, above 80%."""
    return f"{figure(rule, one)}, above {rule.threshold(one.resource):g}%"


def figure(rule: Rule, one: Measure) -> str:
    """For example: cpu 187% of request 500m."""
    size = _cores(one.base) if one.resource is Resource.CPU else format_bytes(round(one.base))
    return f"{one.resource} {_percent(one.percent, rule.threshold(one.resource))}% of {one.base_name} {size}"


def _percent(percent: float, threshold: float) -> str:
    """Rounded, but never so far that a value above its threshold reads as equal to it."""
    texts = (f"{percent:.{digits}f}" for digits in range(10))
    return next((text for text in texts if float(text) != threshold), f"{percent:g}")


def _cores(cores: float) -> str:
    return f"{cores:g}" if cores >= 1 and cores == int(cores) else f"{cores * 1000:g}m"
