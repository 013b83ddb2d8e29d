"""What a kubelet reports about a pod, from the states of its containers. Pure but for our own user ids."""

import os
from typing import Literal

from msgspec import Struct

from toe_async.sandbox.status import JsonObject


class ContainerState(Struct, frozen=True):
    """Where one container is in its life. Times are RFC 3339 texts, "" when there is none."""

    name: str
    phase: Literal["waiting", "running", "terminated"] = "waiting"
    reason: str = "ContainerCreating"
    message: str = ""
    started_at: str = ""
    finished_at: str = ""
    exit_code: int = 0
    restarts: int = 0
    ready: bool = False
    container_id: str = ""
    image_id: str = ""
    last: JsonObject = {}

    def body(self) -> JsonObject:
        """The `state` of a container status."""
        if self.phase == "running":
            return {"running": {"startedAt": self.started_at}}
        if self.phase == "waiting":
            return {"waiting": {"reason": self.reason, **({"message": self.message} if self.message else {})}}
        state = {
            "exitCode": self.exit_code,
            "reason": self.reason,
            **({"message": self.message} if self.message else {}),
            "startedAt": self.started_at,
            "finishedAt": self.finished_at,
            "containerID": self.container_id,
        }
        return {"terminated": state}


def restarts(policy: str, exit_code: int) -> bool:
    """Whether a container that ended is started again."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def backoff_seconds(restart_count: int) -> float:
    """Wait before a restart: none before the first, then 10 s doubled to at most 5 minutes."""
    return 0.0 if restart_count == 0 else min(10.0 * 2.0 ** (restart_count - 1), 300.0)


def phase(policy: str, states: list[ContainerState], init: list[ContainerState]) -> str:
    """The pod's phase: by its ordinary containers, or Failed by an init container that is not tried again."""
    if policy == "Never" and any(one.phase == "terminated" and one.exit_code for one in init):
        return "Failed"
    ended = [one for one in states if one.phase == "terminated" and not restarts(policy, one.exit_code)]
    if states and len(ended) == len(states):
        return "Succeeded" if all(one.exit_code == 0 for one in ended) else "Failed"
    begun = any(one.phase != "waiting" or one.restarts or one.last for one in states)
    return "Running" if begun else "Pending"


class PodState(Struct, frozen=True):
    """Where a pod is in its life. `failure` is (reason, message) of one that was ended for its own fault."""

    main: list[ContainerState]
    init: list[ContainerState] = []
    ephemeral: list[ContainerState] = []
    address: str = ""
    failure: tuple[str, str] | None = None


def pod_status(pod: JsonObject, state: PodState, now: str) -> JsonObject:
    """The whole status, keeping what the old one knew about times.

    Ephemeral containers count only in that a pod is not over while one runs.
    """
    init, states, address = state.init, state.main, state.address
    old: JsonObject = pod.get("status") or {}
    images = {
        one["name"]: one.get("image", "")
        for kind in ("containers", "initContainers", "ephemeralContainers")
        for one in pod["spec"].get(kind) or ()
    }
    found = phase(pod["spec"]["restartPolicy"], states, init)
    alive = any(one.phase == "running" for one in (*states, *state.ephemeral))
    if state.failure is not None:
        found = "Running" if alive else "Failed"
    elif found in {"Succeeded", "Failed"} and alive:
        found = "Running"
    running = found == "Running" and all(one.ready for one in states)
    initialized = all(one.phase == "running" or (one.phase == "terminated" and one.exit_code == 0) for one in init)
    done = found == "Succeeded"
    conditions = [
        _condition(old, "PodReadyToStartContainers", found in {"Running", "Pending"}, now),
        _condition(old, "Initialized", initialized, now, "PodCompleted" if done else ""),
        _condition(old, "Ready", running, now, "PodCompleted" if done else "" if running else "ContainersNotReady"),
        _condition(
            old, "ContainersReady", running, now, "PodCompleted" if done else "" if running else "ContainersNotReady"
        ),
        _condition(old, "PodScheduled", True, now),
    ]
    status: JsonObject = {
        **old,
        "observedGeneration": pod["metadata"].get("generation", 1),
        "phase": found,
        "conditions": conditions,
        "hostIP": "127.0.0.1",
        "hostIPs": [{"ip": "127.0.0.1"}],
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": old.get("startTime") or now,
        "containerStatuses": [_container(one, images) for one in states],
    }
    if init:
        status["initContainerStatuses"] = [_container(one, images) for one in init]
    if state.ephemeral:
        status["ephemeralContainerStatuses"] = [_ephemeral(one, images) for one in state.ephemeral]
    if state.failure is not None and not alive:
        status["reason"], status["message"] = state.failure
    return status


def _ephemeral(state: ContainerState, images: dict[str, str]) -> JsonObject:
    body = _container(state, images)
    del body["started"]
    return {**body, "resources": {}} if state.container_id else body


def _container(state: ContainerState, images: dict[str, str]) -> JsonObject:
    return {
        "name": state.name,
        "state": state.body(),
        "lastState": state.last,
        "ready": state.ready,
        "restartCount": state.restarts,
        "image": images[state.name],
        "imageID": state.image_id,
        "started": state.phase == "running",
        **({"containerID": state.container_id, "user": _user()} if state.container_id else {}),
    }


def _user() -> JsonObject:
    """Who a container runs as: whoever runs the sandbox."""
    return {"linux": {"uid": os.getuid(), "gid": os.getgid(), "supplementalGroups": sorted(os.getgroups())}}


def _condition(old: JsonObject, kind: str, holds: bool, now: str, reason: str = "") -> JsonObject:
    status = "True" if holds else "False"
    before = next((one for one in old.get("conditions") or () if one["type"] == kind), None)
    since = before["lastTransitionTime"] if before is not None and before["status"] == status else now
    return {
        "type": kind,
        "status": status,
        "lastProbeTime": None,
        "lastTransitionTime": since,
        **({"reason": reason} if reason else {}),
    }
