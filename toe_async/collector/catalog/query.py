"""What may be asked of the catalog, and which artifacts answer it. Pure.

Artifacts go newest first; those of one instant go by namespace and name. A continue token is the place in that order
after which the next page begins, so a list stays true while artifacts come and go: whatever was there all the time is
in it once.
"""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Struct

from toe_async.apis.selectors import Selector
from toe_async.collector.captures import Manifest
from toe_async.collector.paths import SHORT_ID

LARGEST_PAGE = 500
NAME_PREFIX = SHORT_ID
"""How many characters of its capture's id an artifact's name begins with."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LONGEST_TOKEN = 1024
_OLDEST = 1 << 62

FIELDS: dict[str, Callable[[Manifest], str]] = {
    "metadata.name": lambda held: held.name,
    "metadata.namespace": lambda held: held.namespace,
    "artifact.pod": lambda held: held.pod,
    "artifact.run": lambda held: held.run,
    "artifact.runUID": lambda held: held.run_uid,
    "artifact.kind": lambda held: held.kind,
    "artifact.tool": lambda held: held.tool,
    "artifact.leaf": lambda held: held.leaf,
    "artifact.capture": lambda held: held.capture,
    "artifact.container": lambda held: held.container,
    "artifact.node": lambda held: held.node,
    "artifact.service": lambda held: held.service,
    "artifact.reason": lambda held: held.reason,
}
"""What a field term may name, as a field selector writes it."""


class Entry(Struct, frozen=True):
    """A known artifact. `version` grows with every artifact that is added or changed, across restarts too."""

    manifest: Manifest
    version: int


class FieldTerm(Struct, frozen=True):
    """One term of a field selector; the path must be one of FIELDS."""

    path: str
    value: str
    equal: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError for a path that is none."""
        if self.path not in FIELDS:
            raise ValueError(f"field {self.path[:80]!r} cannot be selected by; there are {', '.join(FIELDS)}")


class Query(Struct, frozen=True, kw_only=True):
    """Which artifacts are wanted; every part that is given must hold."""

    namespace: str = ""
    """Empty: all namespaces."""
    run: str = ""
    """A run's name or UID."""
    since: datetime | None = None
    """Stored at this instant or later."""
    until: datetime | None = None
    """Stored before this instant."""
    labels: Selector | None = None
    """Over the labels that chose the target."""
    fields: tuple[FieldTerm, ...] = ()
    text: str = ""
    """Occurs in pod, run, leaf, container, service, node, reason or trigger, in any case of letters."""


class Page(Struct, frozen=True):
    """A piece of a list. `continue_` is empty at its end; a page may hold less than was asked for, even nothing, and
    still have one."""

    entries: tuple[Entry, ...]
    continue_: str
    remaining: int | None
    """How many are on later pages; None where only looking at them would tell."""
    version: int
    """The newest version of any artifact at the moment of this page."""


class Usage(Struct, frozen=True):
    """What a namespace, or all of them, holds."""

    artifacts: int = 0
    bytes: int = 0


class Place(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A place in the order of a list. `age` is the instant of storing in microseconds since 1970, negated."""

    age: int
    namespace: str
    name: str
    passed: int
    """How many artifacts earlier pages held."""


BEGINNING = Place(-_OLDEST, "", "", 0)
_decode_place = msgspec.json.Decoder(Place).decode


def micros(instant: datetime) -> int:
    """Whole microseconds since 1970."""
    return (instant - _EPOCH) // _MICROSECOND


def order(held: Manifest) -> tuple[int, str, str]:
    """Where an artifact stands in a list."""
    return -micros(held.stored_at), held.namespace, held.name


def place_of(held: Manifest, passed: int) -> Place:
    """The place after an artifact."""
    return Place(*order(held), passed)


def ages(query: Query) -> tuple[int, int]:
    """The lowest and the highest age that the query's instants allow."""
    newest = -_OLDEST if query.until is None else 1 - micros(query.until)
    oldest = _OLDEST if query.since is None else -micros(query.since)
    return newest, oldest


def single_namespace(query: Query) -> str:
    """The one namespace that can hold what is wanted; empty when it may be any."""
    named = [one.value for one in query.fields if one.equal and one.path == "metadata.namespace"]
    return query.namespace or next(iter(named), "")


def is_plain(query: Query) -> bool:
    """Whether the query takes everything of its namespaces."""
    return query == Query(namespace=query.namespace)


def matcher(query: Query) -> Callable[[Manifest], bool]:
    """The query as a test of one artifact; instants are not looked at again."""
    terms = [(FIELDS[one.path], one.value, one.equal) for one in query.fields]
    namespace, run, labels, text = query.namespace, query.run, query.labels, query.text.casefold()

    def matches(held: Manifest) -> bool:
        if namespace and held.namespace != namespace:
            return False
        if run and run not in (held.run, held.run_uid):
            return False
        if labels is not None and not labels.matches(held.labels):
            return False
        if not all((field(held) == value) is equal for field, value, equal in terms):
            return False
        return not text or any(text in part.casefold() for part in _searched(held))

    return matches


def _searched(held: Manifest) -> tuple[str, ...]:
    return held.pod, held.run, held.leaf, held.container, held.service, held.node, held.reason, held.trigger


def to_token(place: Place) -> str:
    """A place as a continue token."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def from_token(text: str) -> Place:
    """Read a continue token; of an empty one, the beginning.

    Raises:
        ValueError: it did not come from here.
    """
    if not text:
        return BEGINNING
    try:
        if len(text) > _LONGEST_TOKEN:
            raise ValueError(text[:20])
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        place = _decode_place(raw)
    except (ValueError, msgspec.DecodeError) as bad:
        raise ValueError("continue is not a token of an earlier page; begin the list again without it") from bad
    if abs(place.age) > _OLDEST or not 0 <= place.passed <= _OLDEST:
        raise ValueError("continue is not a token of an earlier page; begin the list again without it")
    return place
