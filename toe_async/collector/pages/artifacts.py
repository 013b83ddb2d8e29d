"""What the pages read of an Artifact, and how artifacts are put together. Pure.

Nothing read here is trusted: every field is only ever shown as text. An object that cannot be read is left out and
counted, so that one odd artifact never hides the others.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from toe_async.apis.meta import Wire
from toe_async.collector.errors import Refused

_FOLDED = (".folded", ".folded.gz", ".collapsed", ".collapsed.gz")
_PPROF = (".pb.gz", ".pb", ".pprof", ".pprof.gz", ".prof")
_HOLD = "toe.run/hold"

Instant = Annotated[datetime, Meta(tz=True)]


class _Meta(Wire, frozen=True, kw_only=True):
    name: str
    namespace: str
    uid: str = ""
    creation_timestamp: Instant
    annotations: dict[str, str] = field(default_factory=dict)


class _Facts(Wire, frozen=True, kw_only=True):
    leaf: str
    size: Annotated[int, Meta(ge=0)]
    capture: str
    sha256: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    run: str = ""
    run_uid: str = field(name="runUID", default="")
    kind: str = ""
    pod: str = ""
    pod_uid: str = field(name="podUID", default="")
    container: str = ""
    node: str = ""
    service: str = ""
    tool: str = ""
    reason: str = ""
    trigger: str = ""
    triggered_at: Instant | None = None
    retention_days: int | None = None
    details: dict[str, str] = field(default_factory=dict)
    hold: str = ""


class _Object(Wire, frozen=True, kw_only=True):
    metadata: _Meta
    artifact: _Facts


class Artifact(Struct, frozen=True, kw_only=True):
    """One artifact as a page shows it."""

    namespace: str
    name: str
    stored_at: datetime
    facts: _Facts
    held: str
    """Why it must be kept; empty when nobody holds it."""

    @property
    def key(self) -> str:
        """NAMESPACE/NAME, which is how a diff names its base."""
        return f"{self.namespace}/{self.name}"

    @property
    def at(self) -> datetime:
        """When what it shows happened; when it was stored, if that is not known."""
        return self.facts.triggered_at or self.stored_at

    @property
    def series(self) -> tuple[str, str, str]:
        """Artifacts of one series measure the same thing again and again: namespace, run and leaf."""
        return self.namespace, self.facts.run_uid or self.facts.run, self.facts.leaf

    @property
    def is_profile(self) -> bool:
        """Whether its name says that it can be drawn. Whether it can is known once it is read."""
        return self.facts.leaf.lower().endswith(_PPROF + _FOLDED)


class Capture(Struct, frozen=True, kw_only=True):
    """The artifacts of one capture on a page; what they share is the first one's."""

    artifacts: tuple[Artifact, ...]

    @property
    def first(self) -> Artifact:
        """Any one of them, for what they have in common."""
        return self.artifacts[0]


class Listing(Struct, frozen=True, kw_only=True):
    """A page of artifacts as it was asked for."""

    artifacts: tuple[Artifact, ...]
    unreadable: int = 0
    continue_: str = ""
    remaining: int | None = None


def read(raw: Mapping[str, Any]) -> Artifact:
    """Read one object.

    Raises:
        Refused: 500 it has not the shape of an Artifact.
    """
    try:
        found = msgspec.convert(raw, _Object)
    except (msgspec.ValidationError, ValueError) as bad:
        raise Refused(500, "NotAnArtifact", "what is stored under that name is not described as an artifact") from bad
    meta, facts = found.metadata, found.artifact
    held = facts.hold or meta.annotations.get(_HOLD, "")
    return Artifact(namespace=meta.namespace, name=meta.name, stored_at=meta.creation_timestamp, facts=facts, held=held)


def read_list(raw: Mapping[str, Any]) -> Listing:
    """Read a page; objects that are no artifacts are counted."""
    items, unreadable = [], 0
    for one in raw.get("items") or ():
        try:
            items.append(read(one))
        except Refused:
            unreadable += 1
    meta = raw.get("metadata") or {}
    remaining = meta.get("remainingItemCount")
    return Listing(
        artifacts=tuple(items),
        unreadable=unreadable,
        continue_=str(meta.get("continue") or ""),
        remaining=remaining if isinstance(remaining, int) else None,
    )


def by_capture(artifacts: Iterable[Artifact]) -> tuple[Capture, ...]:
    """Put the artifacts of each capture together, in the order in which captures come up."""
    found: dict[tuple[str, str], list[Artifact]] = {}
    for one in artifacts:
        found.setdefault((one.namespace, one.facts.capture), []).append(one)
    return tuple(Capture(artifacts=tuple(sorted(group, key=lambda one: one.facts.leaf))) for group in found.values())
