"""One pod in all the detail that attaching a tool to it needs, read once for an attempt and kept by nobody.

The informers' `apis.pods.Pod` is the small slice that a hundred thousand pods are held as; this is the large one.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Raw, field

from toe_async.apis.meta import Decoder, ObjectMeta, Wire
from toe_async.apis.pods import Amount, ClaimSource, GenericEphemeral, claim_of

ContainerKind = Literal["container", "init", "ephemeral"]


class DetailMeta(ObjectMeta, frozen=True, kw_only=True):
    """Metadata with the beginning and the announced end of a pod."""

    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class SeccompProfile(Wire, frozen=True, kw_only=True):
    """Which system calls are filtered."""

    type: str = ""
    localhost_profile: str = ""


class ContainerCapabilities(Wire, frozen=True, kw_only=True):
    """Capabilities as a pod's author wrote them."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SecurityContext(Wire, frozen=True, kw_only=True):
    """Of one container; None is inherited from the pod's, else from the image."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    privileged: bool | None = None
    allow_privilege_escalation: bool | None = None
    read_only_root_filesystem: bool | None = None
    capabilities: ContainerCapabilities = ContainerCapabilities()
    seccomp_profile: SeccompProfile | None = None


class PodSecurityContext(Wire, frozen=True, kw_only=True):
    """Of the whole pod: what containers inherit."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    seccomp_profile: SeccompProfile | None = None


class Volume(Wire, frozen=True, kw_only=True):
    """A volume; only claims are told apart from the rest."""

    name: str
    persistent_volume_claim: ClaimSource | None = None
    ephemeral: GenericEphemeral | None = None


class VolumeMount(Wire, frozen=True, kw_only=True):
    """Where a container sees a volume."""

    name: str
    mount_path: str = ""
    sub_path: str = ""
    read_only: bool = False


class ResourceAmounts(Wire, frozen=True, kw_only=True):
    """Quantities by resource name, as written."""

    requests: dict[str, Amount] = field(default_factory=dict)
    limits: dict[str, Amount] = field(default_factory=dict)


class ContainerDetail(Wire, frozen=True, kw_only=True):
    """A container of any of the three kinds. `target_container_name` is of ephemeral ones."""

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    restart_policy: str = ""
    target_container_name: str = ""
    security_context: SecurityContext = SecurityContext()
    volume_mounts: tuple[VolumeMount, ...] = ()
    resources: ResourceAmounts = ResourceAmounts()


class Waiting(Wire, frozen=True, kw_only=True):
    """Not started yet, in the kubelet's words."""

    reason: str = ""
    message: str = ""


class Running(Wire, frozen=True, kw_only=True):
    """Runs."""

    started_at: datetime | None = None


class Terminated(Wire, frozen=True, kw_only=True):
    """Has ended. `message` is what it wrote to its termination log."""

    reason: str = ""
    message: str = ""
    exit_code: int = 0
    signal: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None


class ContainerState(Wire, frozen=True, kw_only=True):
    """At most one of the three is set."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class LinuxUser(Wire, frozen=True, kw_only=True):
    """Who the first process runs as."""

    uid: int
    gid: int = 0


class ContainerUser(Wire, frozen=True, kw_only=True):
    """Who the first process runs as, by operating system."""

    linux: LinuxUser | None = None


class ContainerStatus(Wire, frozen=True, kw_only=True):
    """What the kubelet says of one container."""

    name: str
    container_id: str = field(name="containerID", default="")
    image_id: str = field(name="imageID", default="")
    ready: bool = False
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()
    user: ContainerUser | None = None


class PodOs(Wire, frozen=True, kw_only=True):
    """The operating system that the author names."""

    name: str = ""


class PodSpec(Wire, frozen=True, kw_only=True):
    """What the pod is to be."""

    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False
    host_pid: bool = field(name="hostPID", default=False)
    share_process_namespace: bool = False
    os: PodOs = PodOs()
    security_context: PodSecurityContext = PodSecurityContext()
    volumes: tuple[Volume, ...] = ()
    containers: tuple[ContainerDetail, ...] = ()
    init_containers: tuple[ContainerDetail, ...] = ()
    ephemeral_containers: tuple[ContainerDetail, ...] = ()


class PodStatus(Wire, frozen=True, kw_only=True):
    """What the pod is. `reason` and `message` are a node's that refuses or evicts it."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = field(name="podIP", default="")
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    ephemeral_container_statuses: tuple[ContainerStatus, ...] = ()


class PodDetail(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A pod with everything that preflight, orders and vessels read. `size` is that of its JSON in bytes."""

    metadata: DetailMeta = DetailMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()
    size: int = 0

    def all_containers(self) -> Iterator[tuple[ContainerKind, ContainerDetail]]:
        """Every container with its kind, in the order main, init, ephemeral."""
        for one in self.spec.containers:
            yield "container", one
        for one in self.spec.init_containers:
            yield "init", one
        for one in self.spec.ephemeral_containers:
            yield "ephemeral", one

    def container(self, name: str) -> ContainerDetail | None:
        """The container of that name, whatever its kind: names are unique in a pod."""
        return next((one for _, one in self.all_containers() if one.name == name), None)

    def container_status(self, name: str) -> ContainerStatus | None:
        """What the kubelet says of the container of that name; None before it has said anything."""
        held = self.status
        statuses = (*held.container_statuses, *held.init_container_statuses, *held.ephemeral_container_statuses)
        return next((one for one in statuses if one.name == name), None)

    def volume_of_claim(self, claim: str) -> Volume | None:
        """The volume through which the pod has a claim, that of a generic ephemeral volume included."""
        return next((one for one in self.spec.volumes if claim == self._claim(one) != ""), None)

    def _claim(self, volume: Volume) -> str:
        named = volume.persistent_volume_claim or ClaimSource()
        return claim_of(self.metadata.name, volume.name, named, generic=volume.ephemeral is not None)


_decode = Decoder(PodDetail)


def decode_pod_detail(raw: bytes | Raw) -> PodDetail:
    """The pod in `raw`; nulls count as absent, the pod keeps none of the bytes. Raises msgspec.DecodeError."""
    return msgspec.structs.replace(_decode(raw), size=len(bytes(raw)))
