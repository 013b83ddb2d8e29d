"""What to do about one ProfilingConfig: a pure function over what was observed.

Order of the work: refuse what may not run; give up what nobody works on any more; judge every pod; choose whom to
capture within the limits, those who waited longest first; say in the status what happened and why nothing happened.

A capture starts only from a status that was written with its claim and cooldown (D2), so the plan puts both into the
status it returns, and apply starts the captures only after the API server took it.
"""

import math
from collections import Counter
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from toe_async.apis.captures import CaptureReason, CaptureRecord, CollectorRef, S3Ref, SinkRef, Target
from toe_async.apis.kinds import PROFILING_CONFIGS
from toe_async.apis.pods import Pod
from toe_async.apis.profilingconfig import ProfilingConfigSpec
from toe_async.apis.profilingstatus import (
    MAX_COOLDOWNS,
    CaptureState,
    CaptureStatus,
    Cooldown,
    ProfilingConfigStatus,
)
from toe_async.apis.reasons import Reason
from toe_async.capture.identity import capture_id
from toe_async.capture.pprof import deadline_seconds
from toe_async.capture.targets import PprofTarget, Refused, is_running, service_of, target_of
from toe_async.capture.triggers import (
    Fire,
    History,
    NotFired,
    Rule,
    Sample,
    Track,
    Verdict,
    after_fire,
    judge,
    measure,
)
from toe_async.controllers.profilingconfig import accounting
from toe_async.controllers.profilingconfig.facts import Observed, Plan, PodFacts, Start
from toe_async.controllers.profilingconfig.sentences import Outlook, conditions, needs_metrics
from toe_async.lib.clock import rfc3339

MAX_WAITING = (
    80  # captures that are received and not stored; rows for them must fit the status beside the finished ones
)
HOLDER_GRACE = timedelta(seconds=30)  # for a holder's last write to arrive after its deadline
SOFT_SECONDS = 60.0  # D12: sentences and counts are brought up to date at most this often

# Room for the tries that a busy profiler is given (capture/pprof).
_BUSY_SECONDS = 60


class Judged(Struct, frozen=True):
    """One pod after the rules: its target or why it has none, and the thresholds' verdict (None: they are off)."""

    facts: PodFacts
    target: PprofTarget | Refused
    sample: Sample | None
    verdict: Verdict | None
    history: History


class Candidate(Struct, frozen=True):
    """A pod that should be captured now, and what for."""

    judged: Judged
    target: PprofTarget
    reason: CaptureReason
    instant: str
    trigger: str
    cooldown_until: datetime


def plan(seen: Observed) -> Plan:
    """Decide. The same facts always give the same plan."""
    config = seen.config
    status = config.status
    overdue = {row.id: why for row in status.recent if (why := _given_up(row, seen))}
    for id_, why in overdue.items():
        status = accounting.lost(status, id_, why, seen.now)

    refusal = _refusal(seen)
    judged = () if refusal else tuple(_judge(facts, config.spec, status, seen.now) for facts in seen.pods)
    starts: list[Start] = []
    held: Counter[str] = Counter()
    duplicates = 0
    histories = {one.facts.pod.uid: one.history for one in judged}
    violations: list[str] = []
    for one in judged:
        if (reason := _held_back(one)) is not None:
            held[reason] += 1
    limits = _Limits(seen, status)
    for candidate in () if refusal else _candidates(judged, config.spec, status, seen.now):
        start = _start(candidate, seen)
        if accounting.find(status, start.record.id) is not None:
            duplicates += 1
            continue
        if (reason := limits.why_not(candidate.judged.facts.pod.uid)) is not None:
            held[reason] += 1
            continue
        limits.take(candidate.judged.facts.pod.uid)
        status = _claimed(status, start, candidate, seen)
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
        recheck_seconds=_recheck(seen, urgent=urgent or soft == config.status),
    )


# ---- may it run at all ---------------------------------------------------------------------------------------------


def _policy(seen: Observed) -> tuple[Reason, str] | None:
    return (Reason.POLICY_MISSING, seen.policy_problem) if seen.policy_problem else None


def _selector(seen: Observed) -> tuple[Reason, str] | None:
    try:
        seen.config.spec.selector.compiled()
    except ValueError as error:
        return Reason.INVALID_SPEC, f"spec.selector.matchExpressions: {error}"
    return None


def _sinks(seen: Observed) -> tuple[Reason, str] | None:
    spec = seen.config.spec
    if (spec.s3_config is None) == (spec.collector is None):
        return Reason.INVALID_SPEC, "exactly one sink is needed: set either spec.s3Config or spec.collector"
    return (Reason.SINK_NOT_ALLOWED, seen.sink_problem) if seen.sink_problem else None


