"""Creating, changing and deleting objects."""

import asyncio
import re

import pytest

from tests.contract.clusters import JSON, Server

UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SECOND = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def config_map(name: str, data: JSON | None = None, **meta: object) -> JSON:
    return {"metadata": {"name": name, **meta}, "data": data or {"k": "v"}}


async def test_a_created_object_gets_its_identity_from_the_server(server: Server) -> None:
    made = await server.make(server.core("configmaps"), config_map("a", uid="mine"))
    meta = made["metadata"]
    assert (made["kind"], made["apiVersion"]) == ("ConfigMap", "v1")
    assert meta["namespace"] == server.namespace
    assert UID.fullmatch(meta["uid"])
    assert SECOND.fullmatch(meta["creationTimestamp"])
    assert meta["resourceVersion"].isdecimal()
    assert "generation" not in meta


async def test_creating_what_is_there_is_409_already_exists(server: Server) -> None:
    await server.make(server.core("configmaps"), config_map("a"))
    again = await server.call("POST", server.core("configmaps"), config_map("a"))
    assert (again.status, again.body["reason"]) == (409, "AlreadyExists")
    assert again.message == 'configmaps "a" already exists'
    assert again.body["details"] == {"name": "a", "kind": "configmaps"}


async def test_what_is_not_there_is_404_and_named(server: Server) -> None:
    missing = await server.call("GET", server.core("configmaps", "nope"))
    assert missing.status == 404
    assert missing.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'configmaps "nope" not found',
        "reason": "NotFound",
        "details": {"name": "nope", "kind": "configmaps"},
        "code": 404,
    }
    elsewhere = await server.call("POST", "/api/v1/namespaces/contract-nowhere/configmaps", config_map("a"))
    assert (elsewhere.status, elsewhere.message) == (404, 'namespaces "contract-nowhere" not found')


async def test_generate_name_adds_five_characters(server: Server) -> None:
    made = await server.make(server.core("configmaps"), {"metadata": {"generateName": "gen-"}})
    assert re.fullmatch(r"gen-[bcdfghjklmnpqrstvwxz2456789]{5}", made["metadata"]["name"])


@pytest.mark.parametrize(
    ("meta", "status", "said"),
    [
        ({"name": "A_b"}, 422, 'ConfigMap "A_b" is invalid: metadata.name: Invalid value: "A_b": a lowercase RFC 1123'),
        ({}, 422, 'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required'),
        ({"name": "a", "namespace": "zz"}, 400, "the namespace of the provided object does not match the namespace"),
        ({"name": "a", "resourceVersion": "5"}, 500, "resourceVersion should not be set on objects to be created"),
        ({"name": "a", "finalizers": ["zz"]}, 422, "neither a standard finalizer name nor is it fully qualified"),
        ({"name": "a", "labels": {"x": "white space"}}, 422, "metadata.labels: Invalid value"),
        ({"name": "a", "labels": {"x": 1}}, 400, "cannot be handled as a ConfigMap"),
        ({"name": "a", "labels": []}, 400, "cannot be handled as a ConfigMap"),
        ({"name": "a", "finalizers": "x"}, 400, "cannot be handled as a ConfigMap"),
    ],
)
async def test_bad_metadata_is_refused(server: Server, meta: JSON, status: int, said: str) -> None:
    answer = await server.call("POST", server.core("configmaps"), {"metadata": meta})
    assert answer.status == status
    assert said in answer.message


async def test_a_body_that_is_no_object_is_400(server: Server) -> None:
    broken = await server.call("POST", server.core("configmaps"), b"{")
    other = await server.call("POST", server.core("configmaps"), {"kind": "Pod", "apiVersion": "v1"})
    assert (broken.status, broken.body["reason"]) == (400, "BadRequest")
    assert other.status == 400
    assert "cannot be handled as a ConfigMap" in other.message


