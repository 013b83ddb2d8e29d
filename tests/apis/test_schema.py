"""From types to structural schemas."""

from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta, Struct, field

from toe_async.apis.schema import PROMISED, NotStructuralError, rule, rules, schema_of


class Colour(StrEnum):
    """Two."""

    RED = "Red"
    BLUE = "Blue"


class Inner(Struct):
    """An inner
    thing."""

    name: str


class Outer(Struct, rename="camel"):
    """Everything that has a structural form."""

    flag: bool
    small: Annotated[int, Meta(ge=1, le=5, description="A few.")]
    open_range: Annotated[float, Meta(gt=0, lt=1)]
    text: Annotated[str, Meta(min_length=1, max_length=3, pattern="^a")]
    when: datetime
    colour: Colour
    literal: Literal["x", "y"]
    either: int | str
    things: Annotated[tuple[Inner, ...], Meta(min_length=1, max_length=2)]
    table: Annotated[dict[str, Annotated[int, Meta(ge=0)]], Meta(max_length=9)]
    maybe: Inner | None = None
    promised: Annotated[int, Meta(extra=PROMISED)] = 7
    promised_list: Annotated[list[Colour], Meta(extra=PROMISED)] = field(default_factory=lambda: [Colour.RED])
    private: int = 7


def test_every_type_that_has_a_structural_form_gets_it() -> None:
    """Each node has a type, bounds have Kubernetes's names, defaults appear only where they are promised."""
    schema = schema_of(Outer)
    inner = {
        "type": "object",
        "description": "An inner thing.",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
    }
    assert schema["properties"] == {
        "flag": {"type": "boolean"},
        "small": {"type": "integer", "format": "int64", "minimum": 1, "maximum": 5, "description": "A few."},
        "openRange": {
            "type": "number",
            "minimum": 0,
            "exclusiveMinimum": True,
            "maximum": 1,
            "exclusiveMaximum": True,
        },
        "text": {"type": "string", "minLength": 1, "maxLength": 3, "pattern": "^a"},
        "when": {"type": "string", "format": "date-time"},
        "colour": {"type": "string", "enum": ["Red", "Blue"]},
        "literal": {"type": "string", "enum": ["x", "y"]},
        "either": {"x-kubernetes-int-or-string": True},
        "things": {"type": "array", "items": inner, "minItems": 1, "maxItems": 2},
        "table": {
            "type": "object",
            "additionalProperties": {"type": "integer", "format": "int64", "minimum": 0},
            "maxProperties": 9,
        },
        "maybe": inner,
        "promised": {"type": "integer", "format": "int64", "default": 7},
        "promisedList": {"type": "array", "items": {"type": "string", "enum": ["Red", "Blue"]}, "default": ["Red"]},
        "private": {"type": "integer", "format": "int64"},
    }
    assert "maybe" not in schema["required"]
    assert schema["description"] == "Everything that has a structural form."


def test_rules_and_list_types_ride_on_the_field() -> None:
    """They are added to what the type gives."""

    class Holder(Struct):
        """Holds."""

        one: Annotated[str, Meta(extra_json_schema=rules(rule("true", "why", "FieldValueInvalid")))]
        two: Annotated[int, Meta(extra_json_schema=rules(rule("true", "why", "FieldValueInvalid", ".x")))]

    found = schema_of(Holder)["properties"]
    entry = {"rule": "true", "message": "why", "reason": "FieldValueInvalid"}
    assert found["one"] == {"type": "string", "x-kubernetes-validations": [entry]}
    assert found["two"]["x-kubernetes-validations"] == [{**entry, "fieldPath": ".x"}]


class Recursive(Struct):
    """Contains itself."""

    next: "Recursive | None" = None


class Tagged(Struct, tag="x"):
    """One of several."""


class Strict(Struct, forbid_unknown_fields=True):
    """Refuses what it does not know."""


class Number(IntEnum):
    """Enumerates numbers."""

    ONE = 1


@pytest.mark.parametrize(
    "wrong",
    [
        Recursive,
        Tagged,
        Strict,
        set[str],
        bytes,
        int | bool,
        bool | str,
        dict[int, str],
        tuple[int, str],
        Number,
        Literal[1, 2],
        msgspec.Raw,
        Annotated[int, Meta(extra=PROMISED)],
    ],
    ids=str,
)
def test_what_has_no_structural_form_is_refused_with_the_path_to_it(wrong: type) -> None:
    """A schema that the API server refuses, or reads otherwise, is found when it is made."""
    holder = msgspec.defstruct("Holder", [("deep", wrong)])
    with pytest.raises(NotStructuralError, match=r"^Holder\.deep"):
        schema_of(holder)
