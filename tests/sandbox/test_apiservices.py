"""Decisions about aggregated APIs: where a backend listens, what stands in its way, how it is told."""

from typing import Any

import pytest

from toe_async.sandbox.apiservices import Backend, Condition, Served, addresses, available, described, obstacle
from toe_async.sandbox.discovery import answer
from toe_async.sandbox.endpoints import slices
from toe_async.sandbox.resources import Registry

JSON = dict[str, Any]
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def backend(
    group: str = "g.io", version: str = "v1", port: int = 443, priorities: tuple[int, int] = (10, 10)
) -> Backend:
    return Backend(f"{version}.{group}", group, version, "ns", "svc", port, b"", True, *priorities)


def service(kind: str = "ClusterIP", **ports: int) -> JSON:
    listed = [{"name": name, "port": port} for name, port in (ports or {"https": 443}).items()]
    return {"metadata": {"name": "svc", "namespace": "ns", "uid": "u"}, "spec": {"type": kind, "ports": listed}}


def part(*endpoints: JSON, **ports: int | None) -> JSON:
    listed = [{"name": name, "port": port} for name, port in (ports or {"https": 8443}).items()]
    return {"addressType": "IPv4", "endpoints": list(endpoints), "ports": listed}


def at(*held: str, ready: bool | None = True) -> JSON:
    return {"addresses": list(held), "conditions": {} if ready is None else {"ready": ready}}


MISSING = 'endpointslices for service/svc in "ns" have no addresses with port name "https"'


@pytest.mark.parametrize(
    ("held", "parts", "reason", "message"),
    [
        pytest.param(None, [], "ServiceNotFound", 'service/svc in "ns" is not present', id="no service"),
        pytest.param(
            service(https=8443), [part(at("1"))], "ServicePortError",
            'service/svc in "ns" is not listening on port 443', id="another port",
        ),
        pytest.param(
            service(), [], "EndpointsNotFound", 'cannot find endpointslices for service/svc in "ns"', id="no slices"
        ),
        pytest.param(service(), [part()], "MissingEndpoints", MISSING, id="no endpoints"),
        pytest.param(service(), [part(at("1", ready=False))], "MissingEndpoints", MISSING, id="not ready"),
        pytest.param(service(), [part(at("1"), other=1)], "MissingEndpoints", MISSING, id="another port name"),
        pytest.param(service(), [part(at("1"), https=None)], "MissingEndpoints", MISSING, id="no port number"),
    ],
)  # fmt: skip
def test_each_obstacle_has_its_reason(held: JSON | None, parts: list[JSON], reason: str, message: str) -> None:
    assert obstacle(backend(), held, parts) == Condition("False", reason, message)
    assert addresses(backend(), held, parts) == []


@pytest.mark.parametrize(
    ("held", "parts", "expected"),
    [
        pytest.param(service(), [part(at("1"))], [("1", 8443)], id="one"),
        pytest.param(service(), [part(at("1", ready=None))], [("1", 8443)], id="readiness not told"),
        pytest.param(service(), [part(at("1", ready=False), at("2"))], [("2", 8443)], id="one of two is ready"),
        pytest.param(service(), [part(), part(at("1", "2"))], [("1", 8443), ("2", 8443)], id="several slices"),
        pytest.param(
            service(metrics=80, https=443), [part(at("1"), metrics=8080, https=8443)], [("1", 8443)], id="by port name"
        ),
        pytest.param({**service(), "spec": {"ports": [{"port": 443}]}}, [part(at("1"), **{"": 1})], [("1", 1)],
                     id="a port without a name"),
    ],
)  # fmt: skip
def test_ready_endpoints_under_the_ports_name_are_where_a_backend_listens(
    held: JSON, parts: list[JSON], expected: list[tuple[str, int]]
) -> None:
    assert obstacle(backend(), held, parts) is None
    assert addresses(backend(), held, parts) == expected


def test_a_service_of_another_type_is_judged_by_discovery_alone() -> None:
    assert obstacle(backend(), service("NodePort"), []) is None
    assert addresses(backend(), service("NodePort"), [part(at("1"))]) == [("1", 8443)]
    assert addresses(backend(), service("ExternalName"), [part(at("1"))]) == []


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (None, False),
        ([], False),
        ([{"type": "Available", "status": "Unknown"}], False),
        ([{"type": "Other", "status": "True"}], False),
        ([{"type": "Other", "status": "False"}, {"type": "Available", "status": "True"}], True),
    ],
)
def test_only_the_condition_available_lets_requests_through(conditions: list[JSON] | None, expected: bool) -> None:
    assert available({"status": {"conditions": conditions}}) is expected


