"""Pods as they come from an API server, and what is kept of them."""

import gc
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from toe_async.apis import pods
from toe_async.apis.pods import Container, Pod, PodDecoder


def document(**metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-1",
            "namespace": "shop",
            "uid": "u-1",
            "resourceVersion": "42",
            "labels": {"app": "web", "pod-template-hash": "abc"},
            "annotations": {
                "profiling.io/enabled": "true",
                "bolometer.io/port": "7070",
                "kubectl.kubernetes.io/default-container": "app",
                "kubectl.kubernetes.io/last-applied-configuration": "x" * 1000,
                "other/profiling.io": "no",
            },
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Thing", "name": "helper", "uid": "x"},
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-abc", "uid": "y", "controller": True},
            ],
            "managedFields": [{"fieldsV1": {"f:metadata": {}}}],
            **metadata,
        },
        "spec": {
            "nodeName": "node-1",
            "hostNetwork": True,
            "initContainers": [
                {"name": "setup", "resources": {"requests": {"cpu": "4"}}},
                {"name": "proxy", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
            ],
            "containers": [
                {
                    "name": "app",
                    "ports": [{"name": "pprof", "containerPort": 6060, "protocol": "TCP"}, {"containerPort": 80}],
                    "resources": {
                        "requests": {"cpu": "250m", "memory": "128Mi", "nvidia.com/gpu": "1"},
                        "limits": {"memory": "1G"},
                    },
                }
            ],
            "ephemeralContainers": [{"name": "debugger"}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.2.3.4",
            "startTime": "2026-01-24T20:44:08Z",
            "conditions": [
                {"type": "PodScheduled", "status": "False", "lastProbeTime": None},
                {"type": "Ready", "status": "True", "lastProbeTime": None},
            ],
        },
    }


def decode(pod: dict[str, Any]) -> Pod:
    return PodDecoder().decode(json.dumps(pod).encode())


def test_everything_that_decisions_need_is_read() -> None:
    """Field by field; a wrong wire name would leave a default behind."""
    pod = decode(document())
    assert (pod.namespace, pod.name, pod.uid, pod.resource_version) == ("shop", "web-1", "u-1", "42")
    assert (pod.phase, pod.node, pod.ip) == ("Running", "node-1", "10.2.3.4")
    assert pod.labels == {"app": "web", "pod-template-hash": "abc"}
    assert (pod.terminating, pod.host_network, pod.ready) == (False, True, True)
    assert (pod.owner_kind, pod.owner_name) == ("ReplicaSet", "web-abc")
    assert pod.start_time == datetime(2026, 1, 24, 20, 44, 8, tzinfo=UTC)


def test_own_containers_are_the_declared_ones_and_the_sidecars() -> None:
    """Init containers that end and ephemeral ones are no part of what the pod uses."""
    app, proxy = decode(document()).containers
    assert app == Container("app", False, (("pprof", 6060), ("", 80)), 0.25, None, 128 * 2**20, 1e9)
    assert proxy == Container("proxy", True, (), 0.05, None, None, None)


def test_only_annotations_that_concern_us_are_kept() -> None:
    """The rest is the bulk of a pod's metadata."""
    assert decode(document()).annotations == {
        "profiling.io/enabled": "true",
        "bolometer.io/port": "7070",
        "kubectl.kubernetes.io/default-container": "app",
    }
    assert decode(document(annotations={"x/profiling.io/y": "z"})).annotations == {}


def test_an_escaped_slash_does_not_hide_an_annotation() -> None:
    """JSON may write a slash as backslash and slash."""
    raw = json.dumps(document()).replace("profiling.io/enabled", "profiling.io\\/enabled").encode()
    assert PodDecoder().decode(raw).annotations["profiling.io/enabled"] == "true"


def test_a_pod_with_a_deletion_time_is_terminating() -> None:
    """Whether that time has come or not."""
    assert decode(document(deletionTimestamp="2026-01-24T20:44:08Z")).terminating


def test_a_pod_that_just_appeared_has_no_node_address_or_condition() -> None:
    """Everything that comes later has an empty value, never a missing one."""
    pod = decode({"metadata": {"name": "a", "namespace": "b"}})
    assert (pod.node, pod.ip, pod.phase, pod.ready, pod.containers, pod.start_time) == ("", "", "", False, (), None)


NULLS = [
    ("metadata", "labels"),
    ("metadata", "annotations"),
    ("metadata", "ownerReferences"),
    ("metadata", "deletionTimestamp"),
    ("metadata", "uid"),
    ("spec", "containers"),
    ("spec", "initContainers"),
    ("spec", "nodeName"),
    ("spec", "hostNetwork"),
    ("status", "conditions"),
    ("status", "phase"),
    ("status", "podIP"),
    ("status", "startTime"),
]


@pytest.mark.parametrize(("part", "field"), NULLS, ids=[".".join(path) for path in NULLS])
def test_a_null_counts_as_absent(part: str, field: str) -> None:
    """Whatever field is null, the pod reads as if it were not there."""
    with_null, without = document(), document()
    with_null[part][field] = None
    without[part].pop(field, None)
    assert decode(with_null) == decode(without)


@pytest.mark.parametrize("part", ["spec", "status"])
def test_a_whole_part_may_be_null(part: str) -> None:
    """The other parts are read all the same."""
    assert decode({**document(), part: None}).name == "web-1"


def test_nulls_inside_containers_and_labels_count_as_absent() -> None:
    """Also the ones that sit deep."""
    pod = document(labels={"app": "web", "gone": None})
    pod["spec"]["containers"] = [
        {"name": "app", "ports": None, "resources": {"requests": None, "limits": {"cpu": None}}}
    ]
    found = decode(pod)
    assert found.labels == {"app": "web"}
    assert found.containers[0] == Container("app", False, (), None, None, None, None)


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b'{"metadata": 1}', b'{"kind": "Pod"}', b"{"])
def test_what_is_no_pod_is_a_decode_error(raw: bytes) -> None:
    """The informer skips and counts it."""
    with pytest.raises(msgspec.DecodeError):
        PodDecoder().decode(raw)


