"""What the informers know: objects by key, and secondary indexes that are never older or newer than the objects.

Facts that shape this module. Everything runs on one event loop, so a method without ``await`` is atomic. The values
are frozen and shared: readers get the objects themselves. A full resync is gathered aside in a ``Stage`` and then put
in place by exchanging one reference, so no reader ever sees half of it.

Guarantees. Every index answers for exactly the objects that ``get`` knows. A change costs O(index values of the old
and the new object), whatever the size of the store. Answers keep the order of insertion, so equal histories give equal
answers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from toe_async.runtime.keys import Key

T = TypeVar("T")
IndexFunction = Callable[[T], Iterable[str]]


class _Tables(Generic[T]):
    """Objects and their indexes, changed together."""

    __slots__ = ("functions", "indexes", "objects")

    def __init__(self, functions: Mapping[str, IndexFunction[T]]) -> None:
        self.functions = functions
        self.objects: dict[Key, T] = {}
        self.indexes: dict[str, dict[str, dict[Key, T]]] = {name: {} for name in functions}

    def put(self, key: Key, obj: T) -> T | None:
        old = self.objects.get(key)
        self.objects[key] = obj
        for name, function in self.functions.items():
            index = self.indexes[name]
            values = set(function(obj))
            if old is not None:
                for value in set(function(old)) - values:
                    _drop(index, value, key)
            for value in values:
                index.setdefault(value, {})[key] = obj
        return old

    def remove(self, key: Key) -> T | None:
        old = self.objects.pop(key, None)
        if old is not None:
            for name, function in self.functions.items():
                for value in set(function(old)):
                    _drop(self.indexes[name], value, key)
        return old


def _drop(index: dict[str, dict[Key, T]], value: str, key: Key) -> None:
    bucket = index[value]
    del bucket[key]
    if not bucket:  # values come and go with pods: an empty bucket for each would be a leak
        del index[value]


class Store(Generic[T]):
    """The read view; made by a ``StoreWriter``. Nothing that it returns changes after the call."""

    def __init__(self, tables: _Tables[T]) -> None:
        self._tables = tables

    def get(self, key: Key) -> T | None:
        """Return the object, or None when it is not known."""
        return self._tables.objects.get(key)

    def __contains__(self, key: object) -> bool:
        return key in self._tables.objects

    def __len__(self) -> int:
        return len(self._tables.objects)

    def list(self) -> tuple[T, ...]:
        """Return all objects: O(n)."""
        return tuple(self._tables.objects.values())

    def keys(self) -> tuple[Key, ...]:
        """Return all keys: O(n)."""
        return tuple(self._tables.objects)

    def by_index(self, name: str, value: str) -> tuple[T, ...]:
        """Return the objects for which the index function gave ``value``: O(answer).

        Raises:
            KeyError: the store has no index of that name.
        """
        return tuple(self._tables.indexes[name].get(value, {}).values())


class Stage(Generic[T]):
    """A new whole state while it is being gathered; nobody reads it before ``StoreWriter.swap``."""

    def __init__(self, tables: _Tables[T]) -> None:
        self._tables = tables

    def put(self, key: Key, obj: T) -> None:
        """Add or replace an object."""
        self._tables.put(key, obj)

    def remove(self, key: Key) -> None:
        """Forget an object, if it is there."""
        self._tables.remove(key)


class StoreWriter(Generic[T]):
    """The only way to change a store; whoever made it is the only writer."""

    def __init__(self, indexes: Mapping[str, IndexFunction[T]] | None = None) -> None:
        self._functions = dict(indexes or {})
        self.store: Store[T] = Store(_Tables(self._functions))

    def put(self, key: Key, obj: T) -> T | None:
        """Add or replace an object and return the one it replaces."""
        return self.store._tables.put(key, obj)  # noqa: SLF001 -- the writer is the other half of the store

    def remove(self, key: Key) -> T | None:
        """Forget an object and return it, or None when it was not known."""
        return self.store._tables.remove(key)  # noqa: SLF001

    def stage(self) -> Stage[T]:
        """Begin a new whole state, empty, with the same indexes."""
        return Stage(_Tables(self._functions))

    def swap(self, stage: Stage[T]) -> Iterator[tuple[Key, T | None, T | None]]:
        """Put ``stage`` in place of everything, at once, and return the differences as (key, old, new).

        The differences are found while they are iterated, so that a caller may pause between them; they are right only
        as long as the store is not changed meanwhile. Objects that compare equal are no difference. What is gone comes
        first.
        """
        before, after = self.store._tables.objects, stage._tables.objects  # noqa: SLF001
        self.store._tables = stage._tables  # noqa: SLF001
        return _differences(before, after)


def _differences(before: dict[Key, T], after: dict[Key, T]) -> Iterator[tuple[Key, T | None, T | None]]:
    for key, old in before.items():
        if key not in after:
            yield key, old, None
    for key, new in after.items():
        known = before.get(key)
        if known is not new and known != new:
            yield key, known, new
