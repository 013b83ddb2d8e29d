"""One artifact: what is known of it, what it can be shown as, its like over time, and keeping or removing it."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from toe_async.collector.pages import addresses, sparkline, wording
from toe_async.collector.pages.access import Viewer
from toe_async.collector.pages.artifacts import Artifact
from toe_async.collector.pages.filters import Filters
from toe_async.collector.pages.html import Element, Node, tag
from toe_async.collector.pages.shell import (
    a,
    button,
    dd,
    div,
    dl,
    dt,
    form,
    h1,
    h2,
    input_,
    p,
    span,
    token_field,
)

_circle, _code, _label, _line, _nav, _path = map(tag, ("circle", "code", "label", "polyline", "nav", "path"))
_section, _svg, _table, _tbody, _td = map(tag, ("section", "svg", "table", "tbody", "td"))
_th, _thead, _time, _title, _tr, _ul, _li = map(tag, ("th", "thead", "time", "title", "tr", "ul", "li"))

_CHART_WIDTH, _CHART_HEIGHT, _CHART_PAD = 720, 120, 10.0
_LONGEST_REASON = 253


class Known(Struct, frozen=True, kw_only=True):
    """All that the page depends on. `siblings` are of the same capture, `like` of the same series; both hold it."""

    one: Artifact
    siblings: Sequence[Artifact]
    like: Sequence[Artifact]
    now: datetime


def content(known: Known, viewer: Viewer) -> Node:
    """The artifact's page."""
    one = known.one
    return [
        crumbs(one),
        h1(one.facts.leaf, span("held", cls="held") if one.held else None),
        p(
            _of(one),
            " · ",
            _time(wording.moment(one.at), datetime=wording.machine(one.at)),
            f" · {wording.age(one.at, known.now)}",
            cls="lead",
        ),
        _ways(one),
        p(span(one.facts.reason, cls="reason") if one.facts.reason else None, " ", one.facts.trigger, cls="why large")
        if one.facts.reason or one.facts.trigger
        else None,
        _siblings(known),
        _over_time(known),
        _facts(one),
        _keep(one, viewer),
    ]


def crumbs(one: Artifact, *further: str) -> Element:
    """The way back, to an artifact's page and the lists it is in."""
    steps: list[Node] = [
        a("Captures", href="/"),
        a(one.namespace, href=Filters(namespace=one.namespace).address()),
        a(one.facts.run, href=Filters(namespace=one.namespace, run=one.facts.run).address()) if one.facts.run else None,
        a(one.facts.leaf, href=addresses.artifact(one)) if further else None,
        *further,
    ]
    return _nav(_ul([_li(step) for step in steps if step]), aria_label="Where this is", cls="crumbs")


def confirm_delete(one: Artifact, viewer: Viewer) -> Node:
    """Ask before something is gone for good."""
    return [
        crumbs(one, "Delete"),
        div(
            h1("Delete this artifact?"),
            p(
                one.facts.leaf,
                " of ",
                _of(one),
                f", {wording.size(one.facts.size)}, ",
                wording.moment(one.at),
                cls="said",
            ),
            p(
                f"It is held: {one.held}. Release it first." if one.held else "There is no way to get it back.",
                cls="said bad",
            ),
            form(
                token_field(viewer),
                button("Delete for good", cls="danger") if not one.held else None,
                a("Keep it", href=addresses.artifact(one), cls="button", autofocus=True),
                method="post",
                action=addresses.artifact(one, "delete"),
                cls="ways",
            ),
            cls="notice",
        ),
    ]


def _of(one: Artifact) -> Node:
    facts = one.facts
    return [span(facts.pod or "unknown pod", cls="pod"), f" · {facts.container}" if facts.container else None]


def _ways(one: Artifact) -> Element:
    drawn: Node = (
        [
            a("Flame graph", href=addresses.artifact(one, "flame"), cls="button primary flame"),
            a("Top functions", href=addresses.artifact(one, "top"), cls="button top"),
        ]
        if one.is_profile
        else None
    )
    return p(
        drawn,
        a(f"Download · {wording.size(one.facts.size)}", href=addresses.artifact(one, "content"), cls="button get"),
        cls="ways",
    )


def _siblings(known: Known) -> Element | None:
    others = [held for held in known.siblings if held.key != known.one.key]
    if not others:
        return None
    rows = [
        _li(
            a(held.facts.leaf, href=addresses.artifact(held), cls="open"),
            span(wording.size(held.facts.size), cls="size"),
            span(
                a("Flame", href=addresses.artifact(held, "flame"), aria_label=f"Flame graph of {held.facts.leaf}")
                if held.is_profile
                else None,
                a("Top", href=addresses.artifact(held, "top"), aria_label=f"Top functions of {held.facts.leaf}")
                if held.is_profile
                else None,
                a("Download", href=addresses.artifact(held, "content"), aria_label=f"Download {held.facts.leaf}"),
                cls="acts",
            ),
            cls="artifact",
        )
        for held in others
    ]
    return _section(h2("From the same capture"), _ul(rows, cls="artifacts wide"))


def _over_time(known: Known) -> Element | None:
    found = sparkline.series([held for held in known.like if held.series == known.one.series])
    of = found.get(known.one.series)
    if of is None:
        return None
    newest_first = of.members[::-1]
    return _section(
        h2("The same file over time"),
        _chart(of, known.one),
        _table(
            _thead(
                _tr(
                    [_th(text, scope="col") for text in ("Captured", "Pod", "Why")],
                    _th("Size", scope="col", cls="number"),
                    _td(),
                )
            ),
            _tbody([_like_row(held, known) for held in newest_first]),
            cls="like",
        ),
    )


