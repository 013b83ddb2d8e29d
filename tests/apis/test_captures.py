"""What the folders tell each other about a capture, and the words that they use for what went wrong."""

import re
from datetime import UTC, datetime

import msgspec
import pytest

from toe_async.apis.captures import ArtifactRecord, CaptureRecord, CollectorRef, S3Ref, SinkRef, Target
from toe_async.apis.meta import encode
from toe_async.apis.reasons import Reason

TARGET = Target(
    namespace="shop", pod="web-1", pod_uid="u", container="app", node="n", labels={"app": "web"}, service="web"
)


@pytest.mark.parametrize(
    "sink",
    [S3Ref(bucket="b"), S3Ref(bucket="b", prefix="p", endpoint="https://s3"), CollectorRef(endpoint="https://c")],
    ids=["AWS", "another store", "collector"],
)
def test_a_record_survives_the_trip_through_the_spool(sink: SinkRef) -> None:
    """A restarted process finishes the delivery from these bytes alone."""
    record = CaptureRecord(
        id="i",
        kind="ProfilingConfig",
        namespace="shop",
        name="hot",
        uid="u",
        target=TARGET,
        reason="threshold-exceeded",
        trigger="CPU 93% of its request",
        triggered_at=datetime(2026, 1, 24, 20, 44, 8, 5, tzinfo=UTC),
        holder="pod-1",
        sink=sink,
        matching_labels={"app": "web"},
    )
    assert msgspec.json.decode(encode(record), type=CaptureRecord) == record


def test_an_artifact_survives_it_too() -> None:
    """Also the doubt about its length."""
    artifact = ArtifactRecord(
        leaf="heap.pprof",
        type="heap",
        size=5,
        sha256="a" * 64,
        captured_at=datetime(2026, 1, 24, tzinfo=UTC),
        verified=False,
    )
    assert msgspec.json.decode(encode(artifact), type=ArtifactRecord) == artifact


def test_a_record_for_an_unknown_kind_of_sink_is_an_error() -> None:
    """A spool of a newer version: better told than sent to the wrong place."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"type":"ftp","endpoint":"x"}', type=S3Ref | CollectorRef)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_one_camel_case_word(reason: Reason) -> None:
    """As metav1.Condition asks for, and short enough for status.recent."""
    assert re.fullmatch(r"([A-Z][a-z]*)+", reason.value)
    assert len(reason.value) <= 64
    assert reason.name == re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", reason.value).upper()
