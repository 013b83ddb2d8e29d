"""Deliveries in virtual time: what is tried when, what is asked for, and what is given up."""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from toe_async.agent.courier import ASK_AGAIN_SECONDS, Courier
from toe_async.agent.faults import Again, Broken, Lost
from toe_async.agent.packing import Packed
from toe_async.agent.protocol import Leaf

Answer = Exception | Callable[[float], Exception | None] | None


def packed(name: str) -> Packed:
    return Packed(name, 5, "ab")


class Place:
    """Answers as it is told, and notes when it was asked for what."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = deque(answers)
        self.asked: list[tuple[float, str]] = []
        self.now = 0.0

    def put(self, leaf: Packed) -> Leaf:
        self._answer(leaf.name)
        return Leaf(name=leaf.name, size=leaf.size, sha256=leaf.sha256, state="stored", uri="/" + leaf.name)

    def complete(self, stored: Sequence[Leaf]) -> None:
        self._answer("complete " + " ".join(leaf.name for leaf in stored))

    def abort(self) -> None:
        raise AssertionError("nobody aborts here")

    def close(self) -> None:
        raise AssertionError("nor closes")

    def _answer(self, what: str) -> None:
        self.asked.append((self.now, what))
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0] if self.answers else None
        error = answer(self.now) if callable(answer) else answer
        if error is not None:
            raise error


class Run:
    """A courier that is driven through time until it is done or time is up."""

    def __init__(self, place: Place) -> None:
        self.place, self.tokens_asked = place, list[float]()
        self.courier = Courier(place, lambda: self.tokens_asked.append(place.now))

    def until(self, deadline: float) -> None:
        while self.place.now < deadline:
            wait = self.courier.step(self.place.now)
            if wait == float("inf"):
                return
            self.place.now += wait
        self.place.now = deadline

    @property
    def states(self) -> list[str]:
        return [f"{leaf.name} {leaf.state}" for leaf in self.courier.leaves]


def test_leaves_go_in_order_and_once() -> None:
    run = Run(Place())
    for name in "abc":
        run.courier.add(packed(name))
    run.until(10)
    assert [what for _, what in run.place.asked] == ["a", "b", "c"]
    assert run.states == ["a stored", "b stored", "c stored"]
    assert run.courier.complete(run.place.now) == 0
    assert run.place.asked[-1][1] == "complete a b c"


def test_a_collector_that_is_away_for_five_minutes_costs_a_minute_at_most() -> None:
    run = Run(Place(lambda now: Broken("away") if now < 300 else None))
    run.courier.add(packed("a"))
    run.until(900)
    assert run.states == ["a stored"]
    times = [now for now, _ in run.place.asked]
    waits = [after - before for before, after in pairwise(times)]
    assert 300 <= times[-1] <= 360
    assert all(1.0 * 2**n <= wait <= 1.5 * 2**n for n, wait in enumerate(waits[:5]))
    assert max(waits) <= 60
    assert 8 <= len(times) <= 14
    assert run.tokens_asked == []


def test_it_never_ends_by_itself_while_the_collector_fails() -> None:
    run = Run(Place(Again("the collector answers 500", reason="UploadFailed")))
    run.courier.add(packed("a"))
    run.courier.add(packed("b"))
    run.until(3600)
    assert len(run.place.asked) <= 100
    run.courier.give_up()
    assert run.states == ["a lost", "b lost"]
    assert [(fault.reason, str(fault)) for fault in run.courier.faults] == [
        ("UploadFailed", "the collector answers 500")
    ] * 2


def test_what_is_lost_holds_nothing_up() -> None:
    run = Run(Place(Lost("TooLarge", "413"), None))
    run.courier.add(packed("a"))
    run.courier.add(packed("b"))
    run.until(1)
    assert run.states == ["a lost", "b stored"]
    run.courier.complete(run.place.now)
    assert run.place.asked[-1][1] == "complete b"


def test_the_other_sides_wish_to_wait_is_kept() -> None:
    run = Run(Place(Again("429", retry_after=50), None))
    run.courier.add(packed("a"))
    run.until(100)
    assert [now for now, _ in run.place.asked] == [0, 50]


def test_progress_starts_the_backoff_anew() -> None:
    stuck = [Broken("cut") for _ in range(6)]
    went_on = Broken("cut")
    went_on.progressed = True
    run = Run(Place(*stuck, went_on, None))
    run.courier.add(packed("a"))
    run.until(1000)
    times = [now for now, _ in run.place.asked]
    assert times[6] - times[5] > 30
    assert times[7] - times[6] <= 1.5


def test_a_token_that_comes_ends_the_wait_and_is_asked_for_until_then() -> None:
    run = Run(Place(Again("401", token=True), Again("401", token=True), None))
    run.courier.add(packed("a"))
    run.until(ASK_AGAIN_SECONDS + 5)
    assert run.tokens_asked == [0, ASK_AGAIN_SECONDS]
    run.courier.token_came()
    run.until(ASK_AGAIN_SECONDS + 6)
    assert run.states == ["a stored"]
    assert run.place.asked[-1][0] == ASK_AGAIN_SECONDS + 5


def test_a_token_shortens_no_other_wait() -> None:
    """The four-minute tokens of the operator are no reason to press a store that is full."""
    run = Run(Place(Again("507", reason="StoreFull", retry_after=60), None))
    run.courier.add(packed("a"))
    run.until(5)
    run.courier.token_came()
    run.until(59)
    assert len(run.place.asked) == 1


def finished(*answers: Answer) -> Run:
    run = Run(Place(None, *answers))
    run.courier.add(packed("a"))
    run.until(1)
    run.place.now = 0.0
    return run


@pytest.mark.parametrize("answer", [Lost("Conflicted", "409 Mismatch"), None])
def test_closing_ends_with_a_word_or_a_fault(answer: Exception | None) -> None:
    run = finished(answer)
    assert run.courier.complete(0.0) == 0
    assert [str(fault) for fault in run.courier.faults] == ([str(answer)] if answer else [])


def test_closing_is_tried_again_too() -> None:
    run = finished(Broken("away"), None)
    wait = run.courier.complete(0.0)
    assert 1 <= wait <= 1.5
    assert run.courier.complete(wait / 2) == wait / 2
    assert run.courier.complete(wait) == 0


def test_of_nothing_that_was_stored_nobody_is_told() -> None:
    """A tool that left nothing does not wait for a collector that is away."""
    run = Run(Place(Lost("TooLarge", "413")))
    run.courier.add(packed("a"))
    run.until(1)
    assert run.courier.complete(1.0) == 0
    assert [what for _, what in run.place.asked] == ["a"]
