"""Regular expressions that a stranger's text may be held to: matching takes steps that are counted and bounded.

The syntax is Python's and so is the meaning, but all ways through an expression are followed at once, character by
character, so that no expression and no text make it try one way after another for ever. What cannot be done that way
(looking around, going back to a group, possessive groups, flags) is refused when the expression is read.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

# Python's own reader of expressions, which has no public name and no types.
op: Any = import_module("re._constants")
parser: Any = import_module("re._parser")

MOST_STATES: Final = 8192
"""Of one expression, its counted repetitions written out."""
_Test = Callable[[str], bool]
_Place = Callable[[int, str], bool]

_CATEGORIES: Final[dict[Any, _Test]] = {
    op.CATEGORY_DIGIT: str.isdecimal,
    op.CATEGORY_SPACE: str.isspace,
    op.CATEGORY_WORD: lambda one: one.isalnum() or one == "_",
    op.CATEGORY_NOT_DIGIT: lambda one: not one.isdecimal(),
    op.CATEGORY_NOT_SPACE: lambda one: not one.isspace(),
    op.CATEGORY_NOT_WORD: lambda one: not (one.isalnum() or one == "_"),
}
_PLACES: Final[dict[Any, _Place]] = {
    op.AT_BEGINNING: lambda at, text: at == 0,
    op.AT_BEGINNING_STRING: lambda at, text: at == 0,
    op.AT_END: lambda at, text: text[at:] in {"", "\n"},
    op.AT_END_STRING: lambda at, text: at == len(text),
}


class TooMuch(Exception):  # noqa: N818 - read as what has happened
    """All steps that were allowed are used up, and nothing is known of the text."""


class Effort:
    """Steps that are left, for as many matches as one likes. A million take less than a second."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def spend(self, steps: int) -> None:
        """Raises TooMuch."""
        self._left -= steps
        if self._left < 0:
            raise TooMuch


class Pattern:
    """One expression, which a text matches as a whole or not at all."""

    def __init__(self, text: str) -> None:
        """Raises ValueError with what is wrong."""
        self._tests: list[_Test | None] = [None]
        self._places: list[_Place | None] = [None]
        self._next: list[tuple[int, ...]] = [()]  # of the end, which is number 0
        self._size = 0
        try:
            tree = parser.parse(text)
            if tree.state.flags & ~re.UNICODE:
                raise ValueError("flags are not supported")
            self._start = self._sequence(tree, 0)
        except (re.error, OverflowError) as error:
            raise ValueError(str(error)) from error
        except RecursionError as error:
            raise ValueError("its groups are nested too deep") from error

    def fits(self, text: str, effort: Effort) -> bool:
        """Tell whether the whole text matches; raises TooMuch."""
        live = self._reached((self._start,), 0, text, effort)
        for at, one in enumerate(text, 1):
            onward = [self._next[each][0] for each in live if (test := self._tests[each]) is not None and test(one)]
            if not onward:
                return False
            live = self._reached(onward, at, text, effort)
        return 0 in live

    def _reached(self, states: Iterable[int], at: int, text: str, effort: Effort) -> set[int]:
        """These states and all that are reached from them without another character."""
        found, left = set[int](), list(states)
        while left:
            state = left.pop()
            if state in found:
                continue
            found.add(state)
            place = self._places[state]
            if self._tests[state] is None and (place is None or place(at, text)):
                left.extend(self._next[state])
        effort.spend(len(found))
        return found

    def _state(self, following: tuple[int, ...], test: _Test | None = None, place: _Place | None = None) -> int:
        self._tests.append(test)
        self._places.append(place)
        self._next.append(following)
        return len(self._next) - 1

    def _sequence(self, items: Iterable[Any], then: int) -> int:
        for kind, value in reversed(list(items)):
            then = self._item(kind, value, then)
        return then

    def _item(self, kind: Any, value: Any, then: int) -> int:
        self._grow()
        if kind is op.BRANCH:
            return self._state(tuple(self._sequence(one, then) for one in value[1]))
        if kind is op.SUBPATTERN and not (value[1] or value[2]):
            return self._sequence(value[3], then)
        if kind in {op.MAX_REPEAT, op.MIN_REPEAT}:
            least, most, body = value
            return self._repeat(least, most, body, then)
        if kind is op.AT and value in _PLACES:
            return self._state((then,), place=_PLACES[value])
        return self._state((then,), test=_test(kind, value))

    def _repeat(self, least: int, most: int, body: Any, then: int) -> int:
        start = then
        if most is op.MAXREPEAT:
            start = self._state(())
            self._next[start] = (self._sequence(body, start), then)
        else:
            for _ in range(most - least):
                self._grow()
                start = self._state((self._sequence(body, start), then))
        for _ in range(least):
            self._grow()
            start = self._sequence(body, start)
        return start

    def _grow(self) -> None:
        self._size += 1
        if self._size > MOST_STATES:
            raise ValueError(f"with its repetitions written out it has more than {MOST_STATES} parts")


@lru_cache(maxsize=512)
def pattern(text: str) -> Pattern:
    """The expression; raises ValueError with what is wrong."""
    return Pattern(text)


def _test(kind: Any, value: Any) -> _Test:
    if kind is op.LITERAL:
        return lambda one: ord(one) == value
    if kind is op.NOT_LITERAL:
        return lambda one: ord(one) != value
    if kind is op.ANY:
        return lambda one: one != "\n"
    if kind is op.RANGE:
        return lambda one: value[0] <= ord(one) <= value[1]
    if kind is op.CATEGORY and value in _CATEGORIES:
        return _CATEGORIES[value]
    if kind is op.IN:
        tests = [_test(*each) for each in value if each[0] is not op.NEGATE]
        wanted = len(tests) == len(value)
        return lambda one: any(test(one) for test in tests) is wanted
    raise ValueError(f"{str(kind).lower().replace('_', ' ')} is not supported")
