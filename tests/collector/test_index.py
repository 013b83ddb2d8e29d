"""Listing: order, filters, pages, and what an artifact costs."""

import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.collector.captures import Manifest
from toe_async.collector.index import Index, Page

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def manifest(name: str, second: int = 0, *, namespace: str = "shop", run: str = "hot", uid: str = "u-hot") -> Manifest:
    return Manifest(
        name=name, leaf="heap.pprof", size=1, sha256="a" * 64, stored_at=T0 + timedelta(seconds=second),
        directory=(namespace, "app-cart", run, "2026", "01", "01"), file=f"cart-7d9f8b6c5-x2x4z-server-{name}",
        capture=name, namespace=namespace, labels={}, run=run, run_uid=uid, kind="", pod="", pod_uid="",
        container="", node="", service="", tool="", reason="", trigger="", triggered_at=T0,
    )  # fmt: skip


def names(page: Page) -> list[str]:
    return [row.name for row in page.rows]


def listed(index: Index, namespace: str = "shop", *, run: str = "", since: datetime | None = None) -> list[str]:
    return names(index.page(namespace, run=run, since=since, limit=500, after=""))


def test_the_newest_comes_first_and_namespaces_do_not_mix() -> None:
    """Equal instants go by name."""
    index = Index()
    index.add([manifest("b", 1), manifest("a", 1), manifest("c", 2), manifest("x", 9, namespace="bank")])
    assert listed(index) == ["c", "a", "b"]
    assert listed(index, "bank") == ["x"]
    assert listed(index, "nowhere") == []


def test_filters_take_a_runs_name_or_uid_and_an_instant() -> None:
    """A re-created run has the name and not the UID."""
    index = Index()
    index.add([manifest("a", 1), manifest("b", 2, uid="u-again"), manifest("c", 3, run="cold", uid="u-cold")])
    assert listed(index, run="hot") == ["b", "a"]
    assert listed(index, run="u-again") == ["b"]
    assert listed(index, since=T0 + timedelta(seconds=2)) == ["c", "b"]
    assert listed(index, run="cold", since=T0 + timedelta(seconds=4)) == []


def test_adding_twice_and_removing_keep_the_list_true() -> None:
    """A commit and the scan at the start may both bring an artifact."""
    index = Index()
    index.add([manifest("a", 1), manifest("b", 2)])
    index.add([manifest("a", 1)])
    assert listed(index) == ["b", "a"]
    index.remove("shop", "b")
    index.remove("shop", "never")
    assert listed(index) == ["a"]
    assert index.get("shop", "b") is None


@given(seconds=st.lists(st.integers(0, 20), max_size=60), limit=st.integers(1, 7), drop=st.booleans())
def test_pages_join_to_the_whole_list_even_when_it_changes_between_them(
    seconds: list[int], limit: int, drop: bool
) -> None:
    """Nothing twice, nothing left out that was there all the time."""
    index = Index()
    index.add(manifest(f"n{number}", second) for number, second in enumerate(seconds))
    whole, got, after = listed(index), list[str](), ""
    while True:
        page = index.page("shop", run="", since=None, limit=limit, after=after)
        got += names(page)
        if drop and page.rows:
            index.remove("shop", page.rows[-1].name)
        after = page.continue_
        if not after:
            break
    assert got == whole


@pytest.mark.parametrize("token", ["!", "bm90IGpzb24", "W10", "WyJhIiwxXQ", "\u00e9", "A" * 9])
def test_a_made_up_continue_token_is_refused(token: str) -> None:
    """It is data from outside like any other."""
    with pytest.raises(ValueError, match="continue"):
        Index().page("shop", run="", since=None, limit=1, after=token)


def test_a_page_looks_at_a_bounded_number_of_rows() -> None:
    """A filter that matches nothing gives an empty page and a way to go on, instead of a long silence."""
    index = Index()
    index.add(manifest(f"n{number}", number) for number in range(12_000))
    after, pages = "", 0
    while True:
        page = index.page("shop", run="none", since=None, limit=500, after=after)
        assert not page.rows
        pages, after = pages + 1, page.continue_
        if not after:
            break
    assert pages == 3


def test_an_artifact_costs_less_than_700_bytes() -> None:
    """The figure that the module states; manifests themselves are not kept."""
    index = Index()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(5_000):
            index.add([manifest(f"capture{number:05d}-heap.pprof", number)])
        per_artifact = (tracemalloc.get_traced_memory()[0] - before) / 5_000
    finally:
        tracemalloc.stop()
    assert per_artifact < 700
