"""Decisions about a ProfilingConfig: one row a rule, and what holds for every plan."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from profilingconfig_facts import NOW, config, facts, observe, pod

from toe_async.apis.meta import Condition, ConditionStatus
from toe_async.apis.profilingstatus import CaptureState, CaptureStatus, ProfilingConfigStatus
from toe_async.controllers.profilingconfig.accounting import received
from toe_async.controllers.profilingconfig.facts import Observed, Plan
from toe_async.controllers.profilingconfig.plan import plan
from toe_async.controllers.profilingconfig.refusals import REFUSALS

ON_DEMAND = {"onDemand": {"enabled": True, "intervalSeconds": 60}}
CPU = {"cpuThresholdPercent": 80}
HOT = 0.9  # cores, of half a core asked for


def condition(decided: Plan, type_: str) -> Condition:
    """The condition of that type in the planned status."""
    return next(one for one in decided.status.conditions if one.type == type_)


def row(**changes: Any) -> dict[str, Any]:
    """A capture's row as the API server keeps it."""
    return {
        "id": "old",
        "pod": "web-1",
        "podUID": "uid-web-1",
        "container": "app",
        "reason": "threshold-exceeded",
        "state": "Capturing",
        "holder": "replica-a",
        "startedAt": "2026-01-24T20:43:00Z",
        "deadline": "2026-01-24T20:50:00Z",
        **changes,
    }


def taken_over(seen: Observed, decided: Plan) -> Observed:
    """The world after the plan's status was written."""
    return replace(seen, config=replace(seen.config, status=decided.status), soft_written=seen.now)


def test_a_hot_pod_is_claimed_with_its_cooldown_in_the_same_status() -> None:
    """D2: what is written before the capture starts carries id, holder, deadline and cooldown."""
    decided = plan(observe(facts(cpu=HOT)))
    (start,) = decided.starts
    (claimed,) = decided.status.recent
    (cooldown,) = decided.status.cooldowns
    assert decided.urgent
    assert (claimed.id, claimed.state, claimed.holder) == (start.record.id, CaptureState.CAPTURING, "replica-a")
    assert claimed.deadline == start.deadline > NOW + timedelta(seconds=30)
    assert cooldown.until == NOW + timedelta(seconds=300)
    assert start.record.reason == "threshold-exceeded"
    assert "180% of request 500m" in start.record.trigger
    assert decided.violations == ("cpu",)