def _grant(seen: Observed) -> tuple[Reason, str] | None:
    if seen.granted:
        return None
    meta, target = seen.config.metadata, seen.config.target_namespace
    message = (
        f"namespace {target} does not exist or does not let {meta.namespace} profile its pods; its owner can grant it: "
        f"kubectl annotate namespace {target} profiling.io/allow-from={meta.namespace}"
    )
    return Reason.NAMESPACE_NOT_GRANTED, message


REFUSALS = (_policy, _selector, _sinks, _grant)


def _refusal(seen: Observed) -> tuple[Reason, str] | None:
    return next((found for check in REFUSALS if (found := check(seen)) is not None), None)


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


# ---- who is to be captured -----------------------------------------------------------------------------------------


def rule_of(spec: ProfilingConfigSpec) -> Rule:
    """The thresholds of a spec as a trigger rule."""
    named = spec.thresholds_in_force()
    return Rule(
        cpu_percent=named.cpu_threshold_percent or 0,
        memory_percent=named.memory_threshold_percent or 0,
        of=named.of,
        for_seconds=named.for_seconds,
        rise_percent=named.rise_percent,
        rearm_percent=named.rearm_percent,
        interval_seconds=named.check_interval_seconds,
    )


def sink_of(spec: ProfilingConfigSpec, collector: str) -> SinkRef:
    """The sink that the spec names; ``collector`` is the configured endpoint."""
    if spec.s3_config is not None:
        s3 = spec.s3_config
        return S3Ref(
            bucket=s3.bucket,
            prefix=s3.prefix,
            region=s3.region,
            endpoint=s3.endpoint,
            credentials_secret=s3.credentials_secret,
        )
    return CollectorRef(endpoint=(spec.collector.endpoint if spec.collector else "") or collector)


def _judge(facts: PodFacts, spec: ProfilingConfigSpec, status: ProfilingConfigStatus, now: datetime) -> Judged:
    target = target_of(facts.pod)
    if not is_running(facts.pod):
        target = Refused(Reason.POD_NOT_RUNNING, f"pod {facts.pod.name} is not running")
    if not needs_metrics(spec):
        return Judged(facts, target, None, None, facts.history)
    rule = rule_of(spec)
    until = _cooldown(status, facts.pod, "threshold-exceeded")
    history = facts.history
    if until is not None and history.at is None:
        # The memory of the last capture went with a restart; the cooldown tells that there was one.
        history = replace(history, cpu=Track(armed=False), memory=Track(armed=False))
    measured = measure(rule, facts.pod, facts.usage, facts.node)
    if isinstance(measured, NotFired):
        return Judged(facts, target, None, measured, history)
    judgement = judge(rule, measured, history, now, until if until is None or until > now else None)
    return Judged(facts, target, measured, judgement.verdict, judgement.history)


def _held_back(one: Judged) -> Reason | None:
    """Why the thresholds do not ask for this pod, or it cannot be captured at all."""
    if isinstance(one.target, Refused):
        return one.target.reason
    if one.verdict is None or isinstance(one.verdict, Fire):
        return None
    return one.verdict.reason


def _candidates(
    judged: tuple[Judged, ...], spec: ProfilingConfigSpec, status: ProfilingConfigStatus, now: datetime
) -> list[Candidate]:
    """Those above their threshold first, since that evidence passes; within each kind whoever waited longest (D4)."""
    hot: list[Candidate] = []
    due: list[Candidate] = []
    cooldown = timedelta(seconds=spec.thresholds_in_force().cooldown_seconds)
    interval = spec.on_demand.interval_seconds
    slot = math.floor(now.timestamp() / interval)
    slot_end = datetime.fromtimestamp((slot + 1) * interval, now.tzinfo)
    for one in judged:
        if spec.suspend or isinstance(one.target, Refused):
            continue
        if isinstance(one.verdict, Fire):
            instant = rfc3339(one.verdict.at, micro=True)
            trigger = one.verdict.sentence
            hot.append(Candidate(one, one.target, "threshold-exceeded", instant, trigger, now + cooldown))
        elif spec.on_demand.enabled:
            served = _cooldown(status, one.facts.pod, "on-demand")
            if served is None or served <= now:
                trigger = f"every {interval} s"
                due.append(Candidate(one, one.target, "on-demand", f"slot {interval} {slot}", trigger, slot_end))
    return sorted(hot, key=_waited) + sorted(due, key=_waited)