def test_an_amount_that_is_no_quantity_is_a_decode_error() -> None:
    """A pod with a wrong base would fire at the wrong figure."""
    pod = document()
    pod["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "much"}}
    with pytest.raises(msgspec.DecodeError, match="much"):
        decode(pod)


def test_what_pods_have_in_common_is_one_object() -> None:
    """Namespace, node, labels and containers of a Deployment's pods are held once."""
    decoder = PodDecoder()
    first = decoder.decode(json.dumps(document(name="web-1")).encode())
    second = decoder.decode(json.dumps(document(name="web-2")).encode())
    assert first.labels is second.labels
    assert first.containers is second.containers
    assert first.namespace is second.namespace
    assert first.node is second.node


def test_shared_maps_cannot_be_changed_by_one_holder() -> None:
    """A change would reach every pod of the Deployment."""
    pod = decode(document())
    with pytest.raises(TypeError):
        pod.labels["app"] = "other"  # type: ignore[index]
    with pytest.raises(TypeError):
        pod.annotations["app"] = "other"  # type: ignore[index]


def test_churn_cannot_fill_the_pools_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Job's pods all carry a label of their own; a watch may go on for weeks without a resync."""
    monkeypatch.setattr(pods, "POOL_LIMIT", 10)
    decoder = PodDecoder()
    held = [decoder.decode(json.dumps(document(labels={"job": str(number)})).encode()) for number in range(35)]
    assert [pod.labels["job"] for pod in held] == [str(number) for number in range(35)]
    gc.collect()
    shared = [one for one in gc.get_referrers(held[-1].labels) if isinstance(one, dict)]
    assert max(len(one) for one in shared) <= 10


def test_a_reset_begins_sharing_anew() -> None:
    """After a resync nothing that died out is kept; pods held from before stay as they were."""
    decoder = PodDecoder()
    raw = json.dumps(document()).encode()
    before = decoder.decode(raw)
    decoder.reset()
    after = decoder.decode(raw)
    assert before == after
    assert before.labels is not after.labels


def test_a_pod_keeps_none_of_the_bytes_that_it_came_from() -> None:
    """A view into the buffer would keep a whole page of the list alive."""
    raw = msgspec.Raw(json.dumps({"items": [document()]}).encode())
    items: list[msgspec.Raw] = msgspec.json.decode(raw, type=dict[str, list[msgspec.Raw]])["items"]
    pod = PodDecoder().decode(items[0])
    for value in (pod.name, pod.ip, *pod.labels.values(), *pod.annotations.values()):
        assert type(value) is str


# ---- what attaching a tool depends on --------------------------------------------------------------------------------


def test_a_plain_pod_has_none_of_the_tools_fields() -> None:
    """Shared empty tuples and nothing else: a pod without tools and claims costs no more than it did."""
    first, second = decode(document()), decode(document())
    assert (first.mirror, first.os) == (False, "")
    assert first.tools == ()
    assert first.claims == ()
    assert first.tools is second.tools
    assert first.claims is second.claims


def test_creation_mirror_and_operating_system_are_read() -> None:
    """A static pod takes no ephemeral container, and a Windows pod no tool of ours."""
    pod = document(creationTimestamp="2026-01-24T20:44:01Z", annotations={"kubernetes.io/config.mirror": "abc"})
    pod["spec"]["os"] = {"name": "windows"}
    found = decode(pod)
    assert found.created == datetime(2026, 1, 24, 20, 44, 1, tzinfo=UTC)
    assert (found.mirror, found.os, found.annotations) == (True, "windows", {})
    assert not decode(document(annotations={"other": "kubernetes.io/config.mirror"})).mirror


def test_an_instant_that_two_fields_share_is_one_object() -> None:
    """A pod mostly starts in the second in which it was made."""
    found = decode(document(creationTimestamp="2026-01-24T20:44:08Z"))
    assert found.created is found.start_time


VOLUMES = [
    {"name": "token", "projected": {"sources": []}},
    {"name": "data", "persistentVolumeClaim": {"claimName": "web-data", "readOnly": True}},
    {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
    {"name": "none", "persistentVolumeClaim": None},
]


def test_claims_are_those_of_all_volumes() -> None:
    """A generic ephemeral volume's is named after pod and volume."""
    pod = document()
    pod["spec"]["volumes"] = VOLUMES
    assert decode(pod).claims == ("web-data", "web-1-scratch")


def test_equal_claims_are_one_object_and_the_pool_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pods of a Deployment share theirs; those of a StatefulSet differ."""
    monkeypatch.setattr(pods, "POOL_LIMIT", 10)
    decoder, pod = PodDecoder(), document()
    pod["spec"]["volumes"] = VOLUMES[:2]
    raw = json.dumps(pod).encode()
    assert decoder.decode(raw).claims is decoder.decode(raw).claims
    for number in range(35):
        pod["spec"]["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": f"data-{number}"}}]
        held = decoder.decode(json.dumps(pod).encode())
        assert held.claims == (f"data-{number}",)
    pools = [one for one in gc.get_referrers(held.claims) if isinstance(one, dict)]
    assert pools
    assert max(len(one) for one in pools) <= 10
    decoder.reset()
    assert decoder.decode(json.dumps(pod).encode()).claims is not held.claims


def with_tools(*statuses: dict[str, Any]) -> dict[str, Any]:
    pod = document()
    pod["spec"]["ephemeralContainers"] = [
        {"name": "debugger-toe-x"},
        {"name": "toe-a", "targetContainerName": "app", "command": ["/opt/toe/supervisor"]},
        {"name": "toe-b"},
    ]
    pod["status"]["ephemeralContainerStatuses"] = list(statuses)
    return pod


STARTED, ENDED = "2026-01-24T20:45:00Z", "2026-01-24T20:46:00Z"
STATES: list[tuple[dict[str, Any] | None, tuple[Any, ...]]] = [
    (None, ("", "", "", None, None, None)),
    ({}, ("", "", "", None, None, None)),
    ({"waiting": {"reason": "ErrImagePull", "message": "no"}}, ("waiting", "ErrImagePull", "no", None, None, None)),
    ({"waiting": {}, "running": None}, ("waiting", "", "", None, None, None)),
    ({"running": {"startedAt": STARTED}}, ("running", "", "", None, 45, None)),
    ({"terminated": {"exitCode": 3, "reason": "Error", "message": '{"a":1}', "startedAt": STARTED,
                     "finishedAt": ENDED}}, ("terminated", "Error", '{"a":1}', 3, 45, 46)),
    ({"terminated": {"exitCode": 0, "finishedAt": None}}, ("terminated", "", "", 0, None, None)),
]  # fmt: skip


@pytest.mark.parametrize(("state", "expected"), STATES)
def test_the_state_of_a_tool_is_the_kubelets(state: dict[str, Any] | None, expected: tuple[Any, ...]) -> None:
    """Also before the kubelet has said anything, and when it says null."""
    found = decode(with_tools({"name": "toe-a", "imageID": "sha256:1", "state": state}, {"name": "debugger-toe-x"}))
    first, second = found.tools
    assert (first.name, first.target, first.image_id) == ("toe-a", "app", "sha256:1")
    minutes = [one.minute if one else None for one in (first.started_at, first.finished_at)]
    assert (first.state, first.reason, first.message, first.exit_code, *minutes) == expected
    assert (second.name, second.target, second.state) == ("toe-b", "", "")


def test_tools_without_any_status_are_declared_all_the_same() -> None:
    """The time between the patch and the kubelet's first word."""
    pod = with_tools()
    pod["status"]["ephemeralContainerStatuses"] = None
    assert [(one.name, one.state) for one in decode(pod).tools] == [("toe-a", ""), ("toe-b", "")]
