"""Arguments are filled, never evaluated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.agent.placeholders import fill, needs, seconds

VALUES = {"target_pid": "7", "target_root": "/proc/7/root", "output": "/o/{target_pid}", "duration": "90"}


@pytest.mark.parametrize(
    ("argument", "filled"),
    [
        ("-p", "-p"),
        ("{target_pid}", "7"),
        ("--pid={target_pid},{target_pid}", "--pid=7,7"),
        ("{target_root}/tmp", "/proc/7/root/tmp"),
        ("{output}", "/o/{target_pid}"),
        ("{{target_pid}}", "{target_pid}"),
        ("{{{target_pid}}}", "{7}"),
        ("tcp and {x}", "tcp and {x}"),
        ("{", "{"),
        ("}{", "}{"),
        ("$(id) `id` ; a[$(x)] %s \\n", "$(id) `id` ; a[$(x)] %s \\n"),
        ("", ""),
    ],
)
def test_an_argument_is_filled_once(argument: str, filled: str) -> None:
    assert fill((argument,), VALUES) == (filled,)


@given(st.text())
def test_a_text_with_doubled_braces_comes_out_as_it_was(text: str) -> None:
    assert fill((text.replace("{", "{{").replace("}", "}}"),), VALUES) == (text,)


def test_what_is_needed_is_known_before() -> None:
    assert needs(("a", "{target_root}/x"), "target_pid", "target_root")
    assert not needs(("{{target_pid}}", "{duration}"), "target_pid", "target_root")


@pytest.mark.parametrize(("given_seconds", "text"), [(90.0, "90"), (0.5, "0.5"), (1e7, "10000000"), (2.25, "2.25")])
def test_seconds_are_written_as_tools_read_them(given_seconds: float, text: str) -> None:
    assert seconds(given_seconds) == text
