"""Every reason that a condition, an Event, a capture or a metric label may carry. Stable: alerts rely on them."""

from enum import StrEnum


class Reason(StrEnum):
    """One CamelCase word for why something is as it is. Grouped by where it appears first."""

    # A configuration is taken or refused (condition Accepted).
    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    POLICY_MISSING = "PolicyMissing"
    NAMESPACE_NOT_GRANTED = "NamespaceNotGranted"
    SINK_NOT_ALLOWED = "SinkNotAllowed"
    CREDENTIALS_MISSING = "CredentialsMissing"

    # It works, or why it does not (conditions Ready and Degraded).
    WATCHING = "Watching"
    SUSPENDED = "Suspended"
    NO_MATCHING_PODS = "NoMatchingPods"
    NO_OPTED_IN_PODS = "NoOptedInPods"
    WATCH_FORBIDDEN = "WatchForbidden"
    AS_EXPECTED = "AsExpected"
    CAPTURES_FAILING = "CapturesFailing"
    STORE_REACHABLE = "StoreReachable"
    STORE_UNREACHABLE = "StoreUnreachable"
    STORE_NOT_PROBED = "StoreNotProbed"
    METRICS_AVAILABLE = "MetricsAvailable"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    METRICS_NOT_NEEDED = "MetricsNotNeeded"

    # Why a pod was not captured (status.notFired).
    BELOW_THRESHOLD = "BelowThreshold"
    NOT_SUSTAINED = "NotSustained"
    NOT_RISING = "NotRising"
    NOT_REARMED = "NotRearmed"
    COOLDOWN = "Cooldown"
    COOLDOWN_TABLE_FULL = "CooldownTableFull"
    BUSY = "Busy"
    NO_BASE = "NoBase"
    METRICS_STALE = "MetricsStale"
    METRICS_ABSENT = "MetricsAbsent"
    POD_NOT_RUNNING = "PodNotRunning"
    BAD_ANNOTATION = "BadAnnotation"
    HOST_NETWORK_REFUSED = "HostNetworkRefused"
    TARGET_CONTAINER_MISSING = "TargetContainerMissing"

    # How a capture went (status.recent, Events, metrics).
    CAPTURE_STARTED = "CaptureStarted"
    CAPTURE_STORED = "CaptureStored"
    CAPTURE_PARTIALLY_STORED = "CapturePartiallyStored"
    CAPTURE_FAILED = "CaptureFailed"
    CAPTURE_LOST = "CaptureLost"
    CAPTURE_TIMED_OUT = "CaptureTimedOut"
    PORT_REFUSED = "PortRefused"
    PORT_FORWARD_FAILED = "PortForwardFailed"
    PROFILE_MISSING = "ProfileMissing"
    PROFILER_BUSY = "ProfilerBusy"
    TARGET_ERROR = "TargetError"
    NOT_A_PROFILE = "NotAProfile"
    TRUNCATED = "Truncated"
    TOO_LARGE = "TooLarge"
    UNVERIFIED_LENGTH = "UnverifiedLength"
    POD_GONE = "PodGone"
    CANCELLED = "Cancelled"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    REPLICA_GONE = "ReplicaGone"
    NOT_AUTHORIZED = "NotAuthorized"

    # How the bytes fared on their way to the sink.
    UPLOAD_RETRYING = "UploadRetrying"
    UPLOAD_FAILED = "UploadFailed"
    STORE_FULL = "StoreFull"
    CONFLICTED = "Conflicted"
    SPOOL_DAMAGED = "SpoolDamaged"
