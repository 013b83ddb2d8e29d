"""How a tool's container stands, from what the kubelet says, and when waiting for it is of no use any more. Pure."""

import itertools
from datetime import datetime
from typing import Final, Literal

from msgspec import Struct

from toe_async.apis.podspec import ContainerState, PodDetail, Waiting
from toe_async.apis.reasons import Reason
from toe_async.capture.toolfaults import Fault
from toe_async.kube.errors import clip

PULL_GRACE_SECONDS: Final = 30.0
"""Two of the kubelet's backoffs: a registry that failed once is asked again."""

_LONGEST: Final = 300
_PULL_MAY_PASS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})
_NO_IMAGE: Final = frozenset(
    {"InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "SignatureValidationFailed"}
)
_NO_CONTAINER: Final = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "CreatePodSandboxError",
        "PreCreateHookError",
        "PreStartHookError",
        "PostStartHookError",
        "RunContainerError",
        "StartError",
    }
)
_ENDED_PHASES: Final = frozenset({"Failed", "Succeeded"})

Phase = Literal["absent", "waiting", "running", "ended"]


class Look(Struct, frozen=True, kw_only=True):
    """One container at one moment. `reason` and `message` are the kubelet's, or the termination message.

    `orders` is the digest in the container's arguments: the orders that its supervisor will take.
    """

    phase: Phase
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    image_id: str = ""
    orders: str = ""


def look(pod: PodDetail, name: str) -> Look:
    """Read one container of a pod."""
    container, status = pod.container(name), pod.container_status(name)
    if container is None:
        return Look(phase="absent")
    orders = _digest(container.args)
    state = status.state if status is not None else ContainerState()
    image = status.image_id if status is not None else ""
    if (over := state.terminated) is not None:
        return Look(
            phase="ended",
            reason=over.reason,
            message=over.message,
            exit_code=over.exit_code,
            started_at=over.started_at,
            finished_at=over.finished_at,
            image_id=image,
            orders=orders,
        )
    if state.running is not None:
        return Look(phase="running", started_at=state.running.started_at, image_id=image, orders=orders)
    if pod.status.phase in _ENDED_PHASES:
        # A node that refuses or evicts a pod says so of the pod and of no container.
        return Look(phase="ended", reason=pod.status.reason, message=pod.status.message, orders=orders)
    waiting = state.waiting or Waiting()
    return Look(phase="waiting", reason=waiting.reason, message=waiting.message, orders=orders)


def start_fault(seen: Look, seconds: float, image: str) -> Fault | None:
    """Why a waiting container will not start, after `seconds` in trouble; None while it still may."""
    words = clip(": ".join(part for part in (seen.reason, seen.message) if part), _LONGEST)
    if seen.reason in _NO_IMAGE:
        return Fault(Reason.IMAGE_PULL_FAILED, f"image {image} cannot be used: {words}")
    if seen.reason in _PULL_MAY_PASS and seconds >= PULL_GRACE_SECONDS:
        return Fault(Reason.IMAGE_PULL_FAILED, f"image {image} could not be pulled: {words}", passing=True)
    if seen.reason in _NO_CONTAINER:
        return Fault(Reason.CONTAINER_FAILED, f"the tool's container could not be started: {words}")
    return None


def in_trouble(seen: Look) -> bool:
    """Whether the clock of `start_fault` runs."""
    return seen.reason in _PULL_MAY_PASS


def end_fault(seen: Look, tool: str) -> Fault:
    """Why a container ended without a result."""
    if seen.reason == "OOMKilled":
        return Fault(
            Reason.OOM_KILLED,
            f"{tool} was killed because the memory limit was reached; its memory counts in the target's pod",
        )
    if seen.exit_code is None:
        words = clip(f"{seen.reason}: {seen.message}", _LONGEST)
        return Fault(Reason.CONTAINER_FAILED, f"the node ended the tool's pod: {words}", passing=True)
    if seen.reason in _NO_CONTAINER or seen.reason == "ContainerCannotRun":
        words = clip(f"{seen.reason}: {seen.message}", _LONGEST)
        return Fault(Reason.CONTAINER_FAILED, f"the tool's container could not be started: {words}")
    if seen.exit_code == _NO_ORDERS:
        return Fault(Reason.NOT_STARTED, f"{tool} waited for its orders in vain and ended", passing=True)
    return Fault(Reason.TOOL_FAILED, f"{tool} ended with exit code {seen.exit_code} and left no result")


_NO_ORDERS: Final = 3


def _digest(args: tuple[str, ...]) -> str:
    for flag, value in itertools.pairwise(args):
        if flag == "--orders":
            return value
    return ""
