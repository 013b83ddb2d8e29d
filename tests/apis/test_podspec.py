"""One pod in full, as an API server sends it."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from toe_async.apis.podspec import PodDetail, decode_pod_detail

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "web-1",
        "namespace": "shop",
        "uid": "u-1",
        "resourceVersion": "42",
        "labels": {"app": "web"},
        "annotations": {"a": "b"},
        "creationTimestamp": "2026-01-24T20:44:01Z",
        "managedFields": [{"fieldsV1": {"f:metadata": {}}}],
    },
    "spec": {
        "nodeName": "node-1",
        "hostNetwork": True,
        "hostPID": True,
        "shareProcessNamespace": True,
        "serviceAccountName": "default",
        "os": {"name": "linux"},
        "securityContext": {"runAsUser": 1000, "runAsNonRoot": True, "fsGroup": 2000, "supplementalGroups": [1, 2],
                            "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "web-data", "readOnly": True}},
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
            {"name": "token", "projected": {}},
        ],
        "initContainers": [{"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}],
        "containers": [
            {
                "name": "app",
                "image": "app:1",
                "command": ["/app"],
                "args": ["-v"],
                "securityContext": {"capabilities": {"add": ["NET_RAW"], "drop": ["ALL"]}, "privileged": False,
                                    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True},
                "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "x", "readOnly": True}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": 1}},
            }
        ],
        "ephemeralContainers": [{"name": "toe-a", "targetContainerName": "app", "image": "t"}],
    },
    "status": {
        "phase": "Running",
        "podIP": "10.2.3.4",
        "containerStatuses": [
            {"name": "app", "containerID": "containerd://abc", "imageID": "sha256:1", "ready": True, "restartCount": 2,
             "state": {"running": {"startedAt": "2026-01-24T20:44:08Z"}},
             "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
             "user": {"linux": {"uid": 1000, "gid": 3000, "supplementalGroups": [1]}}}
        ],
        "initContainerStatuses": [{"name": "proxy", "state": {"waiting": {"reason": "PodInitializing"}}}],
        "ephemeralContainerStatuses": [
            {"name": "toe-a", "state": {"terminated": {"exitCode": 1, "message": "m"}}, "lastState": None}
        ],
    },
}  # fmt: skip


def detail(**changes: Any) -> PodDetail:
    return decode_pod_detail(json.dumps({**POD, **changes}).encode())


def test_everything_that_a_tool_depends_on_is_read() -> None:
    """Field by field; a wrong wire name would leave a default behind."""
    pod = detail()
    meta, spec = pod.metadata, pod.spec
    assert (meta.name, meta.namespace, meta.uid, meta.resource_version) == ("web-1", "shop", "u-1", "42")
    assert (meta.labels, meta.annotations) == ({"app": "web"}, {"a": "b"})
    assert meta.creation_timestamp == datetime(2026, 1, 24, 20, 44, 1, tzinfo=UTC)
    assert meta.deletion_timestamp is None
    assert (spec.node_name, spec.host_network, spec.host_pid, spec.share_process_namespace) == (
        "node-1",
        True,
        True,
        True,
    )
    assert (spec.service_account_name, spec.os.name) == ("default", "linux")
    assert (spec.security_context.run_as_user, spec.security_context.run_as_non_root) == (1000, True)
    assert (spec.security_context.fs_group, spec.security_context.supplemental_groups) == (2000, (1, 2))
    assert spec.security_context.seccomp_profile is not None
    assert (pod.status.phase, pod.status.pod_ip) == ("Running", "10.2.3.4")


def test_containers_of_every_kind_are_found_by_name() -> None:
    """Names are unique in a pod."""
    pod = detail()
    assert [(kind, one.name) for kind, one in pod.all_containers()] == [
        ("container", "app"),
        ("init", "proxy"),
        ("ephemeral", "toe-a"),
    ]
    app, proxy, tool = (pod.container(name) for name in ("app", "proxy", "toe-a"))
    assert app is not None
    assert (app.image, app.command, app.args) == ("app:1", ("/app",), ("-v",))
    assert (app.security_context.capabilities.add, app.security_context.capabilities.drop) == (("NET_RAW",), ("ALL",))
    assert (app.security_context.privileged, app.security_context.allow_privilege_escalation) == (False, False)
    assert app.security_context.read_only_root_filesystem is True
    assert app.security_context.run_as_user is None
    (mount,) = app.volume_mounts
    assert (mount.name, mount.mount_path, mount.sub_path, mount.read_only) == ("data", "/data", "x", True)
    assert (app.resources.limits, app.resources.requests) == ({"cpu": "1", "memory": "1Gi"}, {"cpu": 1})
    assert proxy is not None
    assert proxy.restart_policy == "Always"
    assert tool is not None
    assert tool.target_container_name == "app"
    assert pod.container("other") is None


def test_statuses_of_every_kind_are_found_by_name() -> None:
    """With the user that the first process runs as, where the kubelet tells."""
    pod = detail()
    app, proxy, tool = (pod.container_status(name) for name in ("app", "proxy", "toe-a"))
    assert app is not None
    assert (app.container_id, app.image_id, app.ready, app.restart_count) == ("containerd://abc", "sha256:1", True, 2)
    assert app.state.running is not None
    assert app.last_state.terminated is not None
    assert (app.last_state.terminated.exit_code, app.last_state.terminated.reason) == (137, "OOMKilled")
    assert app.user is not None
    assert app.user.linux is not None
    assert app.user.linux.uid == 1000
    assert proxy is not None
    assert proxy.user is None
    assert proxy.state.waiting is not None
    assert tool is not None
    assert tool.state.terminated is not None
    assert (tool.state.terminated.exit_code, tool.state.terminated.message) == (1, "m")
    assert pod.container_status("other") is None


@pytest.mark.parametrize(
    ("claim", "volume"), [("web-data", "data"), ("web-1-scratch", "scratch"), ("web-1-token", None), ("", None)]
)
def test_a_claim_leads_to_its_volume(claim: str, volume: str | None) -> None:
    """Also that of a generic ephemeral volume; a volume of another kind has none."""
    found = detail().volume_of_claim(claim)
    assert (found.name if found else None) == volume


def test_the_size_is_that_of_what_was_sent() -> None:
    """A pod object near 1 MiB takes no more containers."""
    raw = json.dumps(POD).encode()
    assert decode_pod_detail(raw).size == decode_pod_detail(msgspec.Raw(raw)).size == len(raw)


def test_nulls_count_as_absent() -> None:
    """At every depth."""
    pod = detail(spec={"containers": [{"name": "app", "args": None, "resources": {"limits": None}}], "volumes": None})
    assert pod.container("app") is not None
    assert pod.spec.volumes == ()


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"spec": 1}', b'{"spec": {"containers": [{}]}}'])
def test_what_is_no_pod_is_a_decode_error(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_pod_detail(raw)