@pytest.mark.parametrize(
    ("facts_", "spec", "reason"),
    [
        pytest.param({"cpu": 0.1}, {}, "BelowThreshold", id="below"),
        pytest.param({"cpu": 0.4}, {}, "BelowThreshold", id="exactly at the threshold is not above"),
        pytest.param({"cpu": None}, {}, "MetricsAbsent", id="absent metrics are unknown, not zero"),
        pytest.param({"cpu": HOT, "at": NOW - timedelta(minutes=5)}, {}, "MetricsStale", id="stale metrics"),
        pytest.param({"cpu": HOT, "pod": pod(phase="Pending")}, {}, "PodNotRunning", id="pending"),
        pytest.param({"cpu": HOT, "pod": pod(terminating=True)}, {}, "PodNotRunning", id="terminating"),
        pytest.param(
            {"cpu": HOT, "pod": pod(annotations={"profiling.io/enabled": "true", "profiling.io/port": "x"})},
            {},
            "BadAnnotation",
            id="a bad port is not replaced by 6060",
        ),
        pytest.param({"cpu": HOT, "pod": pod(host_network=True, containers=())}, {}, "HostNetworkRefused", id="host"),
        pytest.param({"cpu": HOT}, {"thresholds": {"memoryThresholdPercent": 9}}, "BelowThreshold", id="cpu not named"),
        pytest.param({"cpu": HOT}, {"thresholds": {**CPU, "forSeconds": 60}}, "NotSustained", id="not for long enough"),
        pytest.param({"cpu": HOT}, {"thresholds": {**CPU, "of": "Limit"}}, "NoBase", id="no limit"),
    ],
)  # fmt: skip
def test_a_pod_that_is_not_captured_is_counted_with_its_reason(
    facts_: dict[str, Any], spec: dict[str, Any], reason: str
) -> None:
    """Nothing is left out in silence: each pod that is held back has one reason in notFired."""
    decided = plan(observe(facts(**facts_), spec=spec))
    assert decided.starts == ()
    assert decided.status.not_fired == {reason: 1}


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        pytest.param({"free_captures": 0}, {}, "Busy", id="the process takes no more"),
        pytest.param({"busy": frozenset({"uid-web-1"})}, {}, "Busy", id="another config captures this pod"),
        pytest.param({}, {"recent": [row(podUID="x", holder="b")]}, "Busy", id="maxConcurrent is one"),
        pytest.param({"spool_problem": "full"}, {}, "StoreFull", id="the spool is full"),
        pytest.param(
            {},
            {"recent": [row(id=str(n), podUID="x", state="Uploading") for n in range(80)]},
            "StoreFull",
            id="too much waits for its sink",
        ),
        pytest.param(
            {},
            {
                "cooldowns": [
                    {"podUID": str(n), "reason": "on-demand", "until": "2026-01-24T21:00:00Z"} for n in range(500)
                ]
            },
            "CooldownTableFull",
            id="the cooldown table is full",
        ),
        pytest.param(
            {},
            {"cooldowns": [{"podUID": "uid-web-1", "reason": "threshold-exceeded", "until": "2026-01-24T20:45:00Z"}]},
            "Cooldown",
            id="captured a moment ago",
        ),
    ],
)
def test_a_hot_pod_waits_for_its_turn(changes: dict[str, Any], status: dict[str, Any], reason: str) -> None:
    """Each limit holds and has its own reason."""
    decided = plan(observe(facts(cpu=HOT), status=status, **changes))
    assert decided.starts == ()
    assert decided.status.not_fired == {reason: 1}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"policy_problem": "not there; apply it"}, "PolicyMissing", id="policy"),
        pytest.param({"sink_problem": "add this line"}, "SinkNotAllowed", id="sink"),
        pytest.param({"granted": False}, "NamespaceNotGranted", id="grant"),
    ],
)
def test_a_refused_configuration_starts_nothing_and_stops_what_runs(changes: dict[str, Any], reason: str) -> None:
    """H22: a grant that is withdrawn ends running captures; conditions carry the reason and the way out."""
    seen = observe(
        facts("web-1", HOT), facts("web-2", HOT), status={"recent": [row(id="mine")]},
        running=frozenset({"mine"}), **changes,
    )  # fmt: skip
    decided = plan(seen)
    assert decided.starts == ()
    assert decided.cancel == ("mine",)
    for type_ in ("Accepted", "Ready"):
        assert (condition(decided, type_).status, condition(decided, type_).reason) == (ConditionStatus.FALSE, reason)


def test_the_order_of_refusals_is_fixed() -> None:
    """The first refusal is told: rights before the spec, the spec before other people's namespaces."""
    assert [check.__name__ for check in REFUSALS] == ["_policy", "_selector", "_sinks", "_grant"]


def test_an_impossible_selector_is_a_condition_not_a_crash() -> None:
    """An expression that admission did not see (an older CRD) is told with its field."""
    bad = {"selector": {"matchExpressions": [{"key": "app", "operator": "In"}]}}
    decided = plan(observe(facts(cpu=HOT), spec=bad))
    assert condition(decided, "Accepted").reason == "InvalidSpec"
    assert "matchExpressions" in condition(decided, "Accepted").message


def test_whoever_waited_longest_goes_first() -> None:
    """D4: never captured before long ago before a moment ago, whatever the names say."""
    pods = [
        facts("a", HOT, last_started=NOW - timedelta(minutes=6)),
        facts("b", HOT, last_started=NOW - timedelta(hours=2)),
        facts("c", HOT),
    ]
    order = [start.record.target.pod for start in plan(observe(*pods, spec={"maxConcurrent": 3})).starts]
    assert order == ["c", "b", "a"]
    assert [start.record.target.pod for start in plan(observe(*pods)).starts] == ["c"]


