"""What is told of decisions about PowerTools: Events on them and on their pods, and refusals counted."""

from collections.abc import Iterable
from typing import Literal, Protocol

from toe_async.apis.kinds import POWER_TOOLS
from toe_async.apis.meta import ObjectRef
from toe_async.apis.powertool import PowerTool
from toe_async.apis.reasons import Reason
from toe_async.controllers.powertool.facts import Told
from toe_async.telemetry.metrics import OperatorMetrics

EventType = Literal["Normal", "Warning"]

DENIALS = frozenset(
    {
        Reason.NAMESPACE_NOT_ALLOWED,
        Reason.NAMESPACE_NOT_GRANTED,
        Reason.POD_SECURITY_DENIED,
        Reason.POLICY_MISSING,
        Reason.SINK_NOT_ALLOWED,
    }
)
"""What is counted as a decision against an author."""


class EventSink(Protocol):
    """Takes Events without waiting."""

    def event(self, ref: ObjectRef, type_: EventType, reason: str, message: str, action: str = "") -> None:
        """Queue one Event."""


class Accounts:
    """Told only of what a written status holds, so nothing is told twice by two leaders."""

    def __init__(self, events: EventSink, metrics: OperatorMetrics) -> None:
        self._events, self._metrics = events, metrics
        for reason in DENIALS:
            metrics.authz_denials.labels(reason)

    def tell(self, tool: PowerTool, told: Iterable[Told]) -> None:
        """Send the Events of one decision."""
        for one in told:
            ref = reference(tool)
            if one.pod_uid:
                ref = ObjectRef(api_version="v1", kind="Pod", namespace=one.namespace, name=one.pod, uid=one.pod_uid)
            if one.reason in DENIALS:
                self._metrics.authz_denials.labels(one.reason).inc()
            self._events.event(ref, "Warning" if one.warning else "Normal", one.reason, one.message, "RunTool")


def reference(tool: PowerTool) -> ObjectRef:
    """The PowerTool as an Event names it."""
    return ObjectRef(
        api_version=POWER_TOOLS.api_version,
        kind=POWER_TOOLS.kind,
        namespace=tool.metadata.namespace,
        name=tool.metadata.name,
        uid=tool.metadata.uid,
    )
