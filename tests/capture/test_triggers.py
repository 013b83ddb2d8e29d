"""The trigger rules: a table with one row a rule, invariants over any course of events, and a day against an oracle."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from toe_async.apis.core import Node, PodUsage
from toe_async.apis.pods import Container, Pod
from toe_async.apis.profilingconfig import ThresholdBase
from toe_async.apis.reasons import Reason
from toe_async.capture.triggers import (
    Fire,
    History,
    Hold,
    NotFired,
    Resource,
    Rule,
    Sample,
    Verdict,
    after_fire,
    judge,
    measure,
)

EPOCH = datetime(2026, 1, 24, tzinfo=UTC)
GIB = float(1 << 30)
NODE = Node("node-1", "1", 4.0, 16 * GIB)
CPU_80 = Rule(cpu_percent=80)


def at(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def container(
    name: str = "app",
    cpu: tuple[float | None, float | None] = (None, None),
    memory: tuple[float | None, float | None] = (None, None),
    *,
    sidecar: bool = False,
) -> Container:
    """`cpu` and `memory` are (request, limit)."""
    return Container(name, sidecar, (), *cpu, *memory)


def pod(*containers: Container) -> Pod:
    return Pod("shop", "web-1", "u", "1", "Running", "node-1", "", {}, {}, False, False, True, "", "", None, containers)


def usage(when: float = 0, window: float = 15, **containers: tuple[float, float]) -> PodUsage:
    return PodUsage("shop", "web-1", at(when), window, dict(containers))


HALF = pod(container(cpu=(0.5, 1.0), memory=(GIB, 2 * GIB)))


def sample_of(rule: Rule, seen: Pod, used: PodUsage | None, node: Node | None = NODE) -> Sample:
    found = measure(rule, seen, used, node)
    assert isinstance(found, Sample)
    return found


def first(rule: Rule, seen: Pod, used: PodUsage | None, node: Node | None = NODE) -> Verdict:
    """The verdict on a pod's first sample, looked at when it is made."""
    found = measure(rule, seen, used, node)
    if isinstance(found, NotFired):
        return found
    return judge(rule, found, History(), found.at, None).verdict


REQUEST, LIMIT = Rule(cpu_percent=80, of=ThresholdBase.REQUEST), Rule(cpu_percent=80, of=ThresholdBase.LIMIT)
BOTH = Rule(cpu_percent=80, memory_percent=90)


