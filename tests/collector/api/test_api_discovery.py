"""What the group says of itself, in each form that API servers and kubectl ask for."""

from typing import Any

import pytest
from msgspec.structs import fields

from tests.collector.api.shelf import BASE, GROUP, Shelf
from toe_async.collector.api.discovery import AGGREGATED_TYPE
from toe_async.collector.captures import Manifest
from toe_async.collector.catalog.query import FIELDS

KIND = {"group": "artifacts.toe.run", "version": "v1alpha1", "kind": "Artifact"}
VERBS = ["delete", "deletecollection", "get", "list", "patch"]


async def test_the_group_and_its_version_are_told(full: Shelf) -> None:
    """As APIGroupList and as APIGroup."""
    version = {"groupVersion": "artifacts.toe.run/v1alpha1", "version": "v1alpha1"}
    group = {"name": "artifacts.toe.run", "versions": [version], "preferredVersion": version}
    assert await full.ask("GET", "/apis") == (200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})
    assert await full.ask("GET", GROUP) == (200, {"kind": "APIGroup", "apiVersion": "v1", **group})


async def test_the_resources_are_told_with_verbs_and_names(full: Shelf) -> None:
    """Without `watch`: a cluster's controllers would keep every artifact in memory."""
    status, found = await full.ask("GET", BASE)
    assert status == 200
    assert (found["kind"], found["apiVersion"]) == ("APIResourceList", "v1")
    assert found["groupVersion"] == "artifacts.toe.run/v1alpha1"
    assert found["resources"] == [
        {
            "name": "artifacts",
            "singularName": "artifact",
            "namespaced": True,
            "kind": "Artifact",
            "verbs": VERBS,
            "shortNames": ["art"],
            "categories": ["toe"],
        },
        {"name": "artifacts/content", "singularName": "", "namespaced": True, "kind": "Artifact", "verbs": ["get"]},
        {"name": "artifacts/render", "singularName": "", "namespaced": True, "kind": "Artifact", "verbs": ["get"]},
    ]


async def test_aggregated_discovery_is_one_answer(full: Shelf) -> None:
    """Under its own media type, by which the aggregation layer knows it; older versions of it get the plain form."""
    asked = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"
    async with full.call("GET", "/apis", headers={"Accept": f"{asked.format('v2')},application/json"}) as reply:
        found = await reply.json(content_type=None)
        assert reply.headers["Content-Type"] == AGGREGATED_TYPE
        assert reply.headers["Vary"] == "Accept"
    assert (found["kind"], found["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
    (item,) = found["items"]
    (version,) = item["versions"]
    (resource,) = version["resources"]
    assert item["metadata"] == {"name": "artifacts.toe.run"}
    assert (version["version"], version["freshness"]) == ("v1alpha1", "Current")
    assert resource == {
        "resource": "artifacts",
        "responseKind": KIND,
        "scope": "Namespaced",
        "singularResource": "artifact",
        "verbs": VERBS,
        "shortNames": ["art"],
        "categories": ["toe"],
        "subresources": [
            {"subresource": "content", "responseKind": KIND, "verbs": ["get"]},
            {"subresource": "render", "responseKind": KIND, "verbs": ["get"]},
        ],
    }
    _, plain = await full.ask("GET", "/apis", headers={"Accept": f"{asked.format('v2beta1')},application/json"})
    assert plain["kind"] == "APIGroupList"


def schemas(document: dict[str, Any]) -> dict[str, Any]:
    """The schemas of either version of OpenAPI."""
    found: dict[str, Any] = document.get("definitions") or document["components"]["schemas"]
    return found


def without_description(schema: Any, path: str) -> list[str]:
    """Paths of the fields that say nothing."""
    found = []
    for name, below in schema.get("properties", {}).items():
        if not below.get("description"):
            found.append(f"{path}.{name}")
        found += without_description(below, f"{path}.{name}")
    return found


@pytest.mark.parametrize("path", ["/openapi/v2", f"/openapi/v3{BASE}"])
async def test_every_field_is_described(full: Shelf, path: str) -> None:
    """The schema holds exactly what an artifact may have, and each part of it says what it is."""
    status, document = await full.ask("GET", path)
    assert status == 200
    held = schemas(document)
    assert sorted(name.rpartition(".")[2] for name in held) == ["Artifact", "ArtifactList"]
    for name, schema in held.items():
        assert schema["description"]
        assert schema["x-kubernetes-group-version-kind"] == [KIND | {"kind": name.rpartition(".")[2]}]
        assert without_description(schema, name) == []
    artifact = next(schema for name, schema in held.items() if name.endswith(".Artifact"))
    told = artifact["properties"]["artifact"]["properties"]
    assert told.keys() == {field.encode_name for field in fields(Manifest)}
    for selected in FIELDS:
        folder, _, name = selected.partition(".")
        assert name in artifact["properties"][folder]["properties"]


@pytest.mark.parametrize("path", ["/openapi/v2", f"/openapi/v3{BASE}"])
async def test_every_reference_of_a_document_leads_somewhere(full: Shelf, path: str) -> None:
    """An API server that merges a broken document loses its own."""
    _, document = await full.ask("GET", path)
    prefix = "#/definitions/" if "definitions" in document else "#/components/schemas/"
    found: list[str] = []
    ids: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            found.extend(value for key, value in node.items() if key == "$ref")
            ids.extend(value for key, value in node.items() if key == "operationId")
            for below in node.values():
                walk(below)
        elif isinstance(node, list):
            for below in node:
                walk(below)

    walk(document)
    assert found
    assert {one.removeprefix(prefix) for one in found} <= schemas(document).keys()
    assert len(ids) == len(set(ids)) > 0
    for at, operations in document["paths"].items():
        assert at.startswith("/apis/artifacts.toe.run/")
        named = {one["name"] for one in operations.get("parameters", ())}
        assert named == {part.strip("{}") for part in at.split("/") if part.startswith("{")}


async def test_documents_have_a_tag_and_the_index_names_it(full: Shelf) -> None:
    """So that an API server fetches them once."""
    _, index = await full.ask("GET", "/openapi/v3")
    link = index["paths"]["apis/artifacts.toe.run/v1alpha1"]["serverRelativeURL"]
    async with full.call("GET", link) as reply:
        tag = reply.headers["ETag"]
        assert tag.strip('"') in link
    async with full.call("GET", link, headers={"If-None-Match": tag}) as reply:
        assert (reply.status, await reply.read()) == (304, b"")
    status, _ = await full.ask(
        "GET", link, headers={"Accept": "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"}
    )
    assert status == 406
