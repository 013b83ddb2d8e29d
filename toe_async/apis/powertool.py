"""PowerTool: run this tool against those pods for that long, and keep what it finds."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from msgspec import field

from toe_async.apis.meta import Condition, Decoder, LabelSelectorRequirement, ObjectMeta, Wire

Pick = Literal["All", "Random", "Oldest", "Newest", "Hottest"]
OutputMode = Literal["ephemeral", "pvc", "collector", "s3"]
Compression = Literal["none", "gzip", "zstd"]
PresetName = Literal["low", "medium", "high"]
OnError = Literal["continue", "stop", "retry"]
ConcurrencyPolicy = Literal["Allow", "Forbid", "Replace"]


class TargetSelector(Wire, frozen=True, kw_only=True):
    """Labels that choose pods."""

    match_labels: dict[str, str] = field(default_factory=dict)
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class NamespaceSelector(Wire, frozen=True, kw_only=True):
    """Other namespaces, each of which must grant it."""

    match_names: tuple[str, ...] = ()
    match_regex: str = ""


class Targets(Wire, frozen=True, kw_only=True):
    """Which containers of which pods."""

    label_selector: TargetSelector
    namespace_selector: NamespaceSelector | None = None
    container: str = ""
    max_targets: int | None = None
    pick: Pick = "All"


class Tool(Wire, frozen=True, kw_only=True):
    """Which tool, with what arguments and for how long."""

    name: str
    args: tuple[str, ...] = ()
    duration: str
    warmup: str = ""
    resolution_preset: PresetName | None = None
    max_cpu_percent: int | None = field(name="maxCPUPercent", default=None)


class PvcOutput(Wire, frozen=True, kw_only=True):
    """A claim that the pod has mounted already, and the folder inside of it."""

    claim_name: str
    path: str = ""


class CollectorOutput(Wire, frozen=True, kw_only=True):
    """The collector."""

    endpoint: str = ""


class S3Output(Wire, frozen=True, kw_only=True):
    """A bucket that the administrator's sinks file lists."""

    bucket: str
    prefix: str = ""
    region: str = ""
    endpoint: str = ""
    credentials_secret: str = ""


class Output(Wire, frozen=True, kw_only=True):
    """Where what the tool finds goes."""

    mode: OutputMode
    pvc: PvcOutput | None = None
    collector: CollectorOutput | None = None
    s3: S3Output | None = None
    compress: Compression = "gzip"
    rolling_interval: str = ""
    retention_days: int | None = None


class Budgets(Wire, frozen=True, kw_only=True):
    """How much at a time, and how much it may cost."""

    max_concurrent_pods: int | None = None
    per_pod_overhead_target: int | None = None


class FailureBackoff(Wire, frozen=True, kw_only=True):
    """Waits between attempts on one target."""

    initial: str = "10s"
    max: str = "5m"
    multiplier: str = "2"
    attempts: int = 3


class FailurePolicy(Wire, frozen=True, kw_only=True):
    """What one failed target means for the others and for itself."""

    on_error: OnError = "continue"
    backoff: FailureBackoff = FailureBackoff()


class PowerToolSpec(Wire, frozen=True, kw_only=True):
    """What is asked for. Immutable once started, except `suspend`."""

    targets: Targets
    tool: Tool
    output: Output
    budgets: Budgets = Budgets()
    failure_policy: FailurePolicy = FailurePolicy()
    schedule: str = ""
    time_zone: str = ""
    suspend: bool = False
    concurrency_policy: ConcurrencyPolicy = "Forbid"
    starting_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = None
    active_deadline_seconds: int | None = None


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

MAX_TARGETS = 500
"""Targets that one run may have: the ledger of all of them has to fit into the status."""
MAX_ROWS = 100


class StoredArtifact(Wire, frozen=True, kw_only=True):
    """One stored file. `uri` is artifacts://NAMESPACE/NAME (collector), s3://BUCKET/KEY, pvc://NAMESPACE/CLAIM/PATH or
    pod://NAMESPACE/POD/CONTAINER/LEAF."""

    uri: str
    size: int
    sha256: str


class TargetStatus(Wire, frozen=True, kw_only=True):
    """One target and how it went. `started_at`, `finished_at` and `next_at` are of the latest attempt."""

    namespace: str = ""
    pod: str
    uid: str
    container: str
    node: str = ""
    tool_container: str = ""
    state: TargetState
    attempt: int = 0
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    next_at: datetime | None = None
    bytes: int = 0
    artifact: str = ""


class RunStatus(Wire, frozen=True, kw_only=True):
    """One run of a schedule that is over."""

    scheduled_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    phase: Phase
    selected_pods: int = 0
    completed_pods: int = 0
    failed_pods: int = 0
    message: str = ""


class PowerToolStatus(Wire, frozen=True, kw_only=True):
    """How it goes.

    `targets` shows the first 100; `ledger` has one short entry for each target (controllers/powertool/ledger.py), so
    that nothing is done twice whoever leads next.
    """

    observed_generation: int = 0
    phase: Phase | None = None
    run: str = ""
    scheduled_at: datetime | None = None
    next_run_at: datetime | None = None
    selected_pods: int = 0
    pending_pods: int = 0
    running_pods: int = 0
    completed_pods: int = 0
    failed_pods: int = 0
    cancelled_pods: int = 0
    active_pods: dict[str, str] = field(default_factory=dict)
    bytes_written: int = 0
    artifacts: tuple[StoredArtifact, ...] = ()
    last_error: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    targets: tuple[TargetStatus, ...] = ()
    ledger: str = ""
    runs: tuple[RunStatus, ...] = ()
    conditions: tuple[Condition, ...] = ()


class ToolMeta(ObjectMeta, frozen=True, kw_only=True):
    """Metadata with what a run's life depends on."""

    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    finalizers: tuple[str, ...] = ()


class PowerTool(Wire, frozen=True, kw_only=True):
    """One order to run a tool."""

    metadata: ToolMeta = ToolMeta()
    spec: PowerToolSpec
    status: PowerToolStatus = PowerToolStatus()


decode_power_tool = Decoder(PowerTool)
