"""A tool's argument vector: what is put together, and which words of an author are refused."""

import time
from typing import Any

import msgspec
import pytest
from powertool_facts import spec, tool

from toe_async.apis.powertool import Tool
from toe_async.apis.powertoolconfig import ArgumentRule
from toe_async.apis.reasons import Reason
from toe_async.capture.arguments import argument_fault, placeholder_fault, render, rule_fault
from toe_async.capture.refusals import Refused


def _rules(*wire: dict[str, Any]) -> tuple[ArgumentRule, ...]:
    return msgspec.convert(wire, tuple[ArgumentRule, ...])


def _wanted(**changes: Any) -> Tool:
    return spec(tool={"name": "tcpdump", "duration": "30s", **changes}).tool


FILTER = _rules(
    {"flag": "-i", "pattern": "any|[a-z0-9]{1,15}"},
    {"flag": "-n"},
    {"flag": "--rate", "type": "integer", "minimum": "1", "maximum": "999"},
    {"pattern": r"[a-z0-9 .:/()!&|=<>\-]{1,200}"},
)


def test_the_parts_come_in_order_and_the_administrators_part_cannot_be_dropped() -> None:
    approved = tool(
        command=["tcpdump", "-w", "{output}/x.pcap"],
        defaultArgs=["-s", "96"],
        presets=[{"name": "low", "args": ["-c", "100"]}],
    )
    wanted = _wanted(resolutionPreset="low", args=["-i", "any", "", "port 80"])
    argv = ("tcpdump", "-w", "{output}/x.pcap", "-s", "96", "-c", "100", "-i", "any", "", "port 80")
    assert render(approved, wanted) == argv


def test_a_configuration_without_a_command_means_the_images_own_program() -> None:
    rendered = render(tool(), _wanted(args=["--cpu"]))
    assert rendered == ("/opt/toe/tool", "--cpu")


def test_braces_of_an_author_are_no_placeholders() -> None:
    rendered = render(tool(), _wanted(args=["{target_pid}", "a{b}c"]))
    assert not isinstance(rendered, Refused)
    assert [one.format() for one in rendered[1:]] == ["{target_pid}", "a{b}c"]


def test_a_preset_that_the_tool_does_not_have_is_refused_with_those_that_it_has() -> None:
    refused = render(tool(presets=[{"name": "low", "args": []}]), _wanted(resolutionPreset="high"))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.INVALID_SPEC
    assert "it has: low" in refused.message


@pytest.mark.parametrize(
    "args",
    [
        ("-i", "any", "port 80 or port 443"),
        ("-i=eth0",),
        ("-n",),
        ("--rate", "999"),
        ("--rate=1",),
        ("tcp and not port 22",),
        (),
    ],
)
def test_what_the_rules_name_is_allowed(args: tuple[str, ...]) -> None:
    assert argument_fault(FILTER, args) is None


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("-w", "/etc/passwd"), "'-w'"),
        (("-z", "sh"), "'-z'"),
        (("--exec",), "'--exec'"),
        (("-n=1",), "'-n=1'"),
        (("-i",), "needs a value behind -i"),
        (("-i", "any;id"), "'any;id'"),
        (("-i", "any\n"), "'any\\n'"),
        (("--rate", "0"), "'0'"),
        (("--rate", "1e9"), "'1e9'"),
        (("--rate=1000",), "'1000'"),
        (("--rate", "a[$(id)]"), "from 1 to 999"),
        (("$(id)",), "'$(id)'"),
        (("`id`",), "'`id`'"),
        (("@file",), "'@file'"),
        (("-F", "file"), "'-F'"),
        (("port 80", "-w"), "'-w'"),
        (("a\0b",), "NUL"),
        (("x" * 5000,), "4096"),
    ],
)
def test_everything_else_is_refused_with_the_word(args: tuple[str, ...], word: str) -> None:
    fault = argument_fault(FILTER, args)
    assert fault is not None
    assert word in fault


def test_a_refusal_names_what_is_allowed() -> None:
    fault = argument_fault(FILTER, ("-w",))
    assert fault is not None
    assert "-i, -n, --rate" in fault


def test_a_wide_pattern_lets_no_option_in() -> None:
    assert argument_fault(_rules({"pattern": ".*"}), ("--output=/etc/x",)) is not None
    assert argument_fault(_rules({"pattern": "^-[a-z]$"}), ("-v",)) is None
    assert argument_fault(_rules({"type": "integer"}), ("-5",)) is None


def test_an_authors_text_never_makes_a_pattern_try_for_ever() -> None:
    """It is checked on the operator's event loop: one run must not hold up all others."""
    rules = _rules({"flag": "-e", "pattern": "([a-z]+,?)*"}, {"pattern": "(a|a)*"}, {"pattern": "(a|b|.)*"})
    began = time.process_time()
    fault = argument_fault(rules, ("-e", "a" * 1000 + "!"))
    assert fault is not None
    assert "does not take" in fault
    fault = argument_fault(rules, ("a" * 1024,) * 400)
    assert fault is not None
    assert "more steps than it may" in fault
    assert argument_fault(rules, ("a" * 1025,)) is not None, "no pattern is asked of so long a text"
    assert time.process_time() - began < 3


def test_without_a_list_anything_goes_and_with_an_empty_one_nothing() -> None:
    assert argument_fault(None, ("--anything", "$(id)")) is None
    assert argument_fault((), ("x",)) is not None
    assert argument_fault((), ()) is None


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ({"type": "duration", "maximum": "1m"}, "60s", "61s"),
        ({"type": "quantity", "minimum": "1Ki"}, "2Ki", "1"),
        ({"type": "number", "maximum": "99.5"}, "99.5", "nan"),
        ({"type": "boolean"}, "true", "yes"),
        ({"type": "enum", "values": ["cpu", "wall"]}, "wall", "wal"),
        ({"type": "string"}, "two words", "-option"),
        ({"pattern": "a|b"}, "b", "ab"),
    ],
)
def test_each_type_of_parameter_takes_its_own_values_only(rule: dict[str, Any], good: str, bad: str) -> None:
    rules = _rules({"flag": "--x", **rule})
    assert rule_fault(rules[0]) is None
    assert argument_fault(rules, ("--x", good)) is None
    assert argument_fault(rules, ("--x", bad)) is not None


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ({"flag": "-a", "pattern": "x", "type": "string"}, "not both"),
        ({}, "needs pattern or type"),
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": r"(a)\1"}, "not supported"),
        ({"flag": "-a", "type": "enum"}, "needs values"),
        ({"flag": "-a", "type": "integer", "minimum": "x"}, "does not go with type integer"),
        ({"flag": "-a", "type": "string", "maximum": "5"}, "does not go with type string"),
        ({"flag": "-a", "minimum": "5"}, "does not go with type None"),
    ],
)
def test_a_broken_rule_is_told(rule: dict[str, Any], word: str) -> None:
    fault = rule_fault(_rules(rule)[0])
    assert fault is not None
    assert word in fault


@pytest.mark.parametrize("word", ["{target_pid}", "x{{y}}", "{output}/a.pcap", "{duration}", "plain", "{target_root}"])
def test_known_placeholders_are_fine(word: str) -> None:
    assert placeholder_fault(word) is None


@pytest.mark.parametrize(
    "word", ["{", "}", "{0}", "{}", "{token}", "{target_pid.__class__}", "{output!r}", "{duration:>9}"]
)
def test_any_other_brace_is_told(word: str) -> None:
    fault = placeholder_fault(word)
    assert fault is not None
    assert "a brace is written twice" in fault
