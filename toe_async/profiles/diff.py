"""What changed between two profiles, by function."""

from collections.abc import Iterable

import msgspec

from toe_async.profiles.model import Profile, ProfileError, ValueType
from toe_async.profiles.top import Row, top

__all__ = ["Change", "Diff", "common_types", "diff"]


class Change(msgspec.Struct, frozen=True, gc=False):
    """One function before and after, in the unit of its Diff; a function that was not there has 0."""

    function: str
    flat_before: int
    flat: int
    cumulative_before: int
    cumulative: int


class Diff(msgspec.Struct, frozen=True):
    """The functions that changed most by flat value, then by cumulative value, then by name.

    `total_before` and `total` are as measured. When `normalised`, each row's before-values are scaled by
    total / total_before, so that captures of different length or load compare by share.
    """

    kind: ValueType
    total_before: int
    total: int
    normalised: bool
    rows: tuple[Change, ...]


def diff(base: Profile, other: Profile, sample: str | None = None, *, normalise: bool = True, limit: int = 100) -> Diff:
    """From `base` to `other`, by the values called `sample` (as `other` would choose when None).

    A type that only one of them has is never chosen. Without a positive total on both sides there is nothing to scale
    by, and the result says `normalised=False`.
    Raises ProfileError when the two have no such sample type in common.
    """
    common = Profile(sample_types=common_types(base, other), samples=(), default_type=other.default_type)
    kind = common.sample_types[common.index_of(sample)]
    before = top(base, kind.type, limit=None)
    after = top(other, kind.type, limit=None)
    scaled = normalise and before.total > 0 and after.total > 0
    was, now = _by_function(before.rows), _by_function(after.rows)
    rows = []
    for function in was.keys() | now.keys():
        old, new = was.get(function, _NOTHING), now.get(function, _NOTHING)
        flat, cumulative = old.flat, old.cumulative
        if scaled:
            flat, cumulative = (_scale(value, after.total, before.total) for value in (flat, cumulative))
        rows.append(Change(function, flat, new.flat, cumulative, new.cumulative))
    rows.sort(
        key=lambda row: (-abs(row.flat - row.flat_before), -abs(row.cumulative - row.cumulative_before), row.function)
    )
    return Diff(kind, before.total, after.total, scaled, tuple(rows[:limit]))


def common_types(base: Profile, other: Profile) -> tuple[ValueType, ...]:
    """The sample types of `other` that `base` has too, in the same unit. Raises ProfileError when there are none."""
    common = tuple(kind for kind in other.sample_types if kind in base.sample_types)
    if not common:
        ours, theirs = (", ".join(kind.type for kind in one.sample_types)[:80] for one in (other, base))
        raise ProfileError(f"nothing to compare: this profile has {ours}, its base has {theirs}")
    return common


def _scale(value: int, numerator: int, denominator: int) -> int:
    """Rounded to the nearest, in whole numbers: totals may be beyond what a float holds exactly."""
    return (2 * value * numerator + denominator) // (2 * denominator)


def _by_function(rows: Iterable[Row]) -> dict[str, Row]:
    return {row.function: row for row in rows}


_NOTHING = Row("", 0, 0)
