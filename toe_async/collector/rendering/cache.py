"""Finished answers, for a while. Rights are the caller's to check, each time anew."""

from collections import OrderedDict
from collections.abc import Hashable

from msgspec import Struct

from toe_async.lib.clock import Clock

_LARGEST_SHARE = 4


class Rendered(Struct, frozen=True):
    """An answer and the type to serve it as."""

    content_type: str
    body: bytes


class Finished:
    """Answers by what was asked, the least recently used ones dropped first. `capacity` in bytes of bodies."""

    def __init__(self, capacity: int, seconds: float, clock: Clock) -> None:
        self._capacity, self._seconds, self._clock = capacity, seconds, clock
        self._held: OrderedDict[Hashable, tuple[float, Rendered]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> Rendered | None:
        """The answer, while it may still be used."""
        self._drop_old()
        found = self._held.get(key)
        if found is None:
            return None
        self._held.move_to_end(key)
        return found[1]

    def put(self, key: Hashable, rendered: Rendered) -> None:
        """Keep an answer, unless it would take the place of many."""
        self._drop(key)
        if len(rendered.body) > self._capacity // _LARGEST_SHARE:
            return
        self._held[key] = self._clock.monotonic() + self._seconds, rendered
        self._bytes += len(rendered.body)
        while self._bytes > self._capacity:
            self._drop(next(iter(self._held)))

    def _drop_old(self) -> None:
        now = self._clock.monotonic()
        for key in [key for key, (until, _) in self._held.items() if until <= now]:
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        found = self._held.pop(key, None)
        if found is not None:
            self._bytes -= len(found[1].body)
