"""What reaches a terminal, pure: names and reasons that try to drive it, sizes and ages, tables."""

import json
import random
import unicodedata
from datetime import UTC, datetime

import pytest
import yaml

from toe_async.cli.plugin import text
from toe_async.cli.plugin.amounts import amount, change, share
from toe_async.cli.plugin.artifact import read
from toe_async.cli.plugin.printing import aligned, artifact_table, as_json, as_yaml

PIECES = [
    "\x1b]8;;http://evil.example\x07", "\x1b]8;;\x1b\\", "\x1b]52;c;ZXZpbA==\x07", "\x9d52;c;ZXZpbA==\x9c", "\x1b[2J",
    "\x9b31m", "\x1b[31;1m", "\x1bc", "\x1bP1$r\x1b\\", "\x1b_x\x1b\\", "\x00", "\x07", "\x08", "\r", "\n", "\t",
    "\x7f", "\x85", "\x90", "\u202e", "\u2066", "\u200f", "\u061c", "\u2028", "\ufeff", "\U000e0041", "\ud800",
    "\ue000", "web", "heap", " ", "ü", "数", "e\u0301",
]  # fmt: skip


def generated(count: int) -> list[str]:
    """Strings of hostile pieces and plain ones in any order, and of sequences that never end."""
    draw = random.Random(7)
    made = ["".join(draw.choices(PIECES, k=draw.randint(1, 9))) for _ in range(count - 3)]
    return [*made, "\x1b]52;c;", "\x1b[", "\x1b"]


def drives(shown: str) -> list[str]:
    """Characters that a terminal or a reader's eye could obey."""
    return [char for char in shown if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}]


@pytest.mark.parametrize("hostile", generated(200))
def test_no_generated_string_keeps_anything_that_drives_a_terminal(hostile: str) -> None:
    """No C0, C1, OSC, bidi or other control in the cleaned text, in a table, in JSON or in YAML."""
    cleaned = text.clean(hostile)
    assert not drives(cleaned)
    assert "\x1b" not in cleaned
    item = {"metadata": {"name": hostile}, "artifact": {"pod": hostile, "reason": hostile, "size": 1}}
    table = artifact_table([read(item)], datetime(2026, 1, 1, tzinfo=UTC), wide=True, namespaces=True)
    assert len(table) == 2
    assert not [char for line in table for char in drives(line)]
    for form, load in ((as_json, json.loads), (as_yaml, yaml.safe_load)):
        shown = form({"name": hostile})
        assert not [char for char in drives(shown) if char != "\n"]
        if "\ud800" not in hostile:  # YAML has no way to write half a surrogate pair
            assert load(shown) == {"name": hostile}


@pytest.mark.parametrize(
    ("hostile", "left"),
    [
        ("\x1b]8;;http://evil\x07click\x1b]8;;\x07", "click"),
        ("a\x1b]52;c;ZXZpbA==\x07b", "ab"),
        ("a\x9d52;c;ZXZpbA==\x9cb", "ab"),
        ("red\x1b[31m text\x1b[0m", "red text"),
        ("abc\u202edef", "abcdef"),
        ("two\nlines\tand\x85more", "two lines and more"),
        ("kept \x1b]never ended", "kept never ended"),
        ("  plain  ", "plain"),
        ("Größe 数", "Größe 数"),
    ],
)
def test_what_is_left_of_a_text_is_what_people_would_read(hostile: str, left: str) -> None:
    """Whole sequences go, with what they carry; the words stay, on one line."""
    assert text.clean(hostile) == left


def test_cleaning_takes_time_in_proportion_to_the_text() -> None:
    """A megabyte of introducers is no way to stop the program (60 s is the tests' own limit; it takes milliseconds)."""
    for piece in ("\x1b]", "\x9d", "\x1b[", "\x1b[0;"):
        assert "\x1b" not in text.clean(piece * 300_000)


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"),
     ((1 << 20) - 1, "1.0 MiB"), (5 << 30, "5.0 GiB"), (3 << 50, "3.0 PiB")],
)  # fmt: skip
def test_sizes_have_one_digit_and_a_unit(count: int, shown: str) -> None:
    """In powers of 1024."""
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0s"), (59, "59s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d"), (86_400 * 800, "2y")],
)
def test_ages_are_in_the_unit_that_people_would_say(seconds: float, shown: str) -> None:
    """Two of a unit before the next larger one is used, as kubectl has it."""
    assert text.age(seconds) == shown


def test_columns_line_up_when_characters_are_wide_or_combine() -> None:
    """By terminal columns, not by code points."""
    lines = aligned(("A", "B"), [("数数", "1"), ("e\u0301", "22"), ("", "333")], right=frozenset({1}))
    assert [text.width(line) for line in lines] == [4 + 3 + 3] * 4
    assert lines[3].startswith("-")


def test_an_artifact_that_says_nothing_of_itself_still_has_a_line() -> None:
    """Wrong types count as absent."""
    found = read({"metadata": ["x"], "artifact": {"size": True, "pod": 5, "sha256": "ab"}})
    assert (found.size, found.pod, found.sha256, found.created) == (-1, "", "", None)
    assert artifact_table([found], datetime(2026, 1, 1, tzinfo=UTC), wide=False, namespaces=False)[1].split()[:3] == [
        "-", "?", "?",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(0, "nanoseconds", "0s"), (1500, "nanoseconds", "1.50µs"), (2_500_000, "nanoseconds", "2.50ms"),
     (12_000_000_000, "nanoseconds", "12.00s"), (3, "seconds", "3.00s"), (2048, "bytes", "2.0 KiB"),
     (-2048, "bytes", "-2.0 KiB"), (17, "count", "17")],
)  # fmt: skip
def test_measured_values_are_shown_in_their_unit(value: int, unit: str, shown: str) -> None:
    """Times, bytes, plain numbers."""
    assert amount(value, unit) == shown


def test_changes_carry_a_sign_and_shares_of_nothing_are_none() -> None:
    """A difference without a sign would read as a value."""
    assert (change(5, "count"), change(-5, "count"), change(0, "count")) == ("+5", "-5", "0")
    assert (share(1, 3), share(1, 0)) == ("33.3%", "-")