@pytest.mark.parametrize(
    ("rule", "seen", "used", "sentence"),
    [
        pytest.param(CPU_80, HALF, usage(app=(0.935, 0)), "cpu 187% of request 500m, above 80%", id="cpu of request"),
        pytest.param(
            BOTH, HALF, usage(app=(0, 1.5 * GIB)), "memory 150% of request 1.0 GiB, above 90%", id="memory of request"
        ),
        pytest.param(
            BOTH,
            HALF,
            usage(app=(0.5, 2 * GIB)),
            "memory 200% of request 1.0 GiB, above 90%; cpu 100% of request 500m, above 80%",
            id="both, the hotter one first",
        ),
        pytest.param(
            Rule(cpu_percent=250),
            HALF,
            usage(app=(1.5, 0)),
            "cpu 300% of request 500m, above 250%",
            id="thresholds above 100 are allowed",
        ),
        pytest.param(
            Rule(memory_percent=90),
            HALF,
            usage(app=(9, GIB)),
            "memory 100% of request 1.0 GiB, above 90%",
            id="0 switches cpu off",
        ),
        pytest.param(
            CPU_80,
            HALF,
            usage(app=(0.4000001, 0)),
            "cpu 80.00002% of request 500m, above 80%",
            id="just above, and the figure does not read as equal",
        ),
        pytest.param(
            CPU_80,
            pod(container(cpu=(None, 2.0))),
            usage(app=(1.7, 0)),
            "cpu 85% of limit 2, above 80%",
            id="Auto without request takes the limit",
        ),
        pytest.param(
            CPU_80,
            pod(container()),
            usage(app=(3.5, 0)),
            "cpu 88% of node allocatable 4, above 80%",
            id="Auto without request and limit takes the node",
        ),
        pytest.param(
            CPU_80,
            pod(container("a", cpu=(0.1, 1.0)), container("b", cpu=(None, 1.0))),
            usage(a=(1.0, 0), b=(0.8, 0)),
            "cpu 90% of limit 2, above 80%",
            id="one container without a request moves the whole pod to the limit",
        ),
        pytest.param(
            CPU_80,
            pod(container("a", cpu=(0.1, 1.0)), container("b")),
            usage(a=(2.0, 0), b=(1.6, 0)),
            "cpu 90% of node allocatable 4, above 80%",
            id="and without a limit to the node",
        ),
        pytest.param(
            CPU_80,
            pod(container("app", cpu=(0.5, None)), container("side", cpu=(0.5, None), sidecar=True)),
            usage(app=(0.5, 0), side=(0.4, 0)),
            "cpu 90% of request 1, above 80%",
            id="sidecars count, in usage and in base",
        ),
        pytest.param(
            CPU_80,
            pod(container("a", cpu=(0.5, None)), container("b", cpu=(0.0, None))),
            usage(a=(0.5, 0), b=(0, 0)),
            "cpu 100% of request 500m, above 80%",
            id="a request of zero is a value",
        ),
        pytest.param(
            CPU_80,
            pod(container(cpu=(0.0, 1.0))),
            usage(app=(0.9, 0)),
            "cpu 90% of limit 1, above 80%",
            id="a sum of zero is no base",
        ),
        pytest.param(
            LIMIT, HALF, usage(app=(0.9, 0)), "cpu 90% of limit 1, above 80%", id="of Limit passes over the request"
        ),
        pytest.param(
            Rule(cpu_percent=80, memory_percent=90, of=ThresholdBase.LIMIT),
            pod(container(cpu=(None, 1.0))),
            usage(app=(0.9, GIB)),
            "cpu 90% of limit 1, above 80%",
            id="one resource without a base does not hold back the other",
        ),
        pytest.param(
            CPU_80,
            HALF,
            usage(app=(0.45, 0), debugger=(9, 0)),
            "cpu 90% of request 500m, above 80%",
            id="an ephemeral container's usage is not summed",
        ),
    ],
)
def test_a_pod_above_its_threshold_fires_with_its_figures(rule: Rule, seen: Pod, used: PodUsage, sentence: str) -> None:
    """D5, D6: each base and each figure."""
    verdict = first(rule, seen, used)
    assert isinstance(verdict, Fire)
    assert verdict.sentence == sentence
    assert verdict.at == EPOCH
    assert verdict.resources[0] == sentence.split(maxsplit=1)[0]


