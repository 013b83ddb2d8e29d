"""What a list is asked for: read from an address, written into one, and told to the library. Pure."""

from collections.abc import Mapping

from msgspec import Struct, structs

from toe_async.collector.errors import Refused
from toe_async.collector.pages.addresses import asked
from toe_async.lib.clock import parse_rfc3339

PAGE_SIZES = (100, 500, 2000)
SPANS = {"15m": "15 minutes", "1h": "hour", "6h": "6 hours", "24h": "24 hours", "168h": "7 days", "720h": "30 days"}
_LONGEST_TEXT = 253
_LONGEST_TOKEN = 4096
_FIELDS = {"pod": "artifact.pod", "kind": "artifact.kind", "tool": "artifact.tool", "leaf": "artifact.leaf"}


class Filters(Struct, frozen=True, kw_only=True):
    """One list as its address asks for it. Empty texts filter nothing; an empty namespace is every one."""

    namespace: str = ""
    q: str = ""
    run: str = ""
    pod: str = ""
    kind: str = ""
    tool: str = ""
    leaf: str = ""
    last: str = ""
    since: str = ""
    until: str = ""
    limit: int = PAGE_SIZES[0]
    continue_: str = ""

    @property
    def active(self) -> dict[str, str]:
        """Those that narrow the list, by field."""
        names = ("q", "run", "pod", "kind", "tool", "leaf", "last", "since", "until")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def address(self, **changes: str | int) -> str:
        """The path and query of this list with something else about it; a changed list begins at its start."""
        wanted = structs.replace(self, **{"continue_": "", **changes})
        fields = {"namespace": wanted.namespace, **wanted.active}
        if wanted.limit != PAGE_SIZES[0]:
            fields["limit"] = str(wanted.limit)
        if wanted.continue_:
            fields["continue"] = wanted.continue_
        return asked("/", fields)

    def query(self) -> dict[str, str]:
        """What the library is asked, but for the limit.

        Raises:
            Refused: 400 an instant cannot be read.
        """
        asked = {"q": self.q, "run": self.run, "continue": self.continue_}
        asked["since"] = _instant("from", self.since) if self.since else self.last
        asked["until"] = _instant("to", self.until) if self.until else ""
        terms = (f"{path}={_escaped(getattr(self, name))}" for name, path in _FIELDS.items() if getattr(self, name))
        asked["fieldSelector"] = ",".join(terms)
        return {key: value for key, value in asked.items() if value}


def read(query: Mapping[str, str]) -> Filters:
    """Read an address. What is too long is cut and what is unknown ignored, so no address is an error by itself."""
    texts = {name: query.get(name, "").strip()[:_LONGEST_TEXT] for name in Filters.__struct_fields__}
    texts.pop("continue_")
    asked = texts.pop("limit")
    limit = int(asked) if asked in map(str, PAGE_SIZES) else PAGE_SIZES[0]
    last = texts.pop("last")
    token = query.get("continue", "")
    return Filters(
        **texts,
        limit=limit,
        last=last if last in SPANS else "",
        continue_=token if len(token) <= _LONGEST_TOKEN else "",
    )


def series_query(run: str, leaf: str) -> dict[str, str]:
    """What the library is asked for the artifacts of one series."""
    return {"run": run, "fieldSelector": f"artifact.leaf={_escaped(leaf)}"}


def _instant(name: str, text: str) -> str:
    # A browser's own field says 2026-01-24T03:12, which the page labels as UTC.
    for candidate in (text, f"{text}Z", f"{text}T00:00Z"):
        try:
            return parse_rfc3339(candidate).strftime("%Y-%m-%dT%H:%M:%SZ")
        except ValueError:
            continue
    raise Refused(400, "BadInstant", f"the time in {name!r} cannot be read; write it like 2026-01-24T03:12, in UTC")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
