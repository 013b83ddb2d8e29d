"""Pods as we hold them: flat, small, and sharing everything that many pods have in common.

A pod's JSON is about 8 KB, of which we need a few hundred bytes. Only the fields named here are decoded; equal label
sets and equal container lists are one object in memory (a Deployment's pods differ in neither), and the values of
annotations that do not concern us are never looked at; nor are volumes without a claim, and ephemeral containers that
are none of our tools. A pool that reaches its bound is emptied: sharing starts over, held pods stay valid.
"""

import sys
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct, field

from toe_async.apis.meta import Decoder, OwnerReference, Wire, without_nulls
from toe_async.lib.quantities import parse_quantity

ANNOTATION_PREFIXES: Final = ("profiling.io/", "bolometer.io/")
DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"
TOOL_PREFIX: Final = "toe-"
"""What the names of our own ephemeral containers begin with; the admission policy of the operator holds it to that."""
POOL_LIMIT: Final = 50_000
"""Distinct label sets or container lists that are shared at most; some 20 MB when every one is distinct."""

Port = tuple[str, int]


class Container(Struct, frozen=True, gc=False):
    """A container that counts as the pod's own: CPU in cores, memory in bytes, None where nothing is declared."""

    name: str
    sidecar: bool
    ports: tuple[Port, ...]
    cpu_request: float | None
    cpu_limit: float | None
    memory_request: float | None
    memory_limit: float | None


class ToolContainer(Struct, frozen=True, gc=False):
    """An ephemeral container of ours, from spec and status; `state` is empty until the kubelet has said something.

    `target` is the container whose processes it sees. `reason` and `message` are the kubelet's words for a waiting one,
    the termination message for one that has ended.
    """

    name: str
    target: str
    state: Literal["", "waiting", "running", "terminated"]
    reason: str
    message: str
    exit_code: int | None
    started_at: datetime | None
    finished_at: datetime | None
    image_id: str


