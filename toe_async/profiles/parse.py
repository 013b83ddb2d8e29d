"""Bytes of unknown origin to a profile: pprof or folded stacks, gzip or not, told apart by content."""

from toe_async.profiles import folded, pprof
from toe_async.profiles.limits import Limits, inflate
from toe_async.profiles.model import Profile, ProfileError, ValueType

__all__ = ["parse"]

_SAMPLES = ValueType("samples", "count")
_LOOKED_AT = 4_096
_BINARY = bytes(set(range(32)) - set(b"\t\n\r\x1b"))
_OTHERS = {
    b"PK\x03\x04": "a zip archive",
    b"FLR\x00": "a JFR recording; convert it to pprof or folded stacks first",
    b"PERFILE2": "a perf.data file; fold it with perf script first",
    b"JAVA PROFILE": "a heap dump",
    b"\x28\xb5\x2f\xfd": "a zstd stream; profiles are taken plain or with gzip",
    b"\xfd7zXZ": "an xz stream; profiles are taken plain or with gzip",
    b"BZh": "a bzip2 stream; profiles are taken plain or with gzip",
    b"go 1.": "an execution trace; open it with go tool trace",
    b"goroutine profile:": "Go's text form; ask for the profile without debug=1",
    b"heap profile:": "Go's text form; ask for the profile without debug=1",
    b"{": "JSON",
    b"<": "HTML or XML",
}


def parse(raw: bytes, limits: Limits | None = None) -> Profile:
    """Read a profile that anybody may have written.

    Folded stacks say nothing about what they count: their type is samples/count. Raises ProfileError, and nothing else,
    for what is no profile and for what costs more than `limits`; at the default limits within a second of one
    processor and within 50 MB above `raw`.
    """
    limits = limits or Limits()
    data = inflate(raw, limits)
    if not data:
        raise ProfileError("the profile is empty")
    # A pprof message has a tag below 0x20 within its first bytes; folded text has no such bytes at all.
    binary = len(head := data[:_LOOKED_AT]) != len(head.translate(None, _BINARY))
    try:
        return pprof.decode(data, limits) if binary else folded.read(data, _SAMPLES, limits)
    except ProfileError as error:
        # Only now: `<module>` and `{main}` are fine names of a first frame.
        for magic, what in _OTHERS.items():
            if data.startswith(magic):
                raise ProfileError(f"neither pprof nor folded stacks: this is {what}") from error
        if binary:
            raise
        raise ProfileError(f"no pprof profile, and as folded stacks: {error}") from error
