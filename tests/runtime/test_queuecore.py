"""The rules of the work queue, and a model that they are held against."""

import random

import pytest

from toe_async.runtime.queuecore import QueueCore


def drain(core: QueueCore[str], now: float = 0) -> list[str]:
    """Take everything out, each key finished before the next."""
    found = []
    while (got := core.pop(now)) is not None:
        found.append(got[0])
        core.done(got[0], now)
    return found


def test_first_in_is_first_out() -> None:
    """No key overtakes another."""
    core: QueueCore[str] = QueueCore()
    assert [core.add(key, 0) for key in "cab"] == [True, True, True]
    assert drain(core) == ["c", "a", "b"]


def test_a_key_that_is_queued_is_not_queued_again() -> None:
    """It keeps its place."""
    core: QueueCore[str] = QueueCore()
    core.add("a", 0)
    core.add("b", 0)
    assert not core.add("a", 1)
    assert len(core) == 2
    assert drain(core) == ["a", "b"]


def test_a_key_added_while_it_is_processed_comes_again_when_that_ends() -> None:
    """Never two at a time, never lost, and once however often it was added."""
    core: QueueCore[str] = QueueCore()
    core.add("a", 0)
    core.pop(0)
    assert core.add("a", 1)
    assert not core.add("a", 2)
    assert core.pop(2) is None
    core.done("a", 3)
    assert core.pop(5) == ("a", 4)  # counted from its first addition
    assert core.done("a", 6) == 1
    assert core.pop(6) is None


def test_what_comes_back_goes_to_the_end() -> None:
    """A key that is always changing cannot starve the others."""
    core: QueueCore[str] = QueueCore()
    core.add("a", 0)
    core.pop(0)
    core.add("a", 0)
    core.add("b", 0)
    core.done("a", 0)
    assert drain(core) == ["b", "a"]


def test_a_waiting_key_comes_when_its_time_has_come() -> None:
    """Not before, and in the order of the times."""
    core: QueueCore[str] = QueueCore()
    core.add_after("late", 10)
    core.add_after("soon", 5)
    assert core.next_due() == 5
    assert core.ripen(4.9) == 0
    assert core.ripen(5) == 1
    assert core.next_due() == 10
    assert core.ripen(100) == 1
    assert drain(core) == ["soon", "late"]
    assert core.next_due() is None


@pytest.mark.parametrize("times", [(5, 10), (10, 5)])
def test_of_two_waits_the_earlier_one_counts(times: tuple[int, int]) -> None:
    """Whichever came first; the key comes once."""
    core: QueueCore[str] = QueueCore()
    for due in times:
        core.add_after("a", due)
    assert core.ripen(5) == 1
    assert drain(core) == ["a"]
    assert core.ripen(10) == 0


def test_a_wait_is_served_although_the_key_came_at_once_as_well() -> None:
    """The two mean different looks at the object."""
    core: QueueCore[str] = QueueCore()
    core.add_after("a", 5)
    core.add("a", 0)
    assert drain(core) == ["a"]
    assert core.ripen(5) == 1
    assert drain(core) == ["a"]


def test_a_wait_that_ends_while_the_key_is_queued_adds_nothing() -> None:
    """Its purpose is served by the same look."""
    core: QueueCore[str] = QueueCore()
    core.add_after("a", 5)
    core.add("a", 4)
    assert core.ripen(5) == 0
    assert drain(core) == ["a"]


def test_after_the_shut_down_only_what_was_queued_is_given_out() -> None:
    """Keys that were added while they were processed included; waits are forgotten."""
    core: QueueCore[str] = QueueCore()
    core.add("a", 0)
    core.add("b", 0)
    core.add_after("c", 1)
    core.pop(0)
    core.add("a", 0)
    core.shut_down()
    assert not core.add("d", 0)
    core.add_after("e", 1)
    assert core.ripen(100) == 0
    core.done("a", 0)
    assert drain(core) == ["b", "a"]


def test_done_with_a_key_that_nobody_works_on_is_an_error() -> None:
    """It would hide that two workers had the same key."""
    core: QueueCore[str] = QueueCore()
    core.add("a", 0)
    with pytest.raises(KeyError):
        core.done("a", 0)


def test_work_in_progress_is_told_as_sum_and_longest() -> None:
    """A stuck worker shows in both."""
    core: QueueCore[str] = QueueCore()
    assert core.unfinished(0) == (0, 0)
    core.add("a", 0)
    core.add("b", 0)
    core.pop(0)
    core.pop(5)
    assert core.unfinished(7) == (9, 7)


def test_a_key_that_is_put_off_again_and_again_costs_no_memory() -> None:
    """Each earlier time leaves a stale entry; they are cleared."""
    core: QueueCore[str] = QueueCore()
    core.add_after("other", 5000)
    for due in range(10_000, 5000, -1):
        core.add_after("a", due)
    assert len(core._heap) < 100
    assert core.ripen(5000.5) == 1
    assert core.ripen(5001) == 1


class Model:
    """What the queue promises, in the most simple-minded way."""

    def __init__(self) -> None:
        self.queue: list[str] = []
        self.again: set[str] = set()
        self.busy: set[str] = set()
        self.waits: dict[str, float] = {}

    def add(self, key: str) -> None:
        if key in self.busy:
            self.again.add(key)
        elif key not in self.queue:
            self.queue.append(key)

    def done(self, key: str) -> None:
        self.busy.discard(key)
        if key in self.again:
            self.again.discard(key)
            self.queue.append(key)


@pytest.mark.parametrize("seed", range(20))
def test_a_thousand_random_steps_agree_with_the_model(seed: int) -> None:
    """Every key added comes out, none twice at a time, all in the same order."""
    rng = random.Random(seed)
    core: QueueCore[str] = QueueCore()
    model = Model()
    now = 0.0
    for _ in range(1000):
        now += rng.random()
        key = rng.choice("abcdef")
        match rng.randrange(4):
            case 0:
                core.add(key, now)
                model.add(key)
            case 1:
                due = now + rng.random() * 5
                core.add_after(key, due)
                model.waits[key] = min(due, model.waits.get(key, due))
            case 2:
                got = core.pop(now)
                assert (got[0] if got else None) == (model.queue[0] if model.queue else None)
                if got:
                    model.busy.add(model.queue.pop(0))
            case 3 if model.busy:
                ended = rng.choice(sorted(model.busy))
                core.done(ended, now)
                model.done(ended)
        core.ripen(now)
        for _due, waiting in sorted((due, waiting) for waiting, due in model.waits.items() if due <= now):
            del model.waits[waiting]
            model.add(waiting)
        assert list(core._queue) == model.queue
        assert core.processing == len(model.busy)
        assert core.next_due() == min(model.waits.values(), default=None)
