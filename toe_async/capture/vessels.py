"""The container that a tool runs in: an ephemeral one of the target's pod, or a pod of its own on the same node. Pure.

Everything that a capture makes is named after its id, so a second try finds what the first one made. Nothing that is
secret and nothing that an author wrote is part of it: orders come over stdin, and the arguments name only their digest.
"""

from typing import Any, Final

from toe_async.agent.protocol import SUPERVISOR
from toe_async.apis.captures import Target

PREFIX: Final = "toe-"
CLAIM_MOUNT: Final = "/toe/pvc"
CAPTURE_LABEL: Final = "toe.run/capture"
TARGET_LABEL: Final = "toe.run/target-uid"
MANAGED_LABELS: Final = {"app.kubernetes.io/managed-by": "toe-async", "app.kubernetes.io/name": "toe-agent"}
WAIT_SECONDS: Final = 900
"""How long a tool's container waits for orders before it ends by itself."""
_SHORT: Final = 20
_AGENT_MEMORY: Final = "256Mi"


def container_name(capture_id: str) -> str:
    """The name of the capture's ephemeral container, agent pod and of the agent pod's container."""
    return f"{PREFIX}{capture_id[:_SHORT]}"


def ephemeral_patch(
    capture_id: str,
    *,
    pod_uid: str,
    image: str,
    orders_digest: str,
    security_context: dict[str, Any],
    target_container: str,
    volume: str = "",
) -> dict[str, Any]:
    """The strategic merge patch of `pods/ephemeralcontainers`; harmless when repeated, a conflict for another pod."""
    container = _container(capture_id, image, orders_digest, security_context)
    container["targetContainerName"] = target_container
    if volume:
        container["volumeMounts"] = [{"name": volume, "mountPath": CLAIM_MOUNT}]
    return {"metadata": {"uid": pod_uid}, "spec": {"ephemeralContainers": [container]}}


def agent_pod(
    capture_id: str,
    *,
    namespace: str,
    target: Target,
    image: str,
    orders_digest: str,
    security_context: dict[str, Any],
    deadline_seconds: int,
) -> dict[str, Any]:
    """A pod on the target's node that sees all of its processes. It ends with its deadline whatever becomes of us."""
    container = _container(capture_id, image, orders_digest, security_context)
    container["resources"] = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": _AGENT_MEMORY}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": container_name(capture_id),
            "namespace": namespace,
            "labels": {**MANAGED_LABELS, CAPTURE_LABEL: capture_id, TARGET_LABEL: target.pod_uid},
        },
        "spec": {
            "nodeName": target.node,
            "hostPID": True,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 15,
            "activeDeadlineSeconds": deadline_seconds,
            # The target's node may carry any taint; a pod that names its node is still evicted by NoExecute ones.
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        },
    }


def _container(capture_id: str, image: str, orders_digest: str, security_context: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": container_name(capture_id),
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [SUPERVISOR],
        "args": ["run", "--capture", capture_id, "--orders", orders_digest, "--wait", str(WAIT_SECONDS)],
        "stdin": True,
        "stdinOnce": False,
        "tty": False,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "securityContext": security_context,
    }
