"""What a profile may cost, and the gzip stream around it. Every figure bounds work that a stranger can ask for."""

import zlib

import msgspec

from toe_async.profiles.model import ProfileError

__all__ = ["Limits", "inflate"]

_GZIP = b"\x1f\x8b"
_STEP = 1 << 20


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a decoded profile may cost at most. The defaults hold 20,000 stacks of 40 frames with room to spare.

    At the defaults a hostile file is refused within a second and within 50 MB. There is no clock in here: time is
    bounded by the number of things that are looked at.
    """

    inflated_bytes: int = 16 << 20
    ratio: int = 250
    """Inflated bytes for one byte of gzip; real profiles stay below 60. The first MiB is free."""
    strings: int = 100_000
    locations: int = 100_000
    functions: int = 100_000
    samples: int = 100_000
    """Also the lines of folded text, empty ones included."""
    sample_types: int = 32
    depth: int = 2_048
    frames: int = 2_000_000
    """Frames of all distinct stacks together, inlined ones included."""
    fields: int = 1_500_000
    """Fields of all messages together, the unknown ones included: bounds the time, at one to two million a second."""


def inflate(data: bytes, limits: Limits) -> bytes:
    """The bytes inside one gzip stream; bytes that are no gzip are handed back as they are.

    Raises ProfileError for a damaged or short stream, for anything behind it, for gzip inside gzip and for more than
    `limits.inflated_bytes` or `limits.ratio`; never holds more than that and one MiB.
    """
    if not data.startswith(_GZIP):
        if len(data) > limits.inflated_bytes:
            raise ProfileError(f"the profile has more than {limits.inflated_bytes} bytes")
        return data
    cap = min(limits.inflated_bytes, max(_STEP, limits.ratio * len(data)))
    unzip = zlib.decompressobj(31)
    raw = bytearray()
    # Input goes in by pieces: what zlib has not yet read is copied at each call, and a whole file of it would be 2x.
    for at in range(0, len(data), _STEP):
        piece = data[at : at + _STEP]
        while piece and not unzip.eof:
            try:
                raw += unzip.decompress(piece, min(_STEP, cap + 1 - len(raw)))
            except zlib.error as error:
                raise ProfileError("the gzip stream is damaged") from error
            if len(raw) > cap:
                raise ProfileError(_too_much(cap, limits))
            piece = unzip.unconsumed_tail
        if unzip.eof and (unzip.unused_data or at + _STEP < len(data)):
            raise ProfileError("bytes follow the end of the gzip stream")
    while not unzip.eof:  # output that zlib still holds when all input is in
        more = unzip.decompress(b"", min(_STEP, cap + 1 - len(raw)))
        raw += more
        if len(raw) > cap:
            raise ProfileError(_too_much(cap, limits))
        if not more:
            raise ProfileError("the gzip stream ends early")
    if raw.startswith(_GZIP):
        raise ProfileError("gzip inside gzip: the profile was compressed twice")
    return bytes(raw)


def _too_much(cap: int, limits: Limits) -> str:
    if cap == limits.inflated_bytes:
        return f"the profile inflates to more than {cap} bytes"
    return f"the profile inflates to more than {limits.ratio} times its size"
