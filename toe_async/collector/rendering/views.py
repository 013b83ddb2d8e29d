"""From profiles to the four answers. Pure; runs in the child."""

from collections.abc import Callable, Sequence

import msgspec

from toe_async.collector.rendering.frames import Order
from toe_async.profiles import folded, page
from toe_async.profiles.model import Profile, ValueType
from toe_async.profiles.top import Row, top

_ROWS = 1000


class TopTable(msgspec.Struct, frozen=True):
    """The body of `as=top`: the 1,000 functions with the most of their own. `total` is over all samples."""

    kind: ValueType
    total: int
    types: tuple[ValueType, ...]
    rows: tuple[Row, ...]


def render(order: Order, profiles: Sequence[Profile]) -> bytes:
    """Draw the first profile; of two, the second is the base of the difference. Raises ProfileError."""
    return _VIEWS[order.view](order, profiles)


def _flame(order: Order, profiles: Sequence[Profile]) -> bytes:
    return page.flame_page(profiles[0], title=order.title, subtitle=order.subtitle, sample=order.sample)


def _diff(order: Order, profiles: Sequence[Profile]) -> bytes:
    other, base = profiles
    return page.flame_page(other, title=order.title, subtitle=order.subtitle, sample=order.sample, base=base)


def _top(order: Order, profiles: Sequence[Profile]) -> bytes:
    profile = profiles[0]
    hottest = top(profile, order.sample, _ROWS)
    return msgspec.json.encode(TopTable(hottest.kind, hottest.total, profile.sample_types, hottest.rows))


def _folded(order: Order, profiles: Sequence[Profile]) -> bytes:
    return folded.render(profiles[0], order.sample).encode()


_VIEWS: dict[str, Callable[[Order, Sequence[Profile]], bytes]] = {
    "flame": _flame,
    "diff": _diff,
    "top": _top,
    "folded": _folded,
}
