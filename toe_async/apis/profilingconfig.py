"""ProfilingConfig: which pods to watch, when they count as hot, what to take from them and where to put it.

The same kind is served in two groups, profiling.io and bolometer.io, since users have manifests for both. The classes
here are the source of the CRDs; wire names are part of the API and never change.
"""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, field
from msgspec.structs import replace

from toe_async.apis.fieldtypes import LABEL_KEYS, LABEL_VALUE_PATTERN, MatchExpressions
from toe_async.apis.meta import Decoder, ObjectMeta, Wire
from toe_async.apis.profilingstatus import (
    MAX_COOLDOWNS,
    MAX_RECENT,
    ArtifactState,
    ArtifactStatus,
    CaptureState,
    CaptureStatus,
    Cooldown,
    ProfileType,
    ProfilingConfigStatus,
)
from toe_async.apis.schema import PROMISED, rule, rules
from toe_async.apis.selectors import Selector

__all__ = [
    "MAX_COOLDOWNS",
    "MAX_RECENT",
    "ArtifactState",
    "ArtifactStatus",
    "CaptureState",
    "CaptureStatus",
    "CollectorSink",
    "Cooldown",
    "OnDemand",
    "PodSelector",
    "ProfileType",
    "ProfilingConfig",
    "ProfilingConfigSpec",
    "ProfilingConfigStatus",
    "S3Config",
    "ThresholdBase",
    "Thresholds",
    "decode_profiling_config",
]

DEFAULT_CPU_PERCENT: Final = 80
DEFAULT_MEMORY_PERCENT: Final = 90

_DAY: Final = 86_400
_MOST_PERCENT: Final = 100_000
_Percent = Annotated[int, Meta(ge=0, le=_MOST_PERCENT)]
_NAMESPACE: Final = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"

_ENDPOINT_RULE: Final = r"self == '' || self.matches('^https?://([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?/?$')"


class ThresholdBase(StrEnum):
    """What 100 % is."""

    AUTO = "Auto"
    REQUEST = "Request"
    LIMIT = "Limit"


class PodSelector(Wire, frozen=True, kw_only=True):
    """Which pods are watched; they must also opt in by annotation."""

    namespace: Annotated[
        str,
        Meta(
            description=(
                "Namespace of the pods; empty or absent means the namespace of this object. Another namespace must "
                "grant it by the annotation profiling.io/allow-from."
            ),
            max_length=63,
            pattern=_NAMESPACE,
        ),
    ] = ""
    label_selector: Annotated[
        dict[str, Annotated[str, Meta(description="Value of the label.", max_length=63, pattern=LABEL_VALUE_PATTERN)]],
        Meta(
            description="Labels that a pod must carry, as a plain map; empty means every pod of the namespace.",
            max_length=64,
            extra=PROMISED,
            extra_json_schema=LABEL_KEYS,
        ),
    ] = field(default_factory=dict)
    match_expressions: MatchExpressions = ()

    def compiled(self) -> Selector:
        """The label part as a selector. Raises ValueError for an expression that admission would have refused."""
        return Selector.of(self.label_selector, self.match_expressions)


