"""One file made into a leaf: compressed, measured and hashed in one pass, in bounded memory.

gzip and zstd are at their fastest level: the CPU is the target's. Where the image has no libzstd, gzip is used instead
and the result says so.
"""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from toe_async.agent import zstd
from toe_async.agent.faults import Lost, Stopped

SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}
GZIP_INSTEAD = "compressed with gzip, since the tool's image has no libzstd"

_CHUNK = 256 << 10
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Packed:
    """A leaf as it will be stored: a file of this name in the folder of finished leaves."""

    name: str
    size: int
    sha256: str


def usable(method: str) -> tuple[str, str]:
    """Which method can be used where `method` is wanted, and what is to be said about it ("" when it is the same)."""
    if method not in SUFFIXES:
        raise ValueError("outputs are compressed by none, gzip or zstd")
    if method == "zstd" and not zstd.available():
        return "gzip", GZIP_INSTEAD
    return method, ""


def pack(
    source: int,
    span: tuple[int, int],
    target: int,
    method: str,
    *,
    max_bytes: int,
    stopped: Callable[[], bool],
) -> tuple[int, str]:
    """Write the bytes of `source` from span[0] to before span[1] through `method`; size and SHA-256 of what came out.

    Raises:
        Lost: TooLarge above `max_bytes` (0 is no limit), StoreFull when the disk is, UploadFailed for other errors.
        Stopped: `stopped` said so.
    """
    state, size = hashlib.sha256(), 0
    try:
        for piece in _through(method, _read(source, span, stopped)):
            state.update(piece)
            size += len(piece)
            if max_bytes and size > max_bytes:
                raise too_large(max_bytes)
            write_all(target, piece)
    except OSError as error:
        raise disk_fault(error) from error
    return size, state.hexdigest()


def measure(source: int, stopped: Callable[[], bool]) -> tuple[int, str]:
    """Size and SHA-256 of an open file as it lies now; raises OSError, Stopped."""
    state, size = hashlib.sha256(), 0
    for piece in _read(source, (0, os.fstat(source).st_size), stopped):
        state.update(piece)
        size += len(piece)
    return size, state.hexdigest()


def too_large(max_bytes: int) -> Lost:
    """The leaf is longer than one may be."""
    return Lost("TooLarge", f"larger than the {max_bytes} bytes that one artifact may have")


def disk_fault(error: OSError) -> Lost:
    """What an error of the container's own disk means for the leaf that met it."""
    if error.errno in _FULL:
        return Lost("StoreFull", "the disk of the tool's container is full")
    word = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return Lost("UploadFailed", f"the tool's output cannot be read or written in its container ({word})")


def write_all(target: int, data: bytes) -> None:
    """Write every byte."""
    left = memoryview(data)
    while left:
        left = left[os.write(target, left) :]


def _read(source: int, span: tuple[int, int], stopped: Callable[[], bool]) -> Iterator[bytes]:
    """To the end that was fixed before: whoever still writes to the file does not keep us here."""
    offset, end = span
    while offset < end:
        if stopped():
            raise Stopped
        piece = os.pread(source, min(_CHUNK, end - offset), offset)
        if not piece:
            return  # cut short meanwhile
        offset += len(piece)
        yield piece


def _through(method: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    if method == "zstd":
        yield from zstd.compressed(pieces)
    elif method == "gzip":
        squeeze = zlib.compressobj(1, zlib.DEFLATED, 31)
        for piece in pieces:
            yield squeeze.compress(piece)
        yield squeeze.flush()
    else:
        yield from pieces
