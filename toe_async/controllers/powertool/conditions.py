"""The five conditions of a PowerTool: Accepted, Running, Complete, Failed, ArtifactsStored. Pure.

Each is decided from how things stand and falls back when its cause is gone. Between the runs of a schedule the last
three go on telling of the run that is over.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from toe_async.apis.meta import Condition, ConditionStatus, find_condition, set_condition
from toe_async.apis.powertool import Phase, TargetState
from toe_async.apis.reasons import Reason
from toe_async.capture.refusals import Refused
from toe_async.controllers.powertool import sentences
from toe_async.controllers.powertool.advancing import error_of
from toe_async.controllers.powertool.counting import TERMINAL, Totals
from toe_async.controllers.powertool.facts import Observed, Occupant
from toe_async.controllers.powertool.members import Member

_UPLOAD_REASONS = frozenset(
    {str(one) for one in (Reason.UPLOAD_FAILED, Reason.STORE_FULL, Reason.NO_OUTPUT, Reason.STORE_UNREACHABLE)}
)
Said = tuple[bool | None, Reason, str]


class Outlook(Struct, frozen=True, kw_only=True):
    """What the plan found. `refusal` keeps the PowerTool from running, `held` only keeps the run from beginning now.

    `begun` tells that the members are those of a run that goes on or has just ended; `waiting` says what a run that has
    not begun waits for.
    """

    seen: Observed
    refusal: Refused | None
    held: Refused | None
    begun: bool
    phase: Phase
    count: Totals
    members: tuple[Member, ...]
    waits: Mapping[str, int]
    occupant: Occupant | None
    waiting: str


def conditions(outlook: Outlook, held: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """All conditions as they are now; transition times move only with the truth."""
    seen = outlook.seen
    for type_, said in _said(outlook):
        if said is None or (not outlook.begun and type_ in _OF_RUNS and find_condition(held, type_) is not None):
            continue
        truth, reason, message = said
        new = Condition(
            type=type_,
            status=_truth(truth),
            reason=str(reason),
            message=message,
            last_transition_time=seen.now,  # set_condition keeps the older one while the truth is the same
            observed_generation=seen.tool.metadata.generation,
        )
        held = set_condition(held, new, seen.now)
    return held


_OF_RUNS = frozenset({"Complete", "Failed", "ArtifactsStored"})


def _said(outlook: Outlook) -> Iterable[tuple[str, Said | None]]:
    yield "Accepted", _accepted(outlook)
    yield "Running", _running(outlook)
    yield "Complete", _complete(outlook)
    yield "Failed", _failed(outlook)
    yield "ArtifactsStored", _stored(outlook)


def _truth(value: bool | None) -> ConditionStatus:
    if value is None:
        return ConditionStatus.UNKNOWN
    return ConditionStatus.TRUE if value else ConditionStatus.FALSE


def _accepted(outlook: Outlook) -> Said | None:
    seen = outlook.seen
    if outlook.refusal is not None:
        return False, outlook.refusal.reason, outlook.refusal.message
    if not seen.known:  # what was said before stands until the configurations can be read
        known = find_condition(seen.tool.status.conditions, "Accepted")
        return None if known else (None, Reason.NOT_STARTED, "the tool configurations are not all read yet")
    return True, Reason.ACCEPTED, f"tool {seen.tool.spec.tool.name} may run here"


def _running(outlook: Outlook) -> Said:
    seen, count = outlook.seen, outlook.count
    spec = seen.tool.spec
    if outlook.begun and not count.over:
        told = sentences.progress(count, outlook.waits, outlook.occupant, spec, seen.slots)
        if count.running:
            return True, Reason.BATCHES_RUNNING, told
        return False, *_standing(outlook, told)
    if outlook.begun:
        return False, _why_over(outlook), how_it_ended(outlook)
    if outlook.refusal is not None:
        return False, outlook.refusal.reason, outlook.refusal.message
    if seen.pods_problem is not None:
        return False, Reason.WATCH_FORBIDDEN, f"pods cannot be read: {seen.pods_problem}"
    if outlook.held is not None:
        return False, outlook.held.reason, outlook.held.message
    if spec.suspend:
        return False, Reason.SUSPENDED, sentences.waiting(spec, None)
    return False, Reason.NOT_STARTED, outlook.waiting


def _standing(outlook: Outlook, told: str) -> tuple[Reason, str]:
    """Why nothing runs of a run that is not over."""
    if outlook.refusal is not None:
        return outlook.refusal.reason, f"{told}; nothing new begins: {outlook.refusal.message}"
    if outlook.seen.pods_problem is not None:
        return Reason.WATCH_FORBIDDEN, f"{told}; nothing new begins: pods cannot be read: {outlook.seen.pods_problem}"
    if outlook.seen.tool.spec.suspend:
        return Reason.SUSPENDED, f"{told}; {sentences.waiting(outlook.seen.tool.spec, None)}"
    if outlook.phase is Phase.CONFLICTED:
        return Reason.CONFLICTED, told
    return Reason.NOT_STARTED, told


def _complete(outlook: Outlook) -> Said:
    if outlook.begun and outlook.phase is Phase.COMPLETED:
        return True, Reason.COMPLETED, how_it_ended(outlook)
    if not outlook.begun:
        return False, Reason.NOT_STARTED, "no run has begun yet"
    if outlook.phase in TERMINAL:
        return False, _why_over(outlook), how_it_ended(outlook)
    return False, Reason.BATCHES_RUNNING, "the run is not over"


def _failed(outlook: Outlook) -> Said:
    if not outlook.begun:
        return False, Reason.NOT_STARTED, "no run has begun yet"
    if outlook.phase in {Phase.FAILED, Phase.PARTIALLY_FAILED}:
        return True, _why_over(outlook), how_it_ended(outlook)
    if outlook.count.failed:
        return False, Reason.SOME_FAILED, f"{outlook.count.failed} failed so far: {_first_failure(outlook)}"
    return False, Reason.AS_EXPECTED, "no target has failed"


def _stored(outlook: Outlook) -> Said:
    count = outlook.count
    late = next((one for one in outlook.members if _retries(one)), None)
    if late is not None:
        return False, Reason.UPLOAD_RETRYING, error_of(late)
    lost = next((one for one in outlook.members if one.row.reason in _UPLOAD_REASONS and one.final), None)
    if lost is not None:
        return False, Reason(lost.row.reason), error_of(lost)
    if count.completed:
        return True, Reason.ALL_STORED, f"what {sentences.targets(count.completed)} gave is stored"
    if outlook.begun and count.over:
        return False, Reason.NO_OUTPUT, "nothing was stored"
    return None, Reason.NOT_STARTED, "no target has completed yet"


def _retries(one: Member) -> bool:
    return one.state is TargetState.STORING and one.row.reason == Reason.UPLOAD_RETRYING


def how_it_ended(outlook: Outlook) -> str:
    """One sentence about a run that is over."""
    if outlook.held is not None:
        return outlook.held.message
    return sentences.outcome(outlook.phase, outlook.count, _first_failure(outlook))


def _first_failure(outlook: Outlook) -> str:
    told = [one for one in outlook.members if one.row.reason]
    wanted = TargetState.FAILED if outlook.count.failed else TargetState.CANCELLED
    first = next((one for one in told if one.state is wanted), None)
    return f"the first: {error_of(first)}" if first else ""


def _why_over(outlook: Outlook) -> Reason:
    """The one reason of a run's end: that of all its failures when they agree."""
    if outlook.held is not None:
        return outlook.held.reason
    if outlook.phase is Phase.COMPLETED:
        return Reason.COMPLETED
    wanted = TargetState.FAILED if outlook.count.failed else TargetState.CANCELLED
    reasons = {one.row.reason for one in outlook.members if one.state is wanted and one.row.reason}
    if len(reasons) == 1 and not outlook.count.completed:
        try:
            return Reason(reasons.pop())
        except ValueError:  # a row that was written by another version
            return Reason.SOME_FAILED
    return Reason.SOME_FAILED if outlook.count.failed else Reason.CANCELLED
