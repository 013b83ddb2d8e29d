"""Everything that would keep a tool from running, in one go, and the container that it gets."""

from typing import Any

import pytest
from msgspec.structs import replace
from powertool_facts import CAPTURE_ID, POD_UID, capture, namespace, pod, spec, tool

from toe_async.apis.reasons import Reason
from toe_async.capture.preflight import Fitting, preflight
from toe_async.capture.vessels import agent_pod, container_name, ephemeral_patch

PVC = {"mode": "pvc", "pvc": {"claimName": "out", "path": "/a/b"}}
CLAIM = [{"name": "data", "persistentVolumeClaim": {"claimName": "out"}}]


def _reasons(found: object) -> list[Reason]:
    assert isinstance(found, tuple)
    return [one.reason for one in found]


def test_a_tool_that_fits_gets_the_targets_user() -> None:
    found = preflight(capture(tool=tool(), spec=spec()), pod(), namespace("restricted"))
    assert isinstance(found, Fitting)
    assert found.security_context["runAsUser"] == 1000
    assert found.volume == ""


@pytest.mark.parametrize(
    ("held", "user"),
    [
        (pod(user=7), 7),
        (pod(user=None), 65532),
        (pod(user=None, securityContext={"runAsUser": 8}), 8),
        (
            pod(
                user=None,
                securityContext={"runAsUser": 8},
                containers=[{"name": "web", "securityContext": {"runAsUser": 9}}],
            ),
            9,
        ),
    ],
)
def test_the_targets_user_is_told_by_the_kubelet_else_by_the_author(held: Any, user: int) -> None:
    found = preflight(capture(tool=tool(), spec=spec()), held, None)
    assert isinstance(found, Fitting)
    assert found.security_context["runAsUser"] == user


def test_the_targets_group_comes_along_with_its_user_and_with_no_other() -> None:
    for approved, group in ((tool(), 1000), (tool(securityContext={"runAsRoot": True}), None)):
        found = preflight(capture(tool=approved, spec=spec()), pod(), None)
        assert isinstance(found, Fitting)
        assert found.security_context.get("runAsGroup") == group
    written = pod(user=None, securityContext={"runAsUser": 8, "runAsGroup": 9})
    found = preflight(capture(tool=tool(), spec=spec()), written, None)
    assert isinstance(found, Fitting)
    assert found.security_context["runAsGroup"] == 9


def test_all_faults_are_told_at_once_with_the_way_out() -> None:
    approved = tool(securityContext={"capabilities": {"add": ["NET_RAW"]}})
    wanted = capture(tool=approved, spec=spec(output=PVC))
    old = [{"name": f"debug-{number}"} for number in range(20)]
    found = preflight(wanted, pod(ephemeral=old), namespace("baseline"))
    assert _reasons(found) == [
        Reason.POD_SECURITY_DENIED,
        Reason.TOO_MANY_EPHEMERAL_CONTAINERS,
        Reason.VOLUME_NOT_MOUNTED,
    ]
    assert isinstance(found, tuple)
    assert "the added capabilities NET_RAW" in found[0].message
    assert "securityProfile for baseline" in found[0].message


@pytest.mark.parametrize(
    ("limits", "fits"),
    [(["32Mi"], False), (["32Mi", "31Mi"], False), (["32Mi", "32Mi"], True), (["32Mi", ""], True), ([""], True)],
)
def test_a_pod_that_may_not_use_what_the_tool_needs_is_refused(limits: list[str], fits: bool) -> None:
    """The limits of all containers bound the pod, and the tool with it; one without a limit leaves it unbounded."""
    containers = [
        {"name": name, "image": "web:1", "resources": {"limits": {"memory": limit} if limit else {}}}
        for name, limit in zip(("web", "side"), limits, strict=False)
    ]
    wanted = capture(tool=tool(resources={"requests": {"memory": "64Mi"}}), spec=spec())
    found = preflight(wanted, pod(containers=containers), namespace())
    assert isinstance(found, Fitting) is fits
    if isinstance(found, tuple):
        assert _reasons(found) == [Reason.HARM_GUARD]
        assert "and tool tcpdump asks for 64Mi" in found[0].message


def test_another_pod_of_the_same_name_is_not_touched() -> None:
    wanted = capture(tool=tool(), spec=spec())
    earlier = replace(wanted, target=replace(wanted.target, pod_uid="another"))
    assert _reasons(preflight(earlier, pod(), None)) == [Reason.POD_GONE]


def test_our_own_container_of_an_earlier_try_does_not_count() -> None:
    old = [{"name": f"debug-{number}"} for number in range(19)] + [{"name": container_name(CAPTURE_ID)}]
    assert isinstance(preflight(capture(tool=tool(), spec=spec()), pod(ephemeral=old), None), Fitting)


