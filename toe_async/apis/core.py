"""Slices of the other foreign kinds that we use: namespaces, nodes, leases, Events, Secrets, tokens, metrics."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Raw, Struct, field

from toe_async.apis.meta import Decoder, ObjectMeta, ObjectRef, Wire
from toe_async.lib.durations import parse_duration
from toe_async.lib.quantities import parse_quantity

GRANT_ANNOTATIONS: Final[tuple[str, ...]] = ("profiling.io/allow-from", "bolometer.io/allow-from")
"""By these a namespace lets configurations of other namespaces reach its pods; the first that is there counts."""
POWERTOOLS_GRANT: Final = "toe.run/powertools-from"
"""By this a namespace lets PowerTools of other namespaces run in its pods: names and globs, separated by commas."""


class NamespaceObject(Struct, frozen=True, gc=False):
    """A namespace: its labels, and those of its annotations that grant something to other namespaces."""

    name: str
    resource_version: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


class Node(Struct, frozen=True, gc=False):
    """A node and what it can give to pods: CPU in cores, memory in bytes; 0 when the kubelet has not said yet."""

    name: str
    resource_version: str
    cpu: float
    memory: float


class _Object(Wire, frozen=True, kw_only=True):
    metadata: ObjectMeta


class _NodeStatus(Wire, frozen=True, kw_only=True):
    allocatable: dict[str, str] = field(default_factory=dict)


class _Node(Wire, frozen=True, kw_only=True):
    metadata: ObjectMeta
    status: _NodeStatus = _NodeStatus()


_decode_object = Decoder(_Object)
_decode_node = Decoder(_Node)


_GRANTS: Final = (*GRANT_ANNOTATIONS, POWERTOOLS_GRANT)


def decode_namespace(raw: bytes | Raw) -> NamespaceObject:
    """Raises msgspec.DecodeError for what is no namespace."""
    meta = _decode_object(raw).metadata
    grants = {key: meta.annotations[key] for key in _GRANTS if key in meta.annotations}
    return NamespaceObject(meta.name, meta.resource_version, meta.labels, grants)


def decode_node(raw: bytes | Raw) -> Node:
    """Raises msgspec.DecodeError for what is no node, a quantity that cannot be read included."""
    wire = _decode_node(raw)
    held = wire.status.allocatable
    return Node(
        wire.metadata.name,
        wire.metadata.resource_version,
        _quantity(held.get("cpu", "0")),
        _quantity(held.get("memory", "0")),
    )


class LeaseSpec(Wire, frozen=True, kw_only=True):
    """Who holds a lease and since when. All fields may be absent; an empty holder has given it up."""

    holder_identity: str = ""
    lease_duration_seconds: int = 0
    acquire_time: datetime | None = None
    renew_time: datetime | None = None
    lease_transitions: int = 0


class Lease(Wire, frozen=True, kw_only=True):
    """A coordination.k8s.io/v1 Lease."""

    metadata: ObjectMeta
    spec: LeaseSpec = LeaseSpec()


decode_lease = Decoder(Lease)


class EventSource(Wire, frozen=True, kw_only=True):
    """The component that reports an Event."""

    component: str = ""


class Event(Wire, frozen=True, kw_only=True):
    """A core/v1 Event, the form that `kubectl describe` lists. Times are in whole seconds."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta
    involved_object: ObjectRef = ObjectRef()
    type: str = ""
    reason: str = ""
    message: str = ""
    action: str = ""
    source: EventSource = EventSource()
    reporting_controller: str = field(name="reportingComponent", default="")
    reporting_instance: str = ""
    first_timestamp: datetime | None = None
    last_timestamp: datetime | None = None
    count: int = 0


class Secret(Wire, frozen=True, kw_only=True):
    """A Secret; `data` is decoded from base64 by msgspec. Never log one."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta
    type: str = ""
    data: dict[str, bytes] = field(default_factory=dict)


decode_secret = Decoder(Secret)


class BoundObject(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """The object whose end is the token's end."""

    api_version: str = "v1"
    kind: str
    name: str
    uid: str = ""


class TokenRequestSpec(Wire, frozen=True, kw_only=True):
    """What token is asked for. The server takes no less than 600 s and may give less than was asked."""

    audiences: tuple[str, ...]
    expiration_seconds: int = 3600
    bound_object_ref: BoundObject | None = None


class TokenRequestStatus(Wire, frozen=True, kw_only=True):
    """The token itself. Never log one."""

    token: str = ""
    expiration_timestamp: datetime | None = None


