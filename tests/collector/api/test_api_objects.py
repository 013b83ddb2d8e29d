"""What a client gets: objects, lists, tables and errors, field by field as an API server sends a custom resource."""

import json
from typing import Any

import pytest
import structlog
from aiohttp import web

from tests.collector.api.shelf import BASE, SHOP, TABLE, Shelf, StartShelf, served
from tests.collector.rig import outage
from toe_async.apis.core import UserInfo
from toe_async.collector.api.routes import Api
from toe_async.collector.settings import Limits

NAME = "aaaaaaaaaa-heap.pprof"


async def test_an_artifact_is_an_object_of_its_group(full: Shelf) -> None:
    """Identity, labels and times where clients look for them; all that is known of it under `artifact`."""
    held = await full.keep(0, retention_days=7, details={"argv": "tcpdump -i any"})
    status, found = await full.ask("GET", f"{SHOP}/{NAME}")
    assert status == 200
    assert found["metadata"].pop("uid").count("-") == 4
    assert found["metadata"].pop("resourceVersion").isdigit()
    told = found.pop("artifact")
    assert found == {
        "apiVersion": "artifacts.toe.run/v1alpha1",
        "kind": "Artifact",
        "metadata": {
            "name": NAME,
            "namespace": "shop",
            "creationTimestamp": "2026-01-24T20:44:08Z",
            "labels": {"app": "cart"},
        },
    }
    assert told["sha256"] == held.sha256
    assert told["retentionDays"] == 7
    assert told["details"] == {"argv": "tcpdump -i any"}
    assert (told["runUID"], told["podUID"]) == (held.run_uid, held.pod_uid)
    assert told["storedAt"] == "2026-01-24T20:44:08.250000Z"


async def test_nulls_are_left_out(full: Shelf) -> None:
    """The schema has no nullable field."""
    await full.keep(0)
    _, found = await full.ask("GET", f"{SHOP}/{NAME}")
    assert "null" not in json.dumps(found)


async def test_a_uid_is_of_one_stored_artifact(full: Shelf) -> None:
    """The same after a restart; another one when the name is taken again."""
    await full.keep(0)
    _, first = await full.ask("GET", f"{SHOP}/{NAME}")
    _, again = await full.ask("GET", f"{SHOP}/{NAME}")
    assert first["metadata"]["uid"] == again["metadata"]["uid"]
    await full.library().delete("shop", NAME)
    await full.keep(0, b"other bytes")
    _, other = await full.ask("GET", f"{SHOP}/{NAME}")
    assert other["metadata"]["uid"] != first["metadata"]["uid"]


async def test_a_list_is_newest_first_with_version_continue_and_count(full: Shelf) -> None:
    """As metav1.ListMeta has it; the last page has neither token nor count."""
    for number in (2, 0, 1):
        await full.keep(number)
    status, first = await full.ask("GET", f"{SHOP}?limit=2")
    assert (status, first["apiVersion"], first["kind"]) == (200, "artifacts.toe.run/v1alpha1", "ArtifactList")
    assert [one["artifact"]["pod"] for one in first["items"]] == ["cart-0", "cart-1"]
    meta = first["metadata"]
    assert (meta["remainingItemCount"], meta["resourceVersion"].isdigit()) == (1, True)
    _, last = await full.ask("GET", f"{SHOP}?limit=2&continue={meta['continue']}")
    assert [one["artifact"]["pod"] for one in last["items"]] == ["cart-2"]
    assert last["metadata"].keys() == {"resourceVersion"}


async def test_an_empty_list_has_items(full: Shelf) -> None:
    """Not null, which Go clients take but scripts do not."""
    _, found = await full.ask("GET", SHOP)
    assert found["items"] == []


async def test_all_namespaces_are_one_list_with_its_own_right(full: Shelf) -> None:
    """A right in one namespace does not give it."""
    await full.keep(0)
    await full.keep(1, namespace="bank")
    status, error = await full.ask("GET", f"{BASE}/artifacts")
    assert (status, error["reason"]) == (403, "Forbidden")
    assert error["message"] == (
        'artifacts.artifacts.toe.run is forbidden: User "ada" cannot list resource "artifacts" in API group '
        '"artifacts.toe.run" at the cluster scope'
    )
    full.reviewer.grant("ada", "", "list")
    _, found = await full.ask("GET", f"{BASE}/artifacts")
    assert [one["metadata"]["namespace"] for one in found["items"]] == ["shop", "bank"]


