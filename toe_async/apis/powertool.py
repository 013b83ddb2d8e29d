"""PowerTool: run this tool against those pods for that long, and keep what it finds.

The classes here are the source of the CRD; wire names are part of the API and never change.
"""

from datetime import datetime
from typing import Annotated, Final, Literal

from msgspec import Meta, field

from toe_async.apis.fieldtypes import ATOMIC, DAY_SECONDS, TOOL_NAME_PATTERN, Argument, duration_meta
from toe_async.apis.meta import Decoder, ObjectMeta, Wire
from toe_async.apis.powertooloutput import (
    OUTPUT_RULES,
    CollectorOutput,
    Compression,
    Output,
    OutputMode,
    PvcOutput,
    S3Output,
)
from toe_async.apis.powertoolstatus import (
    CLAIMED_STATES,
    FINAL_STATES,
    MAX_ROWS,
    MAX_TARGETS,
    Phase,
    PowerToolStatus,
    RunStatus,
    StoredArtifact,
    TargetState,
    TargetStatus,
)
from toe_async.apis.powertooltargets import NamespaceSelector, Pick, Targets, TargetSelector
from toe_async.apis.schema import PROMISED, Schema, rule, rules

__all__ = [
    "CLAIMED_STATES",
    "FINAL_STATES",
    "MAX_ROWS",
    "MAX_TARGETS",
    "Budgets",
    "CollectorOutput",
    "Compression",
    "ConcurrencyPolicy",
    "FailureBackoff",
    "FailurePolicy",
    "NamespaceSelector",
    "OnError",
    "Output",
    "OutputMode",
    "Phase",
    "Pick",
    "PowerTool",
    "PowerToolSpec",
    "PowerToolStatus",
    "PresetName",
    "PvcOutput",
    "RunStatus",
    "S3Output",
    "StoredArtifact",
    "TargetSelector",
    "TargetState",
    "TargetStatus",
    "Targets",
    "Tool",
    "ToolMeta",
    "decode_power_tool",
]

PresetName = Literal["low", "medium", "high"]
OnError = Literal["continue", "stop", "retry"]
ConcurrencyPolicy = Literal["Allow", "Forbid", "Replace"]

_CRON: Final = (
    "^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[0-9A-Za-z*/,?#-]+([ \\t]+[0-9A-Za-z*/,?#-]+){4})$"
)


class Tool(Wire, frozen=True, kw_only=True):
    """Which tool, with what arguments and for how long."""

    name: Annotated[
        str,
        Meta(
            description="The tool's spec.name in a PowerToolConfig of the operator's namespace.",
            min_length=1,
            max_length=63,
            pattern=TOOL_NAME_PATTERN,
        ),
    ]
    args: Annotated[
        tuple[Argument, ...],
        Meta(
            description="Arguments behind those of the administrator; each must be allowed by the PowerToolConfig.",
            max_length=64,
            extra_json_schema=ATOMIC,
        ),
    ] = ()
    duration: Annotated[
        str,
        duration_meta("How long the tool runs; the PowerToolConfig may allow less."),
        Meta(min_length=1),
    ]
    warmup: Annotated[str, duration_meta("How long the supervisor waits before it starts the tool.")] = ""
    resolution_preset: Annotated[
        PresetName | None, Meta(description="The PowerToolConfig's arguments for this resolution are added.")
    ] = None
    max_cpu_percent: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)] | None,
        Meta(
            description="CPU that the tool may use, in per cent of one core; over it the tool is slowed down or ended."
        ),
    ] = field(name="maxCPUPercent", default=None)


class Budgets(Wire, frozen=True, kw_only=True):
    """How much at a time, and how much it may cost."""

    max_concurrent_pods: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_TARGETS)] | None,
        Meta(
            description="Pods in which the tool runs at a time; absent means all that the administrator's limits allow."
        ),
    ] = None
    per_pod_overhead_target: Annotated[
        Annotated[int, Meta(ge=1, le=100)] | None,
        Meta(
            description=(
                "What the tool may cost, in per cent of the target container's own CPU; over it the tool is slowed "
                "down or ended."
            )
        ),
    ] = None


class FailureBackoff(Wire, frozen=True, kw_only=True):
    """Waits between attempts on one target."""

    initial: Annotated[str, duration_meta("Wait before the second attempt.", extra=PROMISED)] = "10s"
    max: Annotated[str, duration_meta("Longest wait between two attempts.", extra=PROMISED)] = "5m"
    multiplier: Annotated[
        str,
        Meta(
            description="By what each wait is longer than the one before: a decimal number from 1 to 10.",
            max_length=16,
            extra=PROMISED,
            extra_json_schema=rules(
                rule(
                    "self.matches('^[0-9]+([.][0-9]+)?$') && double(self) >= 1.0 && double(self) <= 10.0",
                    "a multiplier is a decimal number from 1 to 10, written as text, such as '2' or '1.5'",
                    "FieldValueInvalid",
                )
            ),
        ),
    ] = "2"
    attempts: Annotated[
        int, Meta(description="Attempts on one target, the first included.", ge=1, le=20, extra=PROMISED)
    ] = 3


class FailurePolicy(Wire, frozen=True, kw_only=True):
    """What one failed target means for the others and for itself."""

    on_error: Annotated[
        OnError,
        Meta(
            description=(
                "What a failed target means: continue goes on with the others, stop begins no other and lets those "
                "that run finish, retry tries the target again as backoff says."
            ),
            extra=PROMISED,
        ),
    ] = "continue"
    backoff: Annotated[FailureBackoff, Meta(description="Waits and attempts of retry.")] = FailureBackoff()


