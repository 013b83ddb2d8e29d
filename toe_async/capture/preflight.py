"""Everything that would keep a tool from running in a pod, found in one go before anything is asked for. Pure (U3).

The API server has the last word; what it would say is told here first and in full, with the way out.
"""

from typing import Any, Final

from msgspec import Struct

from toe_async.apis.core import NamespaceObject
from toe_async.apis.podspec import ContainerDetail, PodDetail, SecurityContext
from toe_async.apis.powertool import OutputMode
from toe_async.apis.powertoolconfig import PowerToolConfigSpec
from toe_async.apis.reasons import Reason
from toe_async.capture.refusals import Refused
from toe_async.capture.security import LEVEL_LABEL, chosen, level_faults, normal, security_context
from toe_async.capture.toolrun import ToolCapture
from toe_async.capture.vessels import container_name
from toe_async.lib.quantities import format_bytes, parse_quantity

MOST_EPHEMERAL_CONTAINERS: Final = 20
LARGEST_POD: Final = 1 << 20
"""Bytes of a pod's JSON; etcd takes 1.5 MiB, and a pod that is nearly as large can no longer be updated (H27)."""
NODE_AGENT_LABEL: Final = "profilepod.io/node-agent"


class Fitting(Struct, frozen=True, kw_only=True):
    """A tool fits: with this security context, and the volume of the claim that its output goes to."""

    security_context: dict[str, Any]
    volume: str = ""


def level_of(namespace: NamespaceObject | None) -> str:
    """The Pod Security level that a namespace enforces; `privileged` where it says nothing."""
    return (namespace.labels.get(LEVEL_LABEL) if namespace else None) or "privileged"


def host_pid(tool: PowerToolConfigSpec, level: str) -> bool:
    """Whether the tool runs in a pod of its own on the target's node."""
    return bool(chosen(tool, level).allow_host_pid)


def preflight(capture: ToolCapture, pod: PodDetail, namespace: NamespaceObject | None) -> Fitting | tuple[Refused, ...]:
    """What the tool gets, or everything that stands against it."""
    target, level = capture.target, level_of(namespace)
    where = f"pod {target.namespace}/{target.pod}"
    if pod.metadata.uid != target.pod_uid:
        return (Refused(Reason.POD_GONE, f"{where} is another one by now"),)
    if pod.metadata.deletion_timestamp is not None or pod.status.phase != "Running":
        return (Refused(Reason.POD_GONE, f"{where} is not running any more"),)
    found: list[Refused] = []
    status = pod.container_status(target.container)
    if pod.container(target.container) is None or status is None or status.state.running is None:
        found.append(
            Refused(Reason.TARGET_CONTAINER_MISSING, f"container {target.container} of {where} is not running")
        )
    user, group = _user_of(pod, target.container)
    context = security_context(chosen(capture.tool, level), user, group)
    volume = ""
    if host_pid(capture.tool, level):
        found += _agent_faults(capture, namespace, level)
    else:
        found += _ephemeral_faults(capture, pod, level, context)
        found += _host_network_faults(capture, pod, namespace, context)
    if capture.spec.output.mode == "pvc":
        held = _volume(capture, pod, level)
        if isinstance(held, Refused):
            found.append(held)
        else:
            volume = held
    return tuple(found) if found else Fitting(security_context=context, volume=volume)


def output_fault(mode: OutputMode, tool: PowerToolConfigSpec, level: str) -> Refused | None:
    """A claim can only be mounted where the pod already has it, which a pod of its own does not."""
    if mode == "pvc" and host_pid(tool, level):
        return Refused(
            Reason.INVALID_SPEC,
            f"tool {tool.name} runs in a pod of its own (allowHostPID), which has no claim of the target's; "
            "use output.mode collector, s3 or ephemeral",
        )
    return None


def _user_of(pod: PodDetail, container: str) -> tuple[int | None, int | None]:
    """User and group of the target: as the kubelet tells them, else as the pod's author wrote them."""
    status, detail = pod.container_status(container), pod.container(container)
    if status is not None and status.user is not None and status.user.linux is not None:
        return status.user.linux.uid, status.user.linux.gid
    own, whole = detail.security_context if detail is not None else SecurityContext(), pod.spec.security_context
    user = whole.run_as_user if own.run_as_user is None else own.run_as_user
    return user, whole.run_as_group if own.run_as_group is None else own.run_as_group


def _agent_faults(capture: ToolCapture, namespace: NamespaceObject | None, level: str) -> list[Refused]:
    label = namespace.labels.get(NODE_AGENT_LABEL) if namespace else None
    if label == "true" or (label is None and level == "privileged"):
        return []
    return [
        Refused(
            Reason.POD_SECURITY_DENIED,
            f"tool {capture.tool.name} needs a pod on the node that sees all processes; namespace "
            f"{capture.target.namespace} ({level}) must allow it by the label {NODE_AGENT_LABEL}=true",
        )
    ]


