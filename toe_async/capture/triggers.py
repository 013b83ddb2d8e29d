"""Whether a pod's usage asks for a capture: samples, rule and history in; fire, hold or not fired out.

Rules (api.md, D5-D7). A value fires when it is strictly above its threshold; 0 switches a threshold off, more than 100
is allowed. What is compared with what is decided in `measures`. A repeated timestamp is no new sample; a sample older
than two windows never fires, and one from the future ages from when we first saw it.

`forSeconds`: above in every sample for that long; a hole in the samples starts the count anew. `risePercent`: above
the running mean of the earlier samples by that much; while a rise lasts it is compared with the mean from before it,
so that `forSeconds` can be waited out. `rearmPercent`: after a fire the value must fall below threshold - rearmPercent
before it may fire again.
"""

import math
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from toe_async.apis.reasons import Reason
from toe_async.capture.measures import (
    ROUNDING,
    Measure,
    NotFired,
    Resource,
    Rule,
    Sample,
    figure,
    measure,
    tell_above,
    tell_missing_base,
)

__all__ = [
    "Fire",
    "History",
    "Hold",
    "Judgement",
    "Measure",
    "NotFired",
    "Resource",
    "Rule",
    "Sample",
    "Track",
    "Verdict",
    "after_fire",
    "judge",
    "measure",
]

MEAN_SPAN = 20
"""Samples over which the running mean forgets: ten minutes at the default interval of 30 s."""


class Track(Struct, frozen=True, gc=False):
    """What is remembered of one resource of one pod; means are in cores or bytes."""

    mean: float = 0.0
    count: int = 0
    since: datetime | None = None
    reference: float = 0.0
    """The mean as it was when the present rise began; read only with `since`."""
    armed: bool = True


class History(Struct, frozen=True):
    """What is remembered of one pod under one rule. Empty after a restart; cooldowns live in the config's status."""

    at: datetime | None = None
    seen: datetime | None = None
    fired_at: datetime | None = None
    cpu: Track = Track()
    memory: Track = Track()

    def track(self, resource: Resource) -> Track:
        """The memory of one resource."""
        return self.cpu if resource is Resource.CPU else self.memory


class Fire(Struct, frozen=True):
    """Take a capture. `at` is the timestamp that crossed: the attempt's instant (D1). The hottest resource is first."""

    at: datetime
    resources: tuple[Resource, ...]
    percent: float
    sentence: str


class Hold(Struct, frozen=True):
    """Above a threshold, but something is still to be waited for."""

    reason: Reason
    sentence: str


Verdict = Fire | Hold | NotFired


class Judgement(Struct, frozen=True):
    """The verdict on one sample and the history to keep."""

    verdict: Verdict
    history: History


def judge(rule: Rule, sample: Sample, history: History, now: datetime, cooldown_until: datetime | None) -> Judgement:
    """Judge one sample. The same arguments give the same answer; nothing fires while `now < cooldown_until`.

    A Fire leaves the history as it is: call `after_fire` once the capture is claimed, so that a pod that has to wait
    for its turn fires again.
    """
    seen = history.seen if history.seen is not None and sample.at == history.at else now
    if now - min(sample.at, seen) > timedelta(seconds=2 * sample.window_seconds):
        return Judgement(NotFired(Reason.METRICS_STALE, _stale(sample, now)), history)
    if history.at is not None and history.seen is not None and sample.at < history.at <= history.seen:
        return Judgement(NotFired(Reason.METRICS_STALE, "the sample is older than one already seen"), history)
    if sample.at != history.at:
        history = _remember(rule, sample, history, now)
    return Judgement(_verdict(rule, sample, history, now, cooldown_until), history)


def after_fire(history: History, fire: Fire) -> History:
    """The history once the capture of `fire` is claimed: its resources need a new rise, and re-arming where asked."""
    spent = {str(one): replace(history.track(one), since=None, reference=0.0, armed=False) for one in fire.resources}
    return replace(history, fired_at=fire.at, **spent)


def _remember(rule: Rule, sample: Sample, history: History, now: datetime) -> History:
    """Take in a new sample."""
    at = min(sample.at, now)
    hole = timedelta(seconds=2 * (rule.interval_seconds + sample.window_seconds))
    last = None if history.at is None or history.seen is None else min(history.at, history.seen)
    broken = last is None or not timedelta(0) <= at - last <= hole
    tracks: dict[str, Track] = {}
    for one in sample.measures:
        track = history.track(one.resource)
        since, reference = (None, 0.0) if broken else (track.since, track.reference)
        threshold = rule.threshold(one.resource)
        if since is None:
            reference = track.mean
        risen = not rule.rise_percent or (
            track.count > 0 and one.used > reference * (1 + rule.rise_percent / 100) * (1 + ROUNDING)
        )
        hot = one.above(threshold) and risen
        count = min(track.count + 1, MEAN_SPAN)
        tracks[str(one.resource)] = Track(
            mean=track.mean + (one.used - track.mean) / count,
            count=count,
            since=(since or at) if hot else None,
            reference=reference if hot else 0.0,
            armed=track.armed or one.percent < threshold - rule.rearm_percent,
        )
    return replace(history, at=sample.at, seen=now, **tracks)


def _verdict(rule: Rule, sample: Sample, history: History, now: datetime, cooldown_until: datetime | None) -> Verdict:
    fires: list[Measure] = []
    holds: list[Hold] = []
    for one in sample.measures:
        if one.above(rule.threshold(one.resource)):
            hold = _hold(rule, one, history, min(sample.at, now))
            if hold is None:
                fires.append(one)
            else:
                holds.append(hold)
    if fires:
        sentence = "; ".join(tell_above(rule, one) for one in fires)
        if history.fired_at == sample.at:
            return Hold(Reason.COOLDOWN, f"{sentence}; this sample has been captured already")
        if cooldown_until is not None and now < cooldown_until:
            left = math.ceil((cooldown_until - now).total_seconds())
            return Hold(Reason.COOLDOWN, f"{sentence}; the cooldown lasts {left} s more")
        return Fire(sample.at, tuple(one.resource for one in fires), fires[0].percent, sentence)
    if holds:
        return holds[0]
    if sample.without_base:
        names = " and ".join(sample.without_base)
        return NotFired(Reason.NO_BASE, f"nothing to compare {names} with: {tell_missing_base(rule.of)}")
    if not sample.measures:
        return NotFired(Reason.BELOW_THRESHOLD, "no threshold is switched on")
    return NotFired(Reason.BELOW_THRESHOLD, "; ".join(figure(rule, one) for one in sample.measures))


def _hold(rule: Rule, one: Measure, history: History, at: datetime) -> Hold | None:
    """What a value above its threshold still has to wait for, or None."""
    track = history.track(one.resource)
    sentence = tell_above(rule, one)
    if rule.rearm_percent and not track.armed:
        low = rule.threshold(one.resource) - rule.rearm_percent
        return Hold(Reason.NOT_REARMED, f"{sentence}; it has to fall below {low:g}% first")
    if track.since is None and history.fired_at == history.at:
        return None
    if track.since is None:
        return Hold(Reason.NOT_RISING, f"{sentence}, but not {rule.rise_percent:g}% above its running mean")
    lasted = (at - track.since).total_seconds()
    if lasted < rule.for_seconds:
        return Hold(Reason.NOT_SUSTAINED, f"{sentence}, for {lasted:.0f} s of {rule.for_seconds:g} s")
    return None


def _stale(sample: Sample, now: datetime) -> str:
    age = (now - sample.at).total_seconds()
    return f"the newest sample is {age:.0f} s old, more than two windows of {sample.window_seconds:g} s"
