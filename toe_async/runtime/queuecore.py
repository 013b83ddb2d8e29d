"""The rules of the work queue as plain data, with time handed in; `runtime.workqueue` adds the waiting.

A key is in at most one of three places: queued, being processed, or waiting for its time. The rules are client-go's:

- A key that is added while it is queued is queued once; added while it is processed it is queued again when that ends,
  never before, so no key is ever worked on twice at a time.
- A key that waits may be added at once as well; the wait is then served too. Of two waits the earlier one counts.
- First in, first out; who comes back goes to the end.
- After `shut_down` nothing is added and waits are forgotten; what is queued is still given out.

Memory is bounded by the number of keys: each is held once in each place.
"""

import heapq
from collections import deque
from collections.abc import Hashable
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class QueueCore(Generic[K]):
    """See the module. `now` is in seconds of one monotonic clock in every call."""

    def __init__(self) -> None:
        self._queue: deque[K] = deque()
        self._dirty: dict[K, float] = {}  # since when; queued, or to be queued when its processing ends
        self._processing: dict[K, float] = {}
        self._waiting: dict[K, float] = {}
        # Entries of the heap are never removed in the middle; one that `_waiting` does not confirm is stale.
        self._heap: list[tuple[float, int, K]] = []
        self._order = count()
        self.shutting_down = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def processing(self) -> int:
        """How many keys are being worked on."""
        return len(self._processing)

    def add(self, key: K, now: float) -> bool:
        """Queue a key; False when it was there already or the queue is shutting down."""
        if self.shutting_down or key in self._dirty:
            return False
        self._dirty[key] = now
        if key not in self._processing:
            self._queue.append(key)
        return True

    def add_after(self, key: K, due: float) -> None:
        """Queue a key once `due` has come (`ripen` does it). An earlier time that it waits for already stands."""
        if self.shutting_down:
            return
        held = self._waiting.get(key)
        if held is None or due < held:
            self._waiting[key] = due
            heapq.heappush(self._heap, (due, next(self._order), key))
            self._drop_stale()

    def next_due(self) -> float | None:
        """When the first waiting key is due; None when none waits."""
        while self._heap and self._waiting.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def ripen(self, now: float) -> int:
        """Queue every waiting key whose time has come; how many were added."""
        added = 0
        while (due := self.next_due()) is not None and due <= now:
            key = heapq.heappop(self._heap)[2]
            del self._waiting[key]
            added += self.add(key, now)
        return added

    def pop(self, now: float) -> tuple[K, float] | None:
        """Begin to process the next key: the key and the seconds that it was queued. None when none is queued."""
        if not self._queue:
            return None
        key = self._queue.popleft()
        since = self._dirty.pop(key)
        self._processing[key] = now
        return key, now - since

    def done(self, key: K, now: float) -> float:
        """End the processing of a key and say how many seconds it took; queues it again if it was added meanwhile.

        Raises:
            KeyError: the key is not being processed.
        """
        since = self._processing.pop(key)
        if key in self._dirty:
            self._queue.append(key)
        return now - since

    def shut_down(self) -> None:
        """Add nothing any more and forget what waits."""
        self.shutting_down = True
        self._waiting.clear()
        self._heap.clear()

    def unfinished(self, now: float) -> tuple[float, float]:
        """Seconds of work in progress: their sum, and the longest."""
        ages = [now - since for since in self._processing.values()]
        return sum(ages), max(ages, default=0.0)

    def _drop_stale(self) -> None:
        # A key that is put off again and again leaves a stale entry each time; rebuilding at twice the size keeps the
        # heap proportional to the keys at constant cost per call on average.
        if len(self._heap) > 64 + 2 * len(self._waiting):
            self._heap = [(due, next(self._order), key) for key, due in self._waiting.items()]
            heapq.heapify(self._heap)
