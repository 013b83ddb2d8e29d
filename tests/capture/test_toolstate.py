"""What a kubelet's words, a supervisor's lines and the end of a run mean, by tables."""

import json
import random
from dataclasses import asdict
from typing import Any

import pytest
from toolworld import capture

from toe_async.agent.protocol import LONGEST_LINE, Leaf, Result, message
from toe_async.apis.captures import Standing, StoredLeaf
from toe_async.apis.podspec import decode_pod_detail
from toe_async.apis.powertool import OutputMode, StoredArtifact, TargetState
from toe_async.apis.reasons import Reason
from toe_async.capture.settling import End, settled
from toe_async.capture.toolevents import Accepted, Events, NeedToken, Ready, State, ToolResult, read_result
from toe_async.capture.toolfaults import Fault
from toe_async.capture.toolstate import Look, end_fault, look, start_fault

ID = capture().id
SHA = "a" * 64


# -- the container ----------------------------------------------------------------------------------------------------


def pod(state: dict[str, Any] | None, *, phase: str = "Running", name: str = "toe-x") -> bytes:
    statuses = [] if state is None else [{"name": name, "imageID": "sha256:7", "state": state}]
    spec = {"name": name, "args": ["run", "--capture", ID, "--orders", "f" * 64, "--wait", "900"]}
    return json.dumps(
        {
            "metadata": {"name": "web-1", "uid": "u"},
            "spec": {"containers": [{"name": "app"}], "ephemeralContainers": [spec]},
            "status": {"phase": phase, "reason": "Evicted", "message": "low", "ephemeralContainerStatuses": statuses},
        }
    ).encode()


