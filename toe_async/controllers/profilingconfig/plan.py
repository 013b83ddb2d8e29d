"""What to do about one ProfilingConfig: a pure function over what was observed.

Order of the work: refuse what may not run; give up what nobody works on any more; judge every pod; choose whom to
capture within the limits, those who waited longest first; say in the status what happened and why nothing happened.

A capture starts only from a status that was written with its claim and cooldown (D2), so the plan puts both into the
status it returns, and apply starts the captures only after the API server took it.
"""

from collections import Counter
from datetime import timedelta

from msgspec.structs import replace

from toe_async.apis.profilingstatus import CaptureState, CaptureStatus, ProfilingConfigStatus
from toe_async.apis.reasons import Reason
from toe_async.capture.targets import is_running
from toe_async.capture.triggers import Fire, NotFired, Sample, Verdict, after_fire
from toe_async.controllers.profilingconfig import accounting
from toe_async.controllers.profilingconfig.choosing import (
    Judged,
    Limits,
    candidates,
    claimed,
    held_back,
    judged_pod,
    start_of,
)
from toe_async.controllers.profilingconfig.facts import Observed, Plan, Start
from toe_async.controllers.profilingconfig.refusals import refusal_of
from toe_async.controllers.profilingconfig.sentences import Outlook, conditions
from toe_async.lib.clock import rfc3339

HOLDER_GRACE = timedelta(seconds=30)  # for a holder's last write to arrive after its deadline
BUSY_SECONDS = 30.0
SOFT_SECONDS = 60.0  # D12: sentences and counts are brought up to date at most this often


def plan(seen: Observed) -> Plan:
    """Decide. The same facts always give the same plan."""
    config = seen.config
    status = config.status
    overdue = {row.id: why for row in status.recent if (why := _given_up(row, seen))}
    for id_, why in overdue.items():
        status = accounting.lost(status, id_, config.spec.profile_types, why, seen.now)

    refusal = refusal_of(seen)
    judged = () if refusal else tuple(judged_pod(facts, config.spec, status, seen.now) for facts in seen.pods)
    starts: list[Start] = []
    held: Counter[str] = Counter()
    duplicates = 0
    histories = {one.facts.pod.uid: one.history for one in judged}
    violations: list[str] = []
    for one in judged:
        if (reason := held_back(one)) is not None:
            held[reason] += 1
    limits = Limits(seen, status)
    for candidate in () if refusal else candidates(judged, config.spec, status, seen.now):
        start = start_of(candidate, seen)
        if accounting.find(status, start.record.id) is not None:
            duplicates += 1
            continue
        if (reason := limits.why_not(candidate.judged.facts.pod.uid)) is not None:
            held[reason] += 1
            continue
        limits.take(candidate.judged.facts.pod.uid)
        status = claimed(status, start, candidate, seen)
        starts.append(start)
        verdict = candidate.judged.verdict
        if candidate.reason == "threshold-exceeded" and isinstance(verdict, Fire):
            uid = candidate.judged.facts.pod.uid
            histories[uid] = after_fire(candidate.judged.history, verdict)
            violations += [str(resource) for resource in verdict.resources]

    hard = replace(status, observed_generation=config.metadata.generation)
    outlook = Outlook(
        seen=seen,
        refusal=refusal,
        above=sum(isinstance(one.verdict, Fire) or _is_hold(one.verdict) for one in judged),
        hottest=_hottest(judged),
        status=hard,
    )
    soft = replace(
        accounting.without_expired(hard, seen.now),
        active_pods=len(seen.pods),
        not_fired=dict(sorted((str(reason), number) for reason, number in held.items())),
        conditions=conditions(outlook, hard.conditions),
    )
    urgent = bool(starts) or bool(overdue) or _told_differently(config.status, soft)
    return Plan(
        status=soft,
        urgent=urgent,
        starts=tuple(starts),
        cancel=_cancelled(seen, refused=refusal is not None),
        lost=tuple(overdue),
        histories=histories,
        not_fired=dict(held),
        violations=tuple(violations),
        duplicates=duplicates,
        recheck_seconds=_recheck(seen, urgent=urgent or soft == config.status, busy=Reason.BUSY in held),
    )


def _cancelled(seen: Observed, *, refused: bool) -> tuple[str, ...]:
    """Captures of ours to stop: all when the config may not run (H22), else those whose pod withdrew or ended."""
    welcome = set() if refused else {facts.pod.uid for facts in seen.pods if is_running(facts.pod)}
    return tuple(
        row.id
        for row in seen.config.status.recent
        if row.state is CaptureState.CAPTURING and row.id in seen.running and row.pod_uid not in welcome
    )


def _given_up(row: CaptureStatus, seen: Observed) -> str:
    """Why nobody works on this capture any more, or nothing."""
    if row.state.final:
        return ""
    if row.holder == seen.holder:
        ours = row.state is not CaptureState.CAPTURING or row.id in seen.running
        return "" if ours else "the operator lost track of this capture: it restarted, or the API server did not answer"
    if row.holder in seen.gone:
        return f"the replica {row.holder} that took this capture is gone"
    if seen.now > row.deadline + HOLDER_GRACE:
        return f"the replica {row.holder} did not finish this capture by its deadline {rfc3339(row.deadline)}"
    return ""


def _is_hold(verdict: Verdict | None) -> bool:
    return verdict is not None and not isinstance(verdict, Fire | NotFired)


def _hottest(judged: tuple[Judged, ...]) -> tuple[str, Sample] | None:
    """The pod that is closest to, or farthest above, its threshold."""
    measured = [(one.facts.pod.name, one.sample) for one in judged if one.sample is not None and one.sample.measures]
    return max(measured, key=lambda one: (one[1].measures[0].percent, one[0]), default=None)


def _told_differently(old: ProfilingConfigStatus, new: ProfilingConfigStatus) -> bool:
    """Whether a condition's truth or reason changed, or the spec was taken over: that is never put off."""
    before = [(one.type, one.status, one.reason) for one in old.conditions]
    after = [(one.type, one.status, one.reason) for one in new.conditions]
    return before != after or old.observed_generation != new.observed_generation


def _recheck(seen: Observed, *, urgent: bool, busy: bool) -> float | None:
    """Seconds until this config has to be looked at again although nothing told us to."""
    waits: list[float] = []
    spec = seen.config.spec
    if spec.on_demand.enabled and not spec.suspend:
        interval = spec.on_demand.interval_seconds
        waits.append(interval - seen.now.timestamp() % interval + 0.05)
    open_rows = [row for row in seen.config.status.recent if not row.state.final and row.holder != seen.holder]
    if open_rows:
        waits.append(10.0)
    if busy:
        # The end of a capture of ours wakes whoever waits; one of another replica is seen by looking again.
        waits.append(BUSY_SECONDS)
    if not urgent:
        since = (seen.now - seen.soft_written).total_seconds() if seen.soft_written else SOFT_SECONDS
        waits.append(max(0.0, SOFT_SECONDS - since))
    return min(waits, default=None)