class TokenRequest(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """authentication.k8s.io/v1 TokenRequest: POST to a service account's `token` subresource."""

    api_version: str = "authentication.k8s.io/v1"
    kind: str = "TokenRequest"
    spec: TokenRequestSpec
    status: TokenRequestStatus | None = None


decode_token_request = Decoder(TokenRequest)


class UserInfo(Wire, frozen=True, kw_only=True):
    """Who somebody is, as the API server says."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = field(default_factory=dict)


class TokenReviewSpec(Wire, frozen=True, kw_only=True):
    """The token to be judged, and for whom it must have been issued."""

    token: str = ""
    audiences: tuple[str, ...] = ()


class TokenReviewStatus(Wire, frozen=True, kw_only=True):
    """The verdict. A token is good only when `authenticated` and the wanted audience is among `audiences`."""

    authenticated: bool = False
    user: UserInfo = UserInfo()
    audiences: tuple[str, ...] = ()
    error: str = ""


class TokenReview(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """authentication.k8s.io/v1 TokenReview."""

    api_version: str = "authentication.k8s.io/v1"
    kind: str = "TokenReview"
    spec: TokenReviewSpec = TokenReviewSpec()
    status: TokenReviewStatus | None = None


decode_token_review = Decoder(TokenReview)


class ResourceAttributes(Wire, frozen=True, kw_only=True):
    """One action on one resource."""

    verb: str
    resource: str
    group: str = ""
    version: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""


class SubjectAccessReviewSpec(Wire, frozen=True, kw_only=True):
    """Whether this user may do that."""

    resource_attributes: ResourceAttributes
    user: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = field(default_factory=dict)


class SubjectAccessReviewStatus(Wire, frozen=True, kw_only=True):
    """The answer; `denied` beats `allowed`."""

    allowed: bool = False
    denied: bool = False
    reason: str = ""


class SubjectAccessReview(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """authorization.k8s.io/v1 SubjectAccessReview."""

    api_version: str = "authorization.k8s.io/v1"
    kind: str = "SubjectAccessReview"
    spec: SubjectAccessReviewSpec
    status: SubjectAccessReviewStatus | None = None


decode_subject_access_review = Decoder(SubjectAccessReview)

Usage = tuple[float, float]


class PodUsage(Struct, frozen=True, gc=False):
    """What a pod's containers used over `window_seconds` before `timestamp`: name -> (CPU cores, memory bytes).

    A container that is absent is unknown, never zero; ephemeral containers are listed too and have to be left out by
    whoever sums.
    """

    namespace: str
    name: str
    timestamp: datetime
    window_seconds: float
    containers: dict[str, Usage]


class _Usage(Wire, frozen=True, kw_only=True):
    cpu: str | int | float = "0"
    memory: str | int | float = "0"


class _ContainerMetrics(Wire, frozen=True, kw_only=True):
    name: str
    usage: _Usage | None = None


class _MetricsMeta(Wire, frozen=True, kw_only=True):
    name: str
    namespace: str = ""


class _PodMetrics(Wire, frozen=True, kw_only=True):
    metadata: _MetricsMeta
    timestamp: datetime
    window: str = "0s"
    containers: tuple[_ContainerMetrics, ...] | None = None


class _PodMetricsList(Wire, frozen=True, kw_only=True):
    items: tuple[_PodMetrics, ...] | None = None


_decode_metrics = Decoder(_PodMetricsList)


def decode_pod_metrics_list(raw: bytes | Raw) -> list[PodUsage]:
    """The usage of every pod in a PodMetricsList. Raises msgspec.DecodeError."""
    return [_pod_usage(item) for item in _decode_metrics(raw).items or ()]


def _pod_usage(item: _PodMetrics) -> PodUsage:
    try:
        window = parse_duration(item.window).total_seconds()
    except ValueError as bad:
        raise msgspec.ValidationError(
            f"window {item.window[:60]!r} of pod {item.metadata.name!r} is no duration"
        ) from bad
    usage = {
        one.name: (_quantity(one.usage.cpu), _quantity(one.usage.memory))
        for one in item.containers or ()
        if one.usage is not None
    }
    return PodUsage(item.metadata.namespace, item.metadata.name, item.timestamp, window, usage)


def _quantity(value: str | float) -> float:
    if not isinstance(value, str):
        return float(value)
    # The two forms that metrics-server writes, a hundred thousand times a poll; all others go the exact way.
    number, suffix = value[:-1], value[-1:]
    if suffix == "n" and number.isdecimal():
        return int(number) / 1e9
    if value.endswith("Ki") and value[:-2].isdecimal():
        return int(value[:-2]) * 1024.0
    try:
        return float(parse_quantity(value))
    except ValueError as bad:
        raise msgspec.ValidationError(f"{value[:60]!r} is not a Kubernetes quantity") from bad
