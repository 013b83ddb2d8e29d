"""Patterns mean what Python's mean, and no pattern and no text take more than the steps that are allowed."""

import contextlib
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.capture.patterns import Effort, Pattern, TooMuch

_ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "-",
        ".",
        r"\.",
        "[ab]",
        "[^a]",
        "[a-c-]",
        r"\d",
        r"\W",
        r"[\s_]",
        "^",
        "$",
        r"\A",
        r"\Z",
        r"\n",
        "",
        "ä",
    ]
)
_PATTERNS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map("|".join).map("({})".format),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "{,3}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=8,
)


def fits(text: str, word: str, steps: int = 1_000_000) -> bool:
    return Pattern(text).fits(word, Effort(steps))


@given(_PATTERNS, st.text("ab-.1 _\nä", max_size=6))
def test_a_pattern_means_what_it_means_to_python(text: str, word: str) -> None:
    assert fits(text, word) is (re.fullmatch(text, word) is not None)


@pytest.mark.parametrize(
    "text",
    [
        "(a+)+",
        "(a|a)*",
        "(a|aa)+",
        "(.*a){20}",
        "a*" * 30 + "b",
        "(a?){60}a{60}",
        "([a-z-]+,?)*=",
        "((a*)*)*",
        "(?:(?:a{0,30}){0,30})*b",
    ],
)
def test_no_pattern_and_no_text_take_for_ever(text: str) -> None:
    began = time.process_time()
    with contextlib.suppress(TooMuch):
        assert not fits(text, "a" * 1000 + "!")
    assert time.process_time() - began < 2


def test_the_usual_takes_few_steps() -> None:
    assert fits(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[a-z0-9]+)+", "a" * 500 + ".svc", 5000)
    with pytest.raises(TooMuch):
        fits("(a|b|c)*", "abc" * 100, 300)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(", "unterminated"),
        ("(a)\\1", "groupref is not supported"),
        ("(?=a)a", "assert is not supported"),
        ("(?<!a)b", "assert not is not supported"),
        ("(?i)a", "flags are not supported"),
        ("(?i:a)", "subpattern is not supported"),
        ("a++", "possessive repeat is not supported"),
        (r"\ba", "at is not supported"),
        ("a{1,9999}", "more than 8192 parts"),
        ("((a{99}){99}){99}", "more than 8192 parts"),
        ("(((){99}){99}){99}", "more than 8192 parts"),
        ("(){4000000000}", "more than 8192 parts"),
        ("a{0,99999999999}", "too large"),
        ("(" * 5000 + ")" * 5000, "nested too deep"),
    ],
)
def test_what_cannot_be_bounded_is_refused_with_its_reason(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Pattern(text)
