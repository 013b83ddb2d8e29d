"""The ledger keeps every target of a run in a few characters and is never misread."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from powertool_world import NOW, uid

from toe_async.apis.powertool import CLAIMED_STATES, MAX_TARGETS, TargetState
from toe_async.controllers.powertool.ledger import Entry, decode, encode

TIMED = CLAIMED_STATES | {TargetState.WAITING}
INSTANTS = st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
UIDS = st.uuids().map(str) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


def entry(uid_: str, container: str, state: TargetState, attempt: int, at: datetime) -> Entry:
    """An entry as the plan makes it: only some states hang on an instant."""
    return Entry(uid_, container, state, attempt, at if state in TIMED else None)


ENTRIES = st.builds(
    entry, UIDS, st.sampled_from(["app", "side", "c" * 63]), st.sampled_from(TargetState), st.integers(0, 999), INSTANTS
)


@given(st.lists(ENTRIES, max_size=20, unique_by=lambda one: (one.uid, one.container)))
def test_what_is_written_is_read_back(entries: list[Entry]) -> None:
    """Every state, attempt, container and instant, in the same order, for any UID."""
    assert decode(encode(tuple(entries))) == tuple(entries)


def test_five_hundred_targets_take_half_of_the_status_at_most() -> None:
    """The worst case: every one waits for a next attempt, in two containers."""
    entries = tuple(
        Entry(str(UUID(int=number)), ("app", "side")[number % 2], TargetState.WAITING, 99, NOW)
        for number in range(MAX_TARGETS)
    )
    assert len(encode(entries)) < 18 << 10
    fresh = tuple(Entry(str(UUID(int=number)), "app", TargetState.PENDING) for number in range(MAX_TARGETS))
    assert len(encode(fresh)) < 13 << 10


GOOD = encode((Entry(uid(0), "app", TargetState.PENDING), Entry(uid(1), "app", TargetState.STARTING, 1, NOW)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(GOOD.replace("1;", "2;", 1), "not with version 1", id="version"),
        pytest.param(GOOD[:-3] + "!!!", "is not understood", id="letters"),
        pytest.param(GOOD.rpartition("@")[0], "contradicts itself", id="a claim without its instant"),
        pytest.param(GOOD.replace("p0", "p0@1", 1), "contradicts itself", id="an instant without a claim"),
        pytest.param(GOOD.replace("p0", "p0.7", 1), "contradicts itself", id="no such container"),
        pytest.param(f"{GOOD},{GOOD.rpartition(',')[2]}", "twice", id="twice"),
        pytest.param("1;app;" + ",".join([GOOD.rpartition(",")[2]] * 501), "more than 500", id="too many"),
        pytest.param("1;app;~_____w!p0", "UID", id="no text"),
        pytest.param("1;app;", "is not understood", id="no entries"),
    ],
)
def test_what_nobody_of_us_wrote_is_refused(text: str, words: str) -> None:
    """A changed ledger is an error, never a guess."""
    with pytest.raises(ValueError, match=words):
        decode(text)


def test_no_targets_are_no_text() -> None:
    """An empty ledger and no ledger are the same."""
    assert encode(()) == ""
    assert decode("") == ()


def test_instants_are_kept_to_the_second() -> None:
    """A claim is dated in whole seconds, so that it is read back as it was written."""
    one = Entry(uid(0), "app", TargetState.STARTING, 1, NOW + timedelta(hours=9))
    assert decode(encode((one,))) == (one,)