class Thresholds(Wire, frozen=True, kw_only=True):
    """When a pod counts as hot. A figure must be strictly above its threshold."""

    cpu_threshold_percent: Annotated[
        _Percent | None,
        Meta(
            description=(
                "CPU in per cent of the base; 0 switches CPU off, more than 100 is allowed. When neither CPU nor "
                "memory is named, 80 and 90 apply; when one is named, only that one."
            )
        ),
    ] = None
    memory_threshold_percent: Annotated[
        _Percent | None,
        Meta(description="Memory in per cent of the base; 0 switches memory off, more than 100 is allowed."),
    ] = None
    of: Annotated[
        ThresholdBase,
        Meta(
            description=(
                "What 100 per cent is. Auto: the pod's request, else its limit, else what the node can allocate. "
                "Request and Limit insist on theirs; a pod without one is not watched (reason NoBase)."
            ),
            extra=PROMISED,
        ),
    ] = ThresholdBase.AUTO
    check_interval_seconds: Annotated[
        int, Meta(description="Seconds between two looks at the metrics.", ge=10, le=_DAY, extra=PROMISED)
    ] = 30
    cooldown_seconds: Annotated[
        int,
        Meta(
            description="Seconds for which a captured pod is left alone; kept per pod and over restarts.",
            ge=0,
            le=7 * _DAY,
            extra=PROMISED,
        ),
    ] = 300
    for_seconds: Annotated[
        int,
        Meta(
            description="Seconds for which a figure must stay above its threshold before it counts; 0 means at once.",
            ge=0,
            le=_DAY,
            extra=PROMISED,
        ),
    ] = 0
    rise_percent: Annotated[
        int,
        Meta(
            description="By how many per cent a figure must also exceed its own running mean; 0 switches this off.",
            ge=0,
            le=_MOST_PERCENT,
            extra=PROMISED,
        ),
    ] = 0
    rearm_percent: Annotated[
        int,
        Meta(
            description=(
                "After a capture the figure must first fall this many percentage points below its threshold before the "
                "pod can fire again; 0 switches this off."
            ),
            ge=0,
            le=_MOST_PERCENT,
            extra=PROMISED,
        ),
    ] = 0


class OnDemand(Wire, frozen=True, kw_only=True):
    """Captures at fixed intervals, whatever the load."""

    enabled: Annotated[bool, Meta(description="Whether to capture at fixed intervals.", extra=PROMISED)] = False
    interval_seconds: Annotated[
        int,
        Meta(description="Seconds between two captures of a pod.", ge=10, le=_DAY, extra=PROMISED),
    ] = 35


class S3Config(Wire, frozen=True, kw_only=True):
    """A place in an S3 bucket."""

    bucket: Annotated[
        str,
        Meta(
            description="Name of the bucket.",
            min_length=3,
            max_length=63,
            extra_json_schema=rules(
                rule(
                    r"self.matches('^[a-z0-9][a-z0-9.-]*[a-z0-9]$') && !self.contains('..') && "
                    r"!self.matches('^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$')",
                    "a bucket name has 3 to 63 lower-case letters, digits, dots and hyphens, begins and ends with a "
                    "letter or digit, holds no two dots in a row and is no IP address",
                    "FieldValueInvalid",
                )
            ),
        ),
    ]
    prefix: Annotated[
        str,
        Meta(
            description="What all keys begin with; slashes at its ends do not matter.",
            max_length=512,
            extra_json_schema=rules(
                rule(
                    r"self.matches('^[A-Za-z0-9!_.*()/=@:+,~ -]*$') && !self.matches('(^|/)[.][.]?(/|$)')",
                    "a prefix holds letters, digits, spaces, any of ! _ . * ( ) / = @ : + , ~ - and no segment . or ..",
                    "FieldValueInvalid",
                )
            ),
        ),
    ] = ""
    region: Annotated[
        str,
        Meta(
            description="Region of the bucket, such as eu-west-1; empty leaves it to the store's own default.",
            max_length=64,
            pattern=r"^[A-Za-z0-9-]*$",
        ),
    ] = ""
    endpoint: Annotated[
        str,
        Meta(
            description=(
                "URL of an S3-compatible store; empty means AWS. Only endpoints that the administrator lists are used."
            ),
            max_length=512,
            extra_json_schema=rules(
                rule(
                    _ENDPOINT_RULE,
                    "an endpoint is https://HOST or https://HOST:PORT (http only where the administrator allows it), "
                    "without user, path or query",
                    "FieldValueInvalid",
                )
            ),
        ),
    ] = ""
    credentials_secret: Annotated[
        str,
        Meta(
            description=(
                "Secret in this namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if need be, "
                "AWS_SESSION_TOKEN. Without it the operator's own identity is used where the administrator allows it."
            ),
            max_length=253,
            pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$",
        ),
    ] = ""


