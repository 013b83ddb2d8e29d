"""What to do about one PowerTool: a pure function over what was observed.

A run begins once nothing speaks against it, with targets that are frozen by pod UID. From then on each plan takes over
what has become of them, ends what has to end, and begins as many more as may run now. A target is claimed in the status
before anything starts, and whatever is claimed without a task is taken up again, so a plan may be cut off anywhere.
A phase that is terminal is never left, but for the next run of a schedule.
"""

from datetime import datetime, timedelta

from msgspec.structs import replace

from toe_async.apis.powertool import Phase, TargetState
from toe_async.apis.reasons import Reason
from toe_async.capture.refusals import Refused
from toe_async.controllers.powertool import sentences
from toe_async.controllers.powertool.acceptance import cancelled, refusal_of, stops
from toe_async.controllers.powertool.advancing import advanced, error_of, finished
from toe_async.controllers.powertool.batching import batch
from toe_async.controllers.powertool.choosing import chosen, starting
from toe_async.controllers.powertool.conditions import Outlook, conditions
from toe_async.controllers.powertool.counting import TERMINAL, Totals, phase_of, totals
from toe_async.controllers.powertool.facts import Observed, Plan
from toe_async.controllers.powertool.failing import stopped
from toe_async.controllers.powertool.fitting import fitted
from toe_async.controllers.powertool.members import Member, changed, load
from toe_async.controllers.powertool.recording import differs, of_run
from toe_async.controllers.powertool.schedule import due, following, going, may_begin
from toe_async.controllers.powertool.telling import events
from toe_async.controllers.powertool.tending import resumes, settled, starts, strays
from toe_async.controllers.powertool.waking import keeps, recheck
from toe_async.controllers.powertool.work import Work, deadline, pods_of
from toe_async.lib.clock import rfc3339

STARTING = timedelta(seconds=60)
"""How long a run whose pods are all just starting waits for one that runs."""


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
    return _concluded(seen, _continued(seen, Work(status, before), refusal, _ending(seen, refusal)), refusal, before)


def _loaded(seen: Observed) -> tuple[Member, ...]:
    members = load(seen.tool.status, seen.pods)
    if not members:
        raise ValueError("it is empty")
    return members


def _broken(seen: Observed, error: ValueError) -> Work:
    """A run whose targets are not known any more ends: guessing could start a tool twice, or in the wrong pod."""
    why = Refused(Reason.INVALID_SPEC, f"status.ledger was changed by somebody else and cannot be read: {error}")
    status = replace(seen.tool.status, finished_at=_moment(seen), last_error=why.message)
    return Work(status, (), held=why)


def _begun(seen: Observed, refusal: Refused | None) -> Work:
    """The run that begins now with its targets frozen, or why none does."""
    old, tool = seen.tool.status, seen.tool
    if (why := cancelled(seen)) is not None:
        if tool.spec.schedule or tool.metadata.deletion_timestamp is not None:
            return Work(old, (), held=Refused(why.reason, f"{why.message}; no run begins before it is taken away"))
        moment = _moment(seen)
        return Work(replace(old, started_at=moment, finished_at=moment, last_error=why.message), (), held=why)
    if refusal is not None or not seen.known or seen.config is None or seen.pods_problem is not None:
        return Work(old, ())
    if not may_begin(tool, seen.zone, seen.now):
        return Work(old, ())
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
        return Work(replace(fresh, last_error=error_of(failed) if failed else ""), members)
    if members.reason is Reason.NO_MATCHING_PODS and (later := _waits_for_pods(seen, slot)) is not None:
        return Work(old, (), held=later)
    if members.reason is Reason.NO_MATCHING_PODS:
        return Work(replace(fresh, finished_at=_moment(seen), last_error=members.message), (), held=members)
    return Work(old, (), held=members)


def _waits_for_pods(seen: Observed, slot: datetime | None) -> Refused | None:
    """A run whose pods are all just starting gives them a minute."""
    count, since = starting(seen), slot or seen.tool.metadata.creation_timestamp
    if not count or since is None or seen.now >= since + STARTING:
        return None
    return Refused(
        Reason.NO_MATCHING_PODS,
        f"{count} pods match and none runs yet; the run begins with those that run by {rfc3339(since + STARTING)}, "
        "or as soon as one does",
    )


def _ending(seen: Observed, refusal: Refused | None) -> Refused | None:
    """Why the run that goes on has to end as a whole."""
    tool = seen.tool
    if tool.metadata.deletion_timestamp is not None:
        return Refused(Reason.CANCELLED, "the PowerTool was deleted")
    if (why := cancelled(seen)) is not None:
        return why
    ends = deadline(tool, tool.status)
    if ends is not None and seen.now >= ends:
        longest = tool.spec.active_deadline_seconds
        return Refused(Reason.DEADLINE_EXCEEDED, f"the run took longer than spec.activeDeadlineSeconds, {longest} s")
    if (stop := stops(seen)) is not None:
        return stop
    # Without one that may begin there is nothing to make room for.
    if tool.spec.concurrency_policy == "Replace" and not tool.spec.suspend and refusal is None:
        slot = due(tool, seen.zone, seen.now)
        if slot is not None:
            return Refused(Reason.CANCELLED, f"replaced by the run that is due at {rfc3339(slot)}")
    return None


def _continued(seen: Observed, work: Work, refusal: Refused | None, ending: Refused | None) -> Work:
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
    found = batch(seen, run, members, seen.config.spec, pods_of(seen))
    return replace(work, members=found.members, started=found.started, waits=found.waits, occupant=found.occupant)


def _failed(old: Member, new: Member) -> bool:
    return new.state is not old.state and new.state in {TargetState.FAILED, TargetState.WAITING}


def _concluded(seen: Observed, work: Work, refusal: Refused | None, before: tuple[Member, ...]) -> Plan:
    """The status of a run, begun or not, and everything that follows from it."""
    tool, old = seen.tool, seen.tool.status
    status, members = work.status, work.members
    begun = going(old) or (status.run, status.started_at) != (old.run, old.started_at)
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
        phase=_phase(work, count) if begun else Phase(old.phase or Phase.PENDING),
        count=count,
        members=members,
        waits=work.waits,
        occupant=work.occupant,
        waiting=sentences.waiting(tool.spec, next_run),
    )
    new = replace(
        of_run(seen, work, status, outlook) if begun else status,
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
        starts=starts(seen, status.run, work),
        resumes=resumes(seen, status.run, work) if tool.metadata.deletion_timestamp is None or finalizer else (),
        cancels=(*(one.cancel for one in work.steps if one.cancel is not None), *strays(seen, status.run, members)),
        settled=settled(seen),
        used=bool(work.started),
        events=events(tool, new, before, members),
        recheck_seconds=recheck(seen, work, new, refusal),
    )


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
        cancels=tuple(strays(seen, old.run, ())),
        settled=settled(seen),
        delete=left is not None and left <= 0 and tool.metadata.deletion_timestamp is None,
        recheck_seconds=left if left is not None and left > 0 else None,
    )


def _phase(work: Work, count: Totals) -> Phase:
    if work.held is not None and work.held.reason is Reason.CANCELLED:
        return Phase.CANCELLED
    return phase_of(count)


def _moment(seen: Observed) -> datetime:
    return seen.now.replace(microsecond=0)
