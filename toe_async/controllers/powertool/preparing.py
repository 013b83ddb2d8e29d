"""What a decision needs and memory does not hold: a time zone's file, a sink's answer, the pods' use of CPU."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import tzinfo
from typing import NamedTuple

import msgspec
from msgspec import Struct

from toe_async.apis.captures import SinkRef
from toe_async.apis.core import PodUsage, decode_pod_metrics_list
from toe_async.apis.kinds import POD_METRICS
from toe_async.kube.errors import KubeError
from toe_async.kube.requests import list_
from toe_async.kube.sender import Sender
from toe_async.lib import cron
from toe_async.lib.clock import Clock
from toe_async.telemetry import log

Probe = Callable[[SinkRef, str], Awaitable[str | None]]
"""Tells why a sink would not take an artifact of a namespace now; None when it would."""

_GOOD_SECONDS = 60.0
_BAD_SECONDS = 15.0
_PROBE_SECONDS = 20.0
_METRICS_SECONDS = 20.0
_log = log.get("powertool.preparing")


class Prepared(Struct, frozen=True, kw_only=True):
    """`zone` is None when there is none of that name; `usage` is by namespace and name of the pod."""

    zone: tzinfo | None
    sink_problem: str | None = None
    usage: Mapping[tuple[str, str], PodUsage] = {}


class _Answer(NamedTuple):
    until: float
    problem: str | None


class Preparations:
    """Asks for what is needed, and remembers the sinks' answers for a while."""

    def __init__(self, client: Sender, probe: Probe, clock: Clock) -> None:
        self._client, self._probe, self._clock = client, probe, clock
        self._answers: dict[tuple[SinkRef, str], _Answer] = {}

    async def zone(self, name: str) -> tzinfo | None:
        """The time zone of that name, if there is one."""
        try:
            return await asyncio.to_thread(cron.zone, name) if name else cron.zone("")
        except ValueError:
            return None

    async def sink(self, ref: SinkRef, namespace: str) -> str | None:
        """What is wrong with a sink: asked again after a minute, sooner when something is."""
        now = self._clock.monotonic()
        self._answers = {key: answer for key, answer in self._answers.items() if answer.until > now}
        held = self._answers.get((ref, namespace))
        if held is not None:
            return held.problem
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                problem = await self._probe(ref, namespace)
        except TimeoutError:
            problem = f"no answer within {_PROBE_SECONDS:g} s"
        wait = _BAD_SECONDS if problem else _GOOD_SECONDS
        self._answers[ref, namespace] = _Answer(self._clock.monotonic() + wait, problem)
        return problem

    async def usage(self, namespaces: Iterable[str]) -> dict[tuple[str, str], PodUsage]:
        """What pods use now. What cannot be read in time is left out: those pods' use is unknown."""
        found: dict[tuple[str, str], PodUsage] = {}
        try:
            async with asyncio.timeout(_METRICS_SECONDS):
                for namespace in namespaces:
                    found |= {(namespace, one.name): one for one in await self._usage_in(namespace)}
        except TimeoutError:
            _log.warning("metrics are too slow", seconds=_METRICS_SECONDS)
        return found

    async def _usage_in(self, namespace: str) -> list[PodUsage]:
        try:
            return decode_pod_metrics_list(await self._client.send(list_(POD_METRICS, namespace, timeout=10.0)))
        except (KubeError, msgspec.DecodeError) as error:
            _log.warning("metrics cannot be read", namespace=namespace, problem=str(error))
            return []
