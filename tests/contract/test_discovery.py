"""What a server says about itself, in the forms that kubectl asks for."""

import pytest

from tests.contract.clusters import JSON, Server

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
OURS = [
    "",
    "coordination.k8s.io",
    "rbac.authorization.k8s.io",
    "apiextensions.k8s.io",
    "authorization.k8s.io",
    "metrics.k8s.io",
]


def resources(body: JSON) -> dict[str, JSON]:
    return {one["name"]: one for one in body["resources"]}


async def test_core_resources_are_described_alike(server: Server) -> None:
    body = (await server.call("GET", "/api/v1")).body
    found = resources(body)
    assert (body["kind"], body["groupVersion"]) == ("APIResourceList", "v1")
    assert found["pods"]["shortNames"] == ["po"]
    assert (found["pods"]["kind"], found["pods"]["namespaced"], found["nodes"]["namespaced"]) == ("Pod", True, False)
    assert sorted(found["pods"]["verbs"]) == [
        "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch",
    ]  # fmt: skip
    assert found["serviceaccounts/token"]["verbs"] == ["create"]
    assert found["pods/portforward"]["verbs"] == ["create", "get"]
    assert "deletecollection" not in found["namespaces"]["verbs"]


async def test_groups_are_listed(server: Server) -> None:
    plain = (await server.call("GET", "/apis")).body
    core = (await server.call("GET", "/api")).body
    one = (await server.call("GET", "/apis/coordination.k8s.io")).body
    assert set(OURS[1:]) <= {group["name"] for group in plain["groups"]}
    assert (core["kind"], core["versions"]) == ("APIVersions", ["v1"])
    assert one["preferredVersion"] == {"groupVersion": "coordination.k8s.io/v1", "version": "v1"}


@pytest.mark.parametrize("path", ["/api", "/apis"])
async def test_aggregated_discovery_is_served_on_demand(server: Server, path: str) -> None:
    answer = await server.call("GET", path, accept=f"{AGGREGATED},application/json")
    groups = {one["metadata"].get("name", ""): one for one in answer.body["items"]}
    assert answer.body["kind"] == "APIGroupDiscoveryList"
    assert answer.body["apiVersion"] == "apidiscovery.k8s.io/v2"
    assert answer.headers["Content-Type"].replace(" ", "") == AGGREGATED
    assert ("" in groups) is (path == "/api")
    group, plural = ("", "pods") if path == "/api" else ("coordination.k8s.io", "leases")
    held = {one["resource"]: one for one in groups[group]["versions"][0]["resources"]}[plural]
    assert held["scope"] == "Namespaced"
    assert held["responseKind"]["kind"] in {"Pod", "Lease"}


async def test_health_and_version(server: Server) -> None:
    for path in ("/healthz", "/readyz", "/livez"):
        assert (await server.call("GET", path)).raw == b"ok"
    version = (await server.call("GET", "/version")).body
    assert (version["major"], version["minor"]) == ("1", "36")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/apis/nope.io/v1/foos", 404),
        ("GET", "/api/v1/namespaces/default/foos", 404),
        ("DELETE", "/version", 405),
        ("POST", "/api/v1/namespaces/default/pods/p", 405),
        ("DELETE", "/api/v1/namespaces", 405),
    ],
)
async def test_what_is_not_served_is_404_or_405(server: Server, method: str, path: str, status: int) -> None:
    answer = await server.call(method, path)
    assert answer.status == status


async def test_openapi_says_which_kinds_take_field_validation(server: Server) -> None:
    """kubectl apply looks there before it leaves validation to the server."""
    index = (await server.call("GET", "/openapi/v3")).body["paths"]
    answer = await server.call("GET", index["apis/coordination.k8s.io/v1"]["serverRelativeURL"])
    patch = answer.body["paths"]["/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"]["kind"] == "Lease"
    assert "fieldValidation" in [one["name"] for one in patch["parameters"]]