def _like_row(held: Artifact, known: Known) -> Element:
    one = known.one
    here = held.key == one.key
    earlier, later = sorted((held, one), key=lambda each: each.at)
    compare = a(
        "Compare",
        href=addresses.diff(later, earlier),
        aria_label=f"Compare with {held.facts.leaf} of {wording.moment(held.at)}",
    )
    return _tr(
        _td(span(wording.moment(held.at)) if here else a(wording.moment(held.at), href=addresses.artifact(held))),
        _td(held.facts.pod),
        _td(held.facts.trigger or held.facts.reason, cls="why"),
        _td(wording.size(held.facts.size), cls="number"),
        _td("this one" if here else compare if one.is_profile and held.is_profile else None),
        cls="here" if here else None,
        aria_current="true" if here else None,
    )


def _chart(of: sparkline.Series, one: Artifact) -> Element:
    places = [sparkline.place(of, held, _CHART_WIDTH, _CHART_HEIGHT, _CHART_PAD) for held in of.members]
    dots = [
        a(
            _circle(
                _title(f"{wording.moment(held.at)}: {wording.size(held.facts.size)}"),
                cx=f"{x:.1f}",
                cy=f"{y:.1f}",
                r=5 if held.key == one.key else 3.5,
            ),
            href=addresses.artifact(held),
            cls="here" if held.key == one.key else None,
            tabindex=-1,
            aria_label=f"{wording.moment(held.at)}: {wording.size(held.facts.size)}",
        )
        for held, (x, y) in zip(of.members, places, strict=True)
    ]
    floor = _CHART_HEIGHT - _CHART_PAD
    return div(
        _svg(
            _line(points=f"{_CHART_PAD},{floor} {_CHART_WIDTH - _CHART_PAD},{floor}", cls="floor"),
            _path(d=sparkline.line(places)),
            dots,
            view_box=f"0 0 {_CHART_WIDTH} {_CHART_HEIGHT}",
            cls="chart",
            role="group",
            aria_label=f"{len(of.members)} sizes, from {wording.size(of.smallest)} to {wording.size(of.largest)}",
        ),
        div(
            span(wording.moment(of.members[0].at)),
            span(f"up to {wording.size(of.largest)}"),
            span(wording.moment(of.members[-1].at)),
            cls="scale",
        ),
    )


def _facts(one: Artifact) -> Element:
    facts = one.facts
    known: list[tuple[str, Node]] = [
        ("Pod", [facts.pod, _small(facts.pod_uid)]),
        ("Container", facts.container),
        ("Node", facts.node),
        ("Service", facts.service),
        ("Run", [facts.run, _small(facts.run_uid)]),
        ("Kind", facts.kind),
        ("Tool", facts.tool),
        (
            "Labels",
            _ul([_li(f"{key}={value}") for key, value in sorted(facts.labels.items())], cls="labels")
            if facts.labels
            else "",
        ),
        *((_words(key), _code(value)) for key, value in sorted(facts.details.items())),
        ("Triggered", wording.moment(facts.triggered_at) if facts.triggered_at else ""),
        ("Stored", wording.moment(one.stored_at)),
        ("Kept for", f"{facts.retention_days} days" if facts.retention_days else ""),
        (
            "Size",
            f"{wording.size(facts.size)} ({facts.size:,} bytes)" if facts.size >= 1000 else wording.size(facts.size),
        ),
        ("SHA-256", _copied(facts.sha256, "digest")),
        ("Capture", _code(facts.capture)),
        ("Name", _copied(one.name, "name")),
        ("Command", _copied(f"kubectl toe get {one.name} -n {one.namespace}", "command")),
    ]
    return _section(
        h2("What is known"), dl([div(dt(word), dd(value)) for word, value in known if value != ""], cls="facts")
    )


def _words(key: str) -> str:
    """`imageDigest` as people write it: Image digest."""
    return "".join(f" {char.lower()}" if char.isupper() else char for char in key).strip().capitalize()


def _small(text: str) -> Node:
    return span(" ", text, cls="uid") if text else None


def _copied(text: str, what: str) -> Node:
    if not text:
        return ""
    button_ = button(
        "Copy", type="button", cls="quiet copy", data_copy=text, aria_label=f"Copy the {what}", hidden=True
    )
    return span(_code(text), " ", button_, cls="copied")


def _keep(one: Artifact, viewer: Viewer) -> Element:
    if one.held:
        hold = form(
            token_field(viewer),
            input_(type="hidden", name="reason", value=""),
            p("Held, so neither retention nor anybody removes it: ", span(one.held, cls="held-why")),
            button("Release"),
            method="post",
            action=addresses.artifact(one, "hold"),
        )
    else:
        hold = form(
            token_field(viewer),
            _label("Hold it, because", for_="reason"),
            input_(
                id="reason",
                name="reason",
                required=True,
                maxlength=_LONGEST_REASON,
                placeholder="incident, ticket or name",
                autocomplete="off",
            ),
            button("Hold"),
            method="post",
            action=addresses.artifact(one, "hold"),
            cls="inline",
        )
    remove = p(a("Delete this artifact", href=addresses.artifact(one, "delete"), cls="button danger"))
    return _section(h2("Keep or remove"), div(hold, remove if not one.held else None, cls="keep"))
