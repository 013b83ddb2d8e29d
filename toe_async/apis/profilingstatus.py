"""The status of a ProfilingConfig: what is the case, every claim on a pod, and what became of it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, field

from toe_async.apis.meta import MOST, Condition, Wire

MAX_COOLDOWNS: Final = 500
MAX_RECENT: Final = 120

_SHA256: Final = r"^([0-9a-f]{64})?$"


class ProfileType(StrEnum):
    """What net/http/pprof can give; a closed list."""

    HEAP = "heap"
    CPU = "cpu"
    GOROUTINE = "goroutine"
    MUTEX = "mutex"
    BLOCK = "block"
    THREADCREATE = "threadcreate"
    ALLOCS = "allocs"
    TRACE = "trace"


class ArtifactState(StrEnum):
    """How far one profile has come."""

    CAPTURED = "Captured"
    STORED = "Stored"
    FAILED = "Failed"


class CaptureState(StrEnum):
    """How far a capture has come. The last four are final."""

    CAPTURING = "Capturing"
    UPLOADING = "Uploading"
    STORED = "Stored"
    PARTIALLY_STORED = "PartiallyStored"
    FAILED = "Failed"
    LOST = "Lost"

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self not in {CaptureState.CAPTURING, CaptureState.UPLOADING}


_Reason = Annotated[str, Meta(description="Why, in one stable word.", max_length=64)]
_Size = Annotated[int, Meta(description="Size in bytes.", ge=0, le=MOST)]
_Count = Meta(ge=0, le=MOST)


class ArtifactStatus(Wire, frozen=True, kw_only=True):
    """One profile of a capture."""

    type: Annotated[ProfileType, Meta(description="Kind of the profile.")]
    state: Annotated[ArtifactState, Meta(description="How far it has come.")]
    uri: Annotated[str, Meta(description="Where it is kept.", max_length=2048)] = ""
    size: _Size = 0
    sha256: Annotated[str, Meta(description="Digest of its bytes, in hex.", max_length=64, pattern=_SHA256)] = ""
    reason: _Reason = ""
    message: Annotated[str, Meta(description="What went wrong and the way out.", max_length=512)] = ""


class CaptureStatus(Wire, frozen=True, kw_only=True):
    """One capture: the claim that keeps others from repeating it, and what became of it."""

    id: Annotated[str, Meta(description="Identity, derived from object, pod, container and instant.", max_length=64)]
    pod: Annotated[str, Meta(description="Name of the pod.", max_length=253)]
    pod_uid: Annotated[str, Meta(description="UID of the pod.", max_length=64)] = field(name="podUID")
    container: Annotated[str, Meta(description="Name of the container.", max_length=63)]
    reason: Annotated[str, Meta(description="What set it off: threshold-exceeded or on-demand.", max_length=64)]
    trigger: Annotated[str, Meta(description="What set it off, with the figures.", max_length=512)] = ""
    state: Annotated[CaptureState, Meta(description="How far it has come.")]
    holder: Annotated[str, Meta(description="The operator process that takes it.", max_length=253)]
    started_at: Annotated[datetime, Meta(description="When it was claimed.")]
    deadline: Annotated[datetime, Meta(description="When it counts as lost if its holder is gone.")]
    finished_at: Annotated[datetime | None, Meta(description="When it ended.")] = None
    artifacts: Annotated[
        tuple[ArtifactStatus, ...],
        Meta(
            description="Its profiles, one a type.",
            max_length=8,
            extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()


class Cooldown(Wire, frozen=True, kw_only=True):
    """A pod that is left alone for a while: after a threshold capture, or for the rest of its interval."""

    pod_uid: Annotated[str, Meta(description="UID of the pod.", max_length=64)] = field(name="podUID")
    reason: Annotated[str, Meta(description="What it is spared: threshold-exceeded or on-demand.", max_length=64)]
    until: Annotated[datetime, Meta(description="When it may be captured again.")]


class ProfilingConfigStatus(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """What is the case. Written whole: a merge patch of it still has to set vanished keys of `notFired` to null."""

    observed_generation: Annotated[
        int, Meta(description="Generation of the spec that this status speaks of."), _Count
    ] = 0
    active_pods: Annotated[int, Meta(description="Pods that match and have opted in."), _Count] = 0
    last_profile_time: Annotated[datetime | None, Meta(description="When a capture started last.")] = None
    total_profiles: Annotated[int, Meta(description="Profiles taken so far."), _Count] = 0
    total_uploads: Annotated[int, Meta(description="Profiles stored so far."), _Count] = 0
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(
            description="Accepted, Ready, Degraded, StoreReachable and MetricsUnavailable.",
            max_length=16,
            extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()
    recent: Annotated[
        tuple[CaptureStatus, ...],
        Meta(
            description="Captures that are not finished, and the last 20 that are.",
            max_length=MAX_RECENT,
            extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]},
        ),
    ] = ()
    not_fired: Annotated[
        dict[str, Annotated[int, Meta(description="Number of pods.", ge=0, le=MOST)]],
        Meta(description="Why pods were not captured at the last look: reason and number of pods.", max_length=64),
    ] = field(default_factory=dict)
    cooldowns: Annotated[
        tuple[Cooldown, ...],
        Meta(
            description="Pods that are left alone for a while.",
            max_length=MAX_COOLDOWNS,
            extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["podUID", "reason"]},
        ),
    ] = ()
