"""Whom to capture now: every pod judged, the limits kept, those who waited longest first. Pure."""

import math
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from toe_async.apis.captures import CaptureReason, CaptureRecord, CollectorRef, S3Ref, SinkRef, Target
from toe_async.apis.kinds import PROFILING_CONFIGS
from toe_async.apis.pods import Pod
from toe_async.apis.profilingconfig import ProfilingConfigSpec
from toe_async.apis.profilingstatus import MAX_COOLDOWNS, CaptureState, CaptureStatus, Cooldown, ProfilingConfigStatus
from toe_async.apis.reasons import Reason
from toe_async.capture.identity import capture_id
from toe_async.capture.pprof import deadline_seconds
from toe_async.capture.targets import PprofTarget, Refused, is_running, service_of, target_of
from toe_async.capture.triggers import Fire, History, NotFired, Rule, Sample, Track, Verdict, judge, measure
from toe_async.controllers.profilingconfig import accounting
from toe_async.controllers.profilingconfig.facts import Observed, PodFacts, Start
from toe_async.controllers.profilingconfig.sentences import needs_metrics
from toe_async.lib.clock import rfc3339

MAX_WAITING = (
    80  # captures that are received and not stored; rows for them must fit the status beside the finished ones
)
_BUSY_SECONDS = 60  # room for the tries that a busy profiler is given


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


def judged_pod(facts: PodFacts, spec: ProfilingConfigSpec, status: ProfilingConfigStatus, now: datetime) -> Judged:
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


def held_back(one: Judged) -> Reason | None:
    """Why the thresholds do not ask for this pod, or it cannot be captured at all."""
    if isinstance(one.target, Refused):
        return one.target.reason
    if one.verdict is None or isinstance(one.verdict, Fire):
        return None
    return one.verdict.reason


def candidates(
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


class Limits:
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


def start_of(candidate: Candidate, seen: Observed) -> Start:
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


def claimed(status: ProfilingConfigStatus, start: Start, candidate: Candidate, seen: Observed) -> ProfilingConfigStatus:
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


def _cooldown(status: ProfilingConfigStatus, pod: Pod, reason: CaptureReason) -> datetime | None:
    return next((one.until for one in status.cooldowns if (one.pod_uid, one.reason) == (pod.uid, reason)), None)
