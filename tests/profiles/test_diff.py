"""What changed between two profiles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.profiles.diff import Change, diff
from toe_async.profiles.model import Frame, Profile, ProfileError, Sample, ValueType
from toe_async.profiles.parse import parse


def profile(*kinds: tuple[str, str], default: str = "") -> Profile:
    return Profile(
        sample_types=tuple(ValueType(*kind) for kind in kinds),
        samples=(Sample((Frame("a"),), tuple(range(1, len(kinds) + 1))),),
        default_type=default,
    )


def test_twice_the_load_with_the_same_shares_is_no_change_unless_figures_are_asked_for() -> None:
    """Captures of different length compare by share; absolute figures are one argument away."""
    base, other = parse(b"main;a 10\nmain;b 30\n"), parse(b"main;a 20\nmain;b 60\n")
    assert [row.flat - row.flat_before for row in diff(base, other).rows] == [0, 0, 0]
    absolute = diff(base, other, normalise=False)
    assert absolute.rows[0] == Change("b", 30, 60, 30, 60)
    assert (absolute.total_before, absolute.total, absolute.normalised) == (40, 80, False)


def test_what_came_and_what_went_is_there_with_zero_on_the_other_side() -> None:
    """The largest change of flat value comes first; ties go by cumulative change, then by name."""
    found = diff(parse(b"main;gone 5\nmain;kept 5\n"), parse(b"main;new 5\nmain;kept 5\n"))
    assert found.rows == (
        Change("gone", 5, 0, 5, 0),
        Change("new", 0, 5, 0, 5),
        Change("kept", 5, 5, 5, 5),
        Change("main", 0, 0, 10, 10),
    )
    assert diff(parse(b"a 1\n"), parse(b"b 1\n"), limit=1).rows == (Change("a", 1, 0, 1, 0),)


def test_without_a_total_there_is_nothing_to_scale_by() -> None:
    """An idle base does not divide by zero; the result says what it is."""
    found = diff(parse(b"a 0\n"), parse(b"a 7\n"))
    assert (found.normalised, found.rows) == (False, (Change("a", 0, 7, 0, 7),))


@pytest.mark.parametrize(
    ("base", "other", "sample", "chosen"),
    [
        (profile(("cpu", "ns")), profile(("samples", "count"), ("cpu", "ns")), None, "cpu"),
        (profile(("samples", "count")), profile(("samples", "count"), ("cpu", "ns")), None, "samples"),
        (profile(("x", "n"), ("y", "n")), profile(("y", "n"), ("x", "n")), "y", "y"),
        (profile(("x", "n"), ("y", "n")), profile(("x", "n"), ("y", "n"), default="x"), None, "x"),
    ],
)
def test_only_what_both_measured_is_compared(base: Profile, other: Profile, sample: str | None, chosen: str) -> None:
    """By name, wherever it stands in either profile."""
    found = diff(base, other, sample)
    assert found.kind.type == chosen
    assert found.total_before == base.samples[0].values[base.index_of(chosen)]


@pytest.mark.parametrize(
    ("base", "other", "sample", "words"),
    [
        (profile(("heap", "bytes")), profile(("cpu", "ns")), None, "this profile has cpu, its base has heap"),
        (profile(("cpu", "ms")), profile(("cpu", "ns")), None, "nothing to compare"),
        (profile(("cpu", "ns")), profile(("cpu", "ns"), ("x", "n")), "x", "no sample type 'x'"),
    ],
)
def test_apples_and_oranges_are_refused(base: Profile, other: Profile, sample: str | None, words: str) -> None:
    """Another unit is another thing."""
    with pytest.raises(ProfileError, match=words):
        diff(base, other, sample)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1 << 62), min_size=1))
def test_a_profile_against_itself_shows_no_change(figures: dict[str, int]) -> None:
    """Whatever the size of the figures."""
    one = parse("".join(f"{name} {value}\n" for name, value in figures.items()).encode())
    assert all(row.flat == row.flat_before for row in diff(one, one).rows)
