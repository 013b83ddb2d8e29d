"""PowerTools and what belongs to them, as one user of the cluster may see and write them."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from toe_async.apis.kinds import POWER_TOOL_CONFIGS, POWER_TOOLS, Kind
from toe_async.apis.meta import Decoder, Wire
from toe_async.apis.powertool import Phase, PowerTool, decode_power_tool
from toe_async.apis.powertoolconfig import PowerToolConfig
from toe_async.cli.plugin.exits import Exit
from toe_async.cli.plugin.refusals import refused, unexpected
from toe_async.kube import requests
from toe_async.kube.client import Client
from toe_async.kube.errors import KubeError
from toe_async.kube.requests import Request

T = TypeVar("T")

CANCEL = "toe.run/cancel"
ACCESS_REVIEWS = Kind(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)
_MOST = 500
_LOOK_SECONDS = 1.0
_OVER = frozenset({Phase.COMPLETED, Phase.PARTIALLY_FAILED, Phase.FAILED, Phase.CANCELLED})


class _Configs(Wire, frozen=True):
    items: tuple[PowerToolConfig, ...] = ()


class _Tools(Wire, frozen=True):
    items: tuple[PowerTool, ...] = ()


class _ReviewStatus(Wire, frozen=True):
    allowed: bool = False


class _Review(Wire, frozen=True):
    status: _ReviewStatus = _ReviewStatus()


_decode_configs, _decode_tools, _decode_review = Decoder(_Configs), Decoder(_Tools), Decoder(_Review)


class PowerTools:
    """Safe for concurrent calls; every failure is a `Refused`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(self, namespace: str, body: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create one; with `dry_run` everything is judged and nothing is stored."""
        request = requests.create(POWER_TOOLS, namespace, msgspec.json.encode(body))
        if dry_run:
            request = msgspec.structs.replace(request, query=(*request.query, ("dryRun", "All")))
        made: dict[str, Any] = msgspec.json.decode(await self._send(request, POWER_TOOLS))
        return made

    async def get(self, namespace: str, name: str) -> PowerTool:
        """One of them."""
        return _read(decode_power_tool, await self._send(requests.get(POWER_TOOLS, namespace, name), POWER_TOOLS))

    async def raw(self, namespace: str, name: str) -> dict[str, Any]:
        """One of them as it is."""
        found: dict[str, Any] = msgspec.json.decode(
            await self._send(requests.get(POWER_TOOLS, namespace, name), POWER_TOOLS)
        )
        return found

    async def raw_all(self, namespace: str) -> dict[str, Any]:
        """Those of a namespace as the API server lists them, likewise."""
        raw = await self._send(requests.list_(POWER_TOOLS, namespace or None, limit=_MOST), POWER_TOOLS)
        found: dict[str, Any] = msgspec.json.decode(raw)
        return found

    async def all(self, namespace: str) -> tuple[PowerTool, ...]:
        """Those of a namespace, or of all with an empty one; at most 500."""
        raw = await self._send(requests.list_(POWER_TOOLS, namespace or None, limit=_MOST), POWER_TOOLS)
        return _read(_decode_tools, raw).items

    async def cancel(self, namespace: str, name: str, why: str) -> PowerTool:
        """Ask the operator to end it; what its tools have found so far is kept. Returns it as it was then."""
        body = msgspec.json.encode({"metadata": {"annotations": {CANCEL: why}}})
        answer = await self._send(requests.merge_patch(POWER_TOOLS, namespace, name, body), POWER_TOOLS)
        return _read(decode_power_tool, answer)

    async def configs(self, namespace: str) -> tuple[PowerToolConfig, ...]:
        """The approved tools, which are in the operator's namespace."""
        raw = await self._send(requests.list_(POWER_TOOL_CONFIGS, namespace, limit=_MOST), POWER_TOOL_CONFIGS)
        return _read(_decode_configs, raw).items

    async def may(self, verb: str, kind: Kind, namespace: str, *, name: str = "", subresource: str = "") -> bool:
        """Whether the user may do that, as the API server says."""
        attributes = {"verb": verb, "group": kind.group, "resource": kind.plural, "namespace": namespace}
        extra = {key: value for key, value in (("name", name), ("subresource", subresource)) if value}
        body = msgspec.json.encode(
            {
                "apiVersion": ACCESS_REVIEWS.api_version,
                "kind": ACCESS_REVIEWS.kind,
                "spec": {"resourceAttributes": {**attributes, **extra}},
            }
        )
        raw = await self._send(requests.create(ACCESS_REVIEWS, None, body), ACCESS_REVIEWS)
        return _read(_decode_review, raw).status.allowed

    async def _send(self, request: Request, kind: Kind) -> bytes:
        try:
            return await self._client.send(request)
        except KubeError as error:
            raise refused(error, kind) from error

    async def until_over(
        self, namespace: str, name: str, look: Callable[[PowerTool], None]
    ) -> tuple[PowerTool, Phase | None]:
        """Look at it every second until it is over; `look` is called for each state that differs.

        Of a schedule, which has no end, it is the run that goes on now, if one does. Returns how it ended too.
        """
        seen, run = None, None
        while True:
            found = await self.get(namespace, name)
            if found.status != seen:
                seen = found.status
                look(found)
            if is_over(found):
                return found, found.status.phase
            slot = found.status.scheduled_at
            if found.spec.schedule and (not goes_on(found) or slot != (run or slot)):
                return found, next((one.phase for one in found.status.runs if one.scheduled_at == run), seen.phase)
            run = slot
            await asyncio.sleep(_LOOK_SECONDS)


def is_over(found: PowerTool) -> bool:
    """Whether nothing more will come of it; a schedule is never over."""
    return found.status.phase in _OVER and not found.spec.schedule


def goes_on(found: PowerTool) -> bool:
    """Whether a run has begun and is not over."""
    return found.status.started_at is not None and found.status.finished_at is None


def name_of(name: str) -> str:
    """A PowerTool as `kubectl -o name` writes it."""
    return f"{POWER_TOOLS.singular}.{POWER_TOOLS.group}/{name}"


def code_of_phase(phase: Phase | None) -> Exit:
    """How a script is told of it."""
    match phase:
        case Phase.COMPLETED:
            return Exit.OK
        case Phase.PARTIALLY_FAILED:
            return Exit.PARTIAL
        case _:
            return Exit.FAILED


def condition_words(found: PowerTool) -> str:
    """The sentence that tells best where it stands: why it is refused, else why it failed, else what is going on."""
    conditions = {one.type: one for one in found.status.conditions}
    for type_, truths in (("Accepted", ("False",)), ("Failed", ("True",)), ("Running", ("True", "False"))):
        one = conditions.get(type_)
        if one is not None and one.status in truths and one.message:
            return f"{one.reason}: {one.message}"
    return next((one.message for one in conditions.values() if one.message), "")


def _read(decode: Decoder[T], raw: bytes) -> T:
    try:
        return decode(raw)
    except msgspec.DecodeError as error:
        raise unexpected(f"the answer is no object of this version ({error})") from error
