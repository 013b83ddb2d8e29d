"""Which leaf is delivered when: in order, again after what may pass, never again after what will not.

No clock and no waiting in here: `step` does at most one attempt and tells how long the next one has time. An attempt
that brought part of a leaf over starts the backoff anew. A refused token holds everything up until another one comes,
which is asked for; nobody may be there to hear it, so after half a minute the old one is tried and a new one asked for
again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from toe_async.agent.faults import Again, Lost
from toe_async.agent.packing import Packed
from toe_async.agent.protocol import Leaf
from toe_async.lib.backoff import Backoff

ASK_AGAIN_SECONDS = 30.0

_FIRST, _LONGEST, _JITTER = 1.0, 40.0, 0.5  # so that no wait is above a minute


class Delivery(Protocol):
    """A place for leaves. All calls may raise Stopped."""

    def put(self, leaf: Packed) -> Leaf:
        """Bring one leaf there; raises Again or Lost."""

    def complete(self, stored: Sequence[Leaf]) -> None:
        """Tell that nothing more comes; raises Again or Lost."""

    def abort(self) -> None:
        """From any thread: end what is under way."""

    def close(self) -> None:
        """Give back what was used; nothing is asked of it any more."""


class Courier:
    """Delivers leaves one after the other. `leaves` is what became of them, `faults` why some did not arrive."""

    def __init__(self, place: Delivery, need_token: Callable[[], None]) -> None:
        self._place, self._need_token = place, need_token
        self._waiting: deque[Packed] = deque()
        self._backoff = Backoff(_FIRST, _LONGEST, jitter=_JITTER)
        self._not_before = 0.0
        self._without_token = False
        self.leaves: list[Leaf] = []
        self.faults: list[Lost] = []
        self.trouble: Again | None = None
        """Why the leaf that is next did not arrive yet."""

    def add(self, leaf: Packed) -> None:
        """Deliver this one too."""
        self._waiting.append(leaf)

    def token_came(self) -> None:
        """Go on at once."""
        if self._without_token:
            self._without_token, self._not_before = False, 0.0

    @property
    def idle(self) -> bool:
        """Whether every leaf has come to its end."""
        return not self._waiting

    def step(self, now: float) -> float:
        """Try the next leaf if it is time; return the seconds until there is something to do, inf for never."""
        if not self._waiting:
            return float("inf")
        if (left := self._not_before - now) > 0:
            return left
        leaf = self._waiting[0]
        try:
            self._end(self._place.put(leaf))
        except Lost as lost:
            self.faults.append(lost)
            self._end(Leaf(name=leaf.name, size=leaf.size, sha256=leaf.sha256, state="lost"))
        except Again as why:
            return self._later(why, now)
        return 0.0

    def complete(self, now: float) -> float:
        """Close the capture if it is time and anything is stored; 0 when that is done for good, else as `step`."""
        stored = [leaf for leaf in self.leaves if leaf.state == "stored"]
        if not stored:
            return 0.0
        if (left := self._not_before - now) > 0:
            return left
        try:
            self._place.complete(stored)
        except Lost as lost:
            self.faults.append(lost)
        except Again as why:
            return self._later(why, now)
        self.trouble = None
        return 0.0

    def give_up(self) -> None:
        """Nothing more is delivered: what waits is lost, for the reason that held it up last."""
        why = self.trouble
        while self._waiting:
            leaf = self._waiting.popleft()
            reason, words = (why.reason, str(why)) if why else ("UploadFailed", "there was no time left to store it")
            self.faults.append(Lost(reason, words))
            self.leaves.append(Leaf(name=leaf.name, size=leaf.size, sha256=leaf.sha256, state="lost"))

    def _later(self, why: Again, now: float) -> float:
        self.trouble = why
        if why.token:
            self._without_token, wait = True, ASK_AGAIN_SECONDS
            self._need_token()
        else:
            if why.progressed:
                self._backoff.reset()
            wait = max(why.retry_after, self._backoff.next())
        self._not_before = now + wait
        return wait

    def _end(self, leaf: Leaf) -> None:
        self._waiting.popleft()
        self.leaves.append(leaf)
        self._backoff.reset()
        self._not_before, self.trouble = 0.0, None