def test_an_interval_serves_each_pod_once_a_slot() -> None:
    """On demand: the slot is in the id, the rest of the slot is a cooldown of its own kind, hot or not."""
    seen = observe(facts("a", 0.01), spec=ON_DEMAND)
    first = plan(seen)
    (start,) = first.starts
    assert start.record.reason == "on-demand"
    assert first.status.cooldowns[0].until.timestamp() % 60 == 0
    assert plan(replace(taken_over(seen, first), busy=frozenset())).starts == ()
    finished = replace(first.status, recent=())
    later = replace(seen, now=NOW + timedelta(seconds=60), config=replace(seen.config, status=finished))
    (again,) = plan(later).starts
    assert again.record.id != start.record.id


def test_thresholds_are_off_by_default_when_an_interval_is_asked_for() -> None:
    """D5: onDemand without thresholds needs no metrics; naming them brings them back."""
    decided = plan(observe(facts("a", HOT), spec=ON_DEMAND, metrics_problem="no metrics API"))
    assert [start.record.reason for start in decided.starts] == ["on-demand"]
    assert condition(decided, "MetricsUnavailable").status == ConditionStatus.FALSE
    both = plan(observe(facts("a", HOT), spec={**ON_DEMAND, "thresholds": {"cpuThresholdPercent": 80}}))
    assert [start.record.reason for start in both.starts] == ["threshold-exceeded"]


def test_suspended_starts_nothing_and_finishes_what_runs() -> None:
    """suspend is no cancellation."""
    decided = plan(
        observe(facts(cpu=HOT), spec={"suspend": True}, status={"recent": [row()]}, running=frozenset({"old"}))
    )
    assert (decided.starts, decided.cancel) == ((), ())
    assert condition(decided, "Ready").reason == "Suspended"


@pytest.mark.parametrize(
    ("changes", "row_", "state"),
    [
        pytest.param({}, row(holder="replica-b"), None, id="another replica works on it"),
        pytest.param({"gone": frozenset({"replica-b"})}, row(holder="replica-b"), "Lost", id="its replica is gone"),
        pytest.param(
            {"now": NOW + timedelta(minutes=7)}, row(holder="replica-b"), "Lost", id="its deadline is long over"
        ),
        pytest.param({"running": frozenset({"old"})}, row(), None, id="we work on it"),
        pytest.param({}, row(), "Lost", id="we restarted in the middle of it"),
        pytest.param({}, row(state="Uploading"), None, id="our spool still delivers it"),
        pytest.param(
            {"gone": frozenset({"replica-b"})},
            row(
                holder="replica-b",
                state="Uploading",
                artifacts=[
                    {"type": "heap", "state": "Stored", "size": 5},
                    {"type": "cpu", "state": "Captured", "size": 5},
                ],
            ),
            "PartiallyStored",
            id="its replica went before all was stored",
        ),
        pytest.param({"gone": frozenset({"replica-b"})}, row(holder="replica-b", state="Stored"), None, id="final"),
    ],
)
def test_a_capture_is_given_up_only_when_nobody_works_on_it(
    changes: dict[str, Any], row_: dict[str, Any], state: str | None
) -> None:
    """What was lost is said, with ReplicaGone; what may still come is left alone (G3)."""
    decided = plan(observe(facts(cpu=0.01), status={"recent": [row_]}, **changes))
    if state is None:
        assert decided.lost == ()
        assert decided.status.recent[0].state == row_["state"]
    else:
        assert decided.lost == ("old",)
        assert decided.status.recent[0].state == state
        assert decided.status.recent[0].finished_at is not None


def test_the_same_attempt_is_never_claimed_twice() -> None:
    """G1: a sample that was captured already is counted as a prevented duplicate, even when its cooldown is gone."""
    seen = observe(facts(cpu=HOT), spec={"maxConcurrent": 5})
    first = plan(seen)
    status = replace(first.status, cooldowns=())
    again = plan(
        replace(seen, config=replace(seen.config, status=status), running=frozenset({first.starts[0].record.id}))
    )
    assert again.starts == ()
    assert again.duplicates == 1


