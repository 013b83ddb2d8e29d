"""Whatever a server or a proxy writes into a watch becomes an event, an error or a refusal; never a guess."""

import pytest

from toe_async.apis.kinds import PODS, PROFILING_CONFIGS
from toe_async.kube.errors import ApiError, Gone, TooManyRequests, UnexpectedAnswer
from toe_async.kube.watchevents import Bookmark, Change, KindCheck, read_head, read_line


class TestReading:
    def test_an_object_event_keeps_its_object_raw(self) -> None:
        """Decoding it is somebody else's work."""
        event = read_line(b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}')
        assert isinstance(event, Change)
        assert (event.type, bytes(event.object)) == ("ADDED", b'{"metadata":{"name":"a"}}')

    @pytest.mark.parametrize(
        ("annotations", "ends"),
        [("", False), (',"annotations":{"k8s.io/initial-events-end":"true"}', True), (',"annotations":{}', False)],
    )
    def test_a_bookmark_has_a_version_and_may_end_the_initial_events(self, annotations: str, *, ends: bool) -> None:
        """Its object holds nothing else."""
        line = b'{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"5"%b}}}'
        assert read_line(line % annotations.encode()) == Bookmark("5", ends)

    @pytest.mark.parametrize(
        ("status", "error", "retry_after"),
        [
            (b'{"kind":"Status","code":410,"reason":"Expired"}', Gone, None),
            (b'{"kind":"Status","code":429,"details":{"retryAfterSeconds":7}}', TooManyRequests, 7),
            (b'{"kind":"Nonsense"}', ApiError, None),
        ],
    )
    def test_an_error_event_is_its_status(self, status: bytes, error: type[ApiError], retry_after: float) -> None:
        """So is a bare Status that a proxy hands back as a body."""
        with pytest.raises(error) as refusal:
            read_line(b'{"type":"ERROR","object":%b}' % status)
        assert refusal.value.retry_after == retry_after

    def test_a_bare_status_is_an_error(self) -> None:
        """HTTP 200 around an error."""
        with pytest.raises(Gone):
            read_line(b'{"kind":"Status","code":410,"reason":"Expired","message":"too old"}')

    @pytest.mark.parametrize(
        "line", [b"<html>", b"bad gateway</html>", b"{}", b'{"type":"BOOKMARK","object":{}}', b"\xff\xfe", b"[1]"]
    )
    def test_anything_else_is_no_watch_event(self, line: bytes) -> None:
        """A proxy's page never becomes an event."""
        with pytest.raises(UnexpectedAnswer):
            read_line(line)

    def test_the_head_of_an_undecodable_object_is_read_as_far_as_it_goes(self) -> None:
        """Its key and version are still true."""
        head = read_head(b'{"kind":"Pod","metadata":{"name":"a","resourceVersion":"3"},"spec":{"containers":5}}')
        assert (head.kind, head.metadata.name, head.metadata.resource_version) == ("Pod", "a", "3")
        assert read_head(b'{"metadata":{"name":"\xff"}}').metadata.name == ""

    @pytest.mark.parametrize(
        ("raw", "accepted"),
        [
            (b'{"kind":"Pod","apiVersion":"v1","metadata":{}}', True),
            (b'{"apiVersion":"v1","kind":"Pod","metadata":{}}', True),
            (b'{ "metadata":{}, "kind": "Pod" }', True),
            (b'{"metadata":{}}', True),
            (b'{"kind":"PodX","apiVersion":"v1"}', False),
            (b'{"kind":"Pod","apiVersion":"v11"}', False),
            (b'{"metadata":{"name":"x"},"kind":"Node"}', False),
        ],
    )
    def test_the_kind_is_known_however_it_is_written(self, raw: bytes, *, accepted: bool) -> None:
        """By its first bytes, or by reading it."""
        assert KindCheck(PODS).accepts(raw) is accepted

    def test_a_custom_resource_is_known_by_group_and_kind(self) -> None:
        """Two groups of ours share a kind's name."""
        raw = b'{"apiVersion":"%b/v1alpha1","kind":"ProfilingConfig","metadata":{}}'
        assert KindCheck(PROFILING_CONFIGS).accepts(raw % b"profiling.io")
        assert not KindCheck(PROFILING_CONFIGS).accepts(raw % b"bolometer.io")
