"""Bringing a tool's container into being, once, whoever asks how often (G1), and taking an agent pod away.

Everything is named after the capture: a second try finds what the first one made. An ephemeral container's patch names
the pod's UID, an agent pod is believed only with our labels.
"""

import asyncio
from typing import Any, Final

import msgspec
from msgspec import Struct

from toe_async.apis.kinds import PODS
from toe_async.apis.podspec import PodDetail, decode_pod_detail
from toe_async.apis.reasons import Reason
from toe_async.capture.toolfaults import ToolFault, of_api, of_injection
from toe_async.capture.toolports import Kube
from toe_async.capture.toolrun import ToolCapture
from toe_async.capture.vessels import CAPTURE_LABEL, TARGET_LABEL, container_name
from toe_async.kube import requests
from toe_async.kube.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    KubeError,
    NotFound,
    TooManyRequests,
    TransportError,
    Unauthorized,
)
from toe_async.kube.errors import ServerError as ServerFailed
from toe_async.lib.backoff import Backoff

_FIELD_MANAGER: Final = "toe-powertool"
_REQUEST_SECONDS: Final = 20.0
_MOST_TRIES: Final = 6
_PASSING = (Conflict, TooManyRequests, ServerFailed, TransportError)


class Vessel(Struct, frozen=True, kw_only=True):
    """Where the tool's container is: in the target's pod, or in a pod of its own (`agent`)."""

    namespace: str
    pod: str
    container: str
    agent: bool


def vessel_of(capture: ToolCapture, agents_namespace: str, *, agent: bool) -> Vessel:
    """Derive it from the capture alone."""
    name = container_name(capture.id)
    if agent:
        return Vessel(namespace=agents_namespace, pod=name, container=name, agent=True)
    return Vessel(namespace=capture.target.namespace, pod=capture.target.pod, container=name, agent=False)


def is_ours(capture: ToolCapture, vessel: Vessel, pod: PodDetail) -> bool:
    """Whether this is the very pod, and no other one of its name."""
    if not vessel.agent:
        return pod.metadata.uid == capture.target.pod_uid
    labels = pod.metadata.labels
    return labels.get(CAPTURE_LABEL) == capture.id and labels.get(TARGET_LABEL) == capture.target.pod_uid


class Placing:
    """The requests, with their repetitions."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def read(self, namespace: str, pod: str) -> PodDetail | None:
        """Read a pod; None when there is none.

        Raises:
            ToolFault: NotAuthorized, or a passing one.
        """
        where = f"pod {namespace}/{pod}"
        try:
            raw = await self._kube.send(requests.get(PODS, namespace, pod, timeout=_REQUEST_SECONDS))
            return decode_pod_detail(raw)
        except NotFound:
            return None
        except KubeError as error:
            raise of_api(error, where) from error
        except msgspec.MsgspecError as error:
            raise ToolFault(Reason.NOT_STARTED, f"{where} cannot be read: it holds what no pod holds") from error

    async def inject(self, capture: ToolCapture, vessel: Vessel, patch: dict[str, Any]) -> None:
        """Patch the ephemeral container in, unless it is there.

        Raises:
            ToolFault: refused, with the API server's words; PodGone when the pod is another one by now.
        """
        where = f"pod {vessel.namespace}/{vessel.pod}"
        request = requests.strategic_patch(
            PODS,
            vessel.namespace,
            vessel.pod,
            msgspec.json.encode(patch),
            subresource="ephemeralcontainers",
            field_manager=_FIELD_MANAGER,
            timeout=_REQUEST_SECONDS,
        )
        backoff = Backoff(0.5, 8.0)
        while True:
            try:
                await self._kube.send(request)
                return
            except KubeError as error:
                # A UID that is not the pod's is 422 (measured), and so is a container of this name that is there.
                refused: KubeError = error
                if not isinstance(error, Forbidden | Unauthorized):
                    pod = await self._read_calmly(vessel)
                    if pod is not None and not is_ours(capture, vessel, pod):
                        raise gone(capture) from error
                    if pod is not None and pod.container(vessel.container) is not None:
                        return
                    if pod is None and isinstance(error, NotFound):
                        raise gone(capture) from error
            if not isinstance(refused, _PASSING) or backoff.failures >= _MOST_TRIES:
                raise of_injection(refused, where, "pods/ephemeralcontainers") from refused
            await asyncio.sleep(backoff.next())

    async def create(self, capture: ToolCapture, vessel: Vessel, pod: dict[str, Any]) -> None:
        """Create the agent pod, unless it is there.

        Raises:
            ToolFault: refused, or the name is taken by a pod that is not ours (PF3).
        """
        where = f"agent pod {vessel.namespace}/{vessel.pod}"
        request = requests.create(
            PODS, vessel.namespace, msgspec.json.encode(pod), field_manager=_FIELD_MANAGER, timeout=_REQUEST_SECONDS
        )
        backoff = Backoff(0.5, 8.0)
        while True:
            try:
                await self._kube.send(request)
                return
            except AlreadyExists as error:
                held = await self.read(vessel.namespace, vessel.pod)
                if held is not None and is_ours(capture, vessel, held):
                    return
                if held is not None:
                    raise ToolFault(
                        Reason.CONFLICTED, f"{where} exists and is not of this capture; delete it"
                    ) from error
                refused: KubeError = error
            except Invalid as error:
                raise of_injection(error, where, "pods") from error
            except KubeError as error:
                refused = error
            if not isinstance(refused, _PASSING) or backoff.failures >= _MOST_TRIES:
                raise of_injection(refused, where, "pods") from refused
            await asyncio.sleep(backoff.next())

    async def delete(self, vessel: Vessel, uid: str) -> None:
        """Delete an agent pod of that UID; harmless when it is gone. Raises KubeError."""
        request = requests.delete(PODS, vessel.namespace, vessel.pod, uid=uid, timeout=_REQUEST_SECONDS)
        try:
            await self._kube.send(request)
        except (NotFound, Conflict):
            return

    async def _read_calmly(self, vessel: Vessel) -> PodDetail | None:
        try:
            return await self.read(vessel.namespace, vessel.pod)
        except ToolFault:
            return None


def gone(capture: ToolCapture) -> ToolFault:
    """The target is no more."""
    target = capture.target
    return ToolFault(Reason.POD_GONE, f"pod {target.namespace}/{target.pod} is gone, or another one of its name")
