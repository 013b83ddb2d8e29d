"""Folded stacks to profiles and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.profiles.folded import from_folded, to_folded
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
    assert to_folded(profile) == "main;a:b c 2\nmain;work 15\n"
    assert to_folded(profile, "samples") == "main 1\nmain;a:b c 1\nmain;work 2\n"


def test_lines_become_a_profile() -> None:
    """Leaf first in the profile, root first in the text; spaces belong to the frame."""
    profile = from_folded("main;do work 12\r\n\nmain 3\n", CPU)
    assert profile.samples == (Sample((Frame("do work"), Frame("main")), (12,)), Sample((Frame("main"),), (3,)))


@pytest.mark.parametrize(
    "text", ["main", "main 1.5", " 3", "a;b x", "a 99999999999999999999", "a --3", "a ³", ";" * 2048 + " 1"]
)
def test_a_line_that_is_none_is_refused_by_its_number(text: str) -> None:
    """The way out is to look at that line."""
    with pytest.raises(ProfileError, match="line 2"):
        from_folded(f"ok 1\n{text}\n", CPU)


def test_the_number_of_stacks_is_bounded() -> None:
    """A text of any length ends in a refusal, not in memory."""
    with pytest.raises(ProfileError, match="more than 10 stacks"):
        from_folded("a 1\n" * 11, CPU, max_stacks=10)


names = st.text(st.characters(codec="ascii", exclude_characters=";\n\r", exclude_categories=["Cc", "Zs"]), min_size=1)


@given(st.dictionaries(st.lists(names, min_size=1, max_size=5).map(tuple), st.integers(1, 1 << 40), max_size=8))
def test_text_survives_the_way_through_a_profile(stacks: dict[tuple[str, ...], int]) -> None:
    """from_folded and to_folded are inverse on what to_folded writes."""
    text = "".join(f"{';'.join(stack)} {value}\n" for stack, value in stacks.items())
    once = to_folded(from_folded(text, CPU))
    assert sorted(once.splitlines()) == sorted(text.splitlines())
    assert to_folded(from_folded(once, CPU)) == once
