"""The lines of a watch as data: changes, bookmarks, errors, and what can be said of an object that cannot be decoded.

Decoding has two stages. The first reads the type and leaves the object as it came; the second, the caller's, reads only
the fields in use, and only of events about objects.
"""

import msgspec
from msgspec import Struct

from toe_async.apis.kinds import Kind
from toe_async.kube.errors import UnexpectedAnswer, parse_error

_END_OF_INITIAL_EVENTS = "k8s.io/initial-events-end"


class Change(Struct, frozen=True, gc=False):
    """A watch event about an object: type ADDED, MODIFIED or DELETED."""

    type: str
    object: msgspec.Raw


class Bookmark(Struct, frozen=True, gc=False):
    """Everything up to ``version`` has been sent; ``ends_initial``: the state before the watch is complete."""

    version: str
    ends_initial: bool


class _Metadata(Struct, frozen=True, rename="camel", gc=False):
    namespace: str = ""
    name: str = ""
    resource_version: str = ""


class Head(Struct, frozen=True, rename="camel", gc=False):
    """What can be said even of an object that cannot be decoded."""

    api_version: str = ""
    kind: str = ""
    metadata: _Metadata = _Metadata()


class _BookmarkMetadata(Struct, frozen=True, rename="camel"):
    resource_version: str
    annotations: dict[str, str] = {}


class _BookmarkObject(Struct, frozen=True):
    metadata: _BookmarkMetadata


_change_decoder = msgspec.json.Decoder(Change)
_head_decoder = msgspec.json.Decoder(Head)
_bookmark_decoder = msgspec.json.Decoder(_BookmarkObject)


def read_line(line: bytes) -> Change | Bookmark:
    """Read one line of a watch. The object of a ``Change`` points into ``line``: decode it at once.

    Raises:
        ApiError: an ERROR event, or a bare Status handed back as a body.
        UnexpectedAnswer: the line is no watch event; whatever sent it does not speak the protocol.
    """
    try:
        event = _change_decoder.decode(line)
        if event.type == "BOOKMARK":
            seen = _bookmark_decoder.decode(event.object).metadata
            return Bookmark(seen.resource_version, seen.annotations.get(_END_OF_INITIAL_EVENTS) == "true")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if read_head(line).kind == "Status":
            raise parse_error(0, line) from None
        raise UnexpectedAnswer(f"a line of the watch ({len(line)} bytes) is no watch event") from error
    if event.type == "ERROR":
        raise parse_error(0, event.object)
    return event


def read_head(raw: bytes) -> Head:
    """Read kind, key and version of any object; empty where they cannot be read. Never raises."""
    try:
        return _head_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Head()


class KindCheck:
    """Tells whether an object of a watch is of the kind that was asked for."""

    def __init__(self, kind: Kind) -> None:
        name, version = kind.kind.encode(), kind.api_version.encode()
        self._kind = kind
        # The API server begins built-in kinds and custom resources with these bytes: no need to read further.
        self._prefixes = (
            b'{"kind":"%b","apiVersion":"%b"' % (name, version),
            b'{"apiVersion":"%b","kind":"%b"' % (version, name),
        )

    def accepts(self, raw: bytes) -> bool:
        """Whether it is; an object that names no kind is taken for it."""
        if bytes(memoryview(raw)[:128]).startswith(self._prefixes):
            return True
        head = read_head(raw)
        return head.kind in {"", self._kind.kind} and head.api_version in {"", self._kind.api_version}
