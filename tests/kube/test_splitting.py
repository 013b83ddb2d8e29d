"""Lines and items come out the same, wherever the network cuts the bytes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.kube.errors import Gone, TransportError, UnexpectedAnswer
from toe_async.kube.splitting import LineSplitter, ListMeta, ListSplitter

SEPARATOR_AS_TEXT = 'a "},{"metadata":{" b "items":[ c ]} d'


def pod(name: str, **annotations: str) -> dict[str, object]:
    return {
        "metadata": {"name": name, "namespace": "ns", "annotations": annotations},
        "spec": {
            "containers": [{"name": "a", "ports": [{"containerPort": 1}]}, {"name": "b"}],
            "volumes": [{"ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"x": "y"}}}}}],
        },
        "status": {"conditions": [{"type": "Ready"}]},
    }


def pod_list(*items: dict[str, object], version: str = "7", token: str = "") -> bytes:
    metadata = {"resourceVersion": version} | ({"continue": token} if token else {})
    return msgspec.json.encode({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": list(items)})


def split(chunks: list[bytes], *, whole: bool = False) -> tuple[list[object], ListMeta]:
    splitter = ListSplitter(split=not whole)
    items = [item for chunk in chunks for item in splitter.feed(chunk)]
    rest, meta = splitter.close()
    return [msgspec.json.decode(item) for item in [*items, *rest]], meta


def lines(chunks: list[bytes], limit: int = 1000) -> list[bytes]:
    splitter = LineSplitter(limit)
    found = [line for chunk in chunks for line in splitter.feed(chunk)]
    splitter.close()
    return found


class TestLines:
    def test_are_the_same_at_every_cut(self) -> None:
        """Two cuts at every pair of bytes change nothing."""
        body = b'{"a":1}\n\n{"b":"\xc3\xa4"}\r\n{"c":3}\n'
        for first in range(len(body)):
            for second in range(first, len(body)):
                cut = [body[:first], body[first:second], body[second:]]
                assert lines(cut) == [b'{"a":1}', b'{"b":"\xc3\xa4"}\r', b'{"c":3}']

    def test_a_last_line_without_newline_is_a_broken_stream(self) -> None:
        """Half an event is never an event, even when it is valid JSON."""
        splitter = LineSplitter()
        assert splitter.feed(b'{"a":1}\n{"b":2}') == [b'{"a":1}']
        with pytest.raises(TransportError, match="inside a line, after 7 bytes"):
            splitter.close()

    def test_a_line_of_one_megabyte_in_small_chunks_is_whole(self) -> None:
        """Size alone is no reason to fail."""
        body = b"x" * (1 << 20) + b"\n"
        assert lines([body[at : at + 1400] for at in range(0, len(body), 1400)], limit=2 << 20) == [body[:-1]]

    def test_a_line_beyond_the_limit_is_refused_before_its_end(self) -> None:
        """A body without newlines cannot fill the memory."""
        splitter = LineSplitter(100)
        splitter.feed(b"x" * 100)
        with pytest.raises(UnexpectedAnswer, match="longer than 100 bytes"):
            splitter.feed(b"x")


class TestItems:
    BODY = pod_list(pod("a", note=SEPARATOR_AS_TEXT), pod("b"), pod("c", ä="ü"), token="next")
    PARTS = msgspec.json.decode(BODY)["items"]

    def test_are_the_same_at_every_byte(self) -> None:
        """One cut at each byte, separators and characters of two bytes included, gives what a full decode gives."""
        for at in range(len(self.BODY)):
            items, meta = split([self.BODY[:at], self.BODY[at:]])
            assert items == self.PARTS
            assert meta == ListMeta("7", "next")

    def test_are_the_same_byte_by_byte(self) -> None:
        """The smallest chunks of all."""
        assert split([self.BODY[at : at + 1] for at in range(len(self.BODY))])[0] == self.PARTS

    def test_come_before_the_list_is_complete(self) -> None:
        """Otherwise memory would not stay flat."""
        splitter = ListSplitter(split=True)
        assert len(splitter.feed(self.BODY[:-1])) == 2

    @given(
        st.lists(st.dictionaries(st.text(max_size=8), st.text() | st.just(SEPARATOR_AS_TEXT)), max_size=5), st.data()
    )
    def test_equal_a_full_decode_for_any_annotations(self, notes: list[dict[str, str]], data: st.DataObject) -> None:
        """Whatever users write into annotations, wherever the cuts are."""
        body = pod_list(*(pod(f"p{n}") | {"metadata": {"annotations": note}} for n, note in enumerate(notes)))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
        chunks = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        assert split(chunks)[0] == msgspec.json.decode(body)["items"]

    @pytest.mark.parametrize("end", [b"", b"\n", b" \n\t"])
    def test_an_empty_list_has_no_items(self, end: bytes) -> None:
        """A trailing newline, which the server sends, is no item."""
        assert split([pod_list() + end]) == ([], ListMeta("7", ""))
        assert split([pod_list(pod("a")) + end])[0] == [pod("a")]

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(msgspec.json.format(BODY, indent=2), id="pretty-printed"),
            pytest.param(b'{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":null}', id="null items"),
            pytest.param(b'{"kind":"PodList","metadata":{"resourceVersion":"7"}}', id="no items"),
            pytest.param(
                b'{"apiVersion":"x/v1","items":[{"apiVersion":"x/v1","kind":"X","metadata":{"name":"a"}},'
                b'{"apiVersion":"x/v1","kind":"X","metadata":{"name":"b"}}],"kind":"XList",'
                b'"metadata":{"continue":"","resourceVersion":"7"}}',
                id="sorted keys, as custom resources have",
            ),
            pytest.param(
                b'{"metadata":{"resourceVersion":"7"},"items":[{"kind":"Pod","metadata":{"name":"a"}}]}',
                id="items that begin with their kind",
            ),
            pytest.param(
                b'{"metadata":{"resourceVersion":"7"}, "items":[{"metadata":{"name":"a"}} ,{"metadata":{"name":"b"}}]}'
                .replace(b'"items":[', b'"items": ['),
                id="blanks around the items",
            ),
        ],
    )  # fmt: skip
    def test_what_does_not_look_compact_is_decoded_whole(self, body: bytes) -> None:
        """The same answer, only with more memory."""
        expected = msgspec.json.decode(body).get("items") or []
        for at in range(len(body)):
            items, meta = split([body[:at], body[at:]])
            assert items == expected
            assert meta.resource_version == "7"

    def test_kinds_that_must_not_be_split_are_decoded_whole(self) -> None:
        """The caller's word counts, even where the bytes look splittable."""
        splitter = ListSplitter(split=False)
        assert splitter.feed(self.BODY) == []
        assert len(splitter.close()[0]) == 3

    @pytest.mark.parametrize("whole", [False, True])
    def test_a_list_cut_anywhere_is_an_error_and_never_a_shorter_list(self, *, whole: bool) -> None:
        """A shorter list would be taken for deletions."""
        for at in range(len(self.BODY)):
            with pytest.raises((TransportError, UnexpectedAnswer)):
                split([self.BODY[:at]], whole=whole)

    def test_a_status_handed_back_as_a_body_is_its_error(self) -> None:
        """Some proxies answer 200 to everything."""
        body = b'{"kind":"Status","code":410,"reason":"Expired","message":"too old"}'
        with pytest.raises(Gone, match="too old"):
            split([body])

    @pytest.mark.parametrize("body", [b"", b"<html>502</html>", b'{"items":[]}', b"[]", b'{"items":["\xff"]}'])
    def test_what_is_no_list_is_refused(self, body: bytes) -> None:
        """A page of a proxy, or a list that nothing could be watched from."""
        with pytest.raises(UnexpectedAnswer, match=r"no list|resourceVersion"):
            split([body])

    def test_a_whole_list_beyond_the_limit_is_refused(self) -> None:
        """The only body that is kept whole is bounded."""
        splitter = ListSplitter(split=False, limit=100)
        with pytest.raises(UnexpectedAnswer, match="longer than 100 bytes"):
            splitter.feed(b" " * 101)

    def test_bytes_without_any_items_fall_back_and_meet_the_limit(self) -> None:
        """A body that never becomes a list is not searched for ever."""
        splitter = ListSplitter(split=True, limit=200 << 10)
        chunks = [b" " * (10 << 10)] * 100
        with pytest.raises(UnexpectedAnswer, match="longer than 204800 bytes"):
            list(map(splitter.feed, chunks))
