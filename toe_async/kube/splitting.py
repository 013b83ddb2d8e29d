"""Streams of bytes cut into lines and list items, at whatever byte the network cut them.

Why own splitting: ``readline`` fails beyond 4 MiB, and decoding a PodList whole costs eight times the memory of
decoding it item by item while it arrives.

Why the item split is safe for pods, nodes and namespaces, the only kinds it is used for: the server writes these lists
compactly, metadata before items, each item begins with its metadata, and no list inside such an object holds objects
that begin with ``metadata``. Inside a JSON string every quote is ``\\"``, so the separator, which holds quotes, cannot
occur in one. Whatever does not look so from its first bytes on is decoded whole: lists of custom resources are encoded
with sorted keys (metadata after items), proxies may pretty-print, an empty list may be ``null``.

Nothing here keeps more than one line, one item or, for the whole decode, one body; each has a limit.
"""

import msgspec

from toe_async.kube.errors import TransportError, UnexpectedAnswer, parse_error

LONGEST_LINE = 32 << 20
LONGEST_ITEM = 32 << 20
LARGEST_WHOLE_LIST = 256 << 20
_LONGEST_HEAD = 64 << 10  # a list's own metadata: a version, a continue token and nothing else

_HEAD = b'"items":['
_ITEM = b'{"metadata":{'
_SEPARATOR = b"}," + _ITEM


class LineSplitter:
    """Lines of a watch. A line is complete when its newline has come, never before."""

    def __init__(self, limit: int = LONGEST_LINE) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take bytes and return the lines that they complete, without newlines; empty lines are left out.

        Raises:
            UnexpectedAnswer: a line is longer than the limit.
        """
        head, newline, rest = chunk.partition(b"\n")
        if not newline:
            self._keep(chunk)
            return []
        first = b"".join([*self._parts, head]) if self._parts else head
        self._parts, self._size = [], 0
        *whole, tail = rest.split(b"\n")
        self._keep(tail)
        return [line for line in (first, *whole) if line]

    def close(self) -> None:
        """Say that no more bytes come.

        Raises:
            TransportError: the last line has no newline, so it may be cut short.
        """
        if self._size:
            raise TransportError(f"the stream ended inside a line, after {self._size} bytes of it")

    def _keep(self, part: bytes) -> None:
        if part:
            self._parts.append(part)
            self._size += len(part)
        if self._size > self._limit:
            raise UnexpectedAnswer(f"a line of the stream is longer than {self._limit} bytes")


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    """The list's own metadata: the version to watch from, and the token of the next page, if there is one."""

    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _ListBody(msgspec.Struct, frozen=True):
    metadata: ListMeta = ListMeta()
    items: list[msgspec.Raw] | None = None
    kind: str = ""


class ListSplitter:
    """Items of one list answer. With ``split`` False, or where splitting is not safe, the body is decoded whole."""

    def __init__(self, *, split: bool, limit: int = LARGEST_WHOLE_LIST) -> None:
        self._limit = limit
        self._whole: list[bytes] | None = None if split else []
        self._size = 0
        self._buffer = b""
        self._meta: ListMeta | None = None
        self._scanned = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take bytes and return the items that are complete for certain.

        Raises:
            UnexpectedAnswer: an item, or a list that cannot be split, is longer than its limit.
        """
        if self._whole is not None:
            self._gather(chunk)
            return []
        self._buffer += chunk
        if self._meta is None and not self._open():
            return []
        return self._cut()

    def close(self) -> tuple[list[bytes], ListMeta]:
        """Say that no more bytes come; return the items not yet returned and the list's metadata.

        Raises:
            TransportError: the list ended early.
            UnexpectedAnswer: the answer is no list, or one without a version.
            ApiError: the answer is a Status, handed back with a good HTTP status.
        """
        if self._meta is None:
            return _decode_whole(b"".join([*(self._whole or ()), self._buffer]))
        last = self._buffer.rstrip()
        self._buffer = b""
        if not last.endswith(b"]}"):
            raise TransportError("the list ended early")
        if last == b"]}":
            return [], self._meta
        item = last[:-2]
        try:  # a body cut right after some inner "]}" looks complete; its last item is not
            msgspec.json.decode(item, type=msgspec.Raw)
        except msgspec.DecodeError as error:
            raise TransportError("the list ended inside an item") from error
        return [item], self._meta

    def _open(self) -> bool:
        """Find the beginning of the items; decide for good whether to split."""
        at = self._buffer.find(_HEAD)
        start = at + len(_HEAD)
        if at < 0:
            if len(self._buffer) > _LONGEST_HEAD:
                self._give_up()
            return False
        first = self._buffer[start : start + len(_ITEM)]
        if len(first) < len(_ITEM) and _ITEM.startswith(first):
            return False  # it may still become an item
        meta = _read_head(self._buffer[:start])
        if meta is None or not (first == _ITEM or first.startswith(b"]")):
            self._give_up()
            return False
        self._meta, self._buffer = meta, self._buffer[start:]
        return True

    def _cut(self) -> list[bytes]:
        items, start, buffer = [], 0, self._buffer
        at = buffer.find(_SEPARATOR, self._scanned)
        while at >= 0:
            items.append(buffer[start : at + 1])
            start = at + 2
            at = buffer.find(_SEPARATOR, start)
        self._buffer = buffer[start:] if start else buffer
        # What was searched is not searched again, but a separator may be cut in two by the chunk's end.
        self._scanned = max(0, len(self._buffer) - len(_SEPARATOR) + 1)
        if len(self._buffer) > LONGEST_ITEM:
            raise UnexpectedAnswer(f"an item of the list is longer than {LONGEST_ITEM} bytes")
        return items

    def _give_up(self) -> None:
        self._whole = []
        buffer, self._buffer = self._buffer, b""
        self._gather(buffer)

    def _gather(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._limit:
            raise UnexpectedAnswer(f"a list that is decoded whole is longer than {self._limit} bytes")
        assert self._whole is not None
        self._whole.append(chunk)


def _read_head(head: bytes) -> ListMeta | None:
    try:
        body = msgspec.json.decode(head + b"]}", type=_ListBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return body.metadata if body.metadata.resource_version else None


def _decode_whole(body: bytes) -> tuple[list[bytes], ListMeta]:
    try:
        answer = msgspec.json.decode(body, type=_ListBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnexpectedAnswer(
            f"the answer to a list ({len(body)} bytes) is no list: {type(error).__name__}"
        ) from error
    if answer.kind == "Status":
        raise parse_error(0, body)
    if not answer.metadata.resource_version:
        raise UnexpectedAnswer("the answer to a list holds no metadata.resourceVersion")
    return list(answer.items or ()), answer.metadata