def _host_network_faults(
    capture: ToolCapture, pod: PodDetail, namespace: NamespaceObject | None, context: dict[str, Any]
) -> list[Refused]:
    """A tool beside a pod with the node's network would change the network of everybody on that node."""
    added = {normal(one) for one in (context.get("capabilities") or {}).get("add") or ()}
    powerful = "NET_ADMIN" in added or bool(context.get("privileged"))
    allowed = namespace is not None and namespace.labels.get(NODE_AGENT_LABEL) == "true"
    if not pod.spec.host_network or not powerful or allowed:
        return []
    target = capture.target
    return [
        Refused(
            Reason.HOST_NETWORK_REFUSED,
            f"pod {target.namespace}/{target.pod} uses the node's network, which tool {capture.tool.name} could change "
            f"for the whole node; choose a pod with a network of its own, or label namespace {target.namespace} with "
            f"{NODE_AGENT_LABEL}=true",
        )
    ]


def _ephemeral_faults(capture: ToolCapture, pod: PodDetail, level: str, context: dict[str, Any]) -> list[Refused]:
    target, tool = capture.target, capture.tool.name
    where = f"pod {target.namespace}/{target.pod}"
    found = []
    if faults := level_faults(level, context):
        found.append(
            Refused(
                Reason.POD_SECURITY_DENIED,
                f"namespace {target.namespace} enforces Pod Security level {level}, which does not take {_and(faults)} "
                f"of tool {tool}; use a namespace with another level, or give the tool a securityProfile for {level}",
            )
        )
    # Another try of the same capture does not count: its container is there already.
    others = [one for one in pod.spec.ephemeral_containers if one.name != container_name(capture.id)]
    if len(others) >= MOST_EPHEMERAL_CONTAINERS or pod.size >= LARGEST_POD:
        found.append(
            Refused(
                Reason.TOO_MANY_EPHEMERAL_CONTAINERS,
                f"{where} has {len(others)} ephemeral containers and {pod.size} bytes; they stay until the pod is "
                f"replaced, and {MOST_EPHEMERAL_CONTAINERS} are the most: delete the pod",
            )
        )
    most, needed = _most_memory(pod), capture.tool.resources.requests.memory
    if most is not None and needed and most < parse_quantity(needed):
        found.append(
            Refused(
                Reason.HARM_GUARD,
                f"{where} may use {format_bytes(most)} of memory in all, and tool {tool} asks for {needed}: one "
                "of them would be killed; raise the limits of its containers, or choose another pod",
            )
        )
    for old in others:
        if faults := level_faults(level, _context_of(old)):
            found.append(
                Refused(
                    Reason.POD_SECURITY_DENIED,
                    f"{where} holds the ephemeral container {old.name}, made before its namespace enforced {level}; "
                    f"its {_and(faults)} make the API server refuse every later one: replace the pod",
                )
            )
            break
    return found


def _most_memory(pod: PodDetail) -> int | None:
    """What all containers of a pod may use together, ours included; None while one of them has no limit."""
    limits = [one.resources.limits.get("memory") for one in (*pod.spec.containers, *pod.spec.init_containers)]
    try:
        return sum(int(parse_quantity(str(one))) for one in limits) if None not in limits else None
    except ValueError:
        return None


def _volume(capture: ToolCapture, pod: PodDetail, level: str) -> str | Refused:
    if (fault := output_fault("pvc", capture.tool, level)) is not None:
        return fault
    claim = capture.spec.output.pvc.claim_name if capture.spec.output.pvc else ""
    volume = pod.volume_of_claim(claim)
    if volume is None:
        return Refused(
            Reason.VOLUME_NOT_MOUNTED,
            f"pod {capture.target.namespace}/{capture.target.pod} has no volume of claim {claim}; "
            "an ephemeral container can only use volumes that the pod has",
        )
    return volume.name


def _context_of(container: ContainerDetail) -> dict[str, Any]:
    held = container.security_context
    return {
        "privileged": held.privileged,
        "capabilities": {"add": held.capabilities.add, "drop": held.capabilities.drop},
        "runAsNonRoot": held.run_as_non_root,
        "runAsUser": held.run_as_user,
        "allowPrivilegeEscalation": held.allow_privilege_escalation,
        "seccompProfile": {"type": held.seccomp_profile.type} if held.seccomp_profile else None,
    }


def _and(faults: tuple[str, ...]) -> str:
    return " and ".join((", ".join(faults[:-1]), faults[-1])) if len(faults) > 1 else faults[0]