@pytest.mark.parametrize(
    ("state", "phase", "expected", "reason"),
    [
        (None, "Running", "waiting", ""),
        ({}, "Running", "waiting", ""),
        ({"waiting": {"reason": "ContainerCreating"}}, "Running", "waiting", "ContainerCreating"),
        ({"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "Running", "running", ""),
        ({"terminated": {"exitCode": 7, "reason": "Error"}}, "Running", "ended", "Error"),
        ({"terminated": {"exitCode": 7, "reason": "Error"}}, "Failed", "ended", "Error"),
        (None, "Failed", "ended", "Evicted"),
        ({"waiting": {"reason": "ContainerCreating"}}, "Failed", "ended", "Evicted"),
    ],
)
def test_a_container_is_read_from_the_kubelet_s_words(
    state: dict[str, Any] | None, phase: str, expected: str, reason: str
) -> None:
    """No status yet is waiting, never running; an evicted pod's container has ended."""
    seen = look(decode_pod_detail(pod(state, phase=phase)), "toe-x")
    assert (seen.phase, seen.reason, seen.orders) == (expected, reason, "f" * 64)


def test_a_container_that_is_not_there_is_absent() -> None:
    """Another tool's does not count."""
    assert look(decode_pod_detail(pod(None)), "toe-y") == Look(phase="absent")


@pytest.mark.parametrize(
    ("reason", "seconds", "expected", "passing"),
    [
        ("", 1000, None, False),
        ("ContainerCreating", 1000, None, False),
        ("PodInitializing", 1000, None, False),
        ("ErrImagePull", 29, None, False),
        ("ErrImagePull", 30, Reason.IMAGE_PULL_FAILED, True),
        ("ImagePullBackOff", 30, Reason.IMAGE_PULL_FAILED, True),
        ("InvalidImageName", 0, Reason.IMAGE_PULL_FAILED, False),
        ("ErrImageNeverPull", 0, Reason.IMAGE_PULL_FAILED, False),
        ("CreateContainerError", 0, Reason.CONTAINER_FAILED, False),
        ("CreateContainerConfigError", 0, Reason.CONTAINER_FAILED, False),
        ("RunContainerError", 0, Reason.CONTAINER_FAILED, False),
    ],
)
def test_waiting_ends_when_it_is_of_no_use(reason: str, seconds: float, expected: Reason | None, passing: bool) -> None:
    """With the kubelet's sentence (PT4)."""
    fault = start_fault(Look(phase="waiting", reason=reason, message="its sentence"), seconds, "tools/x:1")
    assert (fault.reason if fault else None, fault.passing if fault else False) == (expected, passing)
    assert fault is None or "its sentence" in fault.message


@pytest.mark.parametrize(
    ("reason", "code", "expected", "passing"),
    [
        ("OOMKilled", 137, Reason.OOM_KILLED, False),
        ("Error", 137, Reason.TOOL_FAILED, False),
        ("Error", 1, Reason.TOOL_FAILED, False),
        ("Completed", 0, Reason.TOOL_FAILED, False),
        ("Error", 3, Reason.NOT_STARTED, True),
        ("StartError", 128, Reason.CONTAINER_FAILED, False),
        ("Evicted", None, Reason.CONTAINER_FAILED, True),
    ],
)
def test_an_end_without_a_result_has_a_reason(reason: str, code: int | None, expected: Reason, passing: bool) -> None:
    """Exit code 0 is no success either (PT3)."""
    fault = end_fault(Look(phase="ended", reason=reason, message="m", exit_code=code), "probe")
    assert (fault.reason, fault.passing) == (expected, passing)


# -- events -----------------------------------------------------------------------------------------------------------


def result(**changes: Any) -> dict[str, Any]:
    leaf = Leaf(name="probe.out", size=5, sha256=SHA, state="stored")
    return asdict(Result(capture=ID, outcome="completed", exit_code=0, leaves=(leaf,), port=81)) | changes


def said(data: bytes, size: int = 1 << 20) -> list[object]:
    events = Events(ID)
    return [event for at in range(0, len(data), size) for event in events.feed(data[at : at + size])]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_events_are_read_wherever_they_are_cut(size: int) -> None:
    """Between them may be anything."""
    lines = [
        message("ready", capture=ID),
        b"noise\n",
        message("accepted", digest="d"),
        message("state", phase="running", seconds=1.5, bytes=9, target="app"),
        b"\xff\xfe{\n",
        message("need-token"),
        message("result", **result()),
    ]
    found = said(b"".join(lines), size)
    kinds = [Ready, Accepted, State, NeedToken, ToolResult]
    assert [isinstance(event, kind) for event, kind in zip(found, kinds, strict=True)] == [True] * 5
    assert isinstance(found[-1], ToolResult)
    assert (found[-1].port, found[-1].leaves[0].name) == (81, "probe.out")


@pytest.mark.parametrize(
    "changes",
    [
        {"capture": "b" * 32},
        {"size": -1},
        {"reason": "two words"},
        {"reason": "x" * 41},
        {"port": 70_000},
        {"leaves": [{"name": "../x", "size": 1, "sha256": SHA, "state": "stored"}]},
        {"leaves": [{"name": "x", "size": 1, "sha256": "short", "state": "stored"}]},
        {"leaves": [{"name": "x", "size": 1, "sha256": "", "state": "stored"}]},
        {"leaves": [{"name": "x", "size": 1, "sha256": "", "state": "kept"}]},
        {"leaves": [{"name": "x", "size": 1, "sha256": SHA, "state": "stored"}] * 257},
        {"leaves": "many"},
        {"leaves": [{"name": "x", "size": 1, "sha256": SHA, "state": "stored", "uri": "/" * 1601}]},
        {"leaves": [{"name": "x", "size": 1, "sha256": SHA, "state": "stored", "uri": "/\x1b[2J"}]},
        {"leaves": [{"name": "x", "size": 1 << 50, "sha256": SHA, "state": "stored"}]},
        {"leaves": [{"name": "x\n", "size": 1, "sha256": SHA, "state": "stored"}]},
        {"reason": "Word\n"},
        {"exit_code": 1 << 40},
        {"signal": -1},
        {"outcome": 7},
    ],
)
def test_a_result_that_cannot_be_is_none(changes: dict[str, Any]) -> None:
    """Neither as an event nor as a termination message."""
    body = result(**changes)
    assert said(message("result", **body)) == []
    assert read_result(json.dumps(body), ID) is None


@pytest.mark.parametrize("text", ["", "Error: exec failed", "[]", "null", "{", '{"capture":1}', "[" * 100_000])
def test_a_termination_message_that_is_no_result_is_none(text: str) -> None:
    """The runtime writes its own there, too."""
    assert read_result(text, ID) is None


def test_what_is_held_of_a_line_is_bounded_and_nothing_raises() -> None:
    """Megabytes without a newline, and bytes at random."""
    events, rng = Events(ID), random.Random(5)
    for _ in range(40):
        assert list(events.feed(b"x" * LONGEST_LINE)) == []
    assert list(events.feed(b"\n" + message("need-token"))) == [NeedToken()]
    for _ in range(2000):
        list(events.feed(rng.randbytes(rng.randrange(60)) + b"\n"))
    assert list(events.feed(message("need-token"))) == [NeedToken()]


# -- outcomes ---------------------------------------------------------------------------------------------------------


def told(**changes: Any) -> ToolResult:
    found = read_result(json.dumps(result(**changes)), ID)
    assert found is not None
    return found


def end(mode: OutputMode = "collector", **changes: Any) -> End:
    return End(capture=capture(mode), tool_container="toe-x", **changes)


STORED = Standing(
    state="Complete", artifacts=(StoredLeaf(leaf="probe.out", uri="artifacts://shop/x", size=5, sha256=SHA),)
)
OTHER = Standing(
    state="Complete", artifacts=(StoredLeaf(leaf="probe.out", uri="artifacts://shop/x", size=5, sha256="b" * 64),)
)
GONE = Fault(Reason.POD_GONE, "gone")
LATE = Fault(Reason.CAPTURE_TIMED_OUT, "late", passing=True)
DELETED = Fault(Reason.CANCELLED, "deleted")
KEPT = [{"name": "probe.out", "size": 5, "sha256": SHA, "state": "kept"}]
LOST = [{"name": "probe.out", "size": 5, "sha256": SHA, "state": "lost"}]
UNHASHED = [*KEPT, {"name": "big.out", "size": 9, "sha256": "", "state": "lost"}]
RECEIPT = ("probe.out", StoredArtifact(uri="s3://b/k", size=5, sha256=SHA))


@pytest.mark.parametrize(
    ("known", "state", "reason", "artifacts"),
    [
        (end(result=told(), standing=STORED), "Completed", "", 1),
        (end(result=told(reason="Truncated", message="cut"), standing=STORED), "Completed", "Truncated", 1),
        (end(result=told(), standing=STORED, cancelled=DELETED), "Completed", "", 1),
        (end(result=told(), standing=STORED, fault=LATE), "Completed", "", 1),
        (end(result=told(), standing=Standing(state="Open")), "Failed", "UploadFailed", 0),
        (end(result=told(), standing=OTHER), "Failed", "UploadFailed", 1),
        (end(result=told(more_leaves=3), standing=STORED), "Failed", "UploadFailed", 1),
        (end("ephemeral", result=told(outcome="failed", reason="TooLarge", leaves=UNHASHED)), "Failed", "TooLarge", 1),
        (end(result=told(), standing=None), "Failed", "UploadFailed", 0),
        (end(result=told(leaves=[]), standing=Standing(state="Open")), "Failed", "NoOutput", 0),
        (end(result=told(outcome="failed", reason="StoreFull"), standing=STORED), "Failed", "StoreFull", 1),
        (end(result=told(outcome="failed", reason="Sold"), standing=STORED), "Failed", "ToolFailed", 1),
        (end(result=told(outcome="what"), standing=STORED), "Failed", "ToolFailed", 1),
        (end(result=told(outcome="cancelled"), standing=STORED), "Cancelled", "Cancelled", 1),
        (end(result=told(outcome="cancelled"), cancelled=LATE, standing=STORED), "Cancelled", "CaptureTimedOut", 1),
        (end(result=told(outcome="cancelled"), fault=LATE, standing=STORED), "Failed", "CaptureTimedOut", 1),
        (end(fault=GONE, standing=STORED), "Completed", "", 1),
        (end(fault=GONE, standing=Standing(state="Complete")), "Failed", "PodGone", 0),
        (end(fault=GONE, standing=Standing(state="Open", artifacts=STORED.artifacts)), "Failed", "PodGone", 1),
        (end(fault=GONE), "Failed", "PodGone", 0),
        (end(cancelled=DELETED), "Cancelled", "Cancelled", 0),
        (end(), "Failed", "ToolFailed", 0),
        (end("pvc", result=told()), "Completed", "", 1),
        (end("pvc", result=told(leaves=LOST)), "Failed", "UploadFailed", 0),
        (end("pvc", result=told(leaves=[])), "Failed", "NoOutput", 0),
        (end("ephemeral", result=told(leaves=KEPT)), "Completed", "", 1),
        (end("ephemeral", result=told(leaves=KEPT, outcome="failed", reason="ToolFailed")), "Failed", "ToolFailed", 1),
        (end("s3", result=told(leaves=KEPT), delivered=[RECEIPT]), "Completed", "", 1),
        (end("s3", result=told(leaves=KEPT)), "Failed", "UploadFailed", 0),
        (end("s3", result=told(leaves=KEPT), undelivered=Fault(Reason.STORE_FULL, "x")), "Failed", "StoreFull", 0),
        (end("s3", result=told(leaves=KEPT, more_leaves=1), delivered=[RECEIPT]), "Failed", "UploadFailed", 1),
    ],
)
def test_an_outcome_is_what_somebody_vouches_for(known: End, state: str, reason: str, artifacts: int) -> None:
    """Success needs the collector's record or S3's receipts; failure never needs anything (TS1)."""
    progress = settled(known)
    assert (progress.state, progress.reason, len(progress.artifacts)) == (TargetState(state), reason, artifacts)
    assert progress.passing is (progress.state == "Failed" and progress.passing)
    assert progress.message or not reason
