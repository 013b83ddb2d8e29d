"""Scheduled PowerTools: when a run begins, what becomes of missed slots, and what is kept of runs."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from powertool_world import NOW, after, condition, done, observe, pod, refused, states, tool

from toe_async.apis.powertool import Phase, PowerTool, TargetState
from toe_async.apis.reasons import Reason
from toe_async.controllers.powertool.facts import Observed
from toe_async.controllers.powertool.plan import plan
from toe_async.controllers.powertool.schedule import may_begin
from toe_async.lib import cron

HOURLY = {"schedule": "@hourly"}
NINE = datetime.fromisoformat("2026-01-24T21:00:00+00:00")  # the first slot after NOW


def at(seen: Observed, minutes: float) -> Observed:
    """So many minutes after nine o'clock."""
    return replace(seen, now=NINE + timedelta(minutes=minutes))


def hourly(**spec: Any) -> Observed:
    """One pod and a PowerTool with a slot every hour, a minute after its creation."""
    return observe([pod(0)], tool({**HOURLY, **spec}))


def finished(seen: Observed, minutes: float) -> Observed:
    """The run that goes on ends well at that time."""
    (start,) = plan(replace(seen, running=frozenset())).resumes
    ended = replace(at(seen, minutes), progress=done(start), running=frozenset())
    return after(ended, plan(ended))


def test_nothing_begins_before_the_first_slot_and_the_status_says_when() -> None:
    """Pending, with the instant in nextRunAt and in the sentence."""
    decided = plan(hourly())
    assert decided.status.phase is Phase.PENDING
    assert decided.status.next_run_at == NINE
    assert "due at 2026-01-24T21:00:00Z" in condition(decided.status, "Running").message
    assert decided.recheck_seconds == (NINE - NOW).total_seconds()


def test_each_run_is_one_of_its_slot_with_captures_of_its_own() -> None:
    """run and scheduledAt name the slot; the next run has other capture ids, and starts from nothing."""
    seen = at(hourly(), 0.5)
    first = plan(seen)
    assert (first.status.run, first.status.scheduled_at) == ("2026-01-24T21:00:00Z", NINE)
    assert first.starts[0].run == first.status.run
    over = finished(after(seen, first), 3)
    assert over.tool.status.phase is Phase.COMPLETED
    assert over.tool.status.bytes_written == 7
    idle = plan(at(over, 30))
    assert idle.starts == ()
    assert idle.status.phase is Phase.COMPLETED, "a terminal phase stays until the next run"
    assert condition(idle.status, "Complete").reason == "Completed"
    second = plan(at(after(over, idle), 60))
    assert second.starts[0].id != first.starts[0].id
    assert (second.status.phase, second.status.run) == (Phase.RUNNING, "2026-01-24T22:00:00Z")
    assert (second.status.bytes_written, second.status.artifacts, second.status.finished_at) == (0, (), None)
    assert str(condition(second.status, "Complete").status) == "False"
    assert [one.reason for one in second.events] == ["CaptureStarted"]
    assert idle.events == ()
    (record,) = second.status.runs
    assert (record.scheduled_at, record.phase, record.selected_pods) == (NINE, Phase.COMPLETED, 1)
    assert record.finished_at == NINE + timedelta(minutes=3)


def test_a_run_takes_the_pods_that_match_when_it_begins() -> None:
    """Frozen for a run, chosen anew for the next."""
    seen = at(hourly(), 0)
    over = finished(after(seen, plan(seen)), 1)
    grown = replace(over, candidates=observe([pod(1), pod(2)]).candidates)
    assert {one.target.pod for one in plan(at(grown, 60)).starts} == {"web-1", "web-2"}
    assert plan(at(grown, 30)).starts == ()


def test_of_a_hundred_missed_slots_only_the_latest_is_made_up_for() -> None:
    """The operator was away for days."""
    seen = at(hourly(), 60 * 100 + 5)
    decided = plan(seen)
    assert decided.status.scheduled_at == NINE + timedelta(hours=100)
    over = finished(after(seen, decided), 60 * 100 + 6)
    assert plan(at(over, 60 * 100 + 7)).starts == ()


@pytest.mark.parametrize(("late", "begins"), [(0, True), (60, True), (61, False)])
def test_a_slot_that_is_too_late_is_passed_over(late: float, begins: bool) -> None:
    """startingDeadlineSeconds is 60 here."""
    decided = plan(at(hourly(startingDeadlineSeconds=60), late / 60))
    assert bool(decided.starts) is begins
    assert decided.status.next_run_at == NINE + timedelta(hours=1)


@pytest.mark.parametrize(
    ("policy", "begins"),
    [
        pytest.param("Forbid", None, id="a slot during a run is passed over"),
        pytest.param("Allow", NINE + timedelta(hours=2), id="the latest one begins right after"),
    ],
)
def test_a_slot_that_comes_while_a_run_goes_on(policy: str, begins: datetime | None) -> None:
    """One run at a time: the run of nine o'clock lasts until five past eleven."""
    seen = at(hourly(concurrencyPolicy=policy), 0)
    seen = after(seen, plan(seen))
    during = plan(at(seen, 61))
    assert during.cancels == ()
    assert during.starts == ()
    seen = after(at(seen, 61), during)
    over = finished(seen, 125)
    decided = plan(at(over, 126))
    assert bool(decided.starts) is (begins is not None)
    assert decided.status.scheduled_at == (begins or NINE)
    assert plan(at(after(over, decided), 126)).starts == ()


