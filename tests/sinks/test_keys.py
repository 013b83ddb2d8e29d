"""Object keys and metadata."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toe_async.apis.captures import ArtifactRecord, CaptureRecord
from toe_async.sinks.keys import METADATA_LIMIT, candidates, clean_prefix, is_same, metadata

MakeRecord = Callable[..., CaptureRecord]
MakeArtifact = Callable[..., ArtifactRecord]


def test_the_three_names_are_the_plain_one_then_with_the_pod_then_with_the_capture(
    make_record: MakeRecord, make_artifact: MakeArtifact
) -> None:
    """The layout of api.md, and the order of D16."""
    record = make_record()
    assert candidates("hot", record, make_artifact("cpu")) == (
        "hot/2026-01-24/web/20260124-204408-cpu.pprof",
        "hot/2026-01-24/web/20260124-204408-cpu-web-0.pprof",
        f"hot/2026-01-24/web/20260124-204408-cpu-web-0-{record.id[:10]}.pprof",
    )


@pytest.mark.parametrize(("prefix", "start"), [("", "2026"), ("/", "2026"), ("/a//b/", "a/b/2026"), ("a", "a/2026")])
def test_a_prefix_may_be_written_in_any_way(
    prefix: str, start: str, make_record: MakeRecord, make_artifact: MakeArtifact
) -> None:
    """Empty parts never make `//` or a key that begins with a slash."""
    assert candidates(prefix, make_record(), make_artifact())[0].startswith(f"{start}")
    assert "//" not in candidates(prefix, make_record(), make_artifact())[0]


def test_the_date_is_utc_whatever_the_record_says(make_record: MakeRecord, make_artifact: MakeArtifact) -> None:
    """A record that was read back with another zone names the same key."""
    utc = datetime(2026, 1, 1, 23, 30, tzinfo=UTC)
    east = utc.astimezone(timezone(timedelta(hours=5)))
    record = make_record()
    assert candidates("", record, make_artifact(captured_at=east)) == candidates(
        "", record, make_artifact(captured_at=utc)
    )


def test_two_pods_in_one_second_share_only_the_first_name(make_record: MakeRecord, make_artifact: MakeArtifact) -> None:
    """PR7: the same service in two namespaces, replicas at once."""
    one = candidates("p", make_record("a", pod="web-0"), make_artifact())
    two = candidates("p", make_record("b", pod="web-1"), make_artifact())
    other = candidates("p", make_record("c", pod="web-0", namespace="test"), make_artifact())
    assert one[0] == two[0] == other[0]
    assert one[1] == other[1] != two[1]
    assert len({one[2], two[2], other[2]}) == 3


def test_a_service_cannot_leave_its_place(make_record: MakeRecord, make_artifact: MakeArtifact) -> None:
    """A label is somebody else's text."""
    for service in ("../../x", "a/b", "..", ""):
        key = candidates("p", make_record(service=service), make_artifact())[0]
        assert key.count("/") == 3
        assert ".." not in key.split("/")


def test_metadata_says_whose_profile_it_is(make_record: MakeRecord, make_artifact: MakeArtifact) -> None:
    """The names of api.md."""
    artifact = make_artifact()
    record = make_record(labels={"app.kubernetes.io/name": "web"})
    assert metadata(record, artifact) == {
        "capture-id": record.id,
        "pod-name": "web-0",
        "pod-namespace": "shop",
        "profile-type": "heap",
        "reason": "threshold-exceeded",
        "timestamp": "2026-01-24T20:44:08Z",
        "sha256": artifact.sha256,
        "label-app-kubernetes-io-name": "web",
    }


def test_fifty_labels_stay_below_two_kib_and_the_rest_is_counted(
    make_record: MakeRecord, make_artifact: MakeArtifact
) -> None:
    """PR6."""
    labels = {f"example.org/label-number-{n:03}": f"value-{n}" * 7 for n in range(50)}
    found = metadata(make_record(labels=labels), make_artifact())
    kept = [name for name in found if name.startswith("label-")]
    assert sum(len(name) + len(value) + len("x-amz-meta-") for name, value in found.items()) <= METADATA_LIMIT
    assert 5 < len(kept) < 50
    assert found["labels-omitted"] == str(50 - len(kept))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=80), st.text(max_size=80), max_size=60), st.text(max_size=300))
def test_any_text_becomes_headers(
    make_record: MakeRecord, make_artifact: MakeArtifact, labels: dict[str, str], pod: str
) -> None:
    """Nothing that a pod carries can break a header, or make the store refuse the object."""
    found = metadata(make_record(labels=labels, pod=pod), make_artifact())
    assert sum(len(name) + len(value) + len("x-amz-meta-") for name, value in found.items()) <= METADATA_LIMIT
    for name, value in found.items():
        assert name.isascii()
        assert name.replace("-", "a").isalnum()
        assert all(0x21 <= ord(char) < 0x7F for char in value)


def test_the_same_artifact_is_recognised_and_no_other(make_record: MakeRecord, make_artifact: MakeArtifact) -> None:
    """Mine, and the reply was lost: capture, type and bytes must all agree; servers may change the case of names."""
    record, artifact = make_record(), make_artifact()
    stored = {name.title(): value for name, value in metadata(record, artifact).items()}
    assert is_same(stored, record, artifact)
    assert not is_same(stored, make_record("two"), artifact)
    assert not is_same(stored, record, make_artifact("cpu"))
    assert not is_same(stored, record, make_artifact(data=b"other"))
    assert not is_same({}, record, artifact)


def test_clean_prefix_is_stable() -> None:
    """Cleaning twice changes nothing."""
    assert clean_prefix(clean_prefix("//a///b/")) == "a/b"
