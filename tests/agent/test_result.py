"""Failed means failed, and whatever happened is told in 4 KiB."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.agent.process import Ended
from toe_async.agent.protocol import Leaf, Result
from toe_async.agent.result import TIME_IS_OVER, Course, Stop, encode_result, judge, last_words
from toe_async.apis.reasons import Reason

OUT = (Leaf("tool.out.gz", 5, "ab", "stored"),)
LOG = (Leaf("tool.log", 5, "ab", "stored"),)
WELL, BAD, KILLED = Ended(0, None), Ended(3, None), Ended(None, 9)
CANCELLED = Stop("Cancelled", "the operator cancelled the run")
HARM = Stop("HarmGuard", "too much")
TOO_LARGE = Stop("Truncated", "ended when its output exceeded 9 bytes")
LOST = Stop("UploadFailed", "1 of 1 artifacts are lost")


@pytest.mark.parametrize(
    ("course", "outcome", "reason"),
    [
        (Course("tool", WELL, leaves=OUT), "completed", ""),
        (Course("tool", BAD, leaves=OUT), "failed", "ToolFailed"),
        (Course("tool", Ended(124, None), leaves=OUT), "failed", "ToolFailed"),
        (Course("tool", KILLED, leaves=OUT), "failed", "ToolFailed"),
        (Course("tool", WELL, leaves=()), "failed", "NoOutput"),
        (Course("tool", WELL, leaves=LOG), "failed", "NoOutput"),
        (Course("tool", Ended(None, 15), TIME_IS_OVER, leaves=OUT), "completed", ""),
        (Course("tool", BAD, TIME_IS_OVER, leaves=OUT), "completed", ""),
        (Course("tool", WELL, TIME_IS_OVER), "failed", "NoOutput"),
        (Course("tool", KILLED, TIME_IS_OVER, killed=True, leaves=OUT), "failed", "CaptureTimedOut"),
        (Course("tool", WELL, HARM, leaves=OUT), "failed", "HarmGuard"),
        (Course("tool", WELL, Stop("HeartbeatLost", "silent"), leaves=OUT), "failed", "HeartbeatLost"),
        (Course("tool", Ended(None, 15), TOO_LARGE, leaves=OUT), "completed", "Truncated"),
        (Course("tool", KILLED, TOO_LARGE, killed=True, leaves=OUT), "failed", "TooLarge"),
        (Course("tool", WELL, CANCELLED, leaves=OUT), "cancelled", "Cancelled"),
        (Course("tool", KILLED, CANCELLED, killed=True), "cancelled", "Cancelled"),
        (Course("tool", stop=CANCELLED, fault=CANCELLED), "cancelled", "Cancelled"),
        (Course("tool", WELL, CANCELLED, fault=LOST), "cancelled", "Cancelled"),
        (Course("tool", WELL, fault=LOST, leaves=OUT), "failed", "UploadFailed"),
        (Course("tool", BAD, fault=LOST, leaves=OUT), "failed", "ToolFailed"),
        (Course("tool", fault=Stop("TargetContainerMissing", "none")), "failed", "TargetContainerMissing"),
        (Course("tool"), "failed", "ToolFailed"),
    ],
)
def test_the_first_that_went_wrong_is_the_reason(course: Course, outcome: str, reason: str) -> None:
    said = judge(course)
    assert said[:2] == (outcome, reason)
    assert reason == "" or reason in list(Reason)
    assert bool(said[2]) is (outcome != "completed" or reason != "")


def test_a_failure_says_code_or_signal_and_the_tools_last_words() -> None:
    assert judge(Course("perf", BAD, last_words="no such event"))[2] == "perf exited with 3: no such event"
    assert judge(Course("perf", Ended(None, 11)))[2] == "perf was ended by signal 11"
    assert "memory" in judge(Course("perf", KILLED))[2]


def test_what_is_to_be_told_though_all_is_well_is_told() -> None:
    assert judge(Course("tool", WELL, leaves=OUT, note="gzip instead")) == ("completed", "", "gzip instead")


names = st.text(max_size=120)
leaf = st.builds(Leaf, name=names, size=st.integers(0, 1 << 50), sha256=st.just("a" * 64), state=names, uri=names)


@given(st.text(max_size=5000), st.lists(leaf, max_size=80))
def test_a_result_is_one_json_object_of_at_most_4096_bytes(text: str, leaves: list[Leaf]) -> None:
    encoded = encode_result(Result("capture", "failed", "ToolFailed", text, 1, None, leaves=tuple(leaves)))
    said = json.loads(encoded)
    assert len(encoded) <= 4096
    assert len(said["leaves"]) + said["more_leaves"] == len(leaves)
    assert said["outcome"] == "failed"


def test_as_many_leaves_as_fit_are_told() -> None:
    leaves = tuple(Leaf(f"file-{number:04d}.out.gz", 1000, "a" * 64, "stored") for number in range(200))
    said = json.loads(encode_result(Result("capture", "completed", leaves=leaves)))
    assert 20 < len(said["leaves"]) < 200
    assert said["more_leaves"] == 200 - len(said["leaves"])
    assert len(json.loads(encode_result(Result("capture", "completed", leaves=leaves), 256 << 10))["leaves"]) == 200


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        (b"", ""),
        (b"one\ntwo\n\n", "two"),
        (b"a\x1b[31mred\x00\xff\n", "a [31mred \ufffd"),
        (b"x" * 9000, "x" * 200),
        (b"\n \n", ""),
    ],
)
def test_last_words_are_one_printable_line(stderr: bytes, words: str) -> None:
    assert last_words(stderr) == words
