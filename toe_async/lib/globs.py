"""Globs over names: ``*``, ``?``, ``[a-c]``, ``[!a]``, ``{a,b}``; case counts; the whole text must match."""

import re
from collections.abc import Iterable
from functools import lru_cache

_LONGEST_PATTERN = 256


def check_glob(pattern: str) -> None:
    """Raise ValueError with the reason when the pattern is no glob."""
    _compile(pattern)


def matches(pattern: str, text: str) -> bool:
    """Tell whether the whole text matches; raises ValueError for a broken pattern."""
    return _compile(pattern).fullmatch(text) is not None


def any_match(patterns: Iterable[str], text: str) -> bool:
    """Tell whether one of the patterns matches the whole text."""
    return any(matches(pattern, text) for pattern in patterns)


@lru_cache(maxsize=1024)
def _compile(pattern: str) -> re.Pattern[str]:
    if len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"the glob is longer than {_LONGEST_PATTERN} characters")
    out: list[str] = []
    braces = at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            out.append(".*" if out[-1:] != [".*"] else "")
        elif char == "?":
            out.append(".")
        elif char == "[":
            end = pattern.find("]", at + 2 if pattern[at : at + 1] == "!" else at + 1)
            if end < 0:
                raise ValueError(f"the glob {pattern!r} opens '[' and never closes it")
            inner = pattern[at:end]
            negated, inner = inner[:1] == "!", inner.removeprefix("!")
            out.append("[" + "^" * negated + re.sub(r"([\\\[\]^&~|])", r"\\\1", inner) + "]")
            at = end + 1
        elif char == "{":
            braces += 1
            out.append("(?:")
        elif char == "}" and braces:
            braces -= 1
            out.append(")")
        elif char == "," and braces:
            out.append("|")
        elif char == "\\":
            raise ValueError(f"the glob {pattern!r} has a backslash; put the character in brackets instead: [*]")
        else:
            out.append(re.escape(char))
    if braces:
        raise ValueError(f"the glob {pattern!r} opens '{{' and never closes it")
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise ValueError(f"the glob {pattern!r} is broken: {error}") from error
