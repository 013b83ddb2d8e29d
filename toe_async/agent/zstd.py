"""zstd by the image's own shared library.

Python has none before 3.14, and a child process of ours would be taken for one of the tool's.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator

_LEVEL, _CHECKSUM = 100, 201  # ZSTD_c_compressionLevel, ZSTD_c_checksumFlag
_CONTINUE, _END = 0, 2
_ROOM = 256 << 10


class _Buffer(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t))


def available() -> bool:
    """Whether this image has the library."""
    return _library() is not None


def compressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """One frame with a checksum. Raises OSError when the library reports an error."""
    library = _library()
    if library is None:
        raise OSError("this image has no libzstd.so.1")
    context = library.ZSTD_createCCtx()
    try:
        for option, value in ((_LEVEL, 1), (_CHECKSUM, 1)):
            _checked(library, library.ZSTD_CCtx_setParameter(context, option, value))
        for piece in pieces:
            yield from _through(library, context, piece, _CONTINUE)
        yield from _through(library, context, b"", _END)
    finally:
        library.ZSTD_freeCCtx(context)


def _through(library: ctypes.CDLL, context: int, piece: bytes, mode: int) -> Iterator[bytes]:
    room = ctypes.create_string_buffer(_ROOM)
    held = ctypes.create_string_buffer(piece, len(piece) or 1)
    source = _Buffer(ctypes.addressof(held), len(piece), 0)
    while True:
        target = _Buffer(ctypes.addressof(room), _ROOM, 0)
        left = library.ZSTD_compressStream2(context, ctypes.byref(target), ctypes.byref(source), mode)
        _checked(library, left)
        if target.position:
            yield room.raw[: target.position]
        if source.position == len(piece) and (mode == _CONTINUE or left == 0):
            return


def _checked(library: ctypes.CDLL, code: int) -> None:
    if library.ZSTD_isError(code):
        raise OSError("libzstd reports an error")


@functools.lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libzstd.so.1")
        library.ZSTD_createCCtx.restype = ctypes.c_void_p
        library.ZSTD_freeCCtx.argtypes = [ctypes.c_void_p]
        library.ZSTD_CCtx_setParameter.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        library.ZSTD_CCtx_setParameter.restype = ctypes.c_size_t
        pointer = ctypes.POINTER(_Buffer)
        library.ZSTD_compressStream2.argtypes = [ctypes.c_void_p, pointer, pointer, ctypes.c_int]
        library.ZSTD_compressStream2.restype = ctypes.c_size_t
        library.ZSTD_isError.argtypes = [ctypes.c_size_t]
        library.ZSTD_isError.restype = ctypes.c_uint
    except (OSError, AttributeError):  # no library, or one from before 1.4
        return None
    return library
