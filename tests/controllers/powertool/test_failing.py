"""What a failed attempt means for its target and for the others."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from powertool_world import NOW, after, done, failed, observe, pod, states, tool

from toe_async.apis.powertool import FailureBackoff, FailurePolicy, Phase, TargetState
from toe_async.controllers.powertool.facts import Observed, Plan
from toe_async.controllers.powertool.failing import wait
from toe_async.controllers.powertool.plan import plan

RETRY = {"failurePolicy": {"onError": "retry", "backoff": {"initial": "10s", "max": "1m", "attempts": 3}}}


def failing(seen: Observed, decided: Plan, *, passing: bool = True) -> Observed:
    """Everything that the plan started has failed."""
    progress = {key: one for start in decided.starts for key, one in failed(start, passing=passing).items()}
    return replace(after(seen, decided), progress=progress, running=frozenset())


@pytest.mark.parametrize(
    ("attempt", "multiplier", "seconds"),
    [(1, "2", 10), (2, "2", 20), (3, "2", 40), (4, "2", 60), (999, "2", 60), (2, "1.5", 15), (3, "1", 10)],
)
def test_waits_grow_by_the_multiplier_up_to_their_maximum(attempt: int, multiplier: str, seconds: int) -> None:
    """initial * multiplier^(n-1), no longer than max."""
    policy = FailurePolicy(on_error="retry", backoff=FailureBackoff(initial="10s", max="1m", multiplier=multiplier))
    assert wait(policy, attempt) == timedelta(seconds=seconds)


def test_a_failed_attempt_is_tried_again_after_its_wait_as_a_new_capture() -> None:
    """Waiting in between with the reason shown; then attempt 2 with another id; then Completed."""
    seen = observe([pod(0)], tool(RETRY))
    first = plan(seen)
    decided = plan(failing(seen, first))
    (row,) = decided.status.targets
    assert (row.state, row.attempt, row.reason, row.exit_code) == (TargetState.WAITING, 1, "ToolFailed", 1)
    assert row.next_at == NOW + timedelta(seconds=10)
    assert decided.status.phase is Phase.RUNNING
    assert decided.recheck_seconds == 10
    (told,) = decided.events
    assert (told.reason, told.pod, told.warning) == ("ToolFailed", "web-0", True)
    assert told.message.endswith("exit code 1; it is tried again")
    assert decided.finalizer
    seen = after(seen, decided)
    assert plan(replace(seen, now=NOW + timedelta(seconds=9))).starts == ()
    (second,) = plan(replace(seen, now=NOW + timedelta(seconds=10))).starts
    assert second.attempt == 2
    assert second.id != first.starts[0].id
    again = plan(replace(seen, now=NOW + timedelta(seconds=10)))
    assert again.status.targets[0].reason == ""
    final = plan(replace(after(seen, again), progress=done(second)))
    assert (final.status.phase, final.status.failed_pods) == (Phase.COMPLETED, 0)


def test_attempts_are_counted_and_the_last_one_is_final() -> None:
    """Three in all: 10 s and 20 s lie between them."""
    seen = observe([pod(0)], tool(RETRY))
    decided, waits, starts = plan(seen), [], 0
    while not decided.status.finished_at:
        starts += len(decided.starts)
        seen = failing(seen, decided) if decided.starts else after(seen, decided, decided.recheck_seconds or 0)
        if not decided.starts:
            waits.append(decided.recheck_seconds)
        decided = plan(seen)
    assert starts == 3
    assert waits == [10, 20]
    assert (decided.status.phase, decided.status.targets[0].attempt) == (Phase.FAILED, 3)


@pytest.mark.parametrize(
    ("spec", "passing"),
    [
        pytest.param({}, True, id="continue"),
        pytest.param(RETRY, False, id="a failure that stays"),
        pytest.param({"failurePolicy": {"onError": "stop"}}, True, id="stop"),
        pytest.param({"failurePolicy": {"onError": "retry", "backoff": {"attempts": 1}}}, True, id="one attempt"),
    ],
)
def test_without_leave_or_hope_nothing_is_tried_again(spec: dict[str, Any], passing: bool) -> None:
    """PT2: no silent retry."""
    seen = observe([pod(0)], tool(spec))
    decided = plan(failing(seen, plan(seen), passing=passing))
    assert decided.status.phase is Phase.FAILED
    assert not decided.starts
    assert "tried again" not in decided.events[-1].message


def test_a_run_that_is_ending_tries_nothing_again() -> None:
    """After its deadline a failed attempt is just failed."""
    seen = observe([pod(0)], tool({**RETRY, "activeDeadlineSeconds": 30}))
    late = replace(failing(seen, plan(seen)), now=NOW + timedelta(seconds=30))
    assert plan(late).status.phase is Phase.FAILED


def test_stop_lets_what_runs_finish_and_begins_nothing_more() -> None:
    """The first failure cancels those that wait, with the reason; the running one completes."""
    seen = observe(
        [pod(number) for number in range(4)],
        tool({"failurePolicy": {"onError": "stop"}, "budgets": {"maxConcurrentPods": 2}}),
    )
    first = plan(seen)
    bad, good = first.starts
    seen = replace(after(seen, first), progress=failed(bad))
    decided = plan(seen)
    assert states(decided.status) == {TargetState.FAILED: 1, TargetState.STARTING: 1, TargetState.CANCELLED: 2}
    assert not decided.cancels
    assert {row.reason for row in decided.status.targets if row.state is TargetState.CANCELLED} == {
        "StoppedByFailurePolicy"
    }
    final = plan(replace(after(seen, decided), progress=done(good)))
    assert final.status.phase is Phase.PARTIALLY_FAILED


def test_continue_goes_through_all_targets() -> None:
    """The default: one failure is one failure."""
    seen = observe([pod(number) for number in range(3)], tool({"budgets": {"maxConcurrentPods": 1}}))
    decided = plan(seen)
    for _ in range(3):
        seen = failing(seen, decided)
        decided = plan(seen)
    assert (decided.status.failed_pods, decided.status.phase) == (3, Phase.FAILED)
