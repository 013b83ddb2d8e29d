"""The list: what was captured, newest first, with everything one may do with it one step away."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby

from msgspec import Struct

from toe_async.collector.pages import addresses, search, sparkline, wording
from toe_async.collector.pages.artifacts import Artifact, Capture, Listing, by_capture
from toe_async.collector.pages.filters import Filters
from toe_async.collector.pages.html import Element, Node, tag
from toe_async.collector.pages.shell import a, button, div, form, h1, h2, input_, p, span

_article, _label, _li, _nav, _ol = map(tag, ("article", "label", "li", "nav", "ol"))
_section, _svg, _time, _ul = map(tag, ("section", "svg", "time", "ul"))


class Shown(Struct, frozen=True, kw_only=True):
    """All that the list depends on."""

    filters: Filters
    namespaces: Sequence[str]
    listing: Listing
    now: datetime


def content(shown: Shown) -> Node:
    """The list's page."""
    captures = by_capture(shown.listing.artifacts)
    return [
        h1("Captures", cls="for-readers"),
        search.form_of(shown.filters, shown.namespaces, shown.listing),
        search.chips(shown.filters),
        _body(shown, captures),
    ]


def choose_namespace(filters: Filters, namespaces: Sequence[str]) -> Node:
    """The page before the list, for whoever may see some namespaces and not all."""
    found = _ul([_li(a(one, href=Filters(namespace=one).address())) for one in namespaces], cls="namespaces")
    return div(
        h1("Choose a namespace"),
        found if namespaces else p("None that you may list holds a capture yet. If you know one, name it.", cls="said"),
        form(
            _label("Namespace", for_="namespace"),
            input_(id="namespace", name="namespace", value=filters.namespace, required=True, maxlength=63),
            button("Show", cls="primary"),
            method="get",
            action="/",
        ),
        cls="notice",
    )


def _body(shown: Shown, captures: Sequence[Capture]) -> Node:
    if not captures:
        return _empty(shown)
    rows = _Rows(shown, captures)
    return [
        _count(shown, captures),
        rows.symbols(),
        form(rows.days(), _compare_bar(), method="get", action="/ui/compare", id="pick"),
        _pager(shown),
    ]


class _Rows:
    """The captures of a page, which share the drawings of their series."""

    def __init__(self, shown: Shown, captures: Sequence[Capture]) -> None:
        self._shown, self._captures = shown, captures
        self._series = sparkline.series(shown.listing.artifacts)
        self._names = {key: f"s{number}" for number, key in enumerate(self._series)}
        self._narrowed: dict[tuple[str, str], Element | None] = {}

    def symbols(self) -> Element:
        """The lines of all series, drawn once."""
        lines = [sparkline.symbol(self._names[key], one) for key, one in self._series.items()]
        return _svg(lines, cls="symbols", aria_hidden="true", width=0, height=0)

    def days(self) -> Iterator[Element]:
        """The captures under the day they happened."""
        for day, captures in groupby(self._captures, key=lambda one: wording.day(one.first.at)):
            yield _section(h2(day, cls="day"), _ol([self._capture(one) for one in captures], cls="captures"))

    def _capture(self, capture: Capture) -> Element:
        one, facts = capture.first, capture.first.facts
        return _li(
            _article(
                div(
                    _time(wording.clock(one.at), datetime=wording.machine(one.at), title=wording.moment(one.at)),
                    span(wording.age(one.at, self._shown.now), cls="age"),
                    cls="when",
                ),
                div(
                    div(
                        span(facts.pod or "unknown pod", cls="pod"),
                        span(facts.container, cls="container") if facts.container else None,
                        cls="target",
                    ),
                    div(
                        self._narrowing("namespace", one.namespace) if not self._shown.filters.namespace else None,
                        self._narrowing("run", facts.run),
                        self._narrowing("kind", facts.kind),
                        self._narrowing("tool", facts.tool),
                        cls="facets",
                    ),
                    p(
                        span(facts.reason, cls="reason") if facts.reason else None,
                        " ",
                        span(facts.trigger, cls="trigger"),
                        cls="why",
                    )
                    if facts.reason or facts.trigger
                    else None,
                    cls="what",
                ),
                _ul([self._artifact(held) for held in capture.artifacts], cls="artifacts"),
                cls="capture",
            )
        )

    def _narrowing(self, field: str, value: str) -> Element | None:
        # Rows repeat each other's, and making one takes longer than all else of a row.
        if (field, value) not in self._narrowed:
            self._narrowed[field, value] = self._narrow(field, value)
        return self._narrowed[field, value]

    def _narrow(self, field: str, value: str) -> Element | None:
        if not value:
            return None
        if getattr(self._shown.filters, field) == value:
            return span(value)
        return a(value, href=self._shown.filters.address(**{field: value}), title=f"Only this {field}")

    def _artifact(self, one: Artifact) -> Element:
        facts = one.facts
        of = f"{facts.leaf} of {facts.pod}, {wording.clock(one.at)}"
        return _li(
            input_(type="checkbox", name="pick", value=one.key, aria_label=f"Compare {of}", title="Tick two to compare")
            if one.is_profile
            else span(cls="no-pick"),
            a(facts.leaf, href=addresses.artifact(one), cls="open", aria_label=of),
            span("held", cls="held", title=one.held) if one.held else None,
            self._spark(one),
            span(wording.size(facts.size), cls="size", title=f"{facts.size} bytes"),
            span(
                [
                    a("Flame", href=addresses.artifact(one, "flame"), cls="flame", aria_label=f"Flame graph of {of}"),
                    a("Top", href=addresses.artifact(one, "top"), cls="top", aria_label=f"Top functions of {of}"),
                ]
                if one.is_profile
                else None,
                a("Download", href=addresses.artifact(one, "content"), cls="get", aria_label=f"Download {of}"),
                cls="acts",
            ),
            cls="artifact",
        )

    def _spark(self, one: Artifact) -> Element:
        of = self._series.get(one.series)
        if of is None:
            return span(cls="spark")
        text = (
            f"Size over {len(of.members)} captures: {wording.size(of.smallest)} to {wording.size(of.largest)}, "
            f"this one {wording.size(one.facts.size)}"
        )
        return sparkline.mark(self._names[one.series], of, one, text)


