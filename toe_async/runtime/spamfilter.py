"""Which Events are worth sending, and in what form; `runtime.recorder` sends them. Pure: time is handed in.

The rules and figures are client-go's:

- Ten or more different messages of one reason about one object within 600 s become one Event that is counted up, its
  message marked as combined.
- The same Event again is no new object: its count goes up.
- One object may cause 25 Events at once, then one per 300 s.

All memory is bounded: each table keeps the keys used last.
"""

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final, Generic, TypeVar

from msgspec import Struct

from toe_async.apis.meta import ObjectRef
from toe_async.runtime.ratelimit import TokenBucket

BURST: Final = 25
REFILL_SECONDS: Final = 300.0
SIMILAR: Final = 10
SIMILAR_WINDOW: Final = 600.0
REMEMBERED: Final = 4096
COMBINED: Final = "(combined from similar events): "

V = TypeVar("V")


class Occurrence(Struct, frozen=True):
    """Something that happened to an object."""

    ref: ObjectRef
    type: str
    reason: str
    message: str
    action: str


class Send(Struct, frozen=True):
    """The Event to write: a new one when `name` is empty, else the named one with its count raised."""

    key: tuple[str, ...]
    message: str
    count: int
    first: datetime
    name: str


class _Similar:
    """Messages seen of late for one reason and object."""

    def __init__(self) -> None:
        self.messages: set[str] = set()
        self.last = 0.0


class _Sent:
    """An Event that was sent, or is being sent."""

    def __init__(self, first: datetime) -> None:
        self.count = 0
        self.first = first
        self.name = ""


class _Recent(Generic[V]):
    """A table that forgets what was used longest ago."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, ...], V] = OrderedDict()

    def get_or(self, key: tuple[str, ...], make: Callable[[], V]) -> V:
        if key not in self._held:
            self._held[key] = make()
            if len(self._held) > REMEMBERED:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]

    def get(self, key: tuple[str, ...]) -> V | None:
        return self._held.get(key)


class SpamFilter:
    """Judges occurrences in the order in which they come."""

    def __init__(self) -> None:
        self._similar: _Recent[_Similar] = _Recent()
        self._sent: _Recent[_Sent] = _Recent()
        self._buckets: _Recent[TokenBucket] = _Recent()

    def judge(self, seen: Occurrence, now: float, wall: datetime) -> Send | None:
        """What to write for it; None when its object has caused too many Events."""
        ref = seen.ref
        about = (ref.api_version, ref.kind, ref.namespace, ref.name, ref.uid, ref.field_path)
        group = (*about, seen.type, seen.reason, seen.action)
        key, message = self._aggregate(seen.message, group, now)
        sent = self._sent.get_or(key, lambda: _Sent(wall))
        sent.count += 1
        if not self._buckets.get_or(about, lambda: TokenBucket(1 / REFILL_SECONDS, BURST)).take(now):
            return None
        return Send(key, message, sent.count, sent.first, sent.name)

    def written(self, key: tuple[str, ...], name: str) -> None:
        """The Event of that key now exists under that name: the next one counts it up."""
        if (sent := self._sent.get(key)) is not None:
            sent.name = name

    def _aggregate(self, message: str, group: tuple[str, ...], now: float) -> tuple[tuple[str, ...], str]:
        similar = self._similar.get_or(group, _Similar)
        if now - similar.last > SIMILAR_WINDOW:
            similar.messages.clear()
        similar.last = now
        similar.messages.add(message)
        if len(similar.messages) < SIMILAR:
            return (*group, message), message
        similar.messages.pop()  # any one of them: the set stays at its bound and the window stays open
        return group, COMBINED + message