class Pod(Struct, frozen=True, gc=False):
    """The slice of a pod that decisions use. `containers` are spec.containers, then restartable init containers.

    `owner_*` is the controlling owner, empty without one. `annotations` holds our keys only. `mirror` tells of a static
    pod, `os` is what spec.os says (mostly nothing), `claims` are the claims among its volumes.
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    phase: str
    node: str
    ip: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    terminating: bool
    host_network: bool
    ready: bool
    owner_kind: str
    owner_name: str
    start_time: datetime | None
    containers: tuple[Container, ...]
    created: datetime | None = None
    mirror: bool = False
    os: str = ""
    claims: tuple[str, ...] = ()
    tools: tuple[ToolContainer, ...] = ()


Amount = str | int | float | None


class _Amounts(Wire, frozen=True, kw_only=True):
    cpu: Amount = None
    memory: Amount = None


class _Resources(Wire, frozen=True, kw_only=True):
    requests: _Amounts | None = None
    limits: _Amounts | None = None


class _Port(Wire, frozen=True, kw_only=True):
    name: str = ""
    container_port: int = 0


class _Container(Wire, frozen=True, kw_only=True):
    name: str = ""
    ports: tuple[_Port, ...] | None = None
    resources: _Resources | None = None
    restart_policy: str | None = None


_NOTHING = Raw(b"")


class _Os(Wire, frozen=True, kw_only=True):
    name: str = ""


class _Spec(Wire, frozen=True, kw_only=True):
    node_name: str = ""
    host_network: bool = False
    os: _Os | None = None
    containers: tuple[_Container, ...] | None = None
    init_containers: tuple[_Container, ...] | None = None
    ephemeral_containers: Raw = _NOTHING
    volumes: Raw = _NOTHING


class _Condition(Wire, frozen=True, kw_only=True):
    type: str = ""
    status: str = ""


class _Status(Wire, frozen=True, kw_only=True):
    phase: str = ""
    pod_ip: str = field(name="podIP", default="")
    start_time: datetime | None = None
    conditions: tuple[_Condition, ...] | None = None
    ephemeral_container_statuses: Raw = _NOTHING


class ClaimSource(Wire, frozen=True, kw_only=True):
    """A claim that a volume names."""

    claim_name: str = ""
    read_only: bool = False


class GenericEphemeral(Wire, frozen=True, kw_only=True):
    """A volume whose claim is made with the pod."""


class _Volume(Wire, frozen=True, kw_only=True):
    name: str = ""
    persistent_volume_claim: ClaimSource | None = None
    ephemeral: GenericEphemeral | None = None


class _Ephemeral(Wire, frozen=True, kw_only=True):
    name: str = ""
    target_container_name: str = ""


class _Waiting(Wire, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""


class _Running(Wire, frozen=True, kw_only=True):
    started_at: datetime | None = None


class _Terminated(Wire, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


class _State(Wire, frozen=True, kw_only=True):
    waiting: _Waiting | None = None
    running: _Running | None = None
    terminated: _Terminated | None = None


class _EphemeralStatus(Wire, frozen=True, kw_only=True):
    name: str = ""
    image_id: str = field(name="imageID", default="")
    state: _State = _State()


class _Metadata(Wire, frozen=True, kw_only=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: str | None = None
    labels: Raw = _NOTHING
    annotations: Raw = _NOTHING
    owner_references: tuple[OwnerReference, ...] | None = None


class _Pod(Wire, frozen=True, kw_only=True):
    metadata: _Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()


_NO_MAP: Final[Mapping[str, str]] = MappingProxyType({})
_decode_volumes = Decoder(tuple[_Volume, ...])
_decode_ephemerals = Decoder(tuple[_Ephemeral, ...])
_decode_ephemeral_statuses = Decoder(tuple[_EphemeralStatus, ...])
_Declared = tuple[tuple[_Container, ...] | None, tuple[_Container, ...] | None]


class PodDecoder:
    """Decodes one pod at a time and shares what it can. Not for several threads. One decoder an informer."""

    def __init__(self) -> None:
        self._typed = msgspec.json.Decoder(_Pod)
        self._map = msgspec.json.Decoder(dict[str, str | None])
        self._labels: dict[bytes, Mapping[str, str]] = {}
        self._containers: dict[_Declared, tuple[Container, ...]] = {}
        self._claims: dict[tuple[str, ...], tuple[str, ...]] = {}

    def reset(self) -> None:
        """Forgets the shared parts; call it at a resync, so that what died out is freed."""
        self._labels.clear()
        self._containers.clear()
        self._claims.clear()

    def decode(self, raw: bytes | Raw) -> Pod:
        """The pod in `raw`. Nulls count as absent. Raises msgspec.DecodeError; the bytes are not kept alive."""
        try:
            wire = self._typed.decode(raw)
        except msgspec.ValidationError:
            plain = msgspec.json.encode(without_nulls(msgspec.json.decode(raw)))
            wire = self._typed.decode(plain)
        meta, spec, status = wire.metadata, wire.spec, wire.status
        owner_kind = owner_name = ""
        for owner in meta.owner_references or ():
            if owner.controller:
                owner_kind, owner_name = sys.intern(owner.kind), sys.intern(owner.name)
        return Pod(
            sys.intern(meta.namespace),
            meta.name,
            meta.uid,
            meta.resource_version,
            sys.intern(status.phase),
            sys.intern(spec.node_name),
            status.pod_ip,
            self._labels_of(meta.labels),
            self._annotations_of(meta.annotations),
            meta.deletion_timestamp is not None,
            spec.host_network,
            _is_ready(status.conditions),
            owner_kind,
            owner_name,
            status.start_time,
            self._containers_of(spec),
            # One object for two equal instants: a pod mostly starts in the second in which it is made.
            status.start_time if meta.creation_timestamp == status.start_time else meta.creation_timestamp,
            b"config.mirror" in bytes(meta.annotations) and MIRROR_ANNOTATION in self._strings(bytes(meta.annotations)),
            sys.intern(spec.os.name) if spec.os else "",
            self._claims_of(meta.name, spec.volumes),
            _tools(spec.ephemeral_containers, status.ephemeral_container_statuses),
        )

    def _claims_of(self, pod: str, raw: Raw) -> tuple[str, ...]:
        text = bytes(raw)
        if b"persistentVolumeClaim" not in text and b"volumeClaimTemplate" not in text:
            return ()
        held = (
            claim_of(pod, one.name, one.persistent_volume_claim or ClaimSource(), generic=one.ephemeral is not None)
            for one in _decode_volumes(text)
        )
        found = tuple(claim for claim in held if claim)
        if len(self._claims) >= POOL_LIMIT:
            self._claims.clear()
        return self._claims.setdefault(found, found)

    def _labels_of(self, raw: Raw) -> Mapping[str, str]:
        key = bytes(raw)
        held = self._labels.get(key)
        if held is None:
            held = self._strings(key)
            if len(self._labels) >= POOL_LIMIT:
                self._labels.clear()
            self._labels[key] = held
        return held

    def _annotations_of(self, raw: Raw) -> Mapping[str, str]:
        text = bytes(raw)
        # Bytes are searched before anything is decoded: most pods carry kilobytes of annotations and none of ours. The
        # slash is left out of the search, since JSON may write it escaped.
        if b"profiling.io" not in text and b"bolometer.io" not in text and b"default-container" not in text:
            return _NO_MAP
        ours = {
            sys.intern(key): value
            for key, value in self._strings(text).items()
            if key.startswith(ANNOTATION_PREFIXES) or key == DEFAULT_CONTAINER
        }
        return MappingProxyType(ours) if ours else _NO_MAP

    def _strings(self, text: bytes) -> Mapping[str, str]:
        if text in {b"", b"null"}:
            return _NO_MAP
        return MappingProxyType({key: value for key, value in self._map.decode(text).items() if value is not None})

    def _containers_of(self, spec: _Spec) -> tuple[Container, ...]:
        key = (spec.containers, spec.init_containers)
        held = self._containers.get(key)
        if held is None:
            own = [_container(one, sidecar=False) for one in spec.containers or ()]
            own += [
                _container(one, sidecar=True) for one in spec.init_containers or () if one.restart_policy == "Always"
            ]
            held = tuple(own)
            if len(self._containers) >= POOL_LIMIT:
                self._containers.clear()
            self._containers[key] = held
        return held


def claim_of(pod: str, volume: str, named: ClaimSource, *, generic: bool) -> str:
    """The claim behind a volume; the one of a generic ephemeral volume is called POD-VOLUME (Kubernetes' rule)."""
    return named.claim_name or (f"{pod}-{volume}" if generic else "")


def _tools(declared: Raw, statuses: Raw) -> tuple[ToolContainer, ...]:
    if b"toe-" not in bytes(declared):
        return ()
    ours = [one for one in _decode_ephemerals(declared) if one.name.startswith(TOOL_PREFIX)]
    said = bytes(statuses)
    known = {one.name: one for one in _decode_ephemeral_statuses(said)} if said not in {b"", b"null"} else {}
    return tuple(_tool(one, known.get(one.name, _EphemeralStatus())) for one in ours)


def _tool(declared: _Ephemeral, status: _EphemeralStatus) -> ToolContainer:
    name, target, image = declared.name, declared.target_container_name, status.image_id
    match status.state:
        case _State(terminated=_Terminated() as ended):
            instants = ended.started_at, ended.finished_at
            return ToolContainer(
                name, target, "terminated", ended.reason, ended.message, ended.exit_code, *instants, image
            )
        case _State(running=_Running(started_at=since)):
            return ToolContainer(name, target, "running", "", "", None, since, None, image)
        case _State(waiting=_Waiting() as held):
            return ToolContainer(name, target, "waiting", held.reason, held.message, None, None, None, image)
        case _:
            return ToolContainer(name, target, "", "", "", None, None, None, image)


def _is_ready(conditions: tuple[_Condition, ...] | None) -> bool:
    for one in conditions or ():
        if one.type == "Ready":
            return one.status == "True"
    return False


def _container(wire: _Container, *, sidecar: bool) -> Container:
    resources = wire.resources or _Resources()
    requests, limits = resources.requests or _Amounts(), resources.limits or _Amounts()
    return Container(
        name=wire.name,
        sidecar=sidecar,
        ports=tuple((port.name, port.container_port) for port in wire.ports or ()),
        cpu_request=_amount(requests.cpu),
        cpu_limit=_amount(limits.cpu),
        memory_request=_amount(requests.memory),
        memory_limit=_amount(limits.memory),
    )


def _amount(value: Amount) -> float | None:
    if isinstance(value, str):
        try:
            return float(parse_quantity(value))
        except ValueError as bad:
            raise msgspec.ValidationError(f"resource amount {value[:60]!r} is not a Kubernetes quantity") from bad
    return None if value is None else float(value)
