"""What the status keeps of a run: totals, rows, ledger, artifacts, and the record of one that is over. Pure."""

from msgspec.structs import replace

from toe_async.apis.meta import Condition
from toe_async.apis.powertool import MAX_ROWS, PowerToolStatus, RunStatus, TargetStatus
from toe_async.capture.vessels import container_name
from toe_async.controllers.powertool.conditions import Outlook, how_it_ended
from toe_async.controllers.powertool.facts import Observed
from toe_async.controllers.powertool.fitting import MAX_ACTIVE, MAX_ARTIFACTS, MAX_RUNS
from toe_async.controllers.powertool.members import Member, current_id, written
from toe_async.controllers.powertool.work import Work


def of_run(seen: Observed, work: Work, status: PowerToolStatus, outlook: Outlook) -> PowerToolStatus:
    """The part of the status that tells of the run's targets."""
    count, members = outlook.count, work.members
    outcomes = [one.outcome for one in work.steps if one.outcome is not None]
    status = replace(
        status,
        selected_pods=count.selected,
        pending_pods=count.pending,
        running_pods=count.running,
        completed_pods=count.completed,
        failed_pods=count.failed,
        cancelled_pods=count.cancelled,
        active_pods=_active(seen, status.run, members),
        bytes_written=status.bytes_written + sum(one.bytes for one in outcomes),
        artifacts=(*status.artifacts, *(one for held in outcomes for one in held.artifacts))[-MAX_ARTIFACTS:],
        targets=tuple(_row(seen, status.run, one) for one in members[:MAX_ROWS]),
        ledger=written(members),
    )
    if status.finished_at is None or status.scheduled_at is None:
        return status
    record = RunStatus(
        scheduled_at=status.scheduled_at,
        started_at=status.started_at,
        finished_at=status.finished_at,
        phase=outlook.phase,
        selected_pods=count.selected,
        completed_pods=count.completed,
        failed_pods=count.failed,
        message=how_it_ended(outlook),
    )
    return replace(status, runs=(*status.runs, record)[-MAX_RUNS:])


def _active(seen: Observed, run: str, members: tuple[Member, ...]) -> dict[str, str]:
    claimed = [one for one in members if one.claimed and one.row.pod][:MAX_ACTIVE]
    return {f"{one.row.namespace}/{one.row.pod}": _row(seen, run, one).tool_container for one in claimed}


def _row(seen: Observed, run: str, one: Member) -> TargetStatus:
    """With the container's name from the claim on: whoever wants to look into it need not wait for the end."""
    if one.row.tool_container or not one.claimed:
        return one.row
    return replace(one.row, tool_container=container_name(current_id(seen.tool, run, one)))


def differs(old: PowerToolStatus, new: PowerToolStatus) -> bool:
    """Whether something changed that is never put off: all but words."""
    return _essence(old) != _essence(new)


def _essence(status: PowerToolStatus) -> PowerToolStatus:
    blank = tuple(
        Condition(type=one.type, status=one.status, reason=one.reason, last_transition_time=one.last_transition_time)
        for one in status.conditions
    )
    return replace(status, conditions=blank, targets=())
