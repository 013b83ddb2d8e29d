"""Durations, quantities, globs, names, backoff and instants: one row a rule."""

import re
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.lib.backoff import Backoff
from toe_async.lib.clock import parse_rfc3339, rfc3339
from toe_async.lib.durations import format_duration, parse_duration
from toe_async.lib.globs import any_match, check_glob, matches
from toe_async.lib.names import digest, is_dns1123_label, safe_segment
from toe_async.lib.quantities import format_bytes, parse_quantity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("250ms", 0.25), ("0", 0), ("0s", 0), (".5s", 0.5)],
)
def test_durations_read_as_go_reads_them(text: str, seconds: float) -> None:
    """Each form of time.ParseDuration that a manifest may carry."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "-1s", "1d", "5 m", "m5", "1h30", "1" * 80 + "s", "9" * 60 + "h", "\u0661s"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    """The error tells how to write one."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**7))
def test_a_written_duration_reads_back(seconds: int) -> None:
    """Formatting loses nothing of whole seconds."""
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100m", "0.1"), ("2", "2"), ("199633923n", "0.199633923"), ("4108Ki", "4206592"), ("128Mi", "134217728"),
        ("1e3", "1000"), ("1E3", "1000"), ("1E", "1000000000000000000"), ("1.5G", "1500000000"), ("0", "0"),
        ("5u", "0.000005"), (".5", "0.5"), ("-1", "-1"), ("1Ei", "1152921504606846976"),
    ],
)  # fmt: skip
def test_quantities_read_exactly(text: str, value: str) -> None:
    """Every suffix of resource.Quantity, without rounding."""
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "abc", "1mi", "1KI", "--1", "1 Gi", "1e", "0x10", "1e9999", "1" * 99])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    """The error tells how to write one."""
    with pytest.raises(ValueError, match="quantity"):
        parse_quantity(text)


def test_sizes_are_written_for_people() -> None:
    """One digit, binary units."""
    assert [format_bytes(n) for n in (0, 1023, 1024, 12_900_000, 5 << 40)] == [
        "0 B", "1023 B", "1.0 KiB", "12.3 MiB", "5.0 TiB",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("*", "", True), ("prod-*", "prod-eu", True), ("prod-*", "xprod-eu", False), ("a?c", "abc", True),
        ("[a-c]x", "bx", True), ("[!a]x", "bx", True), ("[!a]x", "ax", False), ("{dev,test}-1", "test-1", True),
        ("A", "a", False), ("a.c", "abc", False), ("[*]", "*", True), ("a***b", "a--b", True), ("[]]", "]", True),
        ("[^a]", "^", True), ("*", "line\nbreak", True),
    ],
)  # fmt: skip
def test_globs_match_whole_names(pattern: str, text: str, expected: bool) -> None:
    """One row a rule of the glob language."""
    assert matches(pattern, text) is expected
    assert any_match(["nothing", pattern], text) is expected


@pytest.mark.parametrize("pattern", ["[a", "[]", "{a", "a\\", "x" * 300, "[z-a]"])
def test_a_broken_glob_is_refused_with_its_reason(pattern: str) -> None:
    """Never a crash of the regular expression compiler, never a silent no-match."""
    with pytest.raises(ValueError, match="glob"):
        check_glob(pattern)


@given(st.text(max_size=40))
def test_any_text_is_a_glob_or_a_clear_refusal(pattern: str) -> None:
    """No pattern raises anything but ValueError."""
    try:
        check_glob(pattern)
    except ValueError:
        return
    matches(pattern, "some-name")


_GLOBS = st.recursive(
    st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]", "-"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(",".join).map("{{{}}}".format),
    ),
    max_leaves=8,
)


@given(_GLOBS, st.text("ab-", max_size=6))
def test_a_glob_means_what_the_regular_expression_of_it_means(glob: str, text: str) -> None:
    """`*` and braces, however nested."""
    words = {"*": ".*", "?": ".", "{": "(?:", "}": ")", "!": "^", ",": "|"}
    expected = re.fullmatch("".join(words.get(one, one) for one in glob), text) is not None
    assert matches(glob, text) is expected


@pytest.mark.parametrize(
    "glob", ["*a" * 100 + "*b", "{" + "*a" * 100 + "}b", "{a,aa}" * 40 + "b", "{a,{a,{a,a}}}*" * 15 + "b"]
)
def test_a_glob_of_many_stars_is_decided_at_once(glob: str) -> None:
    """Whoever owns a namespace writes them, and the operator asks them of each name."""
    began = time.process_time()
    assert not matches(glob, "a" * 250 + "c")
    assert time.process_time() - began < 0.5


def test_digests_tell_lists_of_parts_apart() -> None:
    """Joining user-given names would let two lists meet."""
    assert digest("a-b", "c") != digest("a", "b-c")
    assert digest("ab", "") != digest("a", "b")
    assert len(digest("x", length=10)) == 10


@given(st.text(max_size=300), st.text(max_size=300))
def test_segments_are_safe_and_never_meet(one: str, other: str) -> None:
    """Whatever the text: one segment, printable ASCII, bounded, and distinct for distinct texts."""
    for text in (one, other):
        segment = safe_segment(text)
        assert segment.isascii()
        assert segment.isprintable()
        assert 0 < len(segment) <= 120
        assert not set(segment) & set("/\\ %;:'\"")
        assert segment not in {".", ".."}
        assert not segment.startswith(".")
        assert safe_segment(segment) == segment
    if one != other and len(one) < 100 and len(other) < 100:
        assert safe_segment(one) != safe_segment(other) or safe_segment(one) in {one, other}


@pytest.mark.parametrize("text", ["web-1", "app=web", "a.b_c@d"])
def test_a_safe_segment_stays_as_it_is(text: str) -> None:
    """Ordinary names are readable on disk."""
    assert safe_segment(text) == text


@pytest.mark.parametrize("text", ["-a", "a-", "A", "a.b", "", "a" * 64])
def test_what_is_no_dns_label_is_told(text: str) -> None:
    """One of 63 characters with an inner dash is."""
    assert is_dns1123_label("a-" + "x" * 61)
    assert not is_dns1123_label(text)


def test_backoff_doubles_to_its_cap_and_only_stretches() -> None:
    """Jitter adds up to its share; reset starts over."""
    plain = Backoff(0.8, 30, jitter=0)
    assert [plain.next() for _ in range(7)] == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30]
    plain.reset()
    assert plain.next() == 0.8
    assert Backoff(1, 10, jitter=0.5, rng=lambda: 1.0).next() == 1.5
    tired = Backoff(1, 10, jitter=0)
    tired.failures = 10**6
    assert tired.next() == 10


def test_instants_survive_their_text() -> None:
    """Go's nanoseconds, offsets and Z are read; MicroTime is written."""
    at = datetime(2026, 1, 24, 20, 44, 8, 123456, UTC)
    assert parse_rfc3339("2026-01-24T20:44:08.123456789Z") == at
    assert parse_rfc3339("2026-01-24T22:44:08.5+02:00") == at.replace(microsecond=500000)
    assert rfc3339(at) == "2026-01-24T20:44:08Z"
    assert rfc3339(at, micro=True) == "2026-01-24T20:44:08.123456Z"
    with pytest.raises(ValueError, match="zone"):
        parse_rfc3339("2026-01-24T20:44:08")