def test_an_old_resource_list_becomes_aggregated_discovery() -> None:
    listed: list[JSON] = [
        {"name": "a/status", "kind": "A", "verbs": ["get"], "namespaced": True},
        {"name": "a", "kind": "A", "namespaced": True, "verbs": ["list"], "shortNames": ["x"], "singularName": "a"},
        {"name": "b", "kind": "B", "group": "other.io", "version": "v2", "verbs": None, "singularName": ""},
    ]
    own = {"group": "g.io", "version": "v1", "kind": "A"}
    assert described(listed, "g.io", "v1") == [
        {
            "resource": "a",
            "subresources": [{"subresource": "status", "responseKind": own, "verbs": ["get"]}],
            "responseKind": own,
            "scope": "Namespaced",
            "singularResource": "a",
            "verbs": ["list"],
            "shortNames": ["x"],
        },
        {
            "resource": "b",
            "responseKind": {"group": "other.io", "version": "v2", "kind": "B"},
            "scope": "Cluster",
            "singularResource": "",
            "verbs": [],
        },
    ]


def test_discovery_tells_of_others_groups_beside_our_own() -> None:
    remote = [
        Served(backend(version="v2"), [{"resource": "a"}], True, True),
        Served(backend(version="v1"), [], False, False),
        Served(backend("metrics.k8s.io", "v1beta1"), [{"resource": "theirs"}], True, True),
    ]
    registry = Registry()
    aggregated = answer(registry, remote, "/apis", AGGREGATED)
    core = answer(registry, remote, "/api", AGGREGATED)
    group = answer(registry, remote, "/apis/g.io", "")
    index = answer(registry, remote, "/openapi/v3", "")
    assert aggregated is not None and core is not None and group is not None and index is not None  # noqa: PT018
    found = {one["metadata"]["name"]: one["versions"] for one in aggregated["items"]}
    assert found["g.io"] == [
        {"version": "v2", "resources": [{"resource": "a"}], "freshness": "Current"},
        {"version": "v1", "resources": [], "freshness": "Stale"},
    ]
    assert found["metrics.k8s.io"][0]["resources"] == [{"resource": "theirs"}]
    assert [one["metadata"] for one in core["items"]] == [{}]
    assert group["preferredVersion"]["version"] == "v2"
    assert {"apis/g.io/v2", "apis/metrics.k8s.io/v1beta1", "api/v1"} <= set(index["paths"])
    assert "apis/g.io/v1" not in index["paths"]
    assert answer(registry, remote, "/apis/g.io/v2", "") is None


def pod(name: str, address: str = "127.0.0.5", *, ready: bool = True, port: int = 8443, **more: Any) -> JSON:
    ports = [{"name": "https", "containerPort": port}]
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": f"u-{name}", **more},
        "spec": {"nodeName": "n", "containers": [{"ports": ports}]},
        "status": {
            "podIP": address,
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def test_a_services_slice_holds_its_pods_and_their_state() -> None:
    held = service()
    held["spec"]["ports"] = [{"name": "https", "port": 443, "targetPort": "https", "protocol": "TCP"}]
    gone = pod("d")
    gone["status"]["phase"] = "Failed"
    pods = [pod("a"), pod("b", "127.0.0.6", ready=False), pod("c", deletionTimestamp="now"), pod("e", ""), gone]
    (made,) = slices(held, pods)
    assert made["metadata"]["labels"]["kubernetes.io/service-name"] == "svc"
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert made["ports"] == [{"name": "https", "port": 8443, "protocol": "TCP"}]
    assert [(one["targetRef"]["name"], one["addresses"], *one["conditions"].values()) for one in made["endpoints"]] == [
        ("a", ["127.0.0.5"], True, True, False),
        ("b", ["127.0.0.6"], False, False, False),
        ("c", ["127.0.0.5"], False, True, True),
    ]


def test_pods_that_name_another_port_get_a_slice_of_their_own() -> None:
    held = service()
    held["spec"]["ports"] = [{"name": "https", "port": 443, "targetPort": "https"}]
    made = slices(held, [pod("a"), pod("b", port=9443), pod("c")])
    assert [(one["ports"][0]["port"], len(one["endpoints"])) for one in made] == [(8443, 2), (9443, 1)]
    assert [one["endpoints"] for one in slices(held, [])] == [[]]
