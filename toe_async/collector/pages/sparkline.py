"""Sizes over time as small drawings. Pure.

A series is drawn once and used by every row that belongs to it; a row adds only the mark where it stands.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from toe_async.collector.pages.artifacts import Artifact
from toe_async.collector.pages.html import Element, tag

WIDTH, HEIGHT = 96, 20
_PAD = 3.0
_MOST_POINTS = 64

_circle, _path, _svg, _title, _use = tag("circle"), tag("path"), tag("svg"), tag("title"), tag("use")
_symbol = tag("symbol")


class Series(Struct, frozen=True):
    """Artifacts of one series, oldest first; at least two."""

    members: tuple[Artifact, ...]
    smallest: int
    largest: int


def series(artifacts: Iterable[Artifact]) -> dict[tuple[str, str, str], Series]:
    """Find what is there more than once among these artifacts."""
    found: dict[tuple[str, str, str], list[Artifact]] = {}
    for one in artifacts:
        found.setdefault(one.series, []).append(one)
    return {key: _series(members) for key, members in found.items() if len(members) > 1}


def place(of: Series, one: Artifact, width: float, height: float, pad: float = _PAD) -> tuple[float, float]:
    """Where one member stands: time goes right, size goes up from zero."""
    start, end = of.members[0].at, of.members[-1].at
    span = (end - start).total_seconds()
    along = (one.at - start).total_seconds() / span if span else 0.5
    up = one.facts.size / of.largest if of.largest else 0.0
    return pad + along * (width - 2 * pad), height - pad - up * (height - 2 * pad)


def line(points: Sequence[tuple[float, float]]) -> str:
    """The path through the points."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def symbol(name: str, of: Series) -> Element:
    """The line of a series, for rows to use."""
    step = max(1, -(-len(of.members) // _MOST_POINTS))
    points = [place(of, one, WIDTH, HEIGHT) for one in (*of.members[::step], of.members[-1])]
    return _symbol(_path(d=line(points)), id=name, view_box=f"0 0 {WIDTH} {HEIGHT}")


def mark(name: str, of: Series, one: Artifact, text: str) -> Element:
    """A row's drawing: the line of its series, and a dot for the row itself. `text` says it in words."""
    x, y = place(of, one, WIDTH, HEIGHT)
    return _svg(
        _title(text),
        _use(href=f"#{name}"),
        _circle(cx=f"{x:.1f}", cy=f"{y:.1f}", r="2.5"),
        cls="spark",
        view_box=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH,
        height=HEIGHT,
        role="img",
    )


def _series(members: list[Artifact]) -> Series:
    sizes = [one.facts.size for one in members]
    return Series(tuple(sorted(members, key=lambda one: one.at)), min(sizes), max(sizes))
