"""Figures, instants, filters, series and groups: what pages say, decided from data alone."""

from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.collector.pages.shelf import NOW, Shelf, busy_night
from toe_async.collector.api.selection import selection
from toe_async.collector.errors import Refused
from toe_async.collector.pages import filters, sparkline, wording
from toe_async.collector.pages.artifacts import Listing, by_capture, read, read_list


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "0.98 KiB"), (1024, "1.00 KiB"), (10_240, "10.0 KiB"), (102_400, "100 KiB"),
        (1_023_999, "0.98 MiB"), (5 << 30, "5.00 GiB"), (1 << 62, "4096 PiB"),
    ],
)  # fmt: skip
def test_a_size_is_said_in_three_digits(count: int, words: str) -> None:
    """In binary units, as quantities of memory are."""
    assert wording.size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "just now"), (4.9, "just now"), (5, "5 s ago"), (61, "1 min ago"), (3599, "59 min ago"), (3600, "1 h ago"),
        (47 * 3600, "47 h ago"), (49 * 3600, "2 days ago"), (70 * 86400, "2 months ago"), (-3, "just now"),
        (-3600, "in the future"),
    ],
)  # fmt: skip
def test_an_age_is_one_figure(seconds: float, words: str) -> None:
    """A clock that is a little behind is no news."""
    assert wording.age(NOW - timedelta(seconds=seconds), NOW) == words


def test_an_instant_is_shown_in_utc_whatever_its_zone() -> None:
    """People compare it with logs."""
    there = datetime(2026, 1, 24, 5, 12, 45, tzinfo=timezone(timedelta(hours=2)))
    assert wording.clock(there) == "03:12:45"
    assert wording.day(there) == "Saturday, 24 January 2026"
    assert wording.moment(there) == "2026-01-24 03:12:45 UTC"
    assert wording.machine(there) == "2026-01-24T03:12:45Z"


VALUES = ["plain", "a,b", "a=b", "a\\b", "\\", ",=\\", "ä b", "'\"<>&"]


@pytest.mark.parametrize("value", VALUES)
def test_a_filter_reaches_the_api_as_it_was_typed(value: str) -> None:
    """The API's own reader takes back every character of it."""
    wanted = filters.Filters(namespace="shop", pod=value, kind=value, tool=value, leaf=value)
    terms = selection("shop", wanted.query(), NOW).query.fields
    assert {term.path: term.value for term in terms} == dict.fromkeys(
        ["artifact.pod", "artifact.kind", "artifact.tool", "artifact.leaf"], value
    )
    assert all(term.equal for term in terms)


def test_every_filter_survives_the_address() -> None:
    """What an address was made of is what it is read as."""
    wanted = filters.Filters(
        namespace="shop", q="a&b=c", run="r", pod="p", kind="k", tool="t", leaf="l", last="1h",
        since="2026-01-24T03:00", until="2026-01-24T04:00", limit=500,
    )  # fmt: skip
    found = parse_qs(urlsplit(wanted.address()).query)
    assert filters.read({key: values[0] for key, values in found.items()}) == wanted


def test_a_changed_list_begins_at_its_start() -> None:
    """A token belongs to one list."""
    assert "continue" not in filters.Filters(namespace="a", continue_="tok").address(pod="x")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"since": "2026-01-24T03:12"}, {"since": "2026-01-24T03:12:00Z"}),
        ({"since": "2026-01-24T03:12:09"}, {"since": "2026-01-24T03:12:09Z"}),
        ({"until": "2026-01-24"}, {"until": "2026-01-24T00:00:00Z"}),
        ({"until": "2026-01-24T03:12:00+02:00"}, {"until": "2026-01-24T01:12:00Z"}),
        ({"last": "6h"}, {"since": "6h"}),
        ({"last": "6h", "since": "2026-01-24T03:12"}, {"since": "2026-01-24T03:12:00Z"}),
        ({"last": "forever"}, {}),
        ({"limit": "7"}, {}),
    ],
)
def test_times_are_told_to_the_library(asked: dict[str, str], told: dict[str, str]) -> None:
    """A start that was typed wins over a span; what no page offers is ignored."""
    assert filters.read(asked).query() == told


