"""Whether the bytes that stream by are what was asked for: counted, hashed and checked, never kept.

A pprof profile is one gzip stream whose trailer holds checksum and length, so a whole one is told from a cut one
without any help from HTTP. An execution trace has a header and no trailer.
"""

import hashlib
import zlib
from enum import Enum

__all__ = ["Content", "GzipContent", "TraceContent", "Wholeness"]

_GZIP = b"\x1f\x8b"
_TRACE = b"go 1."
_STEP = 1 << 20
_RATIO = 8
_ALWAYS_INFLATED = 64 << 20


class Wholeness(Enum):
    """What the bytes so far say about themselves."""

    WHOLE = "whole"
    CUT = "cut"
    UNKNOWN = "unknown"
    """Nothing in the bytes can tell."""


class Content:
    """Size and sha256 of all bytes fed. Feeding costs CPU in proportion to the piece: keep large ones off the loop."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.size = 0
        self.head = b""

    def feed(self, piece: bytes) -> str | None:
        """Take in the next piece. Returns what is wrong with it, in a few words, or None."""
        if len(self.head) < 16:
            self.head += piece[: 16 - len(self.head)]
        self._sha256.update(piece)
        self.size += len(piece)
        return None

    @property
    def sha256(self) -> str:
        """Hex digest of what was fed."""
        return self._sha256.hexdigest()

    def wholeness(self) -> Wholeness:
        """Whether the last byte fed was the last one there is."""
        return Wholeness.UNKNOWN


class TraceContent(Content):
    """A Go execution trace: begins with `go 1.NN trace`."""

    def feed(self, piece: bytes) -> str | None:
        """See Content."""
        super().feed(piece)
        if self.head[: len(_TRACE)] != _TRACE[: len(self.head)]:
            return "it is no Go execution trace"
        return None

    def wholeness(self) -> Wholeness:
        """A trace shorter than its header is cut; longer, nobody can tell."""
        return Wholeness.CUT if len(self.head) < 16 else Wholeness.UNKNOWN


class GzipContent(Content):
    """One gzip stream, inflated in steps of at most 1 MiB whose output is dropped at once.

    A stream that inflates to more than 8 times its size is no longer followed beyond 64 MiB of output: it is kept as
    it came, and only HTTP can tell its end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._unzip = zlib.decompressobj(31)
        self._inflated = 0
        self._followed = True

    def feed(self, piece: bytes) -> str | None:
        """See Content."""
        super().feed(piece)
        if self.head[:2] != _GZIP[: len(self.head)]:
            return "it is not compressed by gzip, as every pprof profile is"
        return self._inflate(piece) if self._followed else None

    def wholeness(self) -> Wholeness:
        """Whole once the trailer has been read and has matched."""
        if not self._followed:
            return Wholeness.UNKNOWN
        return Wholeness.WHOLE if self._unzip.eof else Wholeness.CUT

    def _inflate(self, piece: bytes) -> str | None:
        if self._unzip.eof:
            return "bytes follow the end of its gzip stream"
        rest = piece
        while rest:
            try:
                out = self._unzip.decompress(rest, _STEP)
            except zlib.error:
                return "its gzip stream is damaged"
            if self._inflated == 0 and out.startswith(_GZIP):
                return "it is compressed twice"
            self._inflated += len(out)
            if self._unzip.unused_data:
                return "bytes follow the end of its gzip stream"
            if self._inflated > _ALWAYS_INFLATED and self._inflated > self.size * _RATIO:
                self._followed = False
                return None
            rest = self._unzip.unconsumed_tail
        return None
