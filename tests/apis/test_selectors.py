"""Label selectors."""

import pytest

from toe_async.apis.meta import LabelSelectorRequirement, SelectorOperator
from toe_async.apis.selectors import Selector, parse

IN, NOT_IN = SelectorOperator.IN, SelectorOperator.NOT_IN
EXISTS, ABSENT = SelectorOperator.EXISTS, SelectorOperator.DOES_NOT_EXIST


def requirement(key: str, operator: SelectorOperator, *values: str) -> LabelSelectorRequirement:
    return LabelSelectorRequirement(key=key, operator=operator, values=values)


@pytest.mark.parametrize(
    ("one", "labels", "expected"),
    [
        (requirement("a", IN, "1", "2"), {"a": "2"}, True),
        (requirement("a", IN, "1", "2"), {"a": "3"}, False),
        (requirement("a", IN, "1"), {}, False),
        (requirement("a", NOT_IN, "1"), {"a": "2"}, True),
        (requirement("a", NOT_IN, "1"), {"a": "1"}, False),
        (requirement("a", NOT_IN, "1"), {}, True),
        (requirement("a", EXISTS), {"a": ""}, True),
        (requirement("a", EXISTS), {"b": ""}, False),
        (requirement("a", ABSENT), {"b": ""}, True),
        (requirement("a", ABSENT), {"a": ""}, False),
    ],
)
def test_each_operator_as_kubernetes_defines_it(
    one: LabelSelectorRequirement, labels: dict[str, str], expected: bool
) -> None:
    """NotIn and DoesNotExist also hold where the label is absent."""
    assert Selector.of({}, [one]).matches(labels) is expected


def test_all_parts_must_hold() -> None:
    """Labels and expressions are joined by AND; an empty selector selects everything."""
    selector = Selector.of({"app": "web"}, [requirement("tier", IN, "a", "b")])
    assert selector.matches({"app": "web", "tier": "a", "more": "x"})
    assert not selector.matches({"app": "web", "tier": "c"})
    assert not selector.matches({"tier": "a"})
    assert Selector().matches({})
    assert Selector().matches({"any": "thing"})


@pytest.mark.parametrize(
    ("one", "words"),
    [(requirement("a", IN), "at least one value"), (requirement("a", EXISTS, "x"), "no values")],
)
def test_an_expression_with_the_wrong_number_of_values_is_refused(one: LabelSelectorRequirement, words: str) -> None:
    """Admission refuses it too; an object stored before that must not match by accident."""
    with pytest.raises(ValueError, match=words):
        Selector.of({}, [one])


TEXTS = [
    ("", {}, True),
    ("a=1", {"a": "1"}, True),
    ("a==1", {"a": "1"}, True),
    ("a=", {"a": ""}, True),
    ("a!=1", {}, True),
    ("a!=1", {"a": "1"}, False),
    (" a = 1 , b = 2 ", {"a": "1", "b": "2"}, True),
    ("a in (1, 2),b", {"a": "2", "b": ""}, True),
    ("a in (1,2),!b", {"a": "2", "b": ""}, False),
    ("a notin (1)", {"a": "1"}, False),
    ("example.com/x=1", {"example.com/x": "1"}, True),
    ("in=1", {"in": "1"}, True),
    ("a=1,a=2", {"a": "1"}, False),
    ("a=1,a=1", {"a": "1"}, True),
    ("!a", {}, True),
    ("a in ()", {"a": ""}, True),
]


@pytest.mark.parametrize(("text", "labels", "expected"), TEXTS)
def test_the_query_form_is_read(text: str, labels: dict[str, str], expected: bool) -> None:
    """Every form that kubectl and client-go write."""
    assert parse(text).matches(labels) is expected


@pytest.mark.parametrize(
    "text", ["=1", "a=1 b=2", "a in 1", "a in (1", "a=1,", ",a=1", "a=1,,b=2", "!", "a=(1)", "a>1,"]
)
def test_what_is_no_selector_is_refused_with_the_place(text: str) -> None:
    """Silently dropping a part would select too much."""
    with pytest.raises(ValueError, match="label selector"):
        parse(text)


def test_the_equality_part_is_there_for_index_look_ups() -> None:
    """A store can find candidates by one label before it matches the rest."""
    assert parse("a=1,b in (2),c=3").equality == {"a": "1", "c": "3"}
