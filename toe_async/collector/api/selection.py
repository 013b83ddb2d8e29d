"""What a list is asked for: the query string read as a catalog's Query. Pure.

Whatever cannot be read is refused and never ignored: a filter that silently selects everything is a lie, and with
`deletecollection` a disaster.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from msgspec import Struct

from toe_async.apis import selectors
from toe_async.collector.catalog import LARGEST_PAGE, FieldTerm, Query
from toe_async.collector.catalog.query import FIELDS
from toe_async.collector.errors import Refused
from toe_async.lib.clock import parse_rfc3339
from toe_async.lib.durations import parse_duration

_LONGEST_TEXT = 253
_LONGEST_SELECTOR = 4096
_MOST_TERMS = 32
_LONGEST_SPAN = timedelta(days=36_500)
# A backslash makes the next character part of the value, as in an API server's field selectors.
_TERM_END = re.compile(r"(?:[^\\,]|\\.)*")
_TERM = re.compile(r"(?P<path>[^=!\\]+)(?P<operator>!=|==|=)(?P<value>(?:[^\\=,]|\\[\\,=])*)")


class Selection(Struct, frozen=True):
    """Which artifacts, how many of them at most, and after which token."""

    query: Query
    limit: int
    after: str

    @property
    def name(self) -> str:
        """The one name that is wanted, or ""; an API server checks the right for this name then."""
        return next((one.value for one in self.query.fields if one.equal and one.path == "metadata.name"), "")

    def holds_instant(self, stored_at: datetime) -> bool:
        """Whether something stored then is within `since` and `until`."""
        since, until = self.query.since, self.query.until
        return (since is None or since <= stored_at) and (until is None or stored_at < until)


def selection(namespace: str, asked: Mapping[str, str], now: datetime) -> Selection:
    """Read a list's query string; `since` and `until` are instants or spans back from `now`.

    Raises:
        Refused: 400, one part of it cannot be read, and which.
    """
    return Selection(
        Query(
            namespace=namespace,
            run=_text(asked, "run"),
            since=_instant(asked, "since", now),
            until=_instant(asked, "until", now),
            labels=_labels(asked.get("labelSelector", "")),
            fields=tuple(_fields(asked.get("fieldSelector", ""))),
            text=_text(asked, "q"),
        ),
        _limit(asked.get("limit", "")),
        asked.get("continue", ""),
    )


def _text(asked: Mapping[str, str], key: str) -> str:
    text = asked.get(key, "")
    if len(text) > _LONGEST_TEXT:
        raise _bad(f"{key} is longer than {_LONGEST_TEXT} characters")
    return text


def _limit(text: str) -> int:
    if not text:
        return LARGEST_PAGE
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise _bad("limit is not a number of artifacts")
    # 0 is "no limit" to Kubernetes' clients; a page is bounded all the same and says how to go on.
    return min(int(text), LARGEST_PAGE) or LARGEST_PAGE


def _instant(asked: Mapping[str, str], key: str, now: datetime) -> datetime | None:
    text = asked.get(key, "")
    if not text:
        return None
    try:
        return parse_rfc3339(text)
    except (ValueError, OverflowError):
        pass
    try:
        return now - min(parse_duration(text), _LONGEST_SPAN)
    except ValueError:
        raise _bad(f"{key} is neither an instant like 2026-01-24T20:44:08Z nor a span like 2h") from None


def _labels(text: str) -> selectors.Selector | None:
    if not text:
        return None
    if len(text) > _LONGEST_SELECTOR:
        raise _bad(f"labelSelector is longer than {_LONGEST_SELECTOR} characters")
    try:
        return selectors.parse(text)
    except ValueError as bad:
        raise _bad(f"labelSelector cannot be read: {bad}") from bad


def _fields(text: str) -> Iterator[FieldTerm]:
    if len(text) > _LONGEST_SELECTOR:
        raise _bad(f"fieldSelector is longer than {_LONGEST_SELECTOR} characters")
    parts, at = [], 0
    while at < len(text):
        end = _TERM_END.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty string too
        parts.append(text[at:end])
        at = end + 1
        if end < len(text) and text[end] == "\\":
            raise _bad("fieldSelector ends in a lone backslash")
    if len(parts) > _MOST_TERMS:
        raise _bad(f"fieldSelector has more than {_MOST_TERMS} terms")
    for part in filter(None, parts):
        term = _TERM.fullmatch(part)
        if term is None:
            raise _bad(f"fieldSelector: {part[:80]!r} is not like artifact.run=NAME or artifact.run!=NAME")
        path = term["path"].strip()
        if path not in FIELDS:
            raise _bad(f"field label not supported: {path[:80]}; there are {', '.join(FIELDS)}")
        yield FieldTerm(path, re.sub(r"\\(.)", r"\1", term["value"]), term["operator"] != "!=")


def _bad(message: str) -> Refused:
    return Refused(400, "BadRequest", message)
