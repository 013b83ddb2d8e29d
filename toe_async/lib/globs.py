"""Globs over names: ``*``, ``?``, ``[a-c]``, ``[!a]``, ``{a,b}``; case counts; the whole text must match.

Globs come from strangers too (annotations of namespaces): matching takes at most so many steps as glob and text have
characters, multiplied, and braces no more than their own.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

_LONGEST_PATTERN = 256
_DEEPEST = 32

# A glob is a list of parts: `*`, `?`, another character, a compiled class, or a list of alternatives, globs themselves.
_Glob = list[Any]


def check_glob(pattern: str) -> None:
    """Raise ValueError with the reason when the pattern is no glob."""
    _compile(pattern)


def matches(pattern: str, text: str) -> bool:
    """Tell whether the whole text matches; raises ValueError for a broken pattern."""
    return len(text) in _ends(_compile(pattern), text, {0})


def any_match(patterns: Iterable[str], text: str) -> bool:
    """Tell whether one of the patterns matches the whole text."""
    return any(matches(pattern, text) for pattern in patterns)


def _ends(glob: _Glob, text: str, begins: set[int]) -> set[int]:
    """Where a match may end that begins at one of these places."""
    here = begins
    for part in glob:
        if not here:
            break
        if part == "*":
            here = set(range(min(here), len(text) + 1))
        elif isinstance(part, list):
            here = set().union(*(_ends(one, text, here) for one in part))
        else:
            here = {at + 1 for at in here if at < len(text) and _is(part, text[at])}
    return here


def _is(part: Any, char: str) -> bool:
    if isinstance(part, tuple):  # of one character: that one
        return bool(part[0] == char)
    return part == "?" or (isinstance(part, re.Pattern) and part.fullmatch(char) is not None)


@lru_cache(maxsize=1024)
def _compile(pattern: str) -> _Glob:
    if len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"the glob is longer than {_LONGEST_PATTERN} characters")
    out: _Glob = []
    outer: list[_Glob] = []  # what goes on behind each open brace
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char in "*?":
            out.append(char)
        elif char == "[":
            end = pattern.find("]", at + 2 if pattern[at : at + 1] == "!" else at + 1)
            if end < 0:
                raise ValueError(f"the glob {pattern!r} opens '[' and never closes it")
            out.append(_class(pattern, pattern[at:end]))
            at = end + 1
        elif char == "{":
            if len(outer) == _DEEPEST:
                raise ValueError(f"the glob {pattern!r} opens more than {_DEEPEST} braces in each other")
            outer.append(out)
            out = []
            outer[-1].append([out])
        elif char == "}" and outer:
            out = outer.pop()
        elif char == "," and outer:
            out = []
            outer[-1][-1].append(out)
        elif char == "\\":
            raise ValueError(f"the glob {pattern!r} has a backslash; put the character in brackets instead: [*]")
        else:
            out.append((char,))
    if outer:
        raise ValueError(f"the glob {pattern!r} opens '{{' and never closes it")
    return out


def _class(pattern: str, inner: str) -> "re.Pattern[str]":
    negated, inner = inner[:1] == "!", inner.removeprefix("!")
    try:
        return re.compile("[" + "^" * negated + re.sub(r"([\\\[\]^&~|])", r"\\\1", inner) + "]", re.DOTALL)
    except re.error as error:
        raise ValueError(f"the glob {pattern!r} is broken: {error}") from error
