"""Label selectors: matching, and reading the query string in which an API server takes them. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Self

from msgspec import Struct

from toe_async.apis.meta import LabelSelectorRequirement, SelectorOperator

_TERM = re.compile(
    r"""\s*(?:
        !\s*(?P<absent>[^\s!=(),]+)
      | (?P<key>[^\s!=(),]+)\s*(?:
            (?P<op>==|=|!=)\s*(?P<value>[^\s!=(),]*)
          | (?P<set>in|notin)\s*\(\s*(?P<values>[^()]*?)\s*\)
        )?
    )\s*(?:,|$)""",
    re.VERBOSE,
)


class Selector(Struct, frozen=True):
    """All requirements must hold; none at all selects everything, as a Kubernetes label selector does.

    NotIn and DoesNotExist hold where the label is absent.
    """

    equality: dict[str, str] = {}
    requirements: tuple[LabelSelectorRequirement, ...] = ()

    @classmethod
    def of(
        cls, match_labels: Mapping[str, str] | None = None, expressions: Iterable[LabelSelectorRequirement] = ()
    ) -> Self:
        """From the two parts of a LabelSelector. Raises ValueError for an operator with missing or needless values."""
        held = tuple(expressions)
        for one in held:
            takes_values = one.operator in {SelectorOperator.IN, SelectorOperator.NOT_IN}
            if takes_values != bool(one.values):
                wanted = "at least one value" if takes_values else "no values"
                raise ValueError(f"label {one.key!r}: operator {one.operator} takes {wanted}")
        return cls(dict(match_labels or {}), held)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        for key, value in self.equality.items():
            if labels.get(key) != value:
                return False
        return all(_holds(one, labels) for one in self.requirements)


def parse(text: str) -> Selector:
    """Reads a `labelSelector` query parameter. Raises ValueError that shows where the text stops making sense."""
    equality: dict[str, str] = {}
    requirements: list[LabelSelectorRequirement] = []
    at = 0
    if not text.strip():
        return Selector()
    while at < len(text):
        term = _TERM.match(text, at)
        if term is None:
            raise ValueError(f"label selector is not understood from {text[at : at + 60]!r} on")
        at = term.end()
        if term["absent"] is not None:
            requirements.append(_requirement(term["absent"], SelectorOperator.DOES_NOT_EXIST))
        elif term["set"] is not None:
            operator = SelectorOperator.IN if term["set"] == "in" else SelectorOperator.NOT_IN
            values = tuple(value.strip() for value in term["values"].split(","))
            requirements.append(_requirement(term["key"], operator, values))
        elif term["op"] is None:
            requirements.append(_requirement(term["key"], SelectorOperator.EXISTS))
        elif term["op"] == "!=":
            requirements.append(_requirement(term["key"], SelectorOperator.NOT_IN, (term["value"],)))
        elif equality.setdefault(term["key"], term["value"]) != term["value"]:
            requirements.append(_requirement(term["key"], SelectorOperator.IN, (term["value"],)))
    if text.rstrip().endswith(","):
        raise ValueError("label selector ends with a comma: a requirement is expected after it")
    return Selector(equality, tuple(requirements))


def _requirement(key: str, operator: SelectorOperator, values: tuple[str, ...] = ()) -> LabelSelectorRequirement:
    return LabelSelectorRequirement(key=key, operator=operator, values=values)


def _holds(one: LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    held = labels.get(one.key)
    match one.operator:
        case SelectorOperator.EXISTS:
            return held is not None
        case SelectorOperator.DOES_NOT_EXIST:
            return held is None
        case SelectorOperator.IN:
            return held in one.values
        case SelectorOperator.NOT_IN:
            return held not in one.values
