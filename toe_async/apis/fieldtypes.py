"""Fields that several kinds have in common: a duration, an argument, a path, a name, with bound and rule each."""

from typing import Annotated, Any, Final

from msgspec import Meta

from toe_async.apis.meta import LabelSelectorRequirement
from toe_async.apis.schema import Schema, rule, rules

DAY_SECONDS: Final = 86_400
TOOL_NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
CONTAINER_PATTERN: Final = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"
SUBDOMAIN_PATTERN: Final = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"
LABEL_VALUE_PATTERN: Final = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
ATOMIC: Final[Schema] = {"x-kubernetes-list-type": "atomic"}

LABEL_KEYS: Final[Schema] = rules(
    rule("self.all(key, size(key) > 0 && size(key) <= 316)", "a label key has 1 to 316 characters", "FieldValueInvalid")
)
"""The `extra_json_schema` of a map by label keys."""

MatchExpressions = Annotated[
    tuple[
        Annotated[
            LabelSelectorRequirement,
            Meta(
                description="One requirement on a label.",
                extra_json_schema=rules(
                    rule(
                        "!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)",
                        "operators In and NotIn need at least one value",
                        "FieldValueRequired",
                        ".values",
                    ),
                    rule(
                        "self.operator in ['In', 'NotIn'] || !has(self.values) || size(self.values) == 0",
                        "operators Exists and DoesNotExist take no values; remove them or use In or NotIn",
                        "FieldValueForbidden",
                        ".values",
                    ),
                ),
            ),
        ],
        ...,
    ],
    Meta(
        description="Further requirements on labels; all of them must hold.",
        max_length=20,
        extra_json_schema=ATOMIC,
    ),
]

# Go's own syntax, less its sign and its bare zero.
_GO_DURATION: Final = "^([0-9]+([.][0-9]+)?(h|m|s|ms))+$"


def list_map(*keys: str) -> Schema:
    """The `extra_json_schema` of a list whose items are told apart by those fields."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def duration_meta(description: str, *, hours: int = 24, extra: dict[Any, Any] | None = None) -> Meta:
    """A Go duration above zero and no longer than `hours`; the field may be empty, which counts as absent."""
    return Meta(
        description=f"{description} Written like 90s, 5m or 1h30m; at most {hours}h.",
        max_length=32,
        extra=extra,
        extra_json_schema=rules(
            rule(
                f"self == '' || (self.matches('{_GO_DURATION}') && duration(self) > duration('0s') && "
                f"duration(self) <= duration('{hours}h'))",
                f"a duration is written like 90s, 5m or 1h30m, is above zero and at most {hours}h",
                "FieldValueInvalid",
            )
        ),
    )


def quantity_meta(description: str) -> Meta:
    """A Kubernetes quantity above zero; the field may be empty, which counts as absent."""
    return Meta(
        description=description,
        max_length=32,
        extra_json_schema=rules(
            rule(
                "self == '' || (isQuantity(self) && quantity(self).isGreaterThan(quantity('0')))",
                "an amount is a Kubernetes quantity above zero, such as 250m, 64Mi or 2Gi",
                "FieldValueInvalid",
            )
        ),
    )


Argument = Annotated[
    str,
    Meta(
        description="One element of the argument vector; nothing in it is interpreted by a shell.",
        max_length=4096,
        extra_json_schema=rules(
            rule(
                r"!self.matches(r'\x00')",
                "an argument holds no NUL character: a process could not be given it",
                "FieldValueInvalid",
            )
        ),
    ),
]