def _waited(candidate: Candidate) -> tuple[float, str]:
    last = candidate.judged.facts.last_started
    # Pods never captured come first, in an order that no name can choose: their UIDs are random.
    return (last.timestamp() if last else 0.0, candidate.judged.facts.pod.uid)


class _Limits:
    """How many more captures may start, and from whom."""

    def __init__(self, seen: Observed, status: ProfilingConfigStatus) -> None:
        open_rows = [row for row in status.recent if not row.state.final]
        capturing = sum(row.state is CaptureState.CAPTURING for row in open_rows)
        self._room = min(seen.config.spec.max_concurrent - capturing, seen.free_captures)
        self._waiting = MAX_WAITING - len(open_rows)
        self._busy = set(seen.busy)
        self._full = seen.spool_problem is not None
        self._cooldowns = MAX_COOLDOWNS - sum(one.until > seen.now for one in status.cooldowns)

    def why_not(self, uid: str) -> Reason | None:
        if self._full or self._waiting <= 0:
            return Reason.STORE_FULL
        if self._cooldowns <= 0:
            return Reason.COOLDOWN_TABLE_FULL
        return Reason.BUSY if self._room <= 0 or uid in self._busy else None

    def take(self, uid: str) -> None:
        self._room -= 1
        self._waiting -= 1
        self._cooldowns -= 1
        self._busy.add(uid)


def _start(candidate: Candidate, seen: Observed) -> Start:
    config, pod, target = seen.config, candidate.judged.facts.pod, candidate.target
    spec = config.spec
    seconds = _BUSY_SECONDS + sum(deadline_seconds(type_, spec.cpu_seconds) for type_ in spec.profile_types)
    return Start(
        record=CaptureRecord(
            id=capture_id(config.metadata.uid, pod.uid, target.container, candidate.instant),
            group=seen.group,
            kind=PROFILING_CONFIGS.kind,
            namespace=config.metadata.namespace,
            name=config.metadata.name,
            uid=config.metadata.uid,
            target=Target(
                namespace=pod.namespace,
                pod=pod.name,
                pod_uid=pod.uid,
                container=target.container,
                node=pod.node,
                labels=dict(pod.labels),
                service=service_of(pod),
            ),
            reason=candidate.reason,
            trigger=candidate.trigger,
            triggered_at=seen.now.replace(microsecond=0),
            holder=seen.holder,
            sink=sink_of(spec, seen.collector),
            matching_labels=dict(spec.selector.label_selector),
            types=tuple(str(type_) for type_ in spec.profile_types),
        ),
        target=target,
        types=spec.profile_types,
        cpu_seconds=spec.cpu_seconds,
        deadline=(seen.now + timedelta(seconds=seconds)).replace(microsecond=0),
    )


def _claimed(
    status: ProfilingConfigStatus, start: Start, candidate: Candidate, seen: Observed
) -> ProfilingConfigStatus:
    record = start.record
    row = CaptureStatus(
        id=record.id,
        pod=record.target.pod,
        pod_uid=record.target.pod_uid,
        container=record.target.container,
        reason=record.reason,
        trigger=record.trigger[:512],
        state=CaptureState.CAPTURING,
        holder=record.holder,
        started_at=seen.now.replace(microsecond=0),
        deadline=start.deadline,
    )
    until = candidate.cooldown_until.replace(microsecond=0)
    cooldown = Cooldown(pod_uid=record.target.pod_uid, reason=record.reason, until=until)
    # The expired rows go now: the table is bounded, and this status is written anyway.
    return accounting.claim(accounting.without_expired(status, seen.now), row, cooldown)


# ---- what to say ---------------------------------------------------------------------------------------------------


def _cooldown(status: ProfilingConfigStatus, pod: Pod, reason: CaptureReason) -> datetime | None:
    return next((one.until for one in status.cooldowns if (one.pod_uid, one.reason) == (pod.uid, reason)), None)


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


def _recheck(seen: Observed, *, urgent: bool) -> float | None:
    """Seconds until this config has to be looked at again although nothing told us to."""
    waits: list[float] = []
    spec = seen.config.spec
    if spec.on_demand.enabled and not spec.suspend:
        interval = spec.on_demand.interval_seconds
        waits.append(interval - seen.now.timestamp() % interval + 0.05)
    open_rows = [row for row in seen.config.status.recent if not row.state.final and row.holder != seen.holder]
    if open_rows:
        waits.append(10.0)
    if not urgent:
        since = (seen.now - seen.soft_written).total_seconds() if seen.soft_written else SOFT_SECONDS
        waits.append(max(0.0, SOFT_SECONDS - since))
    return min(waits, default=None)