def test_two_replicas_that_see_the_same_facts_derive_the_same_id() -> None:
    """D1: the id depends on the facts, not on who looks."""
    one, other = plan(observe(facts(cpu=HOT))), plan(observe(facts(cpu=HOT), holder="replica-b"))
    assert one.starts[0].record.id == other.starts[0].record.id


@pytest.mark.parametrize(
    ("pods", "changes", "truth", "reason", "said"),
    [
        ((), {}, "True", "NoMatchingPods", "no pod in namespace shop matches"),
        ((), {"matched": 3}, "True", "NoOptedInPods", "profiling.io/enabled=true"),
        ((facts(cpu=0.1),), {"matched": 4}, "True", "Watching", "4 pods match, 1 opted in, 0 above"),
        ((facts(cpu=0.35),), {}, "True", "Watching", "web-1: cpu at 70 to 80% of its request, threshold 80%"),
        ((facts(cpu=0.1),), {"metrics_problem": "no API: install it"}, "False", "MetricsUnavailable", "install it"),
        ((), {"pods_problem": "may not list pods"}, "False", "WatchForbidden", "may not list"),
        ((facts(cpu=0.1),), {"store_problem": "bucket is missing"}, "True", "Watching", "bucket is missing"),
    ],
)
def test_ready_says_why_nothing_happened(
    pods: tuple[Any, ...], changes: dict[str, Any], truth: str, reason: str, said: str
) -> None:
    """D12: one sentence that answers the first question of anybody who waits for a profile."""
    ready = condition(plan(observe(*pods, **changes)), "Ready")
    assert (ready.status, ready.reason) == (truth, reason)
    assert said in ready.message


def test_a_quiet_world_is_written_once() -> None:
    """D40: the same quiet facts, a minute or an hour later, ask for no write; small changes of a load neither."""
    seen = observe(facts("a", 0.05), facts("b", 0.11))
    settled = taken_over(seen, plan(seen))
    for minutes, cpu in ((1, 0.05), (5, 0.12), (60, 0.01)):
        now = NOW + timedelta(minutes=minutes)
        at = now - timedelta(seconds=5)
        later = replace(settled, now=now, pods=(facts("a", cpu, at=at), facts("b", 0.11, at=at)))
        decided = plan(later)
        assert decided.status == settled.config.status
        assert not decided.urgent


def test_a_soft_change_is_not_urgent_and_asks_for_a_later_look() -> None:
    """D12: counts wait for their minute; a condition that turns does not."""
    seen = observe(facts("a", 0.05))
    settled = taken_over(seen, plan(seen))
    more = plan(replace(settled, pods=(*settled.pods, facts("b", 0.05)), matched=2))
    assert not more.urgent
    assert more.recheck_seconds == 60
    turned = plan(replace(settled, metrics_problem="gone"))
    assert turned.urgent


def test_degraded_tells_of_the_last_capture_and_heals() -> None:
    """A capture that brought nothing is a condition until one succeeds (G3)."""
    failed = row(state="Failed", finishedAt="2026-01-24T20:43:10Z", artifacts=[
        {"type": "heap", "state": "Failed", "reason": "PortRefused", "message": "nothing listens on 6060"}
    ])  # fmt: skip
    good = row(id="new", state="Stored", finishedAt="2026-01-24T20:44:00Z")
    bad = condition(plan(observe(facts(), status={"recent": [failed]})), "Degraded")
    assert (bad.status, bad.reason) == ("True", "CapturesFailing")
    assert "PortRefused: nothing listens on 6060" in bad.message
    assert condition(plan(observe(facts(), status={"recent": [failed, good]})), "Degraded").status == "False"


