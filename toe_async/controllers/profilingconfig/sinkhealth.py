"""Whether the sinks in use would take an artifact now: tried before it is needed, and told by every delivery.

Sinks that fail together are tried once: two configurations that differ in the prefix only share a probe. A sink that is
down is tried more often, so that the condition clears soon after it is back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from toe_async.apis.captures import CaptureRecord, S3Ref, SinkRef
from toe_async.telemetry import log

_GOOD_SECONDS = 60.0
_BAD_SECONDS = 15.0
_PROBE_SECONDS = 20.0
_log = log.get("profilingconfig.sinks")

Probe = Callable[[SinkRef, str], Awaitable[str | None]]
Place = tuple[str, ...]


class Wanted(NamedTuple):
    """A sink that some configuration of a namespace names."""

    ref: SinkRef
    namespace: str


def place_of(wanted: Wanted) -> Place:
    """What a probe's answer holds for: whatever stops one artifact there stops them all."""
    ref = wanted.ref
    if not isinstance(ref, S3Ref):
        return ("collector", ref.endpoint)
    whose = (wanted.namespace, ref.credentials_secret) if ref.credentials_secret else ()
    return ("s3", ref.endpoint, ref.region, ref.bucket, *whose)


class SinkHealth:
    """Probes the sinks in demand; ``on_change`` is told the place whenever its answer changes."""

    def __init__(self, probe: Probe, on_change: Callable[[Place], None]) -> None:
        self._probe, self._on_change = probe, on_change
        self._wanted: dict[Place, Wanted] = {}
        self._problems: dict[Place, str | None] = {}
        self._turn = asyncio.Event()

    def answer(self, wanted: Wanted) -> tuple[bool, str | None]:
        """Return whether the sink has been tried, and what is wrong with it."""
        place = place_of(wanted)
        return place in self._problems, self._problems.get(place)

    def demand(self, wanted: Iterable[Wanted]) -> None:
        """Say which sinks are in use; the others are forgotten."""
        self._wanted = {place_of(one): one for one in wanted}
        self._problems = {place: problem for place, problem in self._problems.items() if place in self._wanted}
        if self._wanted.keys() - self._problems.keys():
            self._turn.set()

    def heard(self, record: CaptureRecord, problem: str | None) -> None:
        """Take over what a delivery to the sink met: a sentence, or None for a success."""
        place = place_of(Wanted(record.sink, record.namespace))
        if place in self._wanted:
            self._note(place, problem)

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            self._turn.clear()
            for place, wanted in list(self._wanted.items()):
                await self._try(place, wanted)
            bad = any(problem is not None for problem in self._problems.values())
            with suppress(TimeoutError):
                async with asyncio.timeout(_BAD_SECONDS if bad else _GOOD_SECONDS):
                    await self._turn.wait()

    async def _try(self, place: Place, wanted: Wanted) -> None:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                problem = await self._probe(wanted.ref, wanted.namespace)
        except TimeoutError:
            problem = f"no answer within {_PROBE_SECONDS:g} s"
        if place in self._wanted:
            self._note(place, problem)

    def _note(self, place: Place, problem: str | None) -> None:
        if place in self._problems and self._problems[place] == problem:
            return
        self._problems[place] = problem
        _log.info("a sink changed", sink=place[0], place="/".join(place[1:4]), problem=problem)
        self._on_change(place)