@pytest.mark.parametrize(
    ("rule", "seen", "used", "node", "reason"),
    [
        pytest.param(CPU_80, HALF, usage(app=(0.4, 0)), NODE, Reason.BELOW_THRESHOLD, id="equal is not above"),
        pytest.param(
            Rule(cpu_percent=30),
            pod(container("a", cpu=(0.5, None)), container("b", cpu=(0.25, None)), container("c", cpu=(0.25, None))),
            usage(a=(0.1, 0), b=(0.1, 0), c=(0.1, 0)),
            NODE,
            Reason.BELOW_THRESHOLD,
            id="equal on paper is not above by rounding",
        ),
        pytest.param(Rule(), HALF, usage(app=(9, 9 * GIB)), NODE, Reason.BELOW_THRESHOLD, id="both off"),
        pytest.param(
            CPU_80, HALF, usage(app=(0.1, 0), debugger=(9, 0)), NODE, Reason.BELOW_THRESHOLD, id="ephemeral ones only"
        ),
        pytest.param(
            REQUEST, pod(container(cpu=(None, 1.0))), usage(app=(9, 0)), NODE, Reason.NO_BASE, id="Request insists"
        ),
        pytest.param(
            LIMIT, pod(container(cpu=(1.0, None))), usage(app=(9, 0)), NODE, Reason.NO_BASE, id="Limit insists"
        ),
        pytest.param(
            LIMIT,
            pod(container("a", cpu=(None, 1.0)), container("b")),
            usage(a=(9, 0), b=(9, 0)),
            NODE,
            Reason.NO_BASE,
            id="Limit insists for every container",
        ),
        pytest.param(CPU_80, pod(container()), usage(app=(9, 0)), None, Reason.NO_BASE, id="node not known"),
        pytest.param(
            CPU_80,
            pod(container()),
            usage(app=(9, 0)),
            Node("n", "1", 0, 0),
            Reason.NO_BASE,
            id="node says nothing yet",
        ),
        pytest.param(
            Rule(cpu_percent=80, memory_percent=90, of=ThresholdBase.LIMIT),
            pod(container(cpu=(None, 1.0))),
            usage(app=(0.1, GIB)),
            NODE,
            Reason.NO_BASE,
            id="a resource without base is told when the other is quiet",
        ),
        pytest.param(
            CPU_80,
            pod(container(cpu=(float("inf"), float("inf")))),
            usage(app=(9, 0)),
            None,
            Reason.NO_BASE,
            id="an absurd request is no base",
        ),
        pytest.param(CPU_80, HALF, None, NODE, Reason.METRICS_ABSENT, id="no sample"),
        pytest.param(CPU_80, HALF, usage(), NODE, Reason.METRICS_ABSENT, id="a sample without the container"),
        pytest.param(
            CPU_80,
            pod(container("a", cpu=(0.5, None)), container("b", cpu=(0.5, None))),
            usage(a=(9, 0)),
            NODE,
            Reason.METRICS_ABSENT,
            id="one container missing is unknown, not zero",
        ),
        pytest.param(
            CPU_80, HALF, usage(app=(float("inf"), 0)), NODE, Reason.METRICS_ABSENT, id="usage that is no number"
        ),
        pytest.param(CPU_80, pod(), usage(app=(9, 0)), NODE, Reason.METRICS_ABSENT, id="a pod without containers"),
        pytest.param(
            CPU_80,
            replace(HALF, start_time=at(1)),
            usage(app=(9, 0)),
            NODE,
            Reason.METRICS_ABSENT,
            id="a sample of the predecessor with the same name",
        ),
    ],
)
def test_what_does_not_fire_says_why(
    rule: Rule, seen: Pod, used: PodUsage | None, node: Node | None, reason: Reason
) -> None:
    """D5-D7, facts.md section 0: absent is unknown, never zero."""
    verdict = first(rule, seen, used, node)
    assert isinstance(verdict, NotFired)
    assert verdict.reason is reason
    assert verdict.sentence


class Course:
    """One pod's life: samples go in, verdicts come out; a fire is claimed at once unless told otherwise."""

    def __init__(self, rule: Rule, cooldown: float = 0) -> None:
        self.rule, self.cooldown = rule, cooldown
        self.history = History()
        self.until: datetime | None = None

    def see(self, when: float, percent: float, *, now: float | None = None, claim: bool = True) -> Verdict:
        """Look at a sample made at `when`, of so many per cent CPU, at `now`."""
        looked = at(when if now is None else now)
        sample = sample_of(self.rule, HALF, usage(when, app=(percent / 200, 0)))
        judgement = judge(self.rule, sample, self.history, looked, self.until)
        self.history = judgement.history
        if isinstance(judgement.verdict, Fire) and claim:
            self.history = after_fire(self.history, judgement.verdict)
            self.until = looked + timedelta(seconds=self.cooldown)
        return judgement.verdict

    def words(self, *samples: tuple[float, float]) -> list[str]:
        """Fire or the reason, for each (when, percent)."""
        verdicts = [self.see(when, percent) for when, percent in samples]
        return ["Fire" if isinstance(one, Fire) else str(one.reason) for one in verdicts]


def test_a_sample_older_than_two_windows_never_fires_and_leaves_no_trace() -> None:
    """H30: exactly two windows is still young enough."""
    course = Course(CPU_80)
    stale = course.see(0, 500, now=30.1)
    assert isinstance(stale, NotFired)
    assert stale.reason is Reason.METRICS_STALE
    assert stale.sentence == "the newest sample is 30 s old, more than two windows of 15 s"
    assert course.history == History()
    assert isinstance(course.see(0, 500, now=30), Fire)


def test_a_sample_without_a_window_counts_for_fifteen_seconds() -> None:
    """A window of zero must not make every sample stale."""
    sample = sample_of(CPU_80, HALF, usage(0, 0, app=(1, 0)))
    assert isinstance(judge(CPU_80, sample, History(), at(30), None).verdict, Fire)
    assert isinstance(judge(CPU_80, sample, History(), at(31), None).verdict, NotFired)