def test_a_withdrawn_opt_in_stops_its_capture() -> None:
    """PR4: a pod that is deleted, un-annotated or no longer selected is left alone at once."""
    decided = plan(observe(facts("other", 0.1), status={"recent": [row()]}, running=frozenset({"old"})))
    assert decided.cancel == ("old",)


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 2)), max_size=6, unique_by=lambda one: one[0]),
    st.integers(1, 4),
    st.integers(0, 5),
    st.booleans(),
)
def test_limits_hold_for_every_plan(pods: list[tuple[str, float]], concurrent: int, free: int, interval: bool) -> None:
    """No plan exceeds a limit, captures a pod twice, or starts without a claim; the plan survives JSON."""
    spec = {"maxConcurrent": concurrent, **(ON_DEMAND if interval else {})}
    seen = observe(*(facts(name, cpu) for name, cpu in pods), spec=spec, free_captures=free)
    decided = plan(seen)
    uids = [start.record.target.pod_uid for start in decided.starts]
    assert len(uids) == len(set(uids)) <= min(concurrent, free)
    assert {start.record.id for start in decided.starts} == {row.id for row in decided.status.recent}
    assert msgspec.json.decode(msgspec.json.encode(decided.status), type=ProfilingConfigStatus) == decided.status
    assert plan(seen) == decided


def test_a_small_world_settles_and_stays_settled() -> None:
    """Plans applied until nothing changes: every hot pod is captured once, then only time could start another."""
    seen = observe(*(facts(name, HOT) for name in "abcd"), spec={"maxConcurrent": 2})
    captured: list[str] = []
    for _ in range(10):
        decided = plan(seen)
        captured += [start.record.target.pod for start in decided.starts]
        status = decided.status
        for one in decided.starts:
            status = received(status, one.record.id, (), NOW, NOW)
        histories = decided.histories
        pods = tuple(
            replace(
                one,
                history=histories.get(one.pod.uid, one.history),
                last_started=NOW if one.pod.name in captured else None,
            )
            for one in seen.pods
        )
        seen = replace(seen, config=replace(seen.config, status=status), soft_written=NOW, pods=pods)
    assert sorted(captured) == ["a", "b", "c", "d"]
    settled = plan(seen)
    assert settled.starts == ()
    assert settled.status == seen.config.status


def test_rows_are_bounded() -> None:
    """Twenty finished captures are kept and every unfinished one, far below the CRD's bound."""
    rows = [row(id=f"f{n}", state="Failed", finishedAt="2026-01-24T20:43:10Z") for n in range(40)]
    rows += [row(id=f"u{n}", state="Uploading", podUID="x") for n in range(79)]
    decided = plan(observe(facts(cpu=HOT), status={"recent": rows}))
    assert len(decided.starts) == 1
    kept: tuple[CaptureStatus, ...] = decided.status.recent
    assert sum(one.state.final for one in kept) == 20
    assert len(kept) == 100


def test_the_sink_is_the_one_that_the_spec_names() -> None:
    """An S3 sink keeps every field; the collector's default is the configured one."""
    s3 = {"bucket": "profiles", "prefix": "p", "region": "r", "endpoint": "https://s3.example.org"}
    made = config({"s3Config": s3})
    seen = observe(facts(cpu=HOT))
    spec = replace(made.spec, collector=None)
    decided = plan(replace(seen, config=replace(made, spec=spec)))
    sink = msgspec.to_builtins(decided.starts[0].record.sink)
    assert {key: sink[key] for key in s3} == s3
    default = plan(seen).starts[0].record.sink
    assert msgspec.to_builtins(default)["endpoint"] == "https://toe-collector.toe-system.svc:8443"


def test_a_new_leader_leaves_standing_what_it_has_not_looked_into() -> None:
    """A leader change with a thousand configurations must not write each of them twice for nothing."""
    seen = observe(facts("a", 0.05), store_problem="bucket is missing", metrics_problem="no API")
    settled = taken_over(seen, plan(seen))
    fresh = replace(settled, store_problem=None, store_probed=False, metrics_problem=None, metrics_polled=False)
    after = plan(fresh)
    for type_ in ("StoreReachable", "Degraded", "MetricsUnavailable"):
        assert condition(after, type_) == condition(plan(settled), type_)


def test_a_pod_that_found_no_place_is_looked_at_again_soon() -> None:
    """A slot of a day must not pass because the operator was busy for a moment."""
    spec = {"onDemand": {"enabled": True, "intervalSeconds": 86400}}
    held = plan(observe(facts("a", 0.01), spec=spec, free_captures=0))
    assert held.status.not_fired == {"Busy": 1}
    assert held.recheck_seconds is not None
    assert held.recheck_seconds <= 30
