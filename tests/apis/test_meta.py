"""Conditions, encoding, and decoding that puts up with nulls."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from toe_async.apis.meta import (
    Condition,
    ConditionStatus,
    Decoder,
    ObjectMeta,
    Wire,
    encode,
    find_condition,
    set_condition,
    without_nulls,
)

NOW = datetime(2026, 1, 24, 20, 44, 8, 123456, tzinfo=UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def ready(status: ConditionStatus, reason: str = "Why", message: str = "") -> Condition:
    return Condition(type="Ready", status=status, reason=reason, message=message, last_transition_time=LONG_AGO)


def test_a_new_condition_goes_to_the_end_with_the_present_time() -> None:
    """Its own transition time is never used, and metav1.Time has whole seconds."""
    accepted = Condition(type="Accepted", status=ConditionStatus.TRUE, reason="Ok", last_transition_time=LONG_AGO)
    found = set_condition((accepted,), ready(ConditionStatus.TRUE), NOW)
    assert [one.type for one in found] == ["Accepted", "Ready"]
    assert found[1].last_transition_time == NOW.replace(microsecond=0)
    assert found[0] == accepted


def test_the_transition_time_moves_only_with_the_status() -> None:
    """A new reason or message keeps the time; a new status takes the present one."""
    first = set_condition((), ready(ConditionStatus.FALSE), NOW)
    later = NOW + timedelta(hours=1)
    same = set_condition(first, ready(ConditionStatus.FALSE, "Other", "news"), later)
    assert (same[0].reason, same[0].message) == ("Other", "news")
    assert same[0].last_transition_time == first[0].last_transition_time
    changed = set_condition(same, ready(ConditionStatus.TRUE), later)
    assert changed[0].last_transition_time == later.replace(microsecond=0)


def test_saying_the_same_again_changes_nothing() -> None:
    """So that a status which did not change is not written."""
    first = set_condition((), ready(ConditionStatus.TRUE), NOW)
    assert set_condition(first, ready(ConditionStatus.TRUE), NOW + timedelta(days=1)) == first


def test_a_condition_keeps_its_place_among_the_others() -> None:
    """A status that swaps its conditions at each write would look changed."""
    conditions: tuple[Condition, ...] = ()
    for name in ("Accepted", "Ready", "Degraded"):
        one = Condition(type=name, status=ConditionStatus.TRUE, reason="Ok", last_transition_time=LONG_AGO)
        conditions = set_condition(conditions, one, NOW)
    found = set_condition(conditions, ready(ConditionStatus.FALSE), NOW)
    assert [one.type for one in found] == ["Accepted", "Ready", "Degraded"]
    assert find_condition(found, "Ready") == found[1]
    assert find_condition(found, "Other") is None


def test_a_condition_is_written_with_every_field() -> None:
    """metav1.Condition requires message and time; a merge patch would keep an old message that is left out."""
    written = msgspec.json.decode(encode(ready(ConditionStatus.TRUE)))
    assert written == {
        "type": "Ready",
        "status": "True",
        "reason": "Why",
        "message": "",
        "lastTransitionTime": "2000-01-01T00:00:00Z",
        "observedGeneration": 0,
    }


class Sample(Wire, frozen=True, kw_only=True):
    """Stands for any kind."""

    metadata: ObjectMeta
    names: tuple[str, ...] = ()


def test_nulls_count_as_absent_at_every_depth() -> None:
    """Lists, maps, strings and entries of both."""
    raw = (
        b'{"metadata":{"name":"a","namespace":null,"labels":{"x":null,"y":"z"},"annotations":null},"names":[null,"b"]}'
    )
    found = Decoder(Sample)(raw)
    assert found == Sample(metadata=ObjectMeta(name="a", labels={"y": "z"}), names=("b",))
    assert without_nulls({"a": [None, {"b": None}], "c": 0, "d": ""}) == {"a": [{}], "c": 0, "d": ""}


def test_unknown_fields_are_ignored() -> None:
    """An older operator reads the objects of a newer API."""
    assert Decoder(Sample)(b'{"metadata":{"name":"a","new":1},"other":[]}').metadata.name == "a"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"[]", b'{"metadata":5}', b'{"metadata":null}', b'{"names":[]}', b"{",
        b'{"metadata":{"name":"\xff"}}', b'{"new":' + b"[" * 100_000, b'{"metadata":null,"new":"\xff"}',
    ],
)  # fmt: skip
def test_what_is_no_such_object_is_a_decode_error(raw: bytes) -> None:
    """One exception class for all of it, so that a watch can skip the object."""
    with pytest.raises(msgspec.DecodeError):
        Decoder(Sample)(raw)
