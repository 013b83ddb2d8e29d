"""Folded stacks to profiles and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.profiles.folded import read, render
from toe_async.profiles.limits import Limits
from toe_async.profiles.model import Frame, Profile, ProfileError, Sample, ValueType

CPU = ValueType("cpu", "nanoseconds")


def test_a_profile_becomes_sorted_lines_from_root_to_leaf() -> None:
    """Equal stacks are one line, separators inside names are replaced, empty sums are left out."""
    main, work, odd = Frame("main"), Frame("work", "a.go", 3), Frame("a;b\nc")
    profile = Profile(
        sample_types=(ValueType("samples", "count"), CPU),
        samples=(
            Sample((work, main), (1, 10)),
            Sample((Frame("work", "a.go", 9), main), (1, 5)),
            Sample((odd, main), (1, 2)),
            Sample((main,), (1, 0)),
            Sample((), (1, 7)),
        ),
    )
    assert render(profile) == "main;a:b c 2\nmain;work 15\n"
    assert render(profile, "samples") == "main 1\nmain;a:b c 1\nmain;work 2\n"


def test_lines_become_a_profile() -> None:
    """Leaf first in the profile, root first in the text; spaces belong to the frame."""
    profile = read(b"main;do work 12\r\n\nmain 3\n", CPU)
    assert profile.samples == (Sample((Frame("do work"), Frame("main")), (12,)), Sample((Frame("main"),), (3,)))


@pytest.mark.parametrize(
    "text", ["main", "main 1.5", " 3", "a;b x", "a 99999999999999999999", "a --3", "a ³", ";" * 2048 + " 1"]
)
def test_a_line_that_is_none_is_refused_by_its_number(text: str) -> None:
    """The way out is to look at that line."""
    with pytest.raises(ProfileError, match="line 2"):
        read(f"ok 1\n{text}\n".encode(), CPU)


def test_the_number_of_lines_is_bounded() -> None:
    """A text of any length ends in a refusal, not in memory."""
    with pytest.raises(ProfileError, match="more than 10 lines"):
        read(b"a 1\n" * 11, CPU, Limits(samples=10))


names = st.text(st.characters(codec="ascii", exclude_characters=";\n\r", exclude_categories=["Cc", "Zs"]), min_size=1)


@given(st.dictionaries(st.lists(names, min_size=1, max_size=5).map(tuple), st.integers(1, 1 << 40), max_size=8))
def test_text_survives_the_way_through_a_profile(stacks: dict[tuple[str, ...], int]) -> None:
    """read and render are inverse on what render writes."""
    text = "".join(f"{';'.join(stack)} {value}\n" for stack, value in stacks.items()) or "a 1\n"
    once = render(read(text.encode(), CPU))
    assert sorted(once.splitlines()) == sorted(text.splitlines())
    assert render(read(once.encode(), CPU)) == once
