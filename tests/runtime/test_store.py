"""The store answers as a plain dictionary would, and its indexes as a full scan would."""

from time import process_time
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.runtime.keys import Key
from toe_async.runtime.store import StoreWriter


class Thing(NamedTuple):
    name: str
    colours: tuple[str, ...]
    size: int = 0

    @property
    def key(self) -> Key:
        return Key("ns", self.name)


INDEXES = {"colour": lambda thing: thing.colours, "size": lambda thing: (str(thing.size),)}


def writer_of(*things: Thing) -> StoreWriter[Thing]:
    writer: StoreWriter[Thing] = StoreWriter(INDEXES)
    for thing in things:
        writer.put(thing.key, thing)
    return writer


THINGS = st.builds(
    Thing,
    st.sampled_from("abcdef"),
    st.lists(st.sampled_from(["red", "green", "blue"])).map(tuple),
    st.integers(0, 2),
)


class Swap(NamedTuple):
    things: tuple[Thing, ...]


@given(st.lists(st.one_of(THINGS, st.sampled_from("abcdef"), st.lists(THINGS).map(tuple).map(Swap))))
def test_any_history_leaves_store_and_indexes_as_a_model_has_them(history: list[Thing | str | Swap]) -> None:
    """Puts, removals and swaps in any order; the differences of a swap turn the old model into the new one."""
    writer: StoreWriter[Thing] = StoreWriter(INDEXES)
    model: dict[Key, Thing] = {}
    for step in history:
        if isinstance(step, Swap):
            stage = writer.stage()
            wanted = {thing.key: thing for thing in step.things}
            for thing in step.things:
                stage.put(thing.key, thing)
            told = dict(model)
            for key, old, new in writer.swap(stage):
                assert told.get(key) == old
                assert old != new
                if new is None:
                    del told[key]
                else:
                    told[key] = new
            assert told == wanted
            model = wanted
        elif isinstance(step, Thing):
            assert writer.put(step.key, step) == model.get(step.key)
            model[step.key] = step
        else:
            key = Key("ns", step)
            assert writer.remove(key) == model.pop(key, None)
    store = writer.store
    assert dict(zip(store.keys(), store.list(), strict=True)) == model
    assert len(store) == len(model)
    for colour in ("red", "green", "blue"):
        assert set(store.by_index("colour", colour)) == {thing for thing in model.values() if colour in thing.colours}
    for size in (0, 1, 2):
        assert set(store.by_index("size", str(size))) == {thing for thing in model.values() if thing.size == size}


def test_an_object_under_several_values_is_found_under_each_and_once() -> None:
    """A value that a function gives twice counts once."""
    thing = Thing("a", ("red", "red", "blue"))
    store = writer_of(thing).store
    assert store.by_index("colour", "red") == (thing,)
    assert store.by_index("colour", "blue") == (thing,)
    assert store.by_index("colour", "green") == ()


def test_an_update_moves_the_object_between_values() -> None:
    """The index gives the new object, never the old one."""
    writer = writer_of(Thing("a", ("red", "blue")))
    new = Thing("a", ("blue", "green"))
    writer.put(new.key, new)
    assert [writer.store.by_index("colour", colour) for colour in ("red", "blue", "green")] == [(), (new,), (new,)]


def test_answers_do_not_change_after_the_call() -> None:
    """A reader may await between two objects."""
    writer = writer_of(Thing("a", ("red",)), Thing("b", ("red",)))
    everything, reds = writer.store.list(), writer.store.by_index("colour", "red")
    writer.remove(Key("ns", "a"))
    assert len(everything) == len(reds) == 2
    assert Key("ns", "a") not in writer.store


def test_answers_keep_the_order_of_insertion() -> None:
    """Equal histories give equal answers, whatever the hash seed."""
    names = ["c", "a", "b"]
    store = writer_of(*(Thing(name, ("red",)) for name in names)).store
    assert [thing.name for thing in store.by_index("colour", "red")] == names


def test_a_stage_is_invisible_until_the_swap() -> None:
    """And the swap shows all of it before a single difference is told."""
    writer = writer_of(Thing("a", ("red",)))
    stage = writer.stage()
    stage.put(Key("ns", "b"), Thing("b", ("blue",)))
    stage.put(Key("ns", "c"), Thing("c", ("blue",)))
    stage.remove(Key("ns", "c"))
    stage.remove(Key("ns", "unknown"))
    assert writer.store.keys() == (Key("ns", "a"),)
    changes = writer.swap(stage)
    assert writer.store.keys() == (Key("ns", "b"),)
    assert writer.store.by_index("colour", "red") == ()
    assert [(key.name, old is None, new is None) for key, old, new in changes] == [
        ("a", False, True),
        ("b", True, False),
    ]


def test_an_unknown_index_is_an_error_and_an_unknown_value_is_empty() -> None:
    """A typing error must not look like an empty cluster."""
    store = writer_of().store
    assert store.by_index("colour", "any") == ()
    with pytest.raises(KeyError):
        store.by_index("color", "any")


def test_a_change_costs_the_same_in_a_large_store() -> None:
    """All objects under one value, which a list for each value would make quadratic."""

    def seconds_per_change(size: int) -> float:
        writer = writer_of(*(Thing(str(n), ("red",)) for n in range(size)))
        best = float("inf")
        for _ in range(5):
            begin = process_time()
            for n in range(500):
                writer.put(Key("ns", str(n)), Thing(str(n), ("red",), 1))
                writer.remove(Key("ns", str(n)))
            best = min(best, process_time() - begin)
        return best

    assert seconds_per_change(20_000) < 10 * seconds_per_change(200)