class CollectorSink(Wire, frozen=True, kw_only=True):
    """The collector as the place for profiles."""

    endpoint: Annotated[
        str,
        Meta(
            description="One of the administrator's collector endpoints; empty means the configured one.",
            max_length=512,
            extra_json_schema=rules(
                rule(
                    _ENDPOINT_RULE,
                    "an endpoint is https://NAME.NAMESPACE.svc:PORT, without user, path or query",
                    "FieldValueInvalid",
                )
            ),
        ),
    ] = ""


class ProfilingConfigSpec(Wire, frozen=True, kw_only=True):
    """What is wanted."""

    selector: Annotated[
        PodSelector, Meta(description="Which pods are watched; absent means all of this namespace.")
    ] = PodSelector()
    thresholds: Annotated[
        Thresholds | None,
        Meta(
            description=(
                "When a pod counts as hot. Absent: CPU above 80 or memory above 90 per cent, unless onDemand is on."
            )
        ),
    ] = None
    on_demand: Annotated[OnDemand, Meta(description="Captures at fixed intervals, beside the thresholds.")] = OnDemand()
    profile_types: Annotated[
        tuple[Annotated[ProfileType, Meta(description="One kind of profile.")], ...],
        Meta(
            description="What is taken from a pod, in this order. A type that the target does not serve is skipped.",
            min_length=1,
            max_length=8,
            extra=PROMISED,
            extra_json_schema={"x-kubernetes-list-type": "set"},
        ),
    ] = (ProfileType.HEAP, ProfileType.CPU, ProfileType.GOROUTINE, ProfileType.MUTEX)
    cpu_seconds: Annotated[
        int, Meta(description="Length of CPU profiles and traces in seconds.", ge=1, le=600, extra=PROMISED)
    ] = 30
    s3_config: Annotated[S3Config | None, Meta(description="Keep profiles in an S3 bucket.")] = field(
        name="s3Config", default=None
    )
    collector: Annotated[
        CollectorSink | None, Meta(description="Keep profiles in the collector; {} means the configured one.")
    ] = None
    max_concurrent: Annotated[
        int,
        Meta(description="Captures of this configuration that may run at a time.", ge=1, le=100, extra=PROMISED),
    ] = 1
    suspend: Annotated[bool, Meta(description="True starts no new capture; what runs is finished.", extra=PROMISED)] = (
        False
    )

    def thresholds_in_force(self) -> Thresholds:
        """The thresholds with both percentages as numbers, 0 where one is off (D5)."""
        named = self.thresholds or Thresholds()
        cpu, memory = named.cpu_threshold_percent, named.memory_threshold_percent
        if cpu is None and memory is None and not (self.on_demand.enabled and self.thresholds is None):
            cpu, memory = DEFAULT_CPU_PERCENT, DEFAULT_MEMORY_PERCENT
        return replace(named, cpu_threshold_percent=cpu or 0, memory_threshold_percent=memory or 0)


class ProfilingConfig(Wire, frozen=True, kw_only=True):
    """Takes pprof profiles from pods that run hot, or at fixed intervals, and keeps them in S3 or in the collector."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta
    spec: Annotated[
        ProfilingConfigSpec,
        Meta(
            description="What is wanted.",
            extra_json_schema=rules(
                rule(
                    "has(self.s3Config) || has(self.collector)",
                    "a sink is missing: set s3Config with a bucket, or collector ({} for the configured one)",
                    "FieldValueRequired",
                    ".s3Config",
                ),
                rule(
                    "!has(self.s3Config) || !has(self.collector)",
                    "exactly one sink is allowed: remove either s3Config or collector",
                    "FieldValueForbidden",
                    ".collector",
                ),
            ),
        ),
    ]
    status: Annotated[ProfilingConfigStatus, Meta(description="What is the case; written by the operator.")] = (
        ProfilingConfigStatus()
    )

    @property
    def target_namespace(self) -> str:
        """Namespace of the pods that are watched."""
        return self.spec.selector.namespace or self.metadata.namespace


decode_profiling_config = Decoder(ProfilingConfig)
