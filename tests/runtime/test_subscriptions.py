"""Whoever asked for one object hears of it, and of no other, as long as he wants to."""

from contextlib import ExitStack
from typing import NamedTuple

from toe_async.runtime.keys import Key
from toe_async.runtime.subscriptions import Subscriptions


class Thing(NamedTuple):
    name: str
    state: int = 0


def test_a_change_is_told_to_those_who_asked_for_that_object_until_they_leave() -> None:
    """Arrival, change and end alike; two may ask for one object."""
    subscriptions: Subscriptions[Thing] = Subscriptions(lambda thing: Key("ns", thing.name))
    heard: list[str] = []
    with subscriptions.watching("ns", "a", lambda: heard.append("first")):
        subscriptions.handle(None, Thing("a"))
        subscriptions.handle(None, Thing("b"))
        with subscriptions.watching("ns", "a", lambda: heard.append("second")):
            subscriptions.handle(Thing("a"), Thing("a", 1))
        subscriptions.handle(Thing("a", 1), None)
    subscriptions.handle(None, Thing("a"))
    assert heard == ["first", "first", "second", "first"]


def test_who_leaves_while_he_is_told_takes_nobody_elses_turn() -> None:
    """A callback may end its own subscription."""
    subscriptions: Subscriptions[Thing] = Subscriptions(lambda thing: Key("ns", thing.name))
    heard: list[str] = []
    leaving = ExitStack()

    def once() -> None:
        heard.append("once")
        leaving.close()

    leaving.enter_context(subscriptions.watching("ns", "a", once))
    with subscriptions.watching("ns", "a", lambda: heard.append("always")):
        subscriptions.handle(None, Thing("a"))
        subscriptions.handle(Thing("a"), None)
    assert heard == ["once", "always", "always"]
