"""Who wants to hear of one object that an informer watches anyway. For one event loop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from toe_async.runtime.keys import Key

T = TypeVar("T")


class Subscriptions(Generic[T]):
    """Add `handle` to an informer as a handler. A change that nobody asked for costs one look into a table."""

    def __init__(self, key_of: Callable[[T], Key]) -> None:
        self._key_of = key_of
        self._wanted: dict[Key, list[Callable[[], None]]] = {}

    def handle(self, old: T | None, new: T | None) -> None:
        """Take over one change, as an informer reports it."""
        obj = new if new is not None else old
        if obj is None:
            return
        for changed in tuple(self._wanted.get(self._key_of(obj), ())):
            changed()

    @contextmanager
    def watching(self, namespace: str, name: str, changed: Callable[[], None]) -> Iterator[None]:
        """Call `changed` whenever the object has changed, come or gone, until the block ends. It must be quick."""
        key = Key(namespace, name)
        self._wanted.setdefault(key, []).append(changed)
        try:
            yield
        finally:
            held = self._wanted[key]
            held.remove(changed)
            if not held:
                del self._wanted[key]
