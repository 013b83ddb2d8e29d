"""Pods as we hold them: flat, small, and sharing everything that many pods have in common.

A pod's JSON is about 8 KB, of which we need a few hundred bytes. Only the fields named here are decoded; equal label
sets and equal container lists are one object in memory (a Deployment's pods differ in neither), and the values of
annotations that do not concern us are never looked at. A pool that reaches its bound is emptied: sharing starts over,
held pods stay valid.
"""

import sys
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import Raw, Struct, field

from toe_async.apis.meta import OwnerReference, Wire, without_nulls
from toe_async.lib.quantities import parse_quantity

ANNOTATION_PREFIXES: Final = ("profiling.io/", "bolometer.io/")
DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
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


class Pod(Struct, frozen=True, gc=False):
    """The slice of a pod that decisions use. `containers` are spec.containers, then restartable init containers.

    `owner_*` is the controlling owner, empty without one. `annotations` holds our keys only.
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


class _Spec(Wire, frozen=True, kw_only=True):
    node_name: str = ""
    host_network: bool = False
    containers: tuple[_Container, ...] | None = None
    init_containers: tuple[_Container, ...] | None = None


class _Condition(Wire, frozen=True, kw_only=True):
    type: str = ""
    status: str = ""


class _Status(Wire, frozen=True, kw_only=True):
    phase: str = ""
    pod_ip: str = field(name="podIP", default="")
    start_time: datetime | None = None
    conditions: tuple[_Condition, ...] | None = None


_NOTHING = Raw(b"")


class _Metadata(Wire, frozen=True, kw_only=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None
    labels: Raw = _NOTHING
    annotations: Raw = _NOTHING
    owner_references: tuple[OwnerReference, ...] | None = None


class _Pod(Wire, frozen=True, kw_only=True):
    metadata: _Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()


_NO_MAP: Final[Mapping[str, str]] = MappingProxyType({})
_Declared = tuple[tuple[_Container, ...] | None, tuple[_Container, ...] | None]


class PodDecoder:
    """Decodes one pod at a time and shares what it can. Not for several threads. One decoder an informer."""

    def __init__(self) -> None:
        self._typed = msgspec.json.Decoder(_Pod)
        self._map = msgspec.json.Decoder(dict[str, str | None])
        self._labels: dict[bytes, Mapping[str, str]] = {}
        self._containers: dict[_Declared, tuple[Container, ...]] = {}

    def reset(self) -> None:
        """Forgets the shared parts; call it at a resync, so that what died out is freed."""
        self._labels.clear()
        self._containers.clear()

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
        )

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
