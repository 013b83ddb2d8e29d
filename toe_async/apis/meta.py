"""What all objects share: the wire base class, metadata, conditions, and decoding that puts up with nulls.

An API server drops nulls from our own kinds, but core kinds and aggregated APIs may send them for any list, map or
string. Typed decoding is tried first; only a document that fails it is read again without its nulls, so the usual
document pays nothing. Unknown fields are always ignored: a decoded object is a slice and is never written back whole.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

T = TypeVar("T")

MOST: Final = 9007199254740991
"""The largest integer that every JSON reader keeps exactly."""


class Wire(Struct, rename="camel", frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Base of everything that crosses the wire. Frozen data cannot form cycles, so the collector need not track it.

    Acronyms need `field(name=...)`: camel case makes `podIp`, and a wrong name is silent when decoding.
    """


class OwnerReference(Wire, frozen=True, kw_only=True):
    """Who made an object. `controller` is set on at most one."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ObjectMeta(Wire, frozen=True, kw_only=True):
    """The slice of metadata that we read."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ObjectRef(Wire, frozen=True, kw_only=True):
    """Names one object, as an Event's `involvedObject` does."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class ConditionStatus(StrEnum):
    """Three-valued truth of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """One aspect of the object's state, in the shape of metav1.Condition."""

    type: Annotated[
        str,
        Meta(
            description="Aspect of the state, in CamelCase.",
            max_length=316,
            extra_json_schema={"pattern": r"^[A-Za-z][A-Za-z0-9.\-/]*$"},
        ),
    ]
    status: Annotated[ConditionStatus, Meta(description="True, False or Unknown.")]
    reason: Annotated[
        str,
        Meta(
            description="Stable CamelCase word that says why; programs may rely on it.",
            min_length=1,
            max_length=1024,
            extra_json_schema={"pattern": r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
        ),
    ]
    message: Annotated[str, Meta(description="Sentence for people, with the way out.", max_length=32768)] = ""
    last_transition_time: Annotated[datetime, Meta(description="When the status changed last.")]
    observed_generation: Annotated[
        int, Meta(description="Generation of the spec that this condition speaks of.", ge=0, le=MOST)
    ] = 0


def set_condition(conditions: tuple[Condition, ...], new: Condition, now: datetime) -> tuple[Condition, ...]:
    """The conditions with `new` in the place of its type (at the end when the type is new).

    The transition time moves to `now` (whole seconds, as metav1.Time keeps them) only when the status differs from the
    one held; `new.last_transition_time` is never used, so a repeated call gives an equal tuple.
    """
    moment = now.replace(microsecond=0)
    for at, old in enumerate(conditions):
        if old.type == new.type:
            since = old.last_transition_time if old.status == new.status else moment
            return (*conditions[:at], replace(new, last_transition_time=since), *conditions[at + 1 :])
    return (*conditions, replace(new, last_transition_time=moment))


def find_condition(conditions: tuple[Condition, ...], type_: str) -> Condition | None:
    """The condition of that type, if it is there."""
    return next((one for one in conditions if one.type == type_), None)


class SelectorOperator(StrEnum):
    """How a requirement compares a label."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class LabelSelectorRequirement(Wire, frozen=True, kw_only=True):
    """One requirement on a label."""

    key: Annotated[
        str,
        Meta(description="Label key that the requirement speaks of.", min_length=1, max_length=316),
    ]
    operator: Annotated[
        SelectorOperator,
        Meta(description="In and NotIn compare with values; Exists and DoesNotExist take none."),
    ]
    values: Annotated[
        tuple[Annotated[str, Meta(max_length=63)], ...],
        Meta(
            description="Values for In and NotIn.", max_length=50, extra_json_schema={"x-kubernetes-list-type": "set"}
        ),
    ] = ()


_encoder = msgspec.json.Encoder()


def encode(obj: object) -> bytes:
    """JSON bytes of a wire struct or of plain data. Defaults are left out unless the struct's class says otherwise."""
    return _encoder.encode(obj)


def without_nulls(value: Any) -> Any:
    """The same plain data without map entries and list items that are null, at every depth."""
    if isinstance(value, dict):
        return {key: without_nulls(held) for key, held in value.items() if held is not None}
    if isinstance(value, list):
        return [without_nulls(held) for held in value if held is not None]
    return value


class Decoder(Generic[T]):
    """Decodes JSON into `type_`; nulls count as absent.

    Raises msgspec.DecodeError (ValidationError is one of it), also for texts that are no UTF-8 and for endless nesting,
    which msgspec itself tells by errors that have nothing to do with it.
    """

    def __init__(self, type_: type[T]) -> None:
        self._type = type_
        self._typed = msgspec.json.Decoder(type_)

    def __call__(self, raw: bytes | msgspec.Raw) -> T:
        try:
            return self._decoded(raw)
        except UnicodeDecodeError:
            raise msgspec.DecodeError("a text in it is no UTF-8") from None
        except RecursionError:
            raise msgspec.DecodeError("it is nested too deeply") from None

    def _decoded(self, raw: bytes | msgspec.Raw) -> T:
        try:
            return self._typed.decode(raw)
        except msgspec.ValidationError:
            return msgspec.convert(without_nulls(msgspec.json.decode(raw)), self._type)
