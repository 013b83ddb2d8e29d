"""When to look again although nothing happened, and how long a deleted PowerTool is kept. Pure."""

from datetime import timedelta

from toe_async.apis.powertool import PowerToolStatus, TargetState
from toe_async.apis.reasons import Reason
from toe_async.capture.refusals import Refused
from toe_async.controllers.powertool.facts import FINALIZER, SKIP_CANCEL, Observed
from toe_async.controllers.powertool.schedule import going
from toe_async.controllers.powertool.work import Work, deadline

CANCEL_SECONDS = 120.0
"""How long after its deletion a PowerTool waits for its tools to end, at most (H28)."""
WAITING_SECONDS = 15.0  # another tool's end is seen by looking again, should nobody tell
HELD_SECONDS = 60.0
_INSIDE = frozenset({"batch", "backoff"})  # waits that end by what the run itself does


def keeps(seen: Observed) -> bool:
    """Whether the finalizer may hold the object: a deleted one only if it was there, no longer than a bound (H28)."""
    meta = seen.tool.metadata
    if meta.annotations.get(SKIP_CANCEL) == "true":
        return False
    if meta.deletion_timestamp is None:
        return True
    late = (seen.now - meta.deletion_timestamp).total_seconds() >= CANCEL_SECONDS
    return FINALIZER in meta.finalizers and not late


def recheck(seen: Observed, work: Work, new: PowerToolStatus, refusal: Refused | None) -> float | None:
    """Seconds until something is due although nothing happened; None when only events matter."""
    tool = seen.tool
    instants = [one.at for one in work.members if one.state is TargetState.WAITING and one.at is not None]
    if new.next_run_at is not None:
        instants.append(new.next_run_at)
    if going(new) and (ends := deadline(tool, new)) is not None:
        instants.append(ends)
    if tool.metadata.deletion_timestamp is not None:
        instants.append(tool.metadata.deletion_timestamp + timedelta(seconds=CANCEL_SECONDS))
    seconds = [left for at in instants if (left := (at - seen.now).total_seconds()) > 0]
    if work.waits.keys() - _INSIDE or (work.held is not None and work.held.reason is Reason.NO_MATCHING_PODS):
        seconds.append(WAITING_SECONDS)
    if refusal is not None or work.held is not None or seen.pods_problem is not None or not seen.known:
        seconds.append(HELD_SECONDS)
    return min(seconds, default=None)