def test_an_old_container_that_the_level_forbids_is_found_before_the_server_refuses_ours() -> None:
    old = [{"name": "debug", "securityContext": {"privileged": True}}]
    found = preflight(capture(tool=tool(), spec=spec()), pod(ephemeral=old), namespace("baseline"))
    assert isinstance(found, tuple)
    assert "holds the ephemeral container debug" in found[0].message


def test_a_container_that_does_not_run_is_no_target() -> None:
    gone = pod(containers=[{"name": "other"}])
    assert _reasons(preflight(capture(tool=tool(), spec=spec()), gone, None)) == [Reason.TARGET_CONTAINER_MISSING]


def test_a_claim_is_used_through_the_volume_that_the_pod_has() -> None:
    wanted = capture(tool=tool(), spec=spec(output=PVC))
    found = preflight(wanted, pod(volumes=CLAIM), None)
    assert isinstance(found, Fitting)
    assert found.volume == "data"
    patch = ephemeral_patch(
        CAPTURE_ID,
        pod_uid=POD_UID,
        image="i",
        orders_digest="d",
        security_context={},
        target_container="web",
        volume=found.volume,
    )
    assert patch["spec"]["ephemeralContainers"][0]["volumeMounts"] == [{"name": "data", "mountPath": "/toe/pvc"}]


HOST_PID = {"allowHostPID": True, "capabilities": {"add": ["SYS_PTRACE"]}}


@pytest.mark.parametrize(
    ("level", "label", "fits"),
    [
        ("", "", True),
        ("privileged", "", True),
        ("baseline", "", False),
        ("restricted", "true", True),
        ("", "false", False),
    ],
)
def test_a_pod_of_its_own_on_the_node_needs_the_namespaces_word(level: str, label: str, fits: bool) -> None:
    labels = {"profilepod.io/node-agent": label} if label else {}
    found = preflight(capture(tool=tool(securityContext=HOST_PID), spec=spec()), pod(), namespace(level, **labels))
    assert isinstance(found, Fitting) is fits
    if isinstance(found, tuple):
        assert _reasons(found) == [Reason.POD_SECURITY_DENIED]
        assert "profilepod.io/node-agent=true" in found[0].message


@pytest.mark.parametrize(
    ("security", "host_network", "label", "fits"),
    [
        ({"capabilities": {"add": ["NET_ADMIN"]}}, True, "", False),
        ({"capabilities": {"add": ["CAP_NET_ADMIN"]}}, True, "false", False),
        ({"allowPrivileged": True}, True, "", False),
        ({"capabilities": {"add": ["NET_ADMIN"]}}, True, "true", True),
        ({"capabilities": {"add": ["NET_ADMIN"]}}, False, "", True),
        ({"capabilities": {"add": ["SYS_PTRACE"]}}, True, "", True),
    ],
)
def test_the_nodes_network_is_only_changed_with_the_namespaces_word(
    security: dict[str, Any], host_network: bool, label: str, fits: bool
) -> None:
    labels = {"profilepod.io/node-agent": label} if label else {}
    changed: dict[str, Any] = {"hostNetwork": host_network}
    wanted = capture(tool=tool(securityContext=security), spec=spec())
    found = preflight(wanted, pod(**changed), namespace("privileged", **labels))
    assert isinstance(found, Fitting) is fits
    assert fits or _reasons(found) == [Reason.HOST_NETWORK_REFUSED]


def test_a_pod_of_its_own_has_no_claim_of_the_target() -> None:
    wanted = capture(tool=tool(securityContext=HOST_PID), spec=spec(output=PVC))
    assert _reasons(preflight(wanted, pod(volumes=CLAIM), None)) == [Reason.INVALID_SPEC]


def test_the_patch_is_bound_to_the_pod_and_holds_nothing_that_may_not_be_sent() -> None:
    patch = ephemeral_patch(
        CAPTURE_ID, pod_uid=POD_UID, image="i", orders_digest="d", security_context={"x": 1}, target_container="web"
    )
    container = patch["spec"]["ephemeralContainers"][0]
    assert patch["metadata"] == {"uid": POD_UID}
    assert container["targetContainerName"] == "web"
    assert container["args"] == ["run", "--capture", CAPTURE_ID, "--orders", "d", "--wait", "900"]
    assert not {"resources", "ports", "env", "envFrom", "livenessProbe", "lifecycle", "volumeMounts"} & container.keys()
    assert len(container["name"]) <= 63


def test_a_node_pod_is_bounded_and_has_no_rights() -> None:
    made = agent_pod(
        CAPTURE_ID,
        namespace="toe-agents",
        target=capture(tool=tool(), spec=spec()).target,
        image="i",
        orders_digest="d",
        security_context={},
        deadline_seconds=99,
    )
    held = made["spec"]
    assert held["nodeName"] == "node-1"
    assert held["activeDeadlineSeconds"] == 99
    assert held["automountServiceAccountToken"] is False
    assert held["hostPID"] is True
    assert "volumes" not in held
    assert made["metadata"]["labels"]["toe.run/capture"] == CAPTURE_ID
