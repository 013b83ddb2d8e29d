"""What a supervisor is told: every field of the author has its effect."""

from typing import Any

import pytest
from msgspec.structs import replace
from powertool_facts import capture, pod, spec, tool

from toe_async.agent.protocol import Orders, digest
from toe_async.apis.podspec import PodDetail
from toe_async.apis.powertoolconfig import PowerToolConfigSpec
from toe_async.apis.reasons import Reason
from toe_async.capture.refusals import Refused
from toe_async.capture.toolorders import orders

GIB = 1 << 30


def _orders(
    *, approved: PowerToolConfigSpec | None = None, of: PodDetail | None = None, **changes: Any
) -> Orders | Refused:
    return orders(
        capture(tool=approved or tool(), spec=spec(**changes)),
        of or pod(),
        level="privileged",
        collector="https://toe-collector.toe-system.svc:8443",
        ca="PEM",
        max_bytes=GIB,
        upload_seconds=3600,
    )


def _wanted(**changes: Any) -> dict[str, Any]:
    return {"name": "tcpdump", "duration": "30s", **changes}


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"tool": _wanted(duration="1m30s")}, "duration", 90.0),
        ({"tool": _wanted(duration="90s")}, "duration", 90.0),
        ({"tool": _wanted(warmup="5s")}, "warmup", 5.0),
        ({"tool": _wanted(maxCPUPercent=20)}, "cpu_percent", 20.0),
        ({"budgets": {"perPodOverheadTarget": 5}}, "overhead_percent", 5.0),
        ({"output": {"mode": "collector", "compress": "none"}}, "compress", "none"),
        ({"output": {"mode": "collector", "rollingInterval": "10s"}}, "rolling", 10.0),
        ({"output": {"mode": "collector", "rollingInterval": "24h"}}, "rolling", 0.0),
        ({"output": {"mode": "pvc", "pvc": {"claimName": "c", "path": "/a//b/"}}}, "pvc_path", "/toe/pvc/a/b"),
        ({"output": {"mode": "pvc", "pvc": {"claimName": "c"}}}, "pvc_path", "/toe/pvc"),
        ({"output": {"mode": "collector"}}, "endpoint", "https://toe-collector.toe-system.svc:8443"),
        ({"output": {"mode": "collector"}}, "ca", "PEM"),
        ({"output": {"mode": "ephemeral"}}, "endpoint", ""),
        ({"output": {"mode": "ephemeral"}}, "ca", ""),
    ],
)
def test_the_authors_words_reach_the_supervisor(changes: dict[str, Any], field: str, value: object) -> None:
    told = _orders(**changes)
    assert isinstance(told, Orders)
    assert getattr(told, field) == value


@pytest.mark.parametrize(
    ("approved", "field", "value"),
    [
        ({"uploadLimit": "10Mi"}, "max_bytes", 10 << 20),
        ({"uploadLimit": "9Ti"}, "max_bytes", GIB),
        ({"resources": {"limits": {"memory": "64Mi"}}}, "memory_bytes", 64 << 20),
        ({"resources": {"limits": {"cpu": "500m"}}}, "cpu_percent", 50.0),
        ({"heartbeat": True}, "heartbeat_seconds", 60.0),
        ({"throttle": "abort"}, "throttle", "abort"),
        ({"outputs": ["*.txt"]}, "outputs", ("*.txt",)),
        ({"resources": {"requests": {"cpu": "100m"}}}, "nice", 0),
        ({}, "nice", 10),
    ],
)
def test_the_administrators_words_reach_it_too(approved: dict[str, Any], field: str, value: object) -> None:
    told = _orders(approved=tool(**approved))
    assert isinstance(told, Orders)
    assert getattr(told, field) == value


def test_the_lower_of_two_cpu_caps_counts() -> None:
    told = _orders(approved=tool(resources={"limits": {"cpu": "500m"}}), tool=_wanted(maxCPUPercent=80))
    assert isinstance(told, Orders)
    assert told.cpu_percent == 50.0


def test_a_duration_beyond_the_tools_own_is_refused() -> None:
    refused = _orders(approved=tool(maxDuration="20s"))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.INVALID_SPEC
    assert "longer than the 20s" in refused.message


def test_only_a_pod_of_its_own_is_told_whose_processes_to_look_for() -> None:
    inside = _orders()
    on_node = _orders(approved=tool(securityContext={"allowHostPID": True}))
    assert isinstance(inside, Orders)
    assert isinstance(on_node, Orders)
    assert (inside.target_pod_uid, inside.target_container_id) == ("", "")
    assert on_node.target_container_id == "c0ffee"


@pytest.mark.parametrize("field", ["shareProcessNamespace", "hostPID"])
def test_where_others_processes_can_be_seen_the_target_is_told_by_its_container_id(field: str) -> None:
    changed: dict[str, Any] = {field: True}
    told = _orders(of=pod(**changed))
    assert isinstance(told, Orders)
    assert (told.target_pod_uid, told.target_container_id) == ("", "c0ffee")


def test_without_a_container_id_nobody_elses_process_is_taken_for_the_targets() -> None:
    shared = pod(shareProcessNamespace=True)
    status = replace(shared.status.container_statuses[0], container_id="")
    refused = _orders(of=replace(shared, status=replace(shared.status, container_statuses=(status,))))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.TARGET_CONTAINER_MISSING


def test_everybody_writes_the_same_orders() -> None:
    one, other = _orders(), _orders()
    assert isinstance(one, Orders)
    assert isinstance(other, Orders)
    assert digest(one) == digest(other)
    changed = _orders(tool=_wanted(args=["x"]))
    assert isinstance(changed, Orders)
    assert digest(one) != digest(changed)


def test_the_operators_fetch_from_a_pod_has_a_key_of_its_own() -> None:
    told = _orders(output={"mode": "s3", "s3": {"bucket": "profiles"}})
    assert isinstance(told, Orders)
    assert len(told.fetch_key) == 32