async def test_put_with_a_stale_version_is_409_conflict(server: Server) -> None:
    path = server.core("configmaps", "a")
    made = await server.make(server.core("configmaps"), config_map("a"))
    newer = await server.call("PUT", path, config_map("a", {"k": "2"}))
    stale = await server.call(
        "PUT", path, config_map("a", {"k": "3"}, resourceVersion=made["metadata"]["resourceVersion"])
    )
    assert newer.status == 200
    assert (stale.status, stale.body["reason"]) == (409, "Conflict")
    assert stale.message == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )


async def test_put_checks_name_uid_and_existence(server: Server) -> None:
    path = server.core("configmaps", "a")
    await server.make(server.core("configmaps"), config_map("a"))
    renamed = await server.call("PUT", path, config_map("b"))
    other = await server.call("PUT", path, config_map("a", uid="abc"))
    missing = await server.call("PUT", server.core("configmaps", "b"), config_map("b"))
    assert (renamed.status, renamed.message) == (
        400,
        "the name of the object (b) does not match the name on the URL (a)",
    )
    assert (other.status, other.body["reason"]) == (409, "Conflict")
    assert "Precondition failed: UID in precondition: abc, UID in object meta" in other.message
    assert missing.status == 404


async def test_a_patch_that_names_another_uid_is_invalid_where_a_put_is_a_conflict(server: Server) -> None:
    made = await server.make(server.core("configmaps"), config_map("a"))
    path, wrong = server.core("configmaps", "a"), {"metadata": {"uid": "abc"}}
    refused = await server.merge(path, wrong)
    right = await server.merge(path, {"metadata": {"uid": made["metadata"]["uid"], "labels": {"l": "1"}}})
    assert (refused.status, set(refused.causes)) == (422, {("FieldValueInvalid", "metadata.uid")})
    assert refused.message == 'ConfigMap "a" is invalid: metadata.uid: Invalid value: "abc": field is immutable'
    assert right.status == 200


