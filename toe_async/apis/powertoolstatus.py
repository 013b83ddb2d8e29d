"""The status of a PowerTool: where its run stands, target by target, and what it has left behind."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, field

from toe_async.apis.fieldtypes import ATOMIC, list_map
from toe_async.apis.meta import MOST, Condition, Wire

MAX_TARGETS: Final = 500
"""Targets that one run may have: the ledger of all of them has to fit into the status."""
MAX_ROWS: Final = 100
MAX_ARTIFACTS: Final = 200
MAX_RUNS: Final = 20
LONGEST_LEDGER: Final = 65_536
LONGEST_SENTENCE: Final = 2048

_SHA256: Final = r"^([0-9a-f]{64})?$"
_Count = Annotated[int, Meta(ge=0, le=MOST)]
_Bytes = Annotated[int, Meta(ge=0, le=MOST)]
_Sentence = Annotated[str, Meta(max_length=LONGEST_SENTENCE)]


class Phase(StrEnum):
    """Where a run stands. The last four are never left, but for a scheduled PowerTool's next run."""

    PENDING = "Pending"
    CONFLICTED = "Conflicted"
    RUNNING = "Running"
    COMPLETED = "Completed"
    PARTIALLY_FAILED = "PartiallyFailed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class TargetState(StrEnum):
    """Where one target stands. Completed, Failed and Cancelled are never left."""

    PENDING = "Pending"  # chosen, not begun
    QUEUED = "Queued"  # another tool has the container
    WAITING = "Waiting"  # a failed attempt; the next one comes
    STARTING = "Starting"  # claimed: the container is asked for, or comes up
    RUNNING = "Running"  # orders were taken
    STORING = "Storing"  # the tool has ended, its output is on its way
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


FINAL_STATES = frozenset({TargetState.COMPLETED, TargetState.FAILED, TargetState.CANCELLED})
CLAIMED_STATES = frozenset({TargetState.STARTING, TargetState.RUNNING, TargetState.STORING})


