"""Which containers of which pods a PowerTool means."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta, field

from toe_async.apis.fieldtypes import (
    CONTAINER_PATTERN,
    LABEL_KEYS,
    LABEL_VALUE_PATTERN,
    TOOL_NAME_PATTERN,
    MatchExpressions,
)
from toe_async.apis.meta import Wire
from toe_async.apis.powertoolstatus import MAX_TARGETS
from toe_async.apis.schema import PROMISED, rule, rules
from toe_async.apis.selectors import Selector

Pick = Literal["All", "Random", "Oldest", "Newest", "Hottest"]

_REGEX_CHARACTERS: Final = r"^([a-zA-Z0-9.*+?|()\\[\\]^$,{}_-]|\\\\[dw.-])+$"


class TargetSelector(Wire, frozen=True, kw_only=True):
    """Labels that choose pods."""

    match_labels: Annotated[
        dict[
            str,
            Annotated[str, Meta(description="Value of the label.", max_length=63, pattern=LABEL_VALUE_PATTERN)],
        ],
        Meta(
            description="Labels that a pod must carry, each with this value.",
            max_length=64,
            extra_json_schema=LABEL_KEYS,
        ),
    ] = field(default_factory=dict)
    match_expressions: MatchExpressions = ()

    def compiled(self) -> Selector:
        """The selector. Raises ValueError for an expression that admission would have refused."""
        return Selector.of(self.match_labels, self.match_expressions)

    def matching_labels(self, pod_labels: Mapping[str, str]) -> dict[str, str]:
        """Of a pod's labels those that the selector names, matchExpressions included: they name the artifact's folder.

        Sorted by key, so that one pod has one spelling. A label that is named and absent (NotIn, DoesNotExist) is left
        out.
        """
        named = {*self.match_labels, *(one.key for one in self.match_expressions)}
        return {key: pod_labels[key] for key in sorted(named) if key in pod_labels}


class NamespaceSelector(Wire, frozen=True, kw_only=True):
    """Other namespaces, each of which must grant it."""

    match_names: Annotated[
        tuple[
            Annotated[
                str, Meta(description="Name of a namespace.", min_length=1, max_length=63, pattern=TOOL_NAME_PATTERN)
            ],
            ...,
        ],
        Meta(description="Namespaces by name.", max_length=100, extra_json_schema={"x-kubernetes-list-type": "set"}),
    ] = ()
    match_regex: Annotated[
        str,
        Meta(
            description=(
                "Namespaces whose whole name this regular expression matches, in addition to those of matchNames. At "
                "most four repetitions, and none of a group."
            ),
            max_length=253,
            extra_json_schema=rules(
                rule(
                    # A group repeated, or many repetitions in a row, can take a regular expression years to refuse.
                    f"self == '' || (self.matches('{_REGEX_CHARACTERS}') && !self.matches('[(][?]|[)][*+?{{]') && "
                    "!self.matches('([*+?{].*){5}'))",
                    "a regular expression of namespaces has letters, digits, . * + ? | ( ) [ ] ^ $ { } - and \\\\d, at "
                    "most four repetitions, and no repetition of a group; name the namespaces in matchNames instead",
                    "FieldValueInvalid",
                )
            ),
        ),
    ] = ""

    def covers(self, namespace: str) -> bool:
        """Whether the namespace is named, or its whole name matches. Raises ValueError for a broken expression."""
        if namespace in self.match_names:
            return True
        try:
            return self.match_regex != "" and re.fullmatch(self.match_regex, namespace) is not None
        except re.error as error:
            raise ValueError(f"{self.match_regex[:80]!r} is no regular expression: {error}") from error


class Targets(Wire, frozen=True, kw_only=True):
    """Which containers of which pods."""

    label_selector: Annotated[
        TargetSelector,
        Meta(
            description="Labels of the pods. An empty selector is refused: it would mean every pod.",
            extra_json_schema={
                "x-kubernetes-map-type": "atomic",
                **rules(
                    rule(
                        "(has(self.matchLabels) && size(self.matchLabels) > 0) || "
                        "(has(self.matchExpressions) && size(self.matchExpressions) > 0)",
                        "an empty selector would mean every pod; name at least one label in matchLabels or "
                        "matchExpressions",
                        "FieldValueRequired",
                        ".matchLabels",
                    )
                ),
            },
        ),
    ]
    namespace_selector: Annotated[
        NamespaceSelector | None,
        Meta(
            description=(
                "Other namespaces to look for pods in, instead of this object's own; each must grant it by the "
                "annotation toe.run/powertools-from."
            ),
            extra_json_schema=rules(
                rule(
                    "(has(self.matchNames) && size(self.matchNames) > 0) || "
                    "(has(self.matchRegex) && self.matchRegex != '')",
                    "name namespaces in matchNames or matchRegex, or remove namespaceSelector to stay here",
                    "FieldValueRequired",
                    ".matchNames",
                )
            ),
        ),
    ] = None
    container: Annotated[
        str,
        Meta(
            description=(
                "Container to look at; empty means the one of the annotation kubectl.kubernetes.io/default-container, "
                "else the first."
            ),
            max_length=63,
            pattern=CONTAINER_PATTERN,
        ),
    ] = ""
    max_targets: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_TARGETS)] | None,
        Meta(description="At most so many of the pods that match are taken."),
    ] = None
    pick: Annotated[
        Pick,
        Meta(
            description=(
                "Which pods are taken when more match than maxTargets says: All takes them as they come, Random, "
                "Oldest, Newest, or Hottest by CPU; always spread over nodes."
            ),
            extra=PROMISED,
        ),
    ] = "All"