async def test_a_merge_patch_changes_only_what_it_names(server: Server) -> None:
    path = server.core("configmaps", "a")
    made = await server.make(server.core("configmaps"), config_map("a", {"keep": "1", "drop": "2"}, labels={"l": "1"}))
    patched = await server.merge(path, {"data": {"drop": None, "add": "3"}})
    stale = await server.merge(path, {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}})
    broken = await server.call("PATCH", path, b"{", content_type="application/merge-patch+json")
    assert patched.body["data"] == {"keep": "1", "add": "3"}
    assert patched.body["metadata"]["labels"] == {"l": "1"}
    assert int(patched.body["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    assert (stale.status, stale.body["reason"]) == (409, "Conflict")
    assert broken.status == 400


async def test_a_patch_that_changes_nothing_makes_no_new_version(server: Server) -> None:
    made = await server.make(server.core("configmaps"), config_map("a"))
    same = await server.merge(server.core("configmaps", "a"), {"data": {"k": "v"}})
    assert same.body["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_json_patch_applies_or_is_422(server: Server) -> None:
    path, kind = server.core("configmaps", "a"), "application/json-patch+json"
    await server.make(server.core("configmaps"), config_map("a", {"b": "2"}))
    operations = [{"op": "test", "path": "/data/b", "value": "2"}, {"op": "add", "path": "/data/c", "value": "3"}]
    done = await server.call("PATCH", path, operations, content_type=kind)
    failed = await server.call("PATCH", path, [{"op": "test", "path": "/data/b", "value": "x"}], content_type=kind)
    assert done.body["data"] == {"b": "2", "c": "3"}
    assert (failed.status, failed.body["reason"]) == (422, "Invalid")


async def test_a_strategic_patch_joins_lists_by_their_keys(server: Server) -> None:
    container = {"name": "a", "image": "x", "env": [{"name": "E", "value": "1"}]}
    spec = {"nodeName": "contract-no-node", "containers": [container, {"name": "b", "image": "y"}]}
    await server.make(server.core("pods"), {"metadata": {"name": "p"}, "spec": spec})
    patch = {"spec": {"containers": [{"name": "b", "image": "z"}]}}
    kind = "application/strategic-merge-patch+json"
    patched = await server.call("PATCH", server.core("pods", "p"), patch, content_type=kind)
    images = {one["name"]: one["image"] for one in patched.body["spec"]["containers"]}
    await server.call("DELETE", server.core("pods", "p"), gracePeriodSeconds="0")
    assert images == {"a": "x", "b": "z"}


async def test_a_patch_of_an_unknown_type_is_415(server: Server) -> None:
    await server.make(server.core("configmaps"), config_map("a"))
    answer = await server.call("PATCH", server.core("configmaps", "a"), {}, content_type="application/json")
    assert (answer.status, answer.body["reason"]) == (415, "UnsupportedMediaType")


async def test_server_side_apply_creates_owns_and_removes(server: Server) -> None:
    path, kind = server.core("configmaps", "a"), "application/apply-patch+yaml"

    def applied(data: JSON) -> JSON:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}

    made = await server.call("PATCH", path, applied({"x": "1", "y": "2"}), content_type=kind, fieldManager="m1")
    smaller = await server.call("PATCH", path, applied({"x": "1"}), content_type=kind, fieldManager="m1")
    other = await server.call("PATCH", path, applied({"x": "9"}), content_type=kind, fieldManager="m2")
    forced = await server.call("PATCH", path, applied({"x": "9"}), content_type=kind, fieldManager="m2", force="true")
    nameless = await server.call("PATCH", path, applied({}), content_type=kind)
    assert made.status == 201
    assert smaller.body["data"] == {"x": "1"}
    assert (other.status, other.causes) == (409, [("FieldManagerConflict", ".data.x")])
    assert other.message == 'Apply failed with 1 conflict: conflict with "m1": .data.x'
    assert forced.body["data"] == {"x": "9"}
    assert (nameless.status, nameless.causes) == (422, [("FieldValueRequired", "fieldManager")])


async def test_dry_run_answers_and_stores_nothing(server: Server) -> None:
    answer = await server.call("POST", server.core("configmaps"), config_map("a"), dryRun="All")
    assert answer.status == 201
    assert "resourceVersion" not in answer.body["metadata"]
    assert (await server.call("GET", server.core("configmaps", "a"))).status == 404


async def test_delete_answers_with_a_status_that_names_the_object(server: Server) -> None:
    made = await server.make(server.core("configmaps"), config_map("a"))
    answer = await server.call("DELETE", server.core("configmaps", "a"))
    again = await server.call("DELETE", server.core("configmaps", "a"))
    assert answer.body["status"] == "Success"
    assert answer.body["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    assert again.status == 404


@pytest.mark.parametrize("field", ["uid", "resourceVersion"])
async def test_a_delete_whose_precondition_fails_is_409_and_deletes_nothing(server: Server, field: str) -> None:
    path = server.core("configmaps", "a")
    made = await server.make(server.core("configmaps"), config_map("a"))
    wrong = await server.call("DELETE", path, {"preconditions": {field: "1"}})
    right = await server.call("DELETE", path, {"preconditions": {field: made["metadata"][field]}})
    assert (wrong.status, wrong.body["reason"]) == (409, "Conflict")
    assert "in the precondition (1) does not match" in wrong.message
    assert right.status == 200


async def test_a_finalizer_keeps_a_deleted_object_until_it_is_removed(server: Server) -> None:
    path = server.core("configmaps", "a")
    await server.make(server.core("configmaps"), config_map("a", finalizers=["example.com/hold"]))
    deleted = await server.call("DELETE", path)
    held = await server.call("GET", path)
    released = await server.merge(path, {"metadata": {"finalizers": None}})
    assert deleted.body["kind"] == "ConfigMap"
    assert SECOND.fullmatch(held.body["metadata"]["deletionTimestamp"])
    assert held.body["metadata"]["deletionGracePeriodSeconds"] == 0
    assert released.status == 200
    assert (await server.call("GET", path)).status == 404


async def test_objects_go_with_their_owner(server: Server) -> None:
    owner = await server.make(server.core("configmaps"), config_map("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    await server.make(server.core("secrets"), {"metadata": {"name": "owned", "ownerReferences": [reference]}})
    await server.call("DELETE", server.core("configmaps", "owner"))
    await server.gone(server.core("secrets", "owned"))


async def test_a_deleted_namespace_takes_its_objects_and_accepts_no_new_ones(server: Server) -> None:
    await server.make(server.core("configmaps"), config_map("held", finalizers=["example.com/hold"]))
    path = f"/api/v1/namespaces/{server.namespace}"
    deleted = await server.call("DELETE", path)
    refused = await server.call("POST", server.core("configmaps"), config_map("late"))
    assert deleted.body["status"]["phase"] == "Terminating"
    assert (refused.status, refused.body["reason"]) == (403, "Forbidden")
    assert "because it is being terminated" in refused.message
    await server.until(server.core("configmaps", "held"), lambda one: "deletionTimestamp" in one["metadata"])
    await server.merge(server.core("configmaps", "held"), {"metadata": {"finalizers": None}})
    await server.gone(path)


async def test_delete_collection_takes_what_is_selected(server: Server) -> None:
    for name in ("a", "b"):
        await server.make(server.core("configmaps"), config_map(name, labels={"which": name}))
    answer = await server.call("DELETE", server.core("configmaps"), labelSelector="which=a")
    assert answer.status == 200
    assert (await server.call("GET", server.core("configmaps", "a"))).status == 404
    assert (await server.call("GET", server.core("configmaps", "b"))).status == 200


async def test_secrets_take_plain_text_and_keep_it_encoded(server: Server) -> None:
    made = await server.make(server.core("secrets"), {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    broken = await server.call("POST", server.core("secrets"), {"metadata": {"name": "t"}, "data": {"a": "***"}})
    assert (made["data"], made["type"], "stringData" in made) == ({"a": "Yg=="}, "Opaque", False)
    assert broken.status == 400


async def test_leases_are_replaced_only_from_their_present_version(server: Server) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{server.namespace}/leases"
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "renewTime": "2026-01-24T20:44:08.123456Z"}}
    made = await server.make(path, lease)
    blind = await server.call("PUT", f"{path}/l", lease)
    made["spec"]["holderIdentity"] = "b"
    won, lost = await asyncio.gather(*(server.call("PUT", f"{path}/l", made) for _ in range(2)))
    assert made["spec"]["renewTime"] == "2026-01-24T20:44:08.123456Z"
    assert (blind.status, blind.causes) == (422, [("FieldValueInvalid", "metadata.resourceVersion")])
    assert sorted([won.status, lost.status]) in ([200, 409], [200, 200])


async def test_events_belong_to_the_namespace_of_what_they_tell_about(server: Server) -> None:
    about = {"kind": "Pod", "namespace": server.namespace, "name": "p"}
    event = {"metadata": {"name": "e"}, "involvedObject": about, "reason": "R", "message": "m", "type": "Normal"}
    await server.make(server.core("events"), event)
    foreign = {**event, "metadata": {"name": "f"}, "involvedObject": {**about, "namespace": "default"}}
    refused = await server.call("POST", server.core("events"), foreign)
    found = await server.call("GET", server.core("events"), fieldSelector="involvedObject.name=p,reason=R")
    none = await server.call("GET", server.core("events"), fieldSelector="involvedObject.name=q")
    assert (refused.status, refused.causes) == (422, [("FieldValueInvalid", "involvedObject.namespace")])
    assert [one["metadata"]["name"] for one in found.body["items"]] == ["e"]
    assert none.body["items"] == []