def test_a_sample_from_the_future_ages_from_when_it_was_first_seen() -> None:
    """H33: a node whose clock is ten minutes ahead is watched as any other, but a stuck one is found out."""
    course = Course(Rule(cpu_percent=80, for_seconds=30))
    assert [course.see(600 + step, 500, now=step, claim=False) for step in (0, 15)][1].__class__ is Hold
    assert isinstance(course.see(630, 500, now=30, claim=False), Fire)
    assert isinstance(course.see(630, 500, now=60, claim=False), Fire)
    stuck = course.see(630, 500, now=60.1, claim=False)
    assert isinstance(stuck, NotFired)
    assert stuck.reason is Reason.METRICS_STALE


def test_a_clock_that_was_ahead_and_is_set_right_loses_nothing() -> None:
    """Its right samples are older than those from the future, and count from when the first one was seen."""
    course = Course(Rule(cpu_percent=80, for_seconds=30))
    course.see(600, 500, now=0)
    assert isinstance(course.see(15, 500, now=15), Hold)
    assert isinstance(course.see(29, 500, now=29), Hold)
    assert isinstance(course.see(30, 500, now=30), Fire)


def test_a_sample_older_than_the_last_one_is_no_news() -> None:
    """Two metrics-servers may answer in turn."""
    course = Course(CPU_80)
    course.see(15, 10, now=16)
    before = course.history
    older = course.see(10, 500, now=17)
    assert isinstance(older, NotFired)
    assert older.reason is Reason.METRICS_STALE
    assert course.history == before


def test_a_repeated_timestamp_is_no_new_sample() -> None:
    """D7: neither the mean nor the time sustained moves, and the answer stays the same."""
    course = Course(Rule(cpu_percent=80, for_seconds=10, rise_percent=50))
    course.see(0, 50)
    once = course.see(15, 100)
    before = course.history
    assert course.see(15, 100, now=20) == once
    assert course.see(15, 100, now=25) == once
    assert course.history == before


def test_a_captured_sample_does_not_fire_again_even_without_cooldown() -> None:
    """D1: the instant of an attempt is the sample's timestamp."""
    course = Course(CPU_80, cooldown=0)
    assert isinstance(course.see(0, 100), Fire)
    again = course.see(0, 100, now=10)
    assert isinstance(again, Hold)
    assert again.reason is Reason.COOLDOWN
    assert isinstance(course.see(15, 100), Fire)


def test_a_pod_that_has_to_wait_for_its_turn_fires_again() -> None:
    """D4: judging has no effect of its own; only the claim has."""
    course = Course(CPU_80, cooldown=300)
    one = course.see(0, 100, claim=False)
    assert course.see(0, 100, now=10, claim=False) == one
    assert isinstance(course.see(15, 100, claim=False), Fire)


def test_the_cooldown_holds_to_its_last_instant() -> None:
    """Nothing fires before `until`; at `until` it does; the sentence tells how long it lasts."""
    course = Course(CPU_80, cooldown=60)
    assert course.words((0, 100), (15, 100), (30, 50), (45, 100)) == ["Fire", "Cooldown", "BelowThreshold", "Cooldown"]
    held = course.see(59, 100)
    assert isinstance(held, Hold)
    assert held.sentence == "cpu 100% of request 500m, above 80%; the cooldown lasts 1 s more"
    assert isinstance(course.see(60, 100), Fire)


FOR_60 = Rule(cpu_percent=80, for_seconds=60)
RISE_50 = Rule(cpu_percent=20, rise_percent=50)
REARM_10 = Rule(cpu_percent=80, rearm_percent=10)


