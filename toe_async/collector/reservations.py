"""Space that uploads under way have set aside, so that what was accepted also fits.

Whoever wants space says so first and looks at what is kept and what others set aside afterwards. So of two that only
fit alone, the later always sees the earlier, and no bound is ever exceeded; one that is just being committed may be
counted twice for a moment.
"""

import contextlib
from collections.abc import Iterator, Mapping

from msgspec import Struct


class Claim(Struct, eq=False):
    """What one upload sets aside."""

    namespace: str
    capture: str
    leaf: str
    size: int = 0
    """Bytes that the artifact will have, as far as is known."""
    written: int = 0
    """How many of them are on the staging disk."""
    idle_since: float | None = None
    """Since when no request carries it on; None while one does."""


class Ahead(Struct, frozen=True, kw_only=True):
    """What others had set aside at one moment."""

    unwritten_bytes: int = 0
    capture_bytes: int = 0
    namespace_bytes: int = 0
    namespace_artifacts: int = 0
    store_bytes: int = 0


class Reservations:
    """All claims. Those of uploads in pieces live as long as their parts, the others as long as their requests."""

    def __init__(self, reserved_seconds: float) -> None:
        self._reserved_seconds = reserved_seconds
        self._claims: set[Claim] = set()
        self._resumable: dict[tuple[str, str], Claim] = {}

    @contextlib.contextmanager
    def whole(self, claim: Claim) -> Iterator[None]:
        """Count a claim until the block ends."""
        self._claims.add(claim)
        try:
            yield
        finally:
            self._claims.discard(claim)

    def resumable(self, capture: str, leaf: str) -> Claim:
        """The claim of an upload in pieces, made when there is none."""
        claim = self._resumable.get((capture, leaf))
        if claim is None:
            claim = self._resumable[capture, leaf] = Claim("", capture, leaf)
            self._claims.add(claim)
        return claim

    def get(self, capture: str, leaf: str) -> Claim | None:
        """The claim of an upload in pieces, if there is one."""
        return self._resumable.get((capture, leaf))

    def end(self, capture: str, leaf: str) -> None:
        """Drop the claim of an upload in pieces; harmless when there is none."""
        claim = self._resumable.pop((capture, leaf), None)
        if claim is not None:
            self._claims.discard(claim)

    def settle(self, found: Mapping[tuple[str, str], tuple[str, int]], at: float) -> None:
        """Take over what lay on disk at an instant, namespace and bytes by capture and leaf, for idle uploads."""
        for capture, leaf in found.keys() - self._resumable.keys():
            self.resumable(capture, leaf).idle_since = float("-inf")
        for key, claim in list(self._resumable.items()):
            if claim.idle_since is None or claim.idle_since >= at:
                continue
            if key in found:
                claim.namespace, claim.written = found[key]
            else:
                self.end(*key)

    def ahead(self, mine: Claim, now: float) -> Ahead:
        """What everybody else has set aside."""
        unwritten = 0
        sizes: dict[tuple[str, str, str], int] = {}
        for claim in self._claims:
            if claim is mine:
                continue
            size, key = self._size(claim, now), (claim.namespace, claim.capture, claim.leaf)
            unwritten += size - claim.written
            sizes[key] = max(size, sizes.get(key, 0))
        # Of several uploads of one artifact, one is kept; each counts itself.
        sizes.pop((mine.namespace, mine.capture, mine.leaf), None)
        near = [(key, size) for key, size in sizes.items() if key[0] == mine.namespace]
        return Ahead(
            unwritten_bytes=unwritten,
            capture_bytes=sum(size for (_, capture, _), size in near if capture == mine.capture),
            namespace_bytes=sum(size for _, size in near),
            namespace_artifacts=len(near),
            store_bytes=sum(sizes.values()),
        )

    def _size(self, claim: Claim, now: float) -> int:
        # Who declared much and went away holds up nobody for long; what is written counts as long as it is there.
        if claim.idle_since is not None and now - claim.idle_since > self._reserved_seconds:
            return claim.written
        return max(claim.size, claim.written)
