"""What to do about one PowerTool: a pure function over what was observed.

A run begins once nothing speaks against it, with targets that are frozen by pod UID. From then on each plan takes over
what has become of them, ends what has to end, and begins as many more as may run now. A target is claimed in the status
before anything starts, and whatever is claimed without a task is taken up again, so a plan may be cut off anywhere.
A phase that is terminal is never left, but for the next run of a schedule.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from toe_async.apis.meta import Condition
from toe_async.apis.pods import Pod
from toe_async.apis.powertool import (
    FINAL_STATES,
    MAX_ROWS,
    Phase,
    PowerTool,
    PowerToolStatus,
    RunStatus,
    TargetState,
)
from toe_async.apis.reasons import Reason
from toe_async.capture.refusals import Refused
from toe_async.capture.toolrun import ToolCapture
from toe_async.capture.vessels import container_name
from toe_async.controllers.powertool import sentences
from toe_async.controllers.powertool.acceptance import refusal_of, stops
from toe_async.controllers.powertool.advancing import Step, advanced, error_of, finished
from toe_async.controllers.powertool.batching import batch
from toe_async.controllers.powertool.choosing import chosen, eligible
from toe_async.controllers.powertool.conditions import Outlook, conditions, how_it_ended
from toe_async.controllers.powertool.counting import TERMINAL, phase_of, totals
from toe_async.controllers.powertool.facts import FINALIZER, SKIP_CANCEL, Cancel, Observed, Occupant, Plan
from toe_async.controllers.powertool.failing import stopped
from toe_async.controllers.powertool.fitting import MAX_ACTIVE, MAX_ARTIFACTS, MAX_RUNS, fitted
from toe_async.controllers.powertool.members import Member, capture_of, changed, current_id, load, written
from toe_async.controllers.powertool.schedule import due, following, going, may_begin
from toe_async.controllers.powertool.telling import events
from toe_async.lib.clock import rfc3339

CANCEL_SECONDS = 120.0
"""How long after its deletion a PowerTool waits for its tools to end, at most (H28)."""
WAITING_SECONDS = 15.0  # another tool's end is seen by looking again, should nobody tell
HELD_SECONDS = 60.0
_INSIDE = frozenset({"batch", "backoff"})  # waits that end by what the run itself does


class _Work(Struct, frozen=True):
    """A run in the middle of a plan. `held` is why it does not begin, `steps` what its members have come to."""

    status: PowerToolStatus
    members: tuple[Member, ...]
    steps: tuple[Step, ...] = ()
    held: Refused | None = None
    started: tuple[int, ...] = ()
    waits: Mapping[str, int] = {}
    occupant: Occupant | None = None


def plan(seen: Observed) -> Plan:
    """Decide. The same facts always give the same plan."""
    status = seen.tool.status
    if status.phase in TERMINAL and not seen.tool.spec.schedule:
        return _over(seen)
    refusal = refusal_of(seen)
    if not going(status):
        work = _begun(seen, refusal)
        return _concluded(seen, _continued(seen, work, refusal, None) if work.members else work, refusal, ())
    try:
        before = _loaded(seen)
    except ValueError as error:
        return _concluded(seen, _broken(seen, error), refusal, ())
    return _concluded(seen, _continued(seen, _Work(status, before), refusal, _ending(seen)), refusal, before)


def _loaded(seen: Observed) -> tuple[Member, ...]:
    members = load(seen.tool.status, seen.pods)
    if not members:
        raise ValueError("it is empty")
    return members


def _broken(seen: Observed, error: ValueError) -> _Work:
    """A run whose targets are not known any more ends: guessing could start a tool twice, or in the wrong pod."""
    why = Refused(Reason.INVALID_SPEC, f"status.ledger was changed by somebody else and cannot be read: {error}")
    status = replace(seen.tool.status, finished_at=_moment(seen), last_error=why.message)
    return _Work(status, (), held=why)


def _begun(seen: Observed, refusal: Refused | None) -> _Work:
    """The run that begins now with its targets frozen, or why none does."""
    old, tool = seen.tool.status, seen.tool
    if refusal is not None or not seen.known or seen.config is None or seen.pods_problem is not None:
        return _Work(old, ())
    if not may_begin(tool, seen.zone, seen.now):
        return _Work(old, ())
    slot = due(tool, seen.zone, seen.now)
    run = rfc3339(slot) if slot is not None else ""
    members = chosen(seen, run)
    fresh = replace(
        old,
        run=run,
        scheduled_at=slot,
        started_at=_moment(seen),
        finished_at=None,
        bytes_written=0,
        artifacts=(),
        last_error="",
        targets=(),
        ledger="",
    )
    if not isinstance(members, Refused):
        failed = next((one for one in members if one.state is TargetState.FAILED), None)
        return _Work(replace(fresh, last_error=error_of(failed) if failed else ""), members)
    if members.reason is Reason.NO_MATCHING_PODS:
        return _Work(replace(fresh, finished_at=_moment(seen), last_error=members.message), (), held=members)
    return _Work(old, (), held=members)


def _ending(seen: Observed) -> Refused | None:
    """Why the run that goes on has to end as a whole."""
    tool = seen.tool
    if tool.metadata.deletion_timestamp is not None:
        return Refused(Reason.CANCELLED, "the PowerTool was deleted")
    ends = _deadline(tool)
    if ends is not None and seen.now >= ends:
        longest = tool.spec.active_deadline_seconds
        return Refused(Reason.DEADLINE_EXCEEDED, f"the run took longer than spec.activeDeadlineSeconds, {longest} s")
    if (stop := stops(seen)) is not None:
        return stop
    if tool.spec.concurrency_policy == "Replace":
        slot = due(tool, seen.zone, seen.now)
        if slot is not None:
            return Refused(Reason.CANCELLED, f"replaced by the run that is due at {rfc3339(slot)}")
    return None


def _continued(seen: Observed, work: _Work, refusal: Refused | None, ending: Refused | None) -> _Work:
    """A run that goes on: what its members have come to, who has to end, who begins."""
    run, spec = work.status.run, seen.tool.spec
    steps = advanced(seen, run, work.members, ending)
    members = tuple(one.member for one in steps)
    errors = [error_of(new) for old, new in zip(work.members, members, strict=True) if _failed(old, new)]
    work = replace(work, steps=steps, status=replace(work.status, last_error=(errors or [work.status.last_error])[-1]))
    if (first := stopped(spec.failure_policy, members)) is not None:
        why = Refused(Reason.STOPPED_BY_FAILURE_POLICY, f"spec.failurePolicy.onError is stop, and {error_of(first)}")
        members = tuple(
            one if one.claimed or one.final else finished(seen, one, TargetState.CANCELLED, why) for one in members
        )
    may = refusal is None and ending is None and not spec.suspend and seen.known and seen.pods_problem is None
    if not may or seen.config is None:
        # A place in a queue is given up, or an older PowerTool that may not run would keep the others out.
        left = (changed(one, TargetState.PENDING) if one.state is TargetState.QUEUED else one for one in members)
        return replace(work, members=tuple(left))
    found = batch(seen, run, members, seen.config.spec, _pods(seen))
    return replace(work, members=found.members, started=found.started, waits=found.waits, occupant=found.occupant)


def _failed(old: Member, new: Member) -> bool:
    return new.state is not old.state and new.state in {TargetState.FAILED, TargetState.WAITING}


def _pods(seen: Observed) -> dict[str, Pod]:
    """By UID the pods in which something may begin: those of a run that begins now are only among the candidates."""
    found = {one.pod.uid: one.pod for one in seen.candidates if eligible(one.pod)}
    return found | {uid: one.pod for uid, one in seen.pods.items() if one.pod is not None and one.state == "running"}


def _concluded(seen: Observed, work: _Work, refusal: Refused | None, before: tuple[Member, ...]) -> Plan:
    """The status of a run, begun or not, and everything that follows from it."""
    tool, old = seen.tool, seen.tool.status
    status, members = work.status, work.members
    begun = going(old) or status.started_at != old.started_at
    count = totals(members)
    if begun and count.over and status.finished_at is None:
        status = replace(status, finished_at=_moment(seen))
    if work.held is not None and work.held.reason is Reason.TOO_MANY_TARGETS:
        refusal = work.held
    next_run = following(tool, seen.zone, seen.now)
    outlook = Outlook(
        seen=seen,
        refusal=refusal,
        held=work.held,
        begun=begun,
        phase=phase_of(count) if begun else Phase(old.phase or Phase.PENDING),
        count=count,
        members=members,
        waits=work.waits,
        occupant=work.occupant,
        waiting=sentences.waiting(tool.spec, next_run),
    )
    new = replace(
        _of_run(seen, work, status, outlook) if begun else status,
        observed_generation=tool.metadata.generation,
        phase=outlook.phase,
        next_run_at=next_run,
        conditions=conditions(outlook, old.conditions),
    )
    new = fitted(new)
    active = begun and not count.over
    finalizer = active and keeps(seen)
    return Plan(
        status=new,
        urgent=differs(old, new),
        finalizer=finalizer,
        starts=_starts(seen, status.run, work),
        resumes=_resumes(seen, status.run, work) if tool.metadata.deletion_timestamp is None or finalizer else (),
        cancels=(*(one.cancel for one in work.steps if one.cancel is not None), *_strays(seen, status.run, members)),
        settled=_settled(seen),
        used=bool(work.started),
        events=events(tool, new, before, members),
        recheck_seconds=_recheck(
            seen, new, members, waits=bool(work.waits.keys() - _INSIDE), held=_held(seen, work, refusal)
        ),
    )


def _held(seen: Observed, work: _Work, refusal: Refused | None) -> bool:
    """Something outside has to change before anything may begin."""
    return refusal is not None or work.held is not None or seen.pods_problem is not None or not seen.known


def _of_run(seen: Observed, work: _Work, status: PowerToolStatus, outlook: Outlook) -> PowerToolStatus:
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
        targets=tuple(one.row for one in members[:MAX_ROWS]),
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
    return {
        f"{one.row.namespace}/{one.row.pod}": one.row.tool_container or container_name(current_id(seen.tool, run, one))
        for one in claimed
    }


def _starts(seen: Observed, run: str, work: _Work) -> tuple[ToolCapture, ...]:
    if seen.config is None:
        return ()
    pods = _pods(seen)
    claimed = (work.members[at] for at in work.started)
    return tuple(capture_of(seen.tool, seen.config.spec, run, one, pods[one.row.uid]) for one in claimed)


def _resumes(seen: Observed, run: str, work: _Work) -> tuple[ToolCapture, ...]:
    """Attempts that were claimed before and that nobody works on: the process that did is gone (G1)."""
    if seen.config is None or not seen.known:
        return ()
    fresh = {work.members[at].row.uid for at in work.started}
    found = []
    for one in work.members:
        now = seen.pods.get(one.row.uid)
        if not one.claimed or one.row.uid in fresh or now is None or now.pod is None:
            continue
        if current_id(seen.tool, run, one) not in seen.running:
            found.append(capture_of(seen.tool, seen.config.spec, run, one, now.pod))
    return tuple(found)


def _strays(seen: Observed, run: str, members: tuple[Member, ...]) -> Iterator[Cancel]:
    """Attempts that this process works on although no target claims them: the status was changed by somebody else."""
    claimed = {current_id(seen.tool, run, one) for one in members if one.claimed}
    for id_ in sorted(seen.running - claimed):
        progress = seen.progress.get(id_)
        if progress is not None and progress.state not in FINAL_STATES:
            yield Cancel(id_, Reason.CANCELLED, "the PowerTool's status no longer has this attempt")


def _settled(seen: Observed) -> tuple[str, ...]:
    """Every outcome that is known: what it meant is in the status now, or it belongs to no target any more."""
    return tuple(sorted(id_ for id_, one in seen.progress.items() if one.state in FINAL_STATES))


def _over(seen: Observed) -> Plan:
    """A one-shot run that is over: nothing is ever written of it again but which generation was seen."""
    tool, old = seen.tool, seen.tool.status
    left = None
    if tool.spec.ttl_seconds_after_finished is not None and old.finished_at is not None:
        left = (old.finished_at + timedelta(seconds=tool.spec.ttl_seconds_after_finished) - seen.now).total_seconds()
    new = replace(old, observed_generation=tool.metadata.generation)
    return Plan(
        status=new,
        urgent=new != old,
        finalizer=False,
        cancels=tuple(_strays(seen, old.run, ())),
        settled=_settled(seen),
        delete=left is not None and left <= 0 and tool.metadata.deletion_timestamp is None,
        recheck_seconds=left if left is not None and left > 0 else None,
    )


def keeps(seen: Observed) -> bool:
    """Whether the finalizer may hold the object: a deleted one only if it was there, no longer than a bound (H28)."""
    meta = seen.tool.metadata
    if meta.annotations.get(SKIP_CANCEL) == "true":
        return False
    if meta.deletion_timestamp is None:
        return True
    late = (seen.now - meta.deletion_timestamp).total_seconds() >= CANCEL_SECONDS
    return FINALIZER in meta.finalizers and not late


def differs(old: PowerToolStatus, new: PowerToolStatus) -> bool:
    """Whether something changed that is never put off: all but words."""
    return _essence(old) != _essence(new)


def _essence(status: PowerToolStatus) -> PowerToolStatus:
    blank = tuple(
        Condition(type=one.type, status=one.status, reason=one.reason, last_transition_time=one.last_transition_time)
        for one in status.conditions
    )
    return replace(status, conditions=blank, targets=())


def _recheck(
    seen: Observed, new: PowerToolStatus, members: tuple[Member, ...], *, waits: bool, held: bool
) -> float | None:
    """Seconds until something is due although nothing happened."""
    tool = seen.tool
    instants = [one.at for one in members if one.state is TargetState.WAITING and one.at is not None]
    if new.next_run_at is not None:
        instants.append(new.next_run_at)
    if going(new) and (ends := _deadline(tool, new)) is not None:
        instants.append(ends)
    if tool.metadata.deletion_timestamp is not None:
        instants.append(tool.metadata.deletion_timestamp + timedelta(seconds=CANCEL_SECONDS))
    seconds = [left for at in instants if (left := (at - seen.now).total_seconds()) > 0]
    if waits:
        seconds.append(WAITING_SECONDS)
    if held:
        seconds.append(HELD_SECONDS)
    return min(seconds, default=None)


def _deadline(tool: PowerTool, status: PowerToolStatus | None = None) -> datetime | None:
    started = (status or tool.status).started_at
    longest = tool.spec.active_deadline_seconds
    return started + timedelta(seconds=longest) if started is not None and longest is not None else None


def _moment(seen: Observed) -> datetime:
    return seen.now.replace(microsecond=0)
