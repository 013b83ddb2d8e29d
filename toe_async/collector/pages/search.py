"""What the list can be searched and filtered by: the form above it, and the filters in force."""

from collections.abc import Mapping, Sequence

from toe_async.collector.pages.artifacts import Listing
from toe_async.collector.pages.filters import PAGE_SIZES, SPANS, Filters
from toe_async.collector.pages.html import Element, Node, tag
from toe_async.collector.pages.shell import a, button, div, form, input_, span

_datalist, _details, _fieldset, _label, _legend = map(tag, ("datalist", "details", "fieldset", "label", "legend"))
_li, _option, _select, _summary, _ul = map(tag, ("li", "option", "select", "summary", "ul"))

_WORDS = {
    "q": "Search",
    "run": "Run",
    "pod": "Pod",
    "kind": "Kind",
    "tool": "Tool",
    "leaf": "File",
    "last": "Last",
    "since": "From",
    "until": "To",
}
_SUGGESTED = ("run", "pod", "kind", "tool", "leaf")
_MOST_SUGGESTED = 50


def form_of(filters: Filters, namespaces: Sequence[str], listing: Listing) -> Element:
    """The form; what `listing` holds is suggested."""
    narrowed = {name for name in filters.active if name != "q"}
    return form(
        div(
            _namespace_field(filters.namespace, namespaces),
            div(
                _label("Search", for_="q", cls="for-readers"),
                input_(
                    type="search",
                    id="q",
                    name="q",
                    value=filters.q,
                    maxlength=253,
                    autocomplete="off",
                    placeholder="Pod, run, file, node, reason or trigger",
                    spellcheck="false",
                ),
                cls="search",
            ),
            button("Search", cls="primary"),
            cls="line",
        ),
        _details(
            _summary("Filters", span(len(narrowed), cls="count") if narrowed else None),
            _fieldset(
                _legend("Only captures with", cls="for-readers"),
                [_text_field(name, filters, listing) for name in _SUGGESTED],
                cls="grid",
            ),
            _fieldset(
                _legend("Only captures between", cls="for-readers"),
                _choice("last", "Within the last", {"": "any time", **SPANS}, filters.last),
                _instant("since", "From (UTC)", filters.since),
                _instant("until", "To (UTC)", filters.until),
                _choice("limit", "Artifacts a page", {str(n): f"{n:,}" for n in PAGE_SIZES}, str(filters.limit)),
                div(
                    button("Apply", cls="primary"),
                    a("Clear", href=Filters(namespace=filters.namespace).address(), cls="button"),
                    cls="end",
                ),
                cls="grid",
            ),
            open=bool(narrowed),
        ),
        method="get",
        action="/",
        role="search",
        cls="find",
    )


def _namespace_field(current: str, namespaces: Sequence[str]) -> Element:
    label = _label("Namespace", for_="namespace", cls="for-readers")
    if not namespaces:
        box = input_(id="namespace", name="namespace", value=current, placeholder="Namespace", maxlength=63)
        return div(label, box, cls="namespace")
    names = list(namespaces) + ([current] if current and current not in namespaces else [])
    options = [_option("All namespaces", value="", selected=not current)]
    options += [_option(one, value=one, selected=one == current) for one in names]
    return div(label, _select(options, id="namespace", name="namespace"), cls="namespace")


def _text_field(name: str, filters: Filters, listing: Listing) -> Element:
    seen = sorted({getattr(one.facts, name) for one in listing.artifacts} - {""})
    return div(
        _label(_WORDS[name], for_=f"f-{name}"),
        input_(
            id=f"f-{name}",
            name=name,
            value=getattr(filters, name),
            list=f"seen-{name}",
            maxlength=253,
            autocomplete="off",
            spellcheck="false",
        ),
        _datalist([_option(value=one) for one in seen[:_MOST_SUGGESTED]], id=f"seen-{name}"),
    )


def _choice(name: str, words: str, options: Mapping[str, str], chosen: str) -> Element:
    return div(
        _label(words, for_=f"f-{name}"),
        _select(
            [_option(text, value=value, selected=value == chosen) for value, text in options.items()],
            id=f"f-{name}",
            name=name,
        ),
    )


def _instant(name: str, words: str, value: str) -> Element:
    return div(
        _label(words, for_=f"f-{name}"),
        input_(type="datetime-local", id=f"f-{name}", name=name, value=value.removesuffix("Z"), step=1),
    )


def chips(filters: Filters) -> Node:
    """The filters in force, each with the way to drop it."""
    if not filters.active:
        return None
    found = [
        _li(
            a(
                span("Remove the filter ", cls="for-readers"),
                f"{_WORDS[name]}: {SPANS.get(value, value) if name == 'last' else value}",
                span("\N{MULTIPLICATION SIGN}", aria_hidden="true", cls="x"),
                href=filters.address(**{name: ""}),
            )
        )
        for name, value in filters.active.items()
    ]
    return _ul(found, cls="chips", aria_label="Filters in force")
