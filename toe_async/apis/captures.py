"""The words that capture, sinks, collector and controllers share about one capture: whom, why, where to, what came out.

All are frozen and survive a trip through JSON: the spool keeps a CaptureRecord beside the bytes, so that a restarted
process can finish the delivery without asking anybody.
"""

from datetime import datetime
from typing import Literal

from toe_async.apis.meta import Wire
from toe_async.apis.reasons import Reason


class Target(Wire, frozen=True, kw_only=True):
    """One container of one pod, as it was when the capture was decided. Acting on another pod UID is forbidden."""

    namespace: str
    pod: str
    pod_uid: str
    container: str
    node: str
    labels: dict[str, str]
    service: str


class S3Ref(Wire, frozen=True, kw_only=True, tag="s3"):
    """A place in an S3 bucket. An empty endpoint is AWS's own; an empty secret means the operator's identity (D17)."""

    bucket: str
    prefix: str = ""
    region: str = ""
    endpoint: str = ""
    credentials_secret: str = ""


class CollectorRef(Wire, frozen=True, kw_only=True, tag="collector"):
    """The collector at one of the administrator's endpoints."""

    endpoint: str


SinkRef = S3Ref | CollectorRef

CaptureReason = Literal["threshold-exceeded", "on-demand", "scheduled"]


class CaptureRecord(Wire, frozen=True, kw_only=True):
    """All that is known when a capture is claimed. `id` is derived from the same facts by every replica (D1).

    Artifacts are named after `named_at`, so that who fetches one again gives it the same name; without it each is named
    after the instant at which it was received.
    """

    id: str
    group: str = "profiling.io"
    kind: str
    namespace: str
    name: str
    uid: str
    target: Target
    reason: CaptureReason
    trigger: str
    triggered_at: datetime
    holder: str
    sink: SinkRef
    matching_labels: dict[str, str]
    types: tuple[str, ...] = ()
    tool: str = "pprof"
    retention_days: int | None = None
    named_at: datetime | None = None


class ArtifactRecord(Wire, frozen=True, kw_only=True):
    """One file of a capture, whole in the spool. `verified` is False when only the peer's close told its end (D14)."""

    leaf: str
    type: str
    size: int
    sha256: str
    captured_at: datetime
    verified: bool


class Receipt(Wire, frozen=True, kw_only=True):
    """What a sink answers once the bytes are safe."""

    uri: str
    size: int
    sha256: str


class StoredLeaf(Wire, frozen=True, kw_only=True):
    """One artifact of a capture, as whoever keeps it tells."""

    leaf: str
    uri: str
    size: int
    sha256: str


class Standing(Wire, frozen=True, kw_only=True):
    """Where a registered capture stands. Only an open one takes uploads; a complete one has everything."""

    state: Literal["Open", "Complete", "Cancelled"]
    artifacts: tuple[StoredLeaf, ...] = ()


class NotStored(Wire, frozen=True, kw_only=True):
    """Something could not be stored or asked: why, in one word and one sentence. A final answer stays what it is."""

    reason: Reason
    message: str
    final: bool = False