async def test_a_table_has_the_columns_and_cells_that_kubectl_prints(full: Shelf) -> None:
    """With each row's metadata, from which kubectl takes the namespace."""
    await full.keep(0, content=b"x" * 1536)
    status, found = await full.ask("GET", SHOP, headers={"Accept": TABLE})
    assert status == 200
    assert (found["kind"], found["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert found["metadata"].keys() == {"resourceVersion"}
    shown = [one["name"] for one in found["columnDefinitions"] if one["priority"] == 0]
    assert shown == ["Name", "Run", "Pod", "Size", "Reason", "Age"]
    wide = [one["name"] for one in found["columnDefinitions"] if one["priority"] == 1]
    assert wide == ["Kind", "Tool", "Container", "Node", "Service", "Hold", "SHA256"]
    for definition in found["columnDefinitions"]:
        assert definition.keys() == {"name", "type", "format", "description", "priority"}
        assert definition["description"]
    (row,) = found["rows"]
    assert row["cells"][:6] == [NAME, "hot-carts", "cart-0", "1.5KiB", "threshold-exceeded", "65m"]
    assert len(row["cells"]) == len(found["columnDefinitions"])
    assert row["object"]["kind"] == "PartialObjectMetadata"
    assert row["object"]["apiVersion"] == "meta.k8s.io/v1"
    assert row["object"]["metadata"]["namespace"] == "shop"
    assert "artifact" not in row["object"]


async def test_a_row_carries_what_is_asked_for(full: Shelf) -> None:
    """includeObject of None, Metadata or Object; anything else is an error."""
    await full.keep(0)

    async def row(include: str) -> Any:
        return (await full.ask("GET", f"{SHOP}?includeObject={include}", headers={"Accept": TABLE}))[1]["rows"][0]

    assert "object" not in await row("None")
    assert (await row("Object"))["object"]["artifact"]["pod"] == "cart-0"
    assert (await row("Metadata"))["object"]["kind"] == "PartialObjectMetadata"
    status, error = await full.ask("GET", f"{SHOP}?includeObject=All", headers={"Accept": TABLE})
    assert (status, error["reason"]) == (400, "BadRequest")


async def test_one_artifact_is_a_table_too(full: Shelf) -> None:
    """As `kubectl get artifact NAME` asks; its version is the object's."""
    await full.keep(0)
    _, obj = await full.ask("GET", f"{SHOP}/{NAME}")
    _, found = await full.ask("GET", f"{SHOP}/{NAME}", headers={"Accept": TABLE})
    assert len(found["rows"]) == 1
    assert found["metadata"] == {"resourceVersion": obj["metadata"]["resourceVersion"]}


async def test_metadata_alone_is_given_when_asked(full: Shelf) -> None:
    """As the namespace controller and metadata clients ask: protobuf first, JSON if that is all there is."""
    await full.keep(0)
    many, one = (
        f"application/vnd.kubernetes.protobuf;as={kind};g=meta.k8s.io;v=v1,application/json;as={kind};g=meta.k8s.io;v=v1"
        for kind in ("PartialObjectMetadataList", "PartialObjectMetadata")
    )
    _, page = await full.ask("GET", SHOP, headers={"Accept": many})
    _, obj = await full.ask("GET", f"{SHOP}/{NAME}", headers={"Accept": one})
    assert (page["kind"], page["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
    assert page["items"] == [obj]
    assert obj.keys() == {"kind", "apiVersion", "metadata"}
    assert obj["kind"] == "PartialObjectMetadata"


@pytest.mark.parametrize(
    "accept",
    ["application/yaml", "application/vnd.kubernetes.protobuf", "text/html", "application/json;q=0",
     "application/json;as=Table;v=v2;g=meta.k8s.io", "application/json;as=Table;v=v1;g=apps"],
)  # fmt: skip
async def test_a_form_that_does_not_exist_is_406(full: Shelf, accept: str) -> None:
    """With a Status, as every error."""
    status, error = await full.ask("GET", SHOP, headers={"Accept": accept})
    assert (status, error["reason"], error["code"]) == (406, "NotAcceptable", 406)


@pytest.mark.parametrize(
    "accept", ["*/*", "application/*", "text/html,*/*;q=0.8", "application/json;charset=utf-8", ""]
)
async def test_whoever_takes_anything_gets_the_object(full: Shelf, accept: str) -> None:
    """Curl and browsers."""
    status, found = await full.ask("GET", SHOP, headers={"Accept": accept})
    assert (status, found["kind"]) == (200, "ArtifactList")


async def test_an_answer_is_never_pretty_and_the_question_is_ignored(full: Shelf) -> None:
    """Indentation is the client's."""
    async with full.call("GET", f"{SHOP}?pretty=true") as reply:
        assert "\n" not in await reply.text()


async def test_errors_are_statuses_with_reason_code_and_details(full: Shelf) -> None:
    """Exactly what a client of a custom resource gets for a name that is not there."""
    status, error = await full.ask("GET", f"{SHOP}/nothing")
    assert status == 404
    assert error == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'artifacts.artifacts.toe.run "nothing" not found',
        "reason": "NotFound",
        "details": {"name": "nothing", "group": "artifacts.toe.run", "kind": "artifacts"},
        "code": 404,
    }


async def test_a_list_before_the_store_is_read_is_503_and_says_when_to_come_again(start_shelf: StartShelf) -> None:
    """A short list would be a lie; so would be a 404, but what is known already is given."""
    async with start_shelf(complete=False) as shelf:
        await shelf.keep(0)
        for path in (SHOP, f"{SHOP}/nothing"):
            async with shelf.call("GET", path) as reply:
                error = await reply.json()
                assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
                assert (error["reason"], error["details"]["retryAfterSeconds"]) == ("ServiceUnavailable", 5)
                assert error["details"]["causes"][0]["reason"] == "IndexIncomplete"
        assert (await shelf.ask("GET", f"{SHOP}/{NAME}"))[0] == 200
        assert (await shelf.ask("DELETE", SHOP))[0] == 503


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("POST", SHOP, 405, "MethodNotAllowed"),
        ("PUT", f"{SHOP}/x", 405, "MethodNotAllowed"),
        ("POST", f"{SHOP}/x/content", 405, "MethodNotAllowed"),
        ("DELETE", f"{BASE}/artifacts", 405, "MethodNotAllowed"),
        ("GET", f"{SHOP}?watch=true", 405, "MethodNotAllowed"),
        ("GET", f"{SHOP}?watch=1", 405, "MethodNotAllowed"),
        ("GET", f"{SHOP}/x/status", 404, "NotFound"),
        ("GET", "/apis/apps/v1", 404, "NotFound"),
        ("GET", f"{BASE}/namespaces/shop/pods", 404, "NotFound"),
        ("GET", "/openapi/v3/apis/apps/v1", 404, "NotFound"),
        ("GET", f"{BASE}/namespaces/Shop/artifacts", 400, "BadRequest"),
        ("GET", f"{SHOP}/{'x' * 254}", 400, "BadRequest"),
    ],
)
async def test_what_is_no_call_is_a_status(full: Shelf, method: str, path: str, status: int, reason: str) -> None:
    """Never a page of the web framework."""
    found, error = await full.ask(method, path, data=b"x")
    assert (found, error["kind"], error["status"], error["reason"]) == (status, "Status", "Failure", reason)


async def test_a_token_is_needed_and_a_broken_reviewer_lets_nobody_in(full: Shelf) -> None:
    """401 and 503, in the form of the API."""
    status, error = await full.ask("GET", SHOP, None)
    assert (status, error["reason"]) == (401, "Unauthorized")
    assert (await full.ask("GET", SHOP, "made-up-token"))[0] == 401
    full.reviewer.down = outage()
    status, error = await full.ask("GET", SHOP)
    assert (status, error["reason"]) == (503, "ServiceUnavailable")


async def test_a_fault_of_ours_is_a_status_too(full: Shelf) -> None:
    """With nothing of its cause; the log has that."""

    class Broken:
        async def viewer(self, request: web.Request) -> UserInfo:
            raise ZeroDivisionError("secret")

    with structlog.testing.capture_logs() as records:
        async with served(Api(full.holdings, Broken(), Limits())) as url, full.http.get(url + SHOP) as reply:
            error = await reply.json()
    assert [one["event"] for one in records if one["log_level"] == "error"] == ["a request failed unexpectedly"]
    assert (reply.status, error["kind"], error["reason"], error["code"]) == (500, "Status", "InternalError", 500)
    assert "secret" not in json.dumps(error)
