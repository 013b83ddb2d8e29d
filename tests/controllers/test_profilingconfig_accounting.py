"""The account of captures: every step may be repeated, none goes backwards, counters move with their rows."""

import itertools
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profilingconfig_facts import NOW

from toe_async.apis.profilingstatus import (
    ArtifactState,
    ArtifactStatus,
    CaptureState,
    CaptureStatus,
    Cooldown,
    ProfileType,
    ProfilingConfigStatus,
)
from toe_async.controllers.profilingconfig import accounting

LATER = NOW + timedelta(minutes=1)
ROW = CaptureStatus(
    id="c1",
    pod="web-1",
    pod_uid="u1",
    container="app",
    reason="on-demand",
    state=CaptureState.CAPTURING,
    holder="a",
    started_at=NOW,
    deadline=LATER,
)
CLAIMED = accounting.claim(ProfilingConfigStatus(), ROW, Cooldown(pod_uid="u1", reason="on-demand", until=LATER))


def artifact(type_: ProfileType, state: ArtifactState) -> ArtifactStatus:
    """A profile of five bytes; one that failed was never received."""
    return ArtifactStatus(type=type_, state=state, size=0 if state is ArtifactState.FAILED else 5)


HEAP, CPU = ProfileType.HEAP, ProfileType.CPU
CAPTURED, STORED, FAILED = ArtifactState.CAPTURED, ArtifactState.STORED, ArtifactState.FAILED


@pytest.mark.parametrize(
    ("heap", "cpu", "state", "uploads"),
    [
        (STORED, STORED, CaptureState.STORED, 2),
        (STORED, CAPTURED, CaptureState.UPLOADING, 1),
        (STORED, FAILED, CaptureState.PARTIALLY_STORED, 1),
        (FAILED, CAPTURED, CaptureState.UPLOADING, 0),
        (FAILED, FAILED, CaptureState.FAILED, 0),
    ],
)
def test_a_capture_is_what_its_profiles_are(
    heap: ArtifactState, cpu: ArtifactState, state: CaptureState, uploads: int
) -> None:
    """A missing profile does not lose the others, and captures and uploads are counted apart (PR10)."""
    results = [artifact(HEAP, heap), artifact(CPU, cpu)]
    status = accounting.received(CLAIMED, "c1", results, LATER, NOW)
    row = accounting.find(status, "c1")
    assert row is not None
    assert row.state is state
    assert (row.finished_at is not None) == state.final
    assert status.total_profiles == sum(one is not FAILED for one in (heap, cpu))
    assert status.total_uploads == uploads


@given(st.lists(st.sampled_from(["received", "heap", "cpu", "heap failed", "lost"]), max_size=12))
def test_steps_in_any_order_and_number_never_go_backwards(steps: list[str]) -> None:
    """Lost replies, restarts and other replicas repeat and reorder steps; totals stay right and states only advance."""
    status = CLAIMED
    for step in steps:
        before = status
        if step == "received":
            status = accounting.received(status, "c1", [artifact(HEAP, CAPTURED), artifact(CPU, CAPTURED)], LATER, NOW)
        elif step == "lost":
            status = accounting.lost(status, "c1", (HEAP, CPU), "gone", NOW)
        elif step == "heap failed":
            status = accounting.delivered(status, "c1", artifact(HEAP, FAILED), NOW)
        else:
            status = accounting.delivered(status, "c1", artifact(ProfileType(step), STORED), NOW)
        row, old = accounting.find(status, "c1"), accounting.find(before, "c1")
        assert row is not None
        assert old is not None
        stored = {one.type for one in row.artifacts if one.state is STORED}
        assert {one.type for one in old.artifacts if one.state is STORED} <= stored
        assert status.total_uploads == len(stored)
        assert not (old.state.final and not row.state.final)
        assert before.total_profiles <= status.total_profiles <= 2
        assert old.finished_at in (None, row.finished_at)


def test_every_step_done_twice_is_done_once() -> None:
    """The second write after a lost reply changes nothing at all."""
    status = accounting.received(CLAIMED, "c1", [artifact(HEAP, CAPTURED)], LATER, NOW)
    assert accounting.received(status, "c1", [artifact(HEAP, CAPTURED)], LATER, LATER) == status
    stored = accounting.delivered(status, "c1", artifact(HEAP, STORED), NOW)
    assert accounting.delivered(stored, "c1", artifact(HEAP, STORED), LATER) == stored
    assert accounting.claim(stored, ROW, None) == stored


def test_what_was_given_up_and_then_arrives_is_told_as_stored() -> None:
    """A replica that seemed dead delivers after all: the truth wins over the guess."""
    status = accounting.received(CLAIMED, "c1", [artifact(HEAP, CAPTURED)], LATER, NOW)
    given_up = accounting.lost(status, "c1", (HEAP,), "its replica is gone", NOW)
    row = accounting.find(given_up, "c1")
    assert row is not None
    assert (row.state, row.artifacts[0].reason) == (CaptureState.LOST, "ReplicaGone")
    after = accounting.find(accounting.delivered(given_up, "c1", artifact(HEAP, STORED), LATER), "c1")
    assert after is not None
    assert after.state is CaptureState.STORED


def test_a_profile_that_arrives_while_others_are_being_taken_leaves_the_capture_running() -> None:
    """The sink may be faster than a CPU profile of 30 seconds."""
    status = accounting.delivered(CLAIMED, "c1", artifact(HEAP, STORED), NOW)
    row = accounting.find(status, "c1")
    assert row is not None
    assert (row.state, status.total_profiles, status.total_uploads) == (CaptureState.CAPTURING, 1, 1)


def test_a_cooldown_replaces_the_one_of_its_kind_only() -> None:
    """A pod has one row for thresholds and one for its interval."""
    status = CLAIMED
    for number, reason in enumerate(("on-demand", "threshold-exceeded", "on-demand")):
        row = CaptureStatus(**{**{f: getattr(ROW, f) for f in ROW.__struct_fields__}, "id": f"n{number}"})
        status = accounting.claim(status, row, Cooldown(pod_uid="u1", reason=reason, until=LATER))
    assert sorted(one.reason for one in status.cooldowns) == ["on-demand", "threshold-exceeded"]
    assert accounting.without_expired(status, LATER).cooldowns == ()


def test_steps_for_a_capture_that_is_not_kept_change_nothing() -> None:
    """A status that was wiped by hand is not filled with guesses."""
    empty = ProfilingConfigStatus()
    for status in itertools.chain(
        [accounting.received(empty, "x", [artifact(HEAP, CAPTURED)], LATER, NOW)],
        [accounting.delivered(empty, "x", artifact(HEAP, STORED), NOW)],
        [accounting.lost(empty, "x", (HEAP,), "gone", NOW)],
    ):
        assert status == empty


def test_a_lost_capture_names_every_profile_that_is_missing() -> None:
    """What was not even begun when its replica went is reported too (G3)."""
    status = accounting.delivered(CLAIMED, "c1", artifact(HEAP, STORED), NOW)
    row = accounting.find(accounting.lost(status, "c1", (HEAP, CPU), "its replica is gone", NOW), "c1")
    assert row is not None
    assert row.state is CaptureState.PARTIALLY_STORED
    assert {str(one.type): one.reason for one in row.artifacts} == {"heap": "", "cpu": "ReplicaGone"}
