"""Which objects of a listing belong together, and which have lost their other half. Pure.

S3 lists keys in the order of their bytes, so an artifact comes before its manifest with at most the capture's other
leaves between them. Remembering the last keys is enough to know, without a request for each, that a manifest's artifact
is there, and the key after an artifact's manifest tells that it has none.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from datetime import datetime

from msgspec import Struct

from toe_async.collector.captures import MOST_LEAVES
from toe_async.collector.paths import MANIFEST_SUFFIX

_REMEMBERED = 2 * MOST_LEAVES


class Listed(Struct, frozen=True):
    """One object as a listing has it. `size` in bytes, `modified` by the clock of S3."""

    key: str
    size: int
    modified: datetime


class Candidate(Struct, frozen=True):
    """A manifest's key and the size that its artifact has."""

    key: str
    artifact_size: int


class Pairing:
    """Goes through the pages of one listing in their order."""

    def __init__(self, skipped_prefix: str) -> None:
        """Keys that begin with `skipped_prefix` are nobody's artifacts."""
        self._skipped = skipped_prefix
        self._recent: OrderedDict[str, int] = OrderedDict()

    def page(self, found: Iterable[Listed]) -> Iterator[Candidate]:
        """The manifests of a page whose artifacts are there."""
        for one in found:
            if one.key.startswith(self._skipped):
                continue
            if one.key.endswith(MANIFEST_SUFFIX):
                size = self._recent.pop(one.key.removesuffix(MANIFEST_SUFFIX), None)
                if size is not None:
                    yield Candidate(one.key, size)
                continue
            self._recent[one.key] = one.size
            if len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)


class Halves:
    """Goes through the pages of one listing in their order, from its beginning or from any key on."""

    def __init__(self, skipped_prefix: str) -> None:
        """Keys that begin with `skipped_prefix` are nobody's artifacts."""
        self._skipped = skipped_prefix
        self._waiting: OrderedDict[str, Listed] = OrderedDict()

    def page(self, found: Iterable[Listed]) -> Iterator[Listed]:
        """Objects without a manifest and manifests without an object, as far as this page tells."""
        for one in found:
            if one.key.startswith(self._skipped):
                continue
            yield from [self._waiting.pop(key) for key in list(self._waiting) if key + MANIFEST_SUFFIX < one.key]
            if not one.key.endswith(MANIFEST_SUFFIX):
                self._waiting[one.key] = one
                if len(self._waiting) > _REMEMBERED:
                    self._waiting.popitem(last=False)  # names of another's making, which are not for us to judge
            elif self._waiting.pop(one.key.removesuffix(MANIFEST_SUFFIX), None) is None:
                yield one

    def end(self) -> Iterator[Listed]:
        """What the end of the listing leaves without a manifest."""
        yield from self._waiting.values()
        self._waiting.clear()
