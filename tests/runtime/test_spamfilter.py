"""Which Events are worth sending."""

from datetime import UTC, datetime

import pytest

from toe_async.apis.meta import ObjectRef
from toe_async.runtime import spamfilter
from toe_async.runtime.spamfilter import COMBINED, Occurrence, Send, SpamFilter

NOW = datetime(2026, 1, 24, tzinfo=UTC)
LATER = datetime(2026, 1, 25, tzinfo=UTC)


def happened(
    message: str = "it is so", *, reason: str = "Why", name: str = "a", type_: str = "Normal", action: str = ""
) -> Occurrence:
    ref = ObjectRef(api_version="v1", kind="Pod", namespace="ns", name=name, uid=f"u-{name}")
    return Occurrence(ref, type_, reason, message, action)


def sent(filter_: SpamFilter, what: Occurrence, now: float = 0, wall: datetime = NOW) -> Send:
    order = filter_.judge(what, now, wall)
    assert order is not None
    return order


def test_the_first_of_its_kind_is_a_new_event() -> None:
    """Without a name: nothing exists yet."""
    order = sent(SpamFilter(), happened())
    assert (order.message, order.count, order.first, order.name) == ("it is so", 1, NOW, "")


def test_the_same_again_counts_the_first_one_up() -> None:
    """It keeps the time of the first."""
    filter_ = SpamFilter()
    first = sent(filter_, happened())
    filter_.written(first.key, "a.1")
    again = sent(filter_, happened(), 10, LATER)
    assert (again.count, again.first, again.name) == (2, NOW, "a.1")


@pytest.mark.parametrize(
    "other",
    [
        happened("it is otherwise"),
        happened(reason="Because"),
        happened(name="b"),
        happened(type_="Warning"),
        happened(action="Capturing"),
    ],
    ids=["message", "reason", "object", "type", "action"],
)
def test_what_differs_in_anything_is_another_event(other: Occurrence) -> None:
    """Its count is its own."""
    filter_ = SpamFilter()
    filter_.written(sent(filter_, happened()).key, "a.1")
    order = sent(filter_, other)
    assert (order.count, order.name) == (1, "")


def test_one_object_gets_25_at_once_and_then_one_in_300_seconds() -> None:
    """What is held back still counts: the next one that passes tells how often."""
    filter_ = SpamFilter()
    passed = [filter_.judge(happened(), 0, NOW) is not None for _ in range(40)]
    assert passed == [True] * 25 + [False] * 15
    assert filter_.judge(happened(), 299, NOW) is None
    assert sent(filter_, happened(), 300).count == 42
    assert filter_.judge(happened(), 301, NOW) is None
    assert sent(filter_, happened(), 600) is not None


def test_a_noisy_object_does_not_silence_another() -> None:
    """The budget is per object, whatever the reason."""
    filter_ = SpamFilter()
    for number in range(30):
        filter_.judge(happened(reason=f"R{number}"), 0, NOW)
    assert filter_.judge(happened(reason="Other"), 0, NOW) is None
    assert filter_.judge(happened(name="b"), 0, NOW) is not None


def test_ten_similar_messages_become_one_event() -> None:
    """From the tenth different message on, they count one combined Event up."""
    filter_ = SpamFilter()
    orders = []
    for number in range(15):
        order = sent(filter_, happened(f"port {number} refused"))
        filter_.written(order.key, order.name or f"event-{number}")
        orders.append(order)
    assert [order.count for order in orders[:10]] == [1] * 10
    assert all(not order.message.startswith(COMBINED) for order in orders[:9])
    assert orders[9].message == COMBINED + "port 9 refused"
    assert [order.count for order in orders[9:]] == [1, 2, 3, 4, 5, 6]
    assert {order.name for order in orders[10:]} == {"event-9"}
    assert orders[14].message == COMBINED + "port 14 refused"


def test_after_a_quiet_time_messages_are_told_one_by_one_again() -> None:
    """More than 600 s since the last of them."""
    filter_ = SpamFilter()
    for number in range(12):
        sent(filter_, happened(f"m{number}"), 0)
    assert sent(filter_, happened("late"), 600).message == COMBINED + "late"
    assert sent(filter_, happened("later"), 1201).message == "later"


def test_an_event_that_expired_is_told_anew() -> None:
    """The server keeps Events for an hour; the count goes on."""
    filter_ = SpamFilter()
    filter_.written(sent(filter_, happened()).key, "a.1")
    order = sent(filter_, happened())
    filter_.written(order.key, "")
    again = sent(filter_, happened())
    assert (again.name, again.count) == ("", 3)


def test_all_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster has more objects than we want to remember."""
    monkeypatch.setattr(spamfilter, "REMEMBERED", 50)
    filter_ = SpamFilter()
    for number in range(500):
        filter_.judge(happened(name=str(number)), 0, NOW)
    tables = (filter_._similar, filter_._sent, filter_._buckets)
    assert [len(table._held) for table in tables] == [50, 50, 50]
    filter_.written(("long forgotten",), "x")


def test_what_is_remembered_of_similar_messages_is_bounded() -> None:
    """A message that carries a figure is another one each time."""
    filter_ = SpamFilter()
    for number in range(1000):
        filter_.judge(happened(f"used {number} %"), 0, NOW)
    (similar,) = filter_._similar._held.values()
    assert len(similar.messages) < 10
    assert len(filter_._sent._held) == 10


def test_those_used_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy object keeps its count while others come and go."""
    monkeypatch.setattr(spamfilter, "REMEMBERED", 10)
    filter_ = SpamFilter()
    for number in range(20):
        filter_.judge(happened(name="busy"), 0, NOW)
        filter_.judge(happened(name=str(number)), 0, NOW)
    assert sent(filter_, happened(name="busy")).count == 21
