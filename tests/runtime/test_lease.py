"""What a Lease says about who may lead, as a table."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from toe_async.runtime.lease import Create, Observed, Renew, Step, Take, Wait, decide, fresh, given_up, held, observe

NOW = datetime(2026, 1, 24, 20, 44, 8, tzinfo=UTC)


def lease(**spec: Any) -> bytes:
    document = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "l", "namespace": "n", "resourceVersion": "7", "labels": {"theirs": "kept"}},
        "spec": {key: value for key, value in spec.items() if value is not None},
    }
    return json.dumps(document).encode()


def seen(since: float, **spec: Any) -> Observed:
    return observe(lease(**spec), None, since)


THEIRS: dict[str, Any] = {"holderIdentity": "other", "leaseDurationSeconds": 15, "leaseTransitions": 3}
OURS: dict[str, Any] = {"holderIdentity": "me", "leaseDurationSeconds": 15, "leaseTransitions": 3}

ROWS: list[tuple[str, Observed | None, float, Step]] = [
    ("there is none: make it", None, 0, Create()),
    ("it is ours: renew it", seen(0, **OURS), 5, Renew()),
    ("it is ours and long run out: renew it all the same", seen(0, **OURS), 500, Renew()),
    ("somebody holds it: wait", seen(100, **THEIRS), 104, Wait("other", 11)),
    ("somebody holds it by a hair: wait", seen(100, **THEIRS), 114.5, Wait("other", 0.5)),
    ("unchanged for its whole duration: take it", seen(100, **THEIRS), 115, Take(4)),
    ("given up: take it at once", seen(100, **{**THEIRS, "holderIdentity": ""}), 100, Take(4)),
    ("without a holder: take it", seen(100, leaseDurationSeconds=15), 100, Take(1)),
    ("without a spec: take it", seen(100), 100, Take(1)),
    ("a holder without a duration: take it", seen(100, holderIdentity="other"), 100, Take(1)),
    (
        "its own time lies in the future: wait no longer than its duration",
        seen(100, **THEIRS, renewTime="2999-01-01T00:00:00.000000Z"),
        115,
        Take(4),
    ),
    (
        "its own time lies in the past: wait all the same",
        seen(100, **THEIRS, renewTime="1999-01-01T00:00:00.000000Z"),
        101,
        Wait("other", 14),
    ),
]


@pytest.mark.parametrize(("found", "now", "step"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_next_step(found: Observed | None, now: float, step: Step) -> None:
    """Only what our own clock has seen counts."""
    assert decide(found, "me", now) == step


def test_reading_the_same_again_keeps_the_time_of_the_first_sight() -> None:
    """Else a reader that asks often would wait for ever."""
    first = observe(lease(**THEIRS, renewTime="2026-01-01T00:00:00.000000Z"), None, 10)
    again = observe(lease(**THEIRS, renewTime="2026-01-01T00:00:00.000000Z"), first, 20)
    assert again.since == 10
    renewed = observe(lease(**THEIRS, renewTime="2026-01-01T00:00:02.000000Z"), again, 22)
    assert renewed.since == 22


def test_taking_it_writes_everything_that_others_judge_by() -> None:
    """Times as MicroTime: the server refuses one without its six digits."""
    written = held(seen(0, **THEIRS), "me", NOW, Take(4))
    assert written["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-01-24T20:44:08.000000Z",
        "renewTime": "2026-01-24T20:44:08.000000Z",
        "leaseTransitions": 4,
    }


def test_renewing_keeps_when_it_was_taken_and_how_often_it_changed_hands() -> None:
    """Those two are the history that people look at."""
    before = seen(0, **OURS, acquireTime="2026-01-01T00:00:00.000001Z", renewTime="2026-01-02T00:00:00.000000Z")
    spec = held(before, "me", NOW, Renew())["spec"]
    assert (spec["acquireTime"], spec["leaseTransitions"]) == ("2026-01-01T00:00:00.000001Z", 3)
    assert spec["renewTime"] == "2026-01-24T20:44:08.000000Z"


def test_a_new_one_names_itself_and_has_not_changed_hands() -> None:
    """It carries no resourceVersion, so that only one can be made."""
    written = held(fresh("n", "l"), "me", NOW, Create())
    assert written["metadata"] == {"namespace": "n", "name": "l"}
    assert (written["apiVersion"], written["kind"]) == ("coordination.k8s.io/v1", "Lease")
    assert (written["spec"]["holderIdentity"], written["spec"]["leaseTransitions"]) == ("me", 0)


@pytest.mark.parametrize("how", ["held", "given up"])
def test_what_others_wrote_into_it_stays(how: str) -> None:
    """Labels, and fields of a newer API; the resourceVersion makes a stale write fail."""
    before = seen(0, **OURS, strategy="OldestEmulationVersion")
    written = held(before, "me", NOW, Renew()) if how == "held" else given_up(before, NOW)
    assert written["metadata"]["labels"] == {"theirs": "kept"}
    assert written["metadata"]["resourceVersion"] == "7"
    assert written["spec"]["strategy"] == "OldestEmulationVersion"


def test_giving_it_up_leaves_no_holder_and_keeps_the_count() -> None:
    """The next one need not wait."""
    after = observe(json.dumps(given_up(seen(0, **OURS), NOW)).encode(), None, 1)
    assert decide(after, "next", 1) == Take(4)