@pytest.mark.parametrize(
    ("rule", "samples", "expected"),
    [
        pytest.param(
            FOR_60,
            [(0, 90), (30, 90), (59, 90), (60, 90)],
            ["NotSustained", "NotSustained", "NotSustained", "Fire"],
            id="fires once it has lasted",
        ),
        pytest.param(
            FOR_60,
            [(0, 90), (30, 90), (45, 80), (60, 90), (119, 90), (120, 90)],
            ["NotSustained", "NotSustained", "BelowThreshold", "NotSustained", "NotSustained", "Fire"],
            id="one sample at the threshold starts the count anew",
        ),
        pytest.param(
            FOR_60,
            [(0, 90), (30, 90), (121, 90), (180, 90), (181, 90)],
            ["NotSustained", "NotSustained", "NotSustained", "NotSustained", "Fire"],
            id="a hole in the samples starts the count anew",
        ),
        pytest.param(
            FOR_60,
            [(0, 90), (90, 90)],
            ["NotSustained", "Fire"],
            id="two intervals and two windows are no hole yet",
        ),
        pytest.param(RISE_50, [(0, 100)], ["NotRising"], id="without an earlier sample nobody knows a rise"),
        pytest.param(
            RISE_50,
            [(0, 40), (30, 60), (60, 62), (90, 85)],
            ["NotRising", "NotRising", "NotRising", "Fire"],
            id="strictly above the mean of the earlier samples by that much",
        ),
        pytest.param(
            Rule(cpu_percent=80, rise_percent=50),
            [(0, 40), (30, 79)],
            ["BelowThreshold", "BelowThreshold"],
            id="a rise below the threshold is none",
        ),
        pytest.param(
            Rule(cpu_percent=80, rise_percent=50, for_seconds=60),
            [(0, 60), (30, 100), (60, 100), (90, 100)],
            ["BelowThreshold", "NotSustained", "NotSustained", "Fire"],
            id="a rise that lasts is compared with the mean from before it",
        ),
        pytest.param(
            RISE_50,
            [(0, 40), (30, 100), (60, 100), (90, 100), (120, 100)],
            ["NotRising", "Fire", "NotRising", "NotRising", "NotRising"],
            id="after the capture the new level is the normal one",
        ),
        pytest.param(
            REARM_10,
            [(0, 100), (30, 100), (60, 75), (90, 100), (120, 70), (150, 100), (180, 69), (210, 100)],
            [
                "Fire", "NotRearmed", "BelowThreshold", "NotRearmed", "BelowThreshold", "NotRearmed", "BelowThreshold",
                "Fire",
            ],
            id="fires again only after it fell below threshold less rearmPercent",
        ),
        pytest.param(
            Rule(cpu_percent=80),
            [(0, 100), (30, 100), (60, 75), (90, 100)],
            ["Fire", "Fire", "BelowThreshold", "Fire"],
            id="without rearmPercent the cooldown alone holds back",
        ),
    ],
)  # fmt: skip
def test_a_course_of_samples(rule: Rule, samples: list[tuple[float, float]], expected: list[str]) -> None:
    """forSeconds, risePercent and rearmPercent, one row a rule; no cooldown."""
    assert Course(rule).words(*samples) == expected


def test_memory_is_tracked_apart_from_cpu() -> None:
    """A CPU capture does not disarm memory, and each has its own count of seconds."""
    rule = Rule(cpu_percent=80, memory_percent=80, rearm_percent=10)
    history = History()
    fired: list[tuple[Resource, ...]] = []
    for when, cpu, memory in ((0, 0.5, 0.1), (30, 0.5, 0.9), (60, 0.5, 0.9)):
        sample = sample_of(rule, HALF, usage(when, app=(cpu, memory * GIB)))
        judgement = judge(rule, sample, history, at(when), None)
        history = judgement.history
        if isinstance(judgement.verdict, Fire):
            fired.append(judgement.verdict.resources)
            history = after_fire(history, judgement.verdict)
    assert fired == [(Resource.CPU,), (Resource.MEMORY,)]


percents = st.one_of(st.floats(0, 400), st.sampled_from([0.0, 20.0, 79.999999, 80.0, 80.000001, 120.0]))
rules = st.builds(
    Rule,
    cpu_percent=st.sampled_from([0, 20, 80, 150]),
    for_seconds=st.sampled_from([0, 45, 120]),
    rise_percent=st.sampled_from([0, 25]),
    rearm_percent=st.sampled_from([0, 10]),
    interval_seconds=st.just(30),
)
steps = st.lists(st.tuples(st.sampled_from([0.0, 10.0, 15.0, 30.0, 60.0, 300.0]), percents), max_size=40)


@given(rules, steps, st.sampled_from([0.0, 60.0, 300.0]))
def test_never_at_or_below_the_threshold_and_at_most_one_fire_a_cooldown(
    rule: Rule, course: list[tuple[float, float]], cooldown: float
) -> None:
    """Whatever the course: what fires is above, nothing fires when off, and fires keep their distance."""
    watched = Course(rule, cooldown)
    when = 0.0
    instants: list[float] = []
    for step, percent in course:
        when += step
        if isinstance(watched.see(when, percent), Fire):
            assert rule.cpu_percent
            assert percent > rule.cpu_percent * (1 - 1e-12)
            instants.append(when)
    assert all(later - earlier >= cooldown for earlier, later in pairwise(instants))
    assert len(set(instants)) == len(instants)


