"""The functions that cost most, as a table that can be sorted and searched by links and a form."""

import msgspec
from msgspec import Struct

from toe_async.collector.errors import Refused
from toe_async.collector.pages import addresses, wording
from toe_async.collector.pages.artifacts import Artifact
from toe_async.collector.pages.detail import crumbs
from toe_async.collector.pages.html import Element, Node, tag
from toe_async.collector.pages.shell import a, button, div, form, h1, input_, p, span

_label, _nav, _rect, _svg, _table, _tbody = map(tag, ("label", "nav", "rect", "svg", "table", "tbody"))
_td, _th, _thead, _tr = map(tag, ("td", "th", "thead", "tr"))

MOST_ROWS = 500
_BAR = 84
_DURATIONS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1, "ns"))


class SampleType(Struct, frozen=True):
    """What a profile's values are, and their unit."""

    type: str
    unit: str = ""


class Row(Struct, frozen=True):
    """One function: what it cost itself, and with what it called."""

    function: str
    flat: int
    cumulative: int


class Top(Struct, frozen=True):
    """What the library answers for `as=top`."""

    kind: SampleType
    total: int
    rows: tuple[Row, ...]
    types: tuple[SampleType, ...] = ()


class Wanted(Struct, frozen=True, kw_only=True):
    """How the table is asked for."""

    sample: str = ""
    by: str = "flat"
    q: str = ""

    def address(self, one: Artifact, **changes: str) -> str:
        """The table asked for in another way."""
        fields = {"sample": self.sample, "by": self.by, "q": self.q, **changes}
        if fields["by"] == "flat":
            fields["by"] = ""
        return addresses.asked(addresses.artifact(one, "top"), fields)


_decode = msgspec.json.Decoder(Top).decode


def read(body: bytes) -> Top:
    """Read the library's answer.

    Raises:
        Refused: 500 it is none.
    """
    try:
        return _decode(body)
    except msgspec.DecodeError as bad:
        raise Refused(500, "NotATable", "the renderer's answer cannot be read") from bad


def content(one: Artifact, top: Top, wanted: Wanted) -> Node:
    """The table's page."""
    needle = wanted.q.casefold()
    fitting = [row for row in top.rows if needle in row.function.casefold()]
    fitting.sort(key=lambda row: row.cumulative if wanted.by == "cumulative" else row.flat, reverse=True)
    shown = fitting[:MOST_ROWS]
    return [
        crumbs(one, "Top functions"),
        h1("Top functions"),
        p(f"{one.facts.leaf} · {one.facts.pod} · {wording.moment(one.at)}", cls="lead"),
        div(
            _samples(one, top, wanted),
            form(
                input_(type="hidden", name="sample", value=wanted.sample) if wanted.sample else None,
                input_(type="hidden", name="by", value=wanted.by) if wanted.by != "flat" else None,
                _label("Function", for_="q", cls="for-readers"),
                input_(
                    type="search",
                    id="q",
                    name="q",
                    value=wanted.q,
                    placeholder="Function",
                    maxlength=253,
                    autocomplete="off",
                    spellcheck="false",
                ),
                button("Search"),
                method="get",
                action=addresses.artifact(one, "top"),
                role="search",
                cls="inline",
            ),
            a("Flame graph", href=_flame(one, wanted), cls="button primary flame"),
            cls="tools",
        ),
        p(_count(top, len(fitting)), cls="status", role="status"),
        _table(
            _thead(
                _tr(
                    _sorted(one, wanted, "flat", "Flat"),
                    _sorted(one, wanted, "cumulative", "Cumulative"),
                    _th("Function", scope="col"),
                )
            ),
            _tbody([_row(row, top, wanted) for row in shown]),
            cls="tops",
        )
        if shown
        else p("No function fits.", cls="said"),
    ]


def _samples(one: Artifact, top: Top, wanted: Wanted) -> Element | None:
    names = [each.type for each in top.types]
    if len(names) < 2:
        return None
    links = [
        span(name, cls="here", aria_current="true")
        if name == top.kind.type
        else a(name, href=wanted.address(one, sample=name))
        for name in names
    ]
    return _nav(links, cls="samples", aria_label="Sample type")


def _flame(one: Artifact, wanted: Wanted) -> str:
    return addresses.asked(addresses.artifact(one, "flame"), {"sample": wanted.sample})


def _sorted(one: Artifact, wanted: Wanted, by: str, words: str) -> Element:
    here = wanted.by == by
    return _th(
        words if here else a(words, href=wanted.address(one, by=by)),
        span(" ↓", aria_hidden="true") if here else None,
        scope="col",
        cls="number",
        colspan=2,
        aria_sort="descending" if here else None,
    )


def _count(top: Top, count: int) -> str:
    words = [f"{count:,} function{'' if count == 1 else 's'}"]
    if count > MOST_ROWS:
        words.append(f"the first {MOST_ROWS:,} shown")
    words.append(f"{_value(top.total, top.kind.unit)} in all ({top.kind.type})")
    return " · ".join(words)


def _row(row: Row, top: Top, wanted: Wanted) -> Element:
    unit, total = top.kind.unit, top.total
    sorted_by = row.cumulative if wanted.by == "cumulative" else row.flat
    part = min(abs(sorted_by) / abs(total), 1.0) if total else 0.0
    return _tr(
        _td(_value(row.flat, unit), cls="number"),
        _td(_share(row.flat, total), cls="number share"),
        _td(_value(row.cumulative, unit), cls="number"),
        _td(_share(row.cumulative, total), cls="number share"),
        _td(
            _svg(
                _rect(width=_BAR, height=8, rx=2),
                _rect(width=f"{part * _BAR:.1f}", height=8, rx=2, cls="part"),
                width=_BAR,
                height=8,
                aria_hidden="true",
            ),
            span(row.function, cls="function"),
        ),
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _value(value: int, unit: str) -> str:
    if unit == "bytes" and value >= 0:
        return wording.size(value)
    if unit == "nanoseconds":
        scale, name = next((one for one in _DURATIONS if abs(value) >= one[0]), (1, "ns"))
        return f"{value / scale:.3g} {name}" if abs(value) < 1000 * scale else f"{value / scale:,.0f} {name}"
    return f"{value:,}"