def test_replace_ends_the_run_that_goes_on_and_begins_the_next() -> None:
    """Cancelled with the reason, recorded, and then the new slot's run."""
    seen = at(hourly(concurrencyPolicy="Replace"), 0)
    first = plan(seen)
    seen = after(seen, first)
    assert plan(at(seen, 59)).cancels == ()
    decided = plan(at(seen, 60))
    assert [one.capture for one in decided.cancels] == [first.starts[0].id]
    assert "replaced by the run that is due at 2026-01-24T22:00:00Z" in decided.cancels[0].message
    ended = replace(at(after(seen, decided), 61), progress=done(first.starts[0], TargetState.CANCELLED))
    over = plan(ended)
    assert over.status.phase is Phase.CANCELLED
    second = plan(after(ended, over))
    assert second.status.run == "2026-01-24T22:00:00Z"
    assert second.status.runs[0].phase is Phase.CANCELLED


def test_replace_ends_nothing_while_the_next_run_may_not_begin() -> None:
    """What runs is finished; once the next one may begin, it takes its place."""
    seen = at(hourly(concurrencyPolicy="Replace"), 0)
    seen = at(after(seen, plan(seen)), 60)
    suspended = replace(seen, tool=replace(seen.tool, spec=replace(seen.tool.spec, suspend=True)))
    assert plan(suspended).cancels == ()
    assert plan(replace(seen, policy_problem="no policy")).cancels == ()
    assert len(plan(seen).cancels) == 1


def test_a_suspended_schedule_begins_nothing_and_makes_up_for_the_latest_slot_afterwards() -> None:
    """As for a CronJob: slots of the suspended time count as missed."""
    paused = plan(at(hourly(suspend=True), 5))
    assert paused.starts == ()
    assert paused.status.next_run_at is None
    assert condition(paused.status, "Running").reason == "Suspended"
    assert plan(at(hourly(), 65)).status.scheduled_at == NINE + timedelta(hours=1)


def test_a_run_without_targets_is_recorded_and_the_next_one_comes() -> None:
    """NoMatchingPods fails that run only."""
    seen = replace(at(hourly(), 0), candidates=())
    decided = plan(seen)
    assert (decided.status.phase, len(decided.status.runs)) == (Phase.FAILED, 1)
    assert decided.status.runs[0].message.startswith("no pod in shop")
    later = replace(at(after(seen, decided), 60), candidates=hourly().candidates)
    assert len(plan(later).starts) == 1
    assert plan(at(after(seen, decided), 30)).status.phase is Phase.FAILED


def test_a_refused_run_begins_when_the_refusal_ends() -> None:
    """The slot stays due; only startingDeadlineSeconds makes it pass."""
    seen = at(replace(hourly(), refusal=refused(Reason.INVALID_SPEC)), 1)
    decided = plan(seen)
    assert decided.starts == ()
    assert len(plan(replace(at(after(seen, decided), 9), refusal=None)).starts) == 1


def test_the_last_ten_runs_are_kept() -> None:
    """The oldest goes first."""
    seen = hourly()
    for hour in range(12):
        seen = at(seen, 60 * hour)
        decided = plan(seen)
        seen = finished(after(seen, decided), 60 * hour + 1)
    runs = seen.tool.status.runs
    assert [one.scheduled_at for one in runs] == [NINE + timedelta(hours=hour) for hour in range(2, 12)]


def test_slots_are_those_of_the_zone() -> None:
    """02:30 in Berlin is 01:30 UTC in winter."""
    seen = replace(observe([pod(0)], tool({"schedule": "30 2 * * *"})), zone=cron.zone("Europe/Berlin"))
    assert str(plan(seen).status.next_run_at) == "2026-01-25 01:30:00+00:00"


def test_a_run_of_a_schedule_survives_a_restart() -> None:
    """The same captures are taken up; no second run of the slot."""
    seen = at(hourly(), 0)
    first = plan(seen)
    again = plan(replace(at(after(seen, first), 5), running=frozenset()))
    assert again.resumes == first.starts
    assert again.starts == ()
    assert states(again.status) == {TargetState.STARTING: 1}


@pytest.mark.parametrize(
    ("one", "minutes", "wanted"),
    [
        pytest.param(tool(), 0, True, id="one shot, new"),
        pytest.param(tool({"suspend": True}), 0, False, id="suspended"),
        pytest.param(tool(deletionTimestamp=NOW.isoformat()), 0, False, id="deleted"),
        pytest.param(tool(status={"startedAt": NOW.isoformat()}), 0, False, id="goes on"),
        pytest.param(
            tool(status={"startedAt": NOW.isoformat(), "finishedAt": NOW.isoformat()}), 0, False, id="one shot, over"
        ),
        pytest.param(tool(HOURLY), -1, False, id="before the slot"),
        pytest.param(tool(HOURLY), 0, True, id="at the slot"),
        pytest.param(tool({"schedule": "never"}), 0, False, id="no schedule that can be read"),
    ],
)
def test_candidates_are_needed_only_when_a_run_may_begin(one: PowerTool, minutes: float, wanted: bool) -> None:
    """So that ten thousand pods are not looked at for every change of a run."""
    assert may_begin(one, cron.zone(""), NINE + timedelta(minutes=minutes)) is wanted
