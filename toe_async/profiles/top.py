"""Which functions cost most: flat (on top of the stack) and cumulative (anywhere on it)."""

from collections import Counter

import msgspec

from toe_async.profiles.model import Profile, ValueType

__all__ = ["Row", "Top", "top"]


class Row(msgspec.Struct, frozen=True, gc=False):
    """One function. A function that calls itself counts once a stack in `cumulative`."""

    function: str
    flat: int
    cumulative: int


class Top(msgspec.Struct, frozen=True):
    """The first functions by flat value, then by cumulative value, then by name; `total` is over all samples."""

    kind: ValueType
    total: int
    rows: tuple[Row, ...]


def top(profile: Profile, sample_type: str | None = None, limit: int | None = 10) -> Top:
    """The `limit` hottest functions (all for None), by the values called `sample_type` (see Profile.index_of)."""
    index = profile.index_of(sample_type)
    flat: Counter[str] = Counter()
    cumulative: Counter[str] = Counter()
    for sample in profile.samples:
        value = sample.values[index]
        if sample.stack:
            flat[sample.stack[0].function] += value
        for function in {frame.function for frame in sample.stack}:
            cumulative[function] += value
    rows = (Row(function, flat[function], value) for function, value in cumulative.items())
    ranked = sorted(rows, key=lambda row: (-abs(row.flat), -abs(row.cumulative), row.function))
    return Top(
        profile.sample_types[index], sum(sample.values[index] for sample in profile.samples), tuple(ranked[:limit])
    )
