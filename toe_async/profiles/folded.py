"""Folded stacks: one line a stack, `root;caller;leaf 42`, the common form of samplers and of flame graphs."""

from collections import Counter

from toe_async.profiles.model import Frame, Profile, ProfileError, Sample, ValueType

__all__ = ["from_folded", "to_folded"]

_MAX_DEPTH = 2_048
_SEPARATORS = str.maketrans({";": ":", "\n": " ", "\r": " "})


def to_folded(profile: Profile, sample_type: str | None = None) -> str:
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


def from_folded(text: str, kind: ValueType, *, max_stacks: int = 200_000) -> Profile:
    """The stacks of `text`, their numbers as values of `kind`. Empty lines are passed over.

    Raises ProfileError for a line that is none, a stack deeper than 2,048 and more than `max_stacks` stacks.
    """
    samples: list[Sample] = []
    frames: dict[str, Frame] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        path, _, value = line.rstrip("\r").rpartition(" ")
        if not path or not (value.isascii() and value.removeprefix("-").isdigit() and len(value) <= 19):
            raise ProfileError(f"line {number} is not `frame;frame NUMBER`")
        if path.count(";") >= _MAX_DEPTH:
            raise ProfileError(f"line {number} has more than {_MAX_DEPTH} frames")
        if len(samples) == max_stacks:
            raise ProfileError(f"more than {max_stacks} stacks")
        stack = tuple(frames.setdefault(name, Frame(name)) for name in reversed(path.split(";")))
        samples.append(Sample(stack, (int(value),)))
    return Profile(sample_types=(kind,), samples=tuple(samples))
