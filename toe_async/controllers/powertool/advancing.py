"""What has become of the targets since the status was written: attempts came on, ended, or lost their pod. Pure."""

from msgspec import Struct

from toe_async.apis.powertool import FINAL_STATES, TargetState
from toe_async.apis.reasons import Reason
from toe_async.capture.refusals import Refused
from toe_async.capture.toolrun import Progress
from toe_async.controllers.powertool.choosing import allowed
from toe_async.controllers.powertool.facts import Cancel, Observed
from toe_async.controllers.powertool.failing import retry_at
from toe_async.controllers.powertool.members import Member, changed, current_id

_ORDER = (TargetState.STARTING, TargetState.RUNNING, TargetState.STORING)


class Step(Struct, frozen=True):
    """One member as it is now. `settled` is the capture that has ended with `outcome`, `cancel` one that is to end."""

    member: Member
    settled: str = ""
    outcome: Progress | None = None
    cancel: Cancel | None = None


def advanced(seen: Observed, run: str, members: tuple[Member, ...], ending: Refused | None) -> tuple[Step, ...]:
    """Take over what is known, member by member.

    With `ending` the run as a whole is to stop: what has not begun never does, what runs is cancelled.
    """
    return tuple(_step(seen, run, one, ending) for one in members)


def _step(seen: Observed, run: str, one: Member, ending: Refused | None) -> Step:
    if one.final:
        return Step(one)
    why = ending or _withdrawn(seen, one)
    if not one.claimed:
        return Step(_unclaimed(seen, one, why))
    id_ = current_id(seen.tool, run, one)
    progress = seen.progress.get(id_)
    if progress is not None and progress.state in FINAL_STATES:
        return Step(_ended(seen, one, progress, why), id_, progress)
    if progress is not None:
        one = _further(one, progress)
    elif id_ not in seen.running and (lost := _lost(seen, one)) is not None:
        return Step(lost)
    return Step(one, cancel=Cancel(id_, why.reason, why.message, _unread(seen)) if why is not None else None)


def _unread(seen: Observed) -> bool:
    """A result that only its container keeps is found by the PowerTool's status, which goes with the object."""
    return seen.tool.metadata.deletion_timestamp is not None and seen.tool.spec.output.mode == "ephemeral"


def _withdrawn(seen: Observed, one: Member) -> Refused | None:
    """The target's namespace no longer takes the tool (H22)."""
    now = seen.pods.get(one.row.uid)
    if now is not None and not now.granted:
        return Refused(
            Reason.NAMESPACE_NOT_GRANTED, f"namespace {one.row.namespace} has withdrawn its grant for tools from others"
        )
    if one.row.namespace and not allowed(seen, one.row.namespace):
        return Refused(
            Reason.NAMESPACE_NOT_ALLOWED,
            f"the tool's administrator no longer allows it in namespace {one.row.namespace}",
        )
    return None


def _unclaimed(seen: Observed, one: Member, why: Refused | None) -> Member:
    if why is not None:
        return finished(seen, one, TargetState.CANCELLED, why)
    now = seen.pods.get(one.row.uid)
    if seen.pods_problem is None and now is not None and now.state != "running":
        begun = "before the tool began" if one.row.attempt == 0 else "before the next attempt"
        return finished(seen, one, TargetState.FAILED, Refused(Reason.POD_GONE, f"{_pod(one)} ended {begun}"))
    return one


def _lost(seen: Observed, one: Member) -> Member | None:
    """A claimed attempt that nobody works on and nobody can go on with."""
    now = seen.pods.get(one.row.uid)
    if seen.pods_problem is None and now is not None and now.state == "gone":
        return finished(
            seen,
            one,
            TargetState.FAILED,
            Refused(Reason.POD_GONE, f"{_pod(one)} is gone; so is the tool that ran there"),
        )
    if seen.known and seen.config is None:
        gone = Refused(
            Reason.TOOL_NOT_FOUND,
            f"tool {seen.tool.spec.tool.name} was removed while it ran and the operator restarted; its container ends "
            "by its own deadline",
        )
        return finished(seen, one, TargetState.FAILED, gone)
    return None


def _ended(seen: Observed, one: Member, progress: Progress, why: Refused | None) -> Member:
    at = None if why is not None else retry_at(seen.tool.spec.failure_policy, one.row.attempt, progress, seen.now)
    state = progress.state if at is None else TargetState.WAITING
    return changed(
        one,
        state,
        at=at,
        reason=progress.reason,
        message=progress.message,
        exit_code=progress.exit_code,
        bytes=progress.bytes,
        artifact=progress.artifacts[0].uri if progress.artifacts else "",
        tool_container=progress.tool_container or one.row.tool_container,
        started_at=progress.started_at or one.row.started_at,
        finished_at=(progress.finished_at or seen.now).replace(microsecond=0),
    )


def _further(one: Member, progress: Progress) -> Member:
    """A running attempt as its runner tells it. One that is taken up again after a restart does not go back."""
    known = progress.state in _ORDER and _ORDER.index(progress.state) >= _ORDER.index(one.state)
    return changed(
        one,
        progress.state if known else one.state,
        at=one.at,
        reason=progress.reason,
        message=progress.message,
        bytes=progress.bytes,
        tool_container=progress.tool_container or one.row.tool_container,
        started_at=progress.started_at or one.row.started_at,
    )


def finished(seen: Observed, one: Member, state: TargetState, why: Refused) -> Member:
    """The member at its end, for a reason of ours."""
    moment = seen.now.replace(microsecond=0)
    return changed(one, state, reason=str(why.reason), message=why.message, finished_at=moment)


def error_of(one: Member) -> str:
    """What is told of a failed attempt in `lastError`."""
    return f"{_pod(one)}: {one.row.reason}: {one.row.message}"


def _pod(one: Member) -> str:
    return f"pod {one.row.namespace}/{one.row.pod}" if one.row.pod else f"the pod with UID {one.row.uid}"
