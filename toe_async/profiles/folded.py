"""Folded stacks: one line a stack, `root;caller;leaf 42`, the common form of samplers and of flame graphs.

Read as flamegraph.pl, perf's stackcollapse and async-profiler write it: spaces belong to the frame, annotations such
as `_[k]` are part of its name. When every line ends in two numbers it is the differential form (before, after).
"""

from collections import Counter
from collections.abc import Iterator

from toe_async.profiles.limits import Limits
from toe_async.profiles.model import Frame, Profile, ProfileError, Sample, ValueType

__all__ = ["DIFFERENTIAL", "read", "render"]

DIFFERENTIAL = (ValueType("before", "count"), ValueType("after", "count"))
"""The sample types of the two-column form."""

_SEPARATORS = str.maketrans({";": ":", "\n": " ", "\r": " "})
_DIGITS = 19  # of the largest number of 64 bits


def render(profile: Profile, sample_type: str | None = None) -> str:
    """One line for each distinct stack of functions, sorted; stacks whose values sum to nothing are left out.

    Files and lines are lost; `;` in a function's name becomes `:`.
    """
    index = profile.index_of(sample_type)
    sums: Counter[str] = Counter()
    for sample in profile.samples:
        if sample.stack:
            path = ";".join(frame.function.translate(_SEPARATORS) for frame in reversed(sample.stack))
            sums[path] += sample.values[index]
    return "".join(f"{path} {value}\n" for path, value in sorted(sums.items()) if value)


def read(text: bytes, kind: ValueType, limits: Limits | None = None) -> Profile:
    """The stacks of `text`, their numbers as values of `kind`, or of DIFFERENTIAL when every line ends in two.

    Empty lines are passed over; bytes that are no UTF-8 become U+FFFD. Raises ProfileError, with the line's number,
    for a line that is no stack and for anything over `limits`.
    """
    limits = limits or Limits()
    differential = _check(text, limits)
    known: dict[bytes, Frame] = {}
    samples: list[Sample] = []
    for _, line in _lines(text, limits.samples):
        path, _, count = line.rpartition(b" ")
        values: tuple[int, ...] = (int(count),)
        if differential:
            path, _, column = path.rpartition(b" ")
            values = (int(column), *values)
        samples.append(Sample(tuple([_frame(known, name) for name in reversed(path.split(b";"))]), values))
        if len(known) > limits.functions:
            raise ProfileError(f"more than {limits.functions} functions")
    return Profile(sample_types=DIFFERENTIAL if differential else (kind,), samples=tuple(samples))


def _check(text: bytes, limits: Limits) -> bool:
    """Refuses before anything is kept; says whether every line ends in two numbers."""
    frames, differential = 0, True
    for number, line in _lines(text, limits.samples):
        path, _, value = line.rpartition(b" ")
        if not path.strip() or not _is_number(value):
            raise ProfileError(f"line {number} is not `frame;frame NUMBER`")
        depth = path.count(b";") + 1
        if depth > limits.depth:
            raise ProfileError(f"line {number} has more than {limits.depth} frames")
        frames += depth
        if frames > limits.frames:
            raise ProfileError(f"more than {limits.frames} frames")
        head, _, before = path.rpartition(b" ")
        differential = differential and bool(head.strip()) and _is_number(before)
    if not frames:
        raise ProfileError("no stacks: there is no line with text")
    return differential


def _lines(text: bytes, limit: int) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank, found one by one: a split of 16 MB of newlines would cost ten times that."""
    at, number = 0, 0
    while at < len(text):
        number += 1
        if number > limit:
            raise ProfileError(f"more than {limit} lines")
        end = text.find(b"\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end].rstrip(b"\r")
        if line.strip():
            yield number, line
        at = end + 1


def _is_number(word: bytes) -> bool:
    digits = word.removeprefix(b"-")
    return len(digits) <= _DIGITS and digits.isdigit()  # of bytes: ASCII digits only


def _frame(known: dict[bytes, Frame], name: bytes) -> Frame:
    frame = known.get(name)
    if frame is None:
        frame = known[name] = Frame(name.decode("utf-8", "replace"))
    return frame
