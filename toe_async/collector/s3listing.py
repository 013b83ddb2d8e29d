"""Which objects of a listing are manifests of whole artifacts. Pure.

S3 lists keys in the order of their bytes, so an artifact comes before its manifest with at most the capture's other
leaves between them. Remembering the last keys is enough to know, without a request for each, that a manifest's artifact
is there.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from msgspec import Struct

from toe_async.collector.captures import MOST_LEAVES
from toe_async.collector.paths import MANIFEST_SUFFIX

_REMEMBERED = 2 * MOST_LEAVES


class Listed(Struct, frozen=True):
    """One object as a listing has it. `size` in bytes."""

    key: str
    size: int


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
