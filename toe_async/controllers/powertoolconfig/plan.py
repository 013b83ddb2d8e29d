"""What the status of a PowerToolConfig ought to say: Ready has to be earned, and is lost again."""

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec.structs import replace

from toe_async.apis.meta import Condition, ConditionStatus, find_condition, set_condition
from toe_async.apis.powertoolconfig import PowerToolConfig, PowerToolConfigStatus
from toe_async.apis.reasons import Reason
from toe_async.capture import toolconfig
from toe_async.capture.toolconfig import ToolPolicy

READY = "Ready"
_MOST_TOLD = 10
_LONGEST_MESSAGE = 4096
_NEVER = datetime.min.replace(tzinfo=UTC)


def plan(
    config: PowerToolConfig, everyone: Iterable[PowerToolConfig], policy: ToolPolicy, now: datetime
) -> PowerToolConfigStatus:
    """The whole status. Equal to the present one unless the verdict or the generation is another.

    `everyone` are all configs of the operator's namespace: two that claim one `spec.name` are both not Ready (PC3).
    """
    verdict = _verdict(config, toolconfig.faults(config, everyone, policy))
    status = config.status
    held = find_condition(status.conditions, READY)
    if held is not None and replace(verdict, last_transition_time=held.last_transition_time) == held:
        return status
    return replace(
        status,
        observed_generation=config.metadata.generation,
        phase="Ready" if verdict.status is ConditionStatus.TRUE else "NotReady",
        last_validated=now.replace(microsecond=0),
        conditions=set_condition(status.conditions, verdict, now),
    )


def _verdict(config: PowerToolConfig, faults: tuple[str, ...]) -> Condition:
    status, reason, message = ConditionStatus.TRUE, Reason.VALID, f"tool {config.spec.name} can be run"
    if faults:
        more = f"; and {len(faults) - _MOST_TOLD} more" if len(faults) > _MOST_TOLD else ""
        only_suspended = config.spec.suspend and len(faults) == 1
        status, reason = ConditionStatus.FALSE, Reason.SUSPENDED if only_suspended else Reason.INVALID_SPEC
        message = ("; ".join(faults[:_MOST_TOLD]) + more)[:_LONGEST_MESSAGE]
    return Condition(
        type=READY,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=_NEVER,  # set_condition brings the right one
        observed_generation=config.metadata.generation,
    )
