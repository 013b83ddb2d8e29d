"""How long artifacts stay: what the policy is, and what has to go by it. Pure.

An artifact goes when it is older than its age allows: the days that its run asked for (`retentionDays`), or else the
age of its namespace's policy. Then the oldest go until count and bytes of their namespace are within the policy; a
run's days do not save an artifact from that. What is held is out of all this: it never goes and is not counted.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from msgspec import Struct

from toe_async.collector.captures import Manifest
from toe_async.collector.catalog.query import Entry, order


class RetentionPolicy(Struct, frozen=True):
    """The limits of one namespace; None is no limit."""

    age: timedelta | None = None
    count: int | None = None
    bytes: int | None = None


class Retention(Struct, frozen=True):
    """The policy of every namespace."""

    default: RetentionPolicy = RetentionPolicy()
    namespaces: Mapping[str, RetentionPolicy] = {}

    def of(self, namespace: str) -> RetentionPolicy:
        """The policy in force in a namespace."""
        return self.namespaces.get(namespace, self.default)


class Standing(Struct, frozen=True):
    """What counts in a namespace: everything that is not held."""

    artifacts: int
    bytes: int


def ends_at(held: Manifest, policy: RetentionPolicy) -> datetime | None:
    """When an artifact's age is over, or None for never. Not asked of what is held."""
    age = policy.age if held.retention_days is None else timedelta(days=held.retention_days)
    return None if age is None else held.stored_at + age


def due(entries: Iterable[Entry], policy: RetentionPolicy, now: datetime) -> tuple[Entry, ...]:
    """Those whose age is over, oldest first."""
    over = [
        one
        for one in entries
        if not one.manifest.hold and (end := ends_at(one.manifest, policy)) is not None and end <= now
    ]
    return oldest_first(over)


def surplus(entries: Iterable[Entry], policy: RetentionPolicy, standing: Standing) -> tuple[Entry, ...]:
    """Those of the oldest that have to go until the rest of what stands is within count and bytes, oldest first."""
    going = []
    for one in oldest_first(one for one in entries if not one.manifest.hold):
        if is_within(policy, standing):
            break
        going.append(one)
        standing = Standing(standing.artifacts - 1, standing.bytes - one.manifest.size)
    return tuple(going)


def is_within(policy: RetentionPolicy, standing: Standing) -> bool:
    """Whether count and bytes allow what stands."""
    few = policy.count is None or standing.artifacts <= policy.count
    return few and (policy.bytes is None or standing.bytes <= policy.bytes)


def plan(entries: Iterable[Entry], policy: RetentionPolicy, now: datetime) -> tuple[Entry, ...]:
    """Everything of one namespace that has to go now, given all that it holds."""
    everything = tuple(entries)
    over = due(everything, policy, now)
    gone = {one.version for one in over}
    left = [one for one in everything if one.version not in gone and not one.manifest.hold]
    return over + surplus(left, policy, Standing(len(left), sum(one.manifest.size for one in left)))


def oldest_first(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """In the opposite order of a list."""
    return tuple(sorted(entries, key=lambda one: order(one.manifest), reverse=True))
