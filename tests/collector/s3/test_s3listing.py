"""Pages of a listing, cut anywhere."""

import string

from hypothesis import given
from hypothesis import strategies as st

from tests.collector.s3.conftest import NOW
from toe_async.collector.captures import MOST_LEAVES
from toe_async.collector.s3listing import Candidate, Halves, Listed, Pairing

_NAMES = st.text(string.ascii_lowercase[:3] + "-.", min_size=1, max_size=6)
_SUFFIX = ".manifest.json"


@given(objects=st.sets(_NAMES, max_size=20), manifests=st.sets(_NAMES, max_size=20), cut=st.integers(1, 9))
def test_pairs_and_halves_are_found_wherever_a_listing_is_cut(objects: set[str], manifests: set[str], cut: int) -> None:
    """Names that are each other's beginnings included; what is skipped is neither."""
    keys = sorted({f"p/{name}" for name in objects} | {f"p/{name}{_SUFFIX}" for name in manifests} | {"p/.toe/x"})
    listed = [Listed(key, len(key), NOW) for key in keys]
    pages = [listed[at : at + cut] for at in range(0, len(listed), cut)]
    pairing, halves = Pairing("p/.toe/"), Halves("p/.toe/")
    paired = [one for page in pages for one in pairing.page(page)]
    lonely = [one.key for page in pages for one in halves.page(page)] + [one.key for one in halves.end()]
    assert sorted(one.key for one in paired) == sorted(f"p/{name}{_SUFFIX}" for name in objects & manifests)
    assert all(one == Candidate(one.key, len(one.key) - len(_SUFFIX)) for one in paired)
    assert sorted(lonely) == sorted(
        [f"p/{name}" for name in objects - manifests] + [f"p/{name}{_SUFFIX}" for name in manifests - objects]
    )


def test_memory_is_bounded_whatever_the_names_are() -> None:
    """Hundreds of names, each the beginning of the next: none is judged, and few are remembered."""
    names = [Listed("p/" + "-" * n, 1, NOW) for n in range(1, 1000)]
    pairing, halves = Pairing("q"), Halves("q")
    assert not [*pairing.page(names), *halves.page(names)]
    assert len(list(halves.end())) <= 2 * MOST_LEAVES