class PowerToolSpec(Wire, frozen=True, kw_only=True):
    """What is asked for. Immutable once started, except `suspend`."""

    targets: Annotated[Targets, Meta(description="Which containers of which pods; frozen when the run starts.")]
    tool: Annotated[Tool, Meta(description="Which tool, with what arguments and for how long.")]
    output: Annotated[Output, Meta(description="Where what the tool finds goes.", extra_json_schema=OUTPUT_RULES)]
    budgets: Annotated[Budgets, Meta(description="How much at a time, and how much it may cost.")] = Budgets()
    failure_policy: Annotated[
        FailurePolicy, Meta(description="What one failed target means for the others and for itself.")
    ] = FailurePolicy()
    schedule: Annotated[
        str,
        Meta(
            description=(
                "Runs again and again: five cron fields (minute, hour, day, month, weekday) or @hourly, @daily, "
                "@weekly, @monthly, @yearly. Empty runs once, at once."
            ),
            max_length=128,
            extra_json_schema=rules(
                rule(
                    f"self == '' || self.matches('{_CRON}')",
                    "a schedule has five fields (minute, hour, day of month, month, day of week), such as '0 2 * * *', "
                    "or is @hourly, @daily, @weekly, @monthly or @yearly; the zone goes into timeZone",
                    "FieldValueInvalid",
                )
            ),
        ),
    ] = ""
    time_zone: Annotated[
        str,
        Meta(
            description="Zone of the schedule, such as Europe/Berlin; empty means UTC.",
            max_length=64,
            pattern=r"^([A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*)?$",
        ),
    ] = ""
    suspend: Annotated[
        bool,
        Meta(description="True starts nothing new; what runs is finished. May change at any time.", extra=PROMISED),
    ] = False
    concurrency_policy: Annotated[
        ConcurrencyPolicy,
        Meta(
            description=(
                "When the schedule is due while a run goes on: Forbid skips the new one, Replace cancels the old one, "
                "Allow begins the new one as soon as the old one is over."
            ),
            extra=PROMISED,
        ),
    ] = "Forbid"
    starting_deadline_seconds: Annotated[
        Annotated[int, Meta(ge=1, le=7 * DAY_SECONDS)] | None,
        Meta(description="How late a scheduled run may begin; one that is missed by more is skipped."),
    ] = None
    ttl_seconds_after_finished: Annotated[
        Annotated[int, Meta(ge=0, le=3650 * DAY_SECONDS)] | None,
        Meta(
            description=(
                "Seconds after its end when the PowerTool is deleted; its stored files stay. Absent keeps it, as a "
                "schedule does, which has no end."
            )
        ),
    ] = None
    active_deadline_seconds: Annotated[
        Annotated[int, Meta(ge=1, le=7 * DAY_SECONDS)] | None,
        Meta(description="Seconds after which the run is ended, whatever runs."),
    ] = None


_SPEC_RULES: Final = rules(
    *(
        rule(
            f"!has(self.{name}) || {given}(has(self.schedule) && self.schedule != '')",
            f"{name} is for a schedule: set schedule too, or remove {name}",
            "FieldValueForbidden",
            f".{name}",
        )
        for name, given in (("timeZone", "self.timeZone == '' || "), ("startingDeadlineSeconds", ""))
    ),
    rule(
        "!has(self.targets.pick) || self.targets.pick == 'All' || has(self.targets.maxTargets)",
        "pick chooses among the pods that match: say how many in targets.maxTargets, or leave pick at All",
        "FieldValueRequired",
        ".targets.maxTargets",
    ),
)


class ToolMeta(ObjectMeta, frozen=True, kw_only=True):
    """Metadata with what a run's life depends on."""

    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    finalizers: tuple[str, ...] = ()


class PowerTool(Wire, frozen=True, kw_only=True):
    """Runs an approved tool beside the processes of chosen pods for a stated time and keeps what it finds."""

    metadata: ToolMeta = ToolMeta()
    spec: Annotated[PowerToolSpec, Meta(description="What is asked for.", extra_json_schema=_SPEC_RULES)]
    status: Annotated[PowerToolStatus, Meta(description="What is the case; written by the operator.")] = (
        PowerToolStatus()
    )


def _unchanged(path: str) -> str:
    name = f"spec.{path}"
    return f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"


_FIXED: Final = [
    name for name in PowerToolSpec.__struct_encode_fields__ if name not in {"suspend", "targets", "tool", "output"}
]

STARTED_RULES: Final[Schema] = rules(
    rule(
        # Sits on the whole object: a rule on spec could not see that the run has started.
        "!has(oldSelf.status) || !has(oldSelf.status.startedAt) || ("
        + " && ".join(
            [*(f"self.spec.{name} == oldSelf.spec.{name}" for name in ("targets", "tool", "output"))]
            + [f"({_unchanged(name)})" for name in _FIXED]
        )
        + ")",
        "the run has started, and but for suspend its spec cannot be changed any more; delete the PowerTool and make a "
        "new one",
        "FieldValueForbidden",
        ".spec",
    )
)
"""What may no longer change once a run has started."""

decode_power_tool = Decoder(PowerTool)