class StoredArtifact(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """One stored file. `uri` is its path in the read API (collector), s3://BUCKET/KEY, pvc://NAMESPACE/CLAIM/PATH or
    pod://NAMESPACE/POD/CONTAINER/LEAF."""

    uri: Annotated[
        str,
        Meta(
            description=(
                "Where it is: the path in the collector's API, s3://, pvc:// for a claim, or pod:// while it is kept "
                "inside of the pod."
            ),
            max_length=2048,
        ),
    ]
    size: Annotated[_Bytes, Meta(description="Size in bytes, as it is stored.")]
    sha256: Annotated[str, Meta(description="Digest of its bytes, in hex.", max_length=64, pattern=_SHA256)]


class TargetStatus(Wire, frozen=True, kw_only=True):
    """One target and how it went. `started_at`, `finished_at` and `next_at` are of the latest attempt."""

    namespace: Annotated[str, Meta(description="Namespace of the pod.", max_length=63)] = ""
    pod: Annotated[str, Meta(description="Name of the pod.", max_length=253)]
    uid: Annotated[str, Meta(description="UID of the pod: a later one of the same name is another.", max_length=64)]
    container: Annotated[str, Meta(description="Container that the tool looks at.", max_length=63)]
    node: Annotated[str, Meta(description="Node on which the pod runs.", max_length=253)] = ""
    tool_container: Annotated[
        str, Meta(description="Name of the container, or of the agent pod, in which the tool runs.", max_length=253)
    ] = ""
    state: Annotated[TargetState, Meta(description="Where it stands.")]
    attempt: Annotated[int, Meta(description="Number of the latest attempt; 0 before the first.", ge=0, le=1000)] = 0
    reason: Annotated[str, Meta(description="Why, in one stable word.", max_length=64)] = ""
    message: Annotated[_Sentence, Meta(description="What went wrong and the way out.")] = ""
    exit_code: Annotated[
        Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None,
        Meta(description="Exit code of the tool; negative for the signal that ended it."),
    ] = None
    started_at: Annotated[datetime | None, Meta(description="When the latest attempt began.")] = None
    finished_at: Annotated[datetime | None, Meta(description="When the latest attempt ended.")] = None
    next_at: Annotated[datetime | None, Meta(description="When the next attempt is due.")] = None
    bytes: Annotated[_Bytes, Meta(description="Bytes that were stored.")] = 0
    artifact: Annotated[str, Meta(description="Where the first of its files is.", max_length=2048)] = ""


class RunStatus(Wire, frozen=True, kw_only=True):
    """One run of a schedule that is over."""

    scheduled_at: Annotated[datetime, Meta(description="The instant of the schedule for which it ran.")]
    started_at: Annotated[datetime | None, Meta(description="When it began.")] = None
    finished_at: Annotated[datetime | None, Meta(description="When it ended.")] = None
    phase: Annotated[Phase, Meta(description="How it ended.")]
    selected_pods: Annotated[_Count, Meta(description="Targets that it had.")] = 0
    completed_pods: Annotated[_Count, Meta(description="Targets whose output is stored.")] = 0
    failed_pods: Annotated[_Count, Meta(description="Targets that failed.")] = 0
    message: Annotated[_Sentence, Meta(description="How it went, in one sentence.")] = ""


class PowerToolStatus(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """How it goes.

    `targets` shows the first 100; `ledger` has one short entry for each target (controllers/powertool/ledger.py), so
    that nothing is done twice whoever leads next. Written whole: a merge patch of it still has to set vanished keys of
    `activePods` to null.
    """

    observed_generation: Annotated[_Count, Meta(description="Generation of the spec that this status speaks of.")] = 0
    phase: Annotated[Phase | None, Meta(description="Where the run stands.")] = None
    run: Annotated[
        str, Meta(description="The run's own name, a new one for each instant of a schedule.", max_length=64)
    ] = ""
    scheduled_at: Annotated[datetime | None, Meta(description="The instant of the schedule for which the run is.")] = (
        None
    )
    next_run_at: Annotated[datetime | None, Meta(description="When the schedule is due next.")] = None
    selected_pods: Annotated[_Count, Meta(description="Targets of the run; the counts below sum to it.")] = 0
    pending_pods: Annotated[_Count, Meta(description="Targets not begun, queued, or before another attempt.")] = 0
    running_pods: Annotated[_Count, Meta(description="Targets with a tool at work or output on its way.")] = 0
    completed_pods: Annotated[_Count, Meta(description="Targets whose output is stored.")] = 0
    failed_pods: Annotated[_Count, Meta(description="Targets that failed for good.")] = 0
    cancelled_pods: Annotated[_Count, Meta(description="Targets that were cancelled.")] = 0
    active_pods: Annotated[
        dict[str, Annotated[str, Meta(description="What is at work there.", max_length=253)]],
        Meta(description="Pods with a tool at work, and the name of its container.", max_length=MAX_TARGETS),
    ] = field(default_factory=dict)
    bytes_written: Annotated[_Bytes, Meta(description="Bytes stored so far, by all targets.")] = 0
    artifacts: Annotated[
        tuple[StoredArtifact, ...],
        Meta(
            description="The files stored, the latest ones of many; the collector lists all.",
            max_length=MAX_ARTIFACTS,
            extra_json_schema=ATOMIC,
        ),
    ] = ()
    last_error: Annotated[_Sentence, Meta(description="The latest failure of a target, in one sentence.")] = ""
    started_at: Annotated[datetime | None, Meta(description="When the run froze its targets.")] = None
    finished_at: Annotated[datetime | None, Meta(description="When the last target ended.")] = None
    targets: Annotated[
        tuple[TargetStatus, ...],
        Meta(
            description="The first hundred targets, one by one.",
            max_length=MAX_ROWS,
            extra_json_schema=list_map("uid", "container"),
        ),
    ] = ()
    ledger: Annotated[
        str,
        Meta(description="Every target and its claim, packed; the operator's own record.", max_length=LONGEST_LEDGER),
    ] = ""
    runs: Annotated[
        tuple[RunStatus, ...],
        Meta(
            description="The latest runs of a schedule that are over.",
            max_length=MAX_RUNS,
            extra_json_schema=list_map("scheduledAt"),
        ),
    ] = ()
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(
            description="Accepted, Running, Complete, Failed and ArtifactsStored.",
            max_length=16,
            extra_json_schema=list_map("type"),
        ),
    ] = ()