@pytest.mark.parametrize("text", ["yesterday", "2026-13-45T99:99", "0", "9999999999999"])
def test_a_time_that_cannot_be_read_is_refused_with_an_example(text: str) -> None:
    """And names the field."""
    with pytest.raises(Refused, match=r"'from'.*2026-01-24T03:12") as refused:
        filters.read({"since": text}).query()
    assert refused.value.status == 400


def test_artifacts_of_a_capture_stand_together_in_the_order_of_the_list() -> None:
    """Sorted by file within it; two namespaces never share a capture."""
    shelf = Shelf()
    shelf.put("b.folded", capture="one", ago=timedelta(minutes=1))
    shelf.put("a.folded", capture="two", ago=timedelta(minutes=2))
    shelf.put("a.folded", capture="one", ago=timedelta(minutes=3))
    shelf.put("c.folded", capture="one", namespace="other", ago=timedelta(minutes=4))
    found = by_capture(read_list(shelf.page("", {})).artifacts)
    assert [[one.facts.leaf for one in capture.artifacts] for capture in found] == [
        ["a.folded", "b.folded"], ["a.folded"], ["c.folded"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "odd",
    [{}, {"metadata": {}}, {"metadata": {"name": "x"}, "artifact": None}, {"metadata": 3, "artifact": {"leaf": []}}],
)
def test_an_object_that_is_no_artifact_is_counted_and_left_out(odd: dict[str, object]) -> None:
    """The others are shown."""
    shelf = Shelf(odd=[odd])
    shelf.put()
    found = read_list(shelf.page("shop", {}))
    assert (len(found.artifacts), found.unreadable) == (1, 1)


@pytest.mark.parametrize("raw", [{}, {"items": None, "metadata": None}, {"metadata": {"remainingItemCount": "x"}}])
def test_a_list_of_nothing_is_empty(raw: dict[str, object]) -> None:
    """However it says so."""
    assert read_list(raw) == Listing(artifacts=())


@pytest.mark.parametrize(
    ("leaf", "drawn"),
    [
        ("cpu.pb.gz", True), ("heap.pprof", True), ("x.folded", True), ("X.Folded.GZ", True), ("trace.pcap", False),
        ("threads.txt", False), ("pb.gz.txt", False),
    ],
)  # fmt: skip
def test_only_what_looks_like_a_profile_is_offered_as_one(leaf: str, drawn: bool) -> None:
    """By its file's name; the renderer has the last word."""
    assert read(Shelf().put(leaf).shown()).is_profile is drawn


def test_a_series_is_a_run_and_a_file_in_order_of_time() -> None:
    """What is there once has no line."""
    shelf = Shelf()
    busy_night(shelf)
    found = sparkline.series(read_list(shelf.page("", {})).artifacts)
    assert {(key[1], key[2]): len(one.members) for key, one in found.items()} == {
        ("uid-of-hot-web", "cpu.folded"): 10, ("uid-of-hot-web", "heap.pb.gz"): 5,
        ("uid-of-checkout-heap", "cpu.folded"): 4, ("uid-of-checkout-heap", "heap.pb.gz"): 4,
    }  # fmt: skip
    for one in found.values():
        assert [held.at for held in one.members] == sorted(held.at for held in one.members)


@pytest.mark.parametrize("sizes", [(0, 0), (1, 1), (0, 10**15), (5, 3, 9, 1)])
def test_every_point_of_a_line_is_inside_its_drawing(sizes: tuple[int, ...]) -> None:
    """Empty files and equal instants too; more is never drawn lower."""
    shelf = Shelf()
    made = [read(shelf.put(size=size, ago=timedelta(hours=index // 2)).shown()) for index, size in enumerate(sizes)]
    (of,) = sparkline.series(made).values()
    places = {one.facts.size: sparkline.place(of, one, 96, 20) for one in made}
    assert all(0 <= x <= 96 and 0 <= y <= 20 for x, y in places.values())
    assert [y for _, (_, y) in sorted(places.items())] == sorted((y for _, y in places.values()), reverse=True)


@pytest.mark.parametrize("odd", [{"triggeredAt": "2026-01-24T03:12:45"}, {"size": -1}, {"size": "12"}])
def test_an_instant_without_a_zone_and_a_size_below_nothing_are_no_artifact(odd: dict[str, object]) -> None:
    """Neither can be compared with the others'."""
    raw = Shelf().put().shown()
    raw["artifact"] |= odd
    with pytest.raises(Refused, match="not described as an artifact"):
        read(raw)
