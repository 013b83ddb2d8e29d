"""A PowerTool, a tool and a pod that fit together; tests change one thing at a time."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from toe_async.apis.captures import Target
from toe_async.apis.core import NamespaceObject, decode_namespace
from toe_async.apis.meta import ObjectMeta
from toe_async.apis.podspec import PodDetail, decode_pod_detail
from toe_async.apis.powertool import PowerToolSpec
from toe_async.apis.powertoolconfig import PowerToolConfig, PowerToolConfigSpec
from toe_async.capture.toolrun import ToolCapture

CAPTURE_ID = "a" * 32
POD_UID = "5b3d0c7e-0000-4000-8000-000000000001"


def tool(**changes: Any) -> PowerToolConfigSpec:
    """A tool's configuration; `changes` are wire fields."""
    wire = {"name": "tcpdump", "image": "registry.example/tcpdump:1", "securityContext": {}}
    return msgspec.convert({**wire, **changes}, PowerToolConfigSpec)


def config(object_name: str = "tcpdump-config", **changes: Any) -> PowerToolConfig:
    """The object around it."""
    return PowerToolConfig(metadata=ObjectMeta(name=object_name, namespace="toe-system"), spec=tool(**changes))


def spec(**changes: Any) -> PowerToolSpec:
    """What an author asks for."""
    wire = {
        "targets": {"labelSelector": {"matchLabels": {"app": "web"}}},
        "tool": {"name": "tcpdump", "duration": "30s"},
        "output": {"mode": "collector"},
    }
    return msgspec.convert({**wire, **changes}, PowerToolSpec)


def capture(*, tool: PowerToolConfigSpec, spec: PowerToolSpec) -> ToolCapture:
    """A claimed attempt on `pod()`."""
    return ToolCapture(
        id=CAPTURE_ID,
        namespace="shop",
        name="traffic",
        uid="pt-uid",
        run="",
        attempt=1,
        claimed_at=datetime(2026, 1, 24, 20, 44, tzinfo=UTC),
        target=Target(
            namespace="shop",
            pod="web-1",
            pod_uid=POD_UID,
            container="web",
            node="node-1",
            labels={"app": "web"},
            service="web",
        ),
        tool=tool,
        spec=spec,
        matching_labels={"app": "web"},
    )


def namespace(level: str = "", **labels: str) -> NamespaceObject:
    """The target's namespace, with a Pod Security level."""
    held = {"pod-security.kubernetes.io/enforce": level} if level else {}
    return decode_namespace(msgspec.json.encode({"metadata": {"name": "shop", "labels": {**held, **labels}}}))


def pod(*, user: int | None = 1000, ephemeral: list[dict[str, Any]] | None = None, **spec: Any) -> PodDetail:
    """A running pod with the container `web`."""
    status: dict[str, Any] = {
        "name": "web",
        "containerID": "containerd://c0ffee",
        "state": {"running": {"startedAt": "2026-01-24T20:00:00Z"}},
    }
    if user is not None:
        status["user"] = {"linux": {"uid": user, "gid": user}}
    wire = {
        "metadata": {"name": "web-1", "namespace": "shop", "uid": POD_UID},
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "web", "image": "web:1"}],
            "ephemeralContainers": ephemeral or [],
            **spec,
        },
        "status": {"phase": "Running", "containerStatuses": [status]},
    }
    return decode_pod_detail(msgspec.json.encode(wire))