def _count(shown: Shown, captures: Sequence[Capture]) -> Element:
    artifacts, listing = len(shown.listing.artifacts), shown.listing
    whole = not listing.continue_ and not shown.filters.continue_
    words = [f"{_many(len(captures), 'capture')}, {_many(artifacts, 'artifact')}"]
    if shown.filters.continue_:
        words.append("a later page")
    if listing.remaining:
        words.append(f"{listing.remaining:,} more")
    elif not whole and listing.continue_:
        words.append("more on the next page")
    if listing.unreadable:
        words.append(f"{_many(listing.unreadable, 'object')} could not be read")
    return p(" · ".join(words), cls="status", role="status")


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _compare_bar() -> Element:
    return div(
        span("Tick two profiles to see what changed between them.", cls="picked", aria_live="polite"),
        button("Compare", cls="primary"),
        cls="compare",
    )


def _pager(shown: Shown) -> Element | None:
    filters, more = shown.filters, shown.listing.continue_
    if not more and not filters.continue_:
        return None
    return _nav(
        a("Newest", href=filters.address(), cls="button newest") if filters.continue_ else None,
        a("Older", href=filters.address(continue_=more), cls="button older") if more else None,
        cls="pager",
        aria_label="Pages",
    )


def _empty(shown: Shown) -> Element:
    filters = shown.filters
    where = f"in {filters.namespace}" if filters.namespace else "in any namespace"
    if shown.listing.unreadable:
        said = f"{_many(shown.listing.unreadable, 'object')} on this page could not be read as artifacts."
    elif filters.continue_:
        said = "There is nothing older."
    elif filters.active:
        said = f"No capture {where} fits these filters."
    else:
        said = f"Nothing has been captured {where} yet. What is captured shows up here by itself."
    return div(
        h2("Nothing to show"),
        p(said, cls="said", role="status"),
        p(
            a("Newest captures", href=filters.address(), cls="button primary") if filters.continue_ else None,
            a("Older", href=filters.address(continue_=shown.listing.continue_), cls="button")
            if shown.listing.continue_
            else None,
            a("Drop the filters", href=Filters(namespace=filters.namespace).address(), cls="button primary")
            if filters.active
            else None,
            a("All namespaces", href=filters.address(namespace=""), cls="button") if filters.namespace else None,
            cls="ways",
        ),
        cls="notice empty",
    )
