"""The queue in front of the children, and what their answers mean to a viewer.

Rights are checked by the caller, for every artifact and every time. An order is refused with

- 400 BadQuery: the view or the sample type is none,
- 413 TooBig: an artifact is larger than is ever rendered,
- 422 NotAProfile, TooComplex, TimedOut: this artifact cannot be shown; trying again changes nothing,
- 429 Busy: too many orders wait; `retry_after` says when to come again.
"""

import os
from collections.abc import Sequence
from typing import Self, get_args

from msgspec import Struct

from toe_async.collector.errors import Refused
from toe_async.collector.rendering import frames
from toe_async.collector.rendering.cache import Finished, Rendered
from toe_async.collector.rendering.frames import View
from toe_async.collector.rendering.limits import RenderLimits
from toe_async.collector.rendering.places import NoPlace, Places
from toe_async.collector.rendering.process import COMMAND, Source, Told, ask
from toe_async.lib.clock import Clock, SystemClock
from toe_async.lib.tasks import TaskOwner
from toe_async.telemetry import log

_VIEWS: tuple[str, ...] = get_args(View)
_RETRY_SECONDS = 5
_STATUS = {"NotAProfile": 422, "TooComplex": 422, "BadQuery": 400}
_log = log.get("collector.rendering")


class RenderOrder(Struct, frozen=True):
    """What somebody wants to see. With `diff` the first source is what is looked at and the second its base.

    `digests` are those of the sources, in their order; with them a finished answer may be given again. `viewer` is who
    asks, so that one cannot crowd out the others.
    """

    as_: str
    title: str
    sample: str | None
    sources: tuple[Source, ...]
    subtitle: str = ""
    digests: tuple[str, ...] = ()
    viewer: str = ""


class Renderer:
    """Renders for as long as its block lasts. Leave it after the last order has ended."""

    def __init__(
        self, limits: RenderLimits | None = None, clock: Clock | None = None, command: Sequence[str] = COMMAND
    ) -> None:
        """`command` is what is run for each order, as an argument vector with an absolute path."""
        self._limits = limits or RenderLimits()
        self._command = tuple(command)
        self._places = Places(
            self._limits.children,
            self._limits.waiting,
            self._limits.waiting_per_viewer,
            self._limits.waiting_seconds,
        )
        self._finished = Finished(self._limits.cache_bytes, self._limits.cache_seconds, clock or SystemClock())
        # Whoever starts a task here awaits its outcome.
        self._owner = TaskOwner(lambda name, error: None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._owner.__aexit__(None, None, None)

    async def render(self, order: RenderOrder) -> Rendered:
        """Carry out an order. Cancelled, it leaves no process behind.

        Raises:
            Refused: see above.
            Whatever reading a source raises.
        """
        head = self._head(order)
        key = (head.view, head.title, head.subtitle, head.sample, order.digests)
        cacheable = len(order.digests) == len(order.sources)
        if cacheable and (held := self._finished.get(key)) is not None:
            return held
        try:
            async with self._places.take(order.viewer):
                told = await ask(self._owner, self._command, frames.frame(head), order.sources, self._limits)
        except NoPlace:
            raise Refused(
                429, "Busy", "too many profiles are being rendered; try again", retry_after=_RETRY_SECONDS
            ) from None
        except TimeoutError:
            _log.warning("a rendering took too long and was ended", view=head.view, sizes=head.sizes)
            raise Refused(
                422, "TimedOut", f"the profile could not be rendered within {self._limits.wall_seconds:g} s"
            ) from None
        rendered = _judged(head, told)
        if cacheable:
            self._finished.put(key, rendered)
        return rendered

    def _head(self, order: RenderOrder) -> frames.Order:
        if order.as_ not in _VIEWS:
            raise Refused(400, "BadQuery", f"as must be one of {', '.join(_VIEWS)}")
        if len(order.sources) != (2 if order.as_ == "diff" else 1):
            raise Refused(
                400, "BadQuery", "as=diff needs base=NAME, the artifact to compare with; nothing else takes it"
            )
        for source in order.sources:
            if source.size > self._limits.input_bytes:
                raise Refused(
                    413,
                    "TooBig",
                    f"the artifact has {source.size} bytes and at most {self._limits.input_bytes} are rendered",
                )
        return frames.Order(
            view=order.as_,  # type: ignore[arg-type]  # it is one of them
            title=frames.plain(order.title),
            subtitle=frames.plain(order.subtitle),
            sample=None if order.sample is None else frames.plain(order.sample),
            sizes=tuple(source.size for source in order.sources),
            parent=os.getpid(),
            limits=self._limits,
        )


def _judged(head: frames.Order, told: Told) -> Rendered:
    if told.said or told.answer is None:
        _log.warning("a renderer complained", view=head.view, sizes=head.sizes, why=told.why, said=told.said)
    if told.answer is None:
        how = " within the time that one may take" if told.cpu_spent else "; the collector's log says why"
        raise Refused(422, "TooComplex", f"the profile could not be rendered{how}")
    if told.answer.refused is not None:
        word = told.answer.refused
        raise Refused(_STATUS[word], word, frames.plain(told.answer.sentence))
    if told.answer.content_type != frames.CONTENT_TYPES[head.view]:
        _log.error("a renderer answered with another type than asked", view=head.view)
        raise Refused(422, "TooComplex", "the profile could not be rendered; the collector's log says why")
    return Rendered(told.answer.content_type, told.body)