@given(st.lists(st.integers(1, 3), max_size=30), st.sampled_from([60, 90]))
def test_flapping_shorter_than_for_seconds_never_fires(bursts: list[int], for_seconds: int) -> None:
    """U1: runs of hot samples 15 s apart, each shorter than forSeconds, with one quiet sample between them."""
    watched = Course(Rule(cpu_percent=80, for_seconds=for_seconds))
    when = 0.0
    for burst in bursts:
        for _ in range(burst):
            when += 15
            assert not isinstance(watched.see(when, 500), Fire)
        when += 15
        watched.see(when, 80)


@given(rules, steps)
@settings(max_examples=50)
def test_judging_twice_gives_the_same_answer(rule: Rule, course: list[tuple[float, float]]) -> None:
    """A plan that is made again after a conflict decides the same."""
    watched = Course(rule)
    when = 0.0
    for step, percent in course:
        when += step
        sample = sample_of(rule, HALF, usage(when, app=(percent / 200, 0)))
        one = judge(rule, sample, watched.history, at(when), None)
        assert judge(rule, sample, watched.history, at(when), None) == one
        assert judge(rule, sample, one.history, at(when), None).verdict == one.verdict
        watched.history = one.history


def oracle(rule: Rule, cooldown: float, series: list[tuple[float, float]]) -> list[float]:
    """When a pod should fire, from its whole series at once and by the words of the rules, not by any running state."""
    fires: list[float] = []
    for index, (now, percent) in enumerate(series):
        if not percent > rule.cpu_percent:
            continue
        if fires and now - fires[-1] < cooldown:
            continue
        if rule.rearm_percent and fires:
            since = [value for when, value in series[: index + 1] if when > fires[-1]]
            if not any(value < rule.cpu_percent - rule.rearm_percent for value in since):
                continue
        start = index
        while (
            start > 0
            and series[start - 1][1] > rule.cpu_percent
            and series[start][0] - series[start - 1][0] <= 2 * (rule.interval_seconds + 15)
            and not (fires and series[start - 1][0] <= fires[-1])
        ):
            start -= 1
        if now - series[start][0] >= rule.for_seconds:
            fires.append(now)
    return fires


def noisy(random_: random.Random) -> list[tuple[float, float]]:
    """A day of one pod: a level that wanders, spikes, plateaus, and samples that fail to come."""
    series: list[tuple[float, float]] = []
    level, boost, boost_left = random_.uniform(10, 70), 0.0, 0
    for slot in range(24 * 120):
        level = min(95.0, max(5.0, level + random_.gauss(0, 2)))
        if boost_left == 0 and random_.random() < 0.01:
            boost, boost_left = random_.uniform(20, 120), random_.choice([1, 1, 2, 5, 20, 60])
        percent = level + (boost if boost_left else 0) + random_.gauss(0, 4)
        boost_left = max(0, boost_left - 1)
        if random_.random() > 0.03:
            series.append((slot * 30 + random_.randint(0, 9), round(max(0.0, percent), 3)))
    return series


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "cooldown"),
    [
        (Rule(cpu_percent=80), 300),
        (Rule(cpu_percent=80, for_seconds=60), 300),
        (Rule(cpu_percent=80, rearm_percent=15), 300),
        (Rule(cpu_percent=90, for_seconds=120, rearm_percent=10), 900),
    ],
    ids=["plain", "for 60 s", "rearm 15", "all"],
)
def test_a_day_of_fifty_noisy_pods_fires_exactly_as_the_oracle_says(rule: Rule, cooldown: int) -> None:
    """H30: 24 simulated hours, seed 30; every fire is one that the rules ask for, and none is missing."""
    random_ = random.Random(30)
    total = 0
    for _ in range(50):
        series = noisy(random_)
        watched = Course(rule, cooldown)
        fired = [when for when, percent in series if isinstance(watched.see(when, percent), Fire)]
        assert fired == oracle(rule, cooldown, series)
        total += len(fired)
    assert total > 200
