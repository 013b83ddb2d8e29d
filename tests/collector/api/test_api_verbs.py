"""What each verb does and refuses: selecting, deleting, holding, bytes, views."""

import json
from typing import Any

import pytest

from tests.collector.api.shelf import NOW, SHOP, Shelf, folded, manifest_on_disk, on_disk
from tests.collector.rig import sha256
from toe_async.collector.api.patching import JSON_PATCH, MERGE, STRATEGIC
from toe_async.lib.clock import rfc3339

NAME = "aaaaaaaaaa-heap.pprof"
HOLD = "toe.run/hold"


# -- selecting --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def stocked(full: Shelf) -> Shelf:
    """Five artifacts a minute apart, the newest first."""
    await full.keep(0, labels={"app": "cart", "tier": "web"}, run="hot", run_uid="u-0")
    await full.keep(1, labels={"app": "cart"}, run="cold", run_uid="u-1", tool="perf")
    await full.keep(2, labels={"app": "pay"}, run="hot", run_uid="u-2", node="node-2")
    await full.keep(3, labels={}, run="hot", run_uid="u-3", leaf="cpu.pprof")
    await full.keep(4, namespace="bank", labels={"app": "cart"})
    return full


@pytest.mark.parametrize(
    ("query", "pods"),
    [
        ("labelSelector=app%3Dcart", "01"),
        ("labelSelector=app%21%3Dcart", "23"),
        ("labelSelector=app+in+(cart,pay),!tier", "12"),
        ("labelSelector=tier", "0"),
        ("fieldSelector=artifact.run%3Dhot", "023"),
        ("fieldSelector=artifact.run!%3Dhot", "1"),
        ("fieldSelector=artifact.runUID==u-2", "2"),
        ("fieldSelector=artifact.tool=perf,artifact.pod=cart-1", "1"),
        ("fieldSelector=artifact.leaf=cpu.pprof", "3"),
        ("fieldSelector=artifact.node=node-2,metadata.namespace=shop", "2"),
        ("fieldSelector=metadata.namespace=bank", ""),
        ("fieldSelector=metadata.name=aaaaaaaaab-heap.pprof", "1"),
        ("fieldSelector=metadata.name=aaaaaaaaab-heap.pprof,artifact.tool=pprof", ""),
        ("fieldSelector=metadata.name=aaaaaaaaab-heap.pprof&since=65m", ""),
        ("fieldSelector=metadata.name=aaaaaaaaab-heap.pprof&labelSelector=app=pay", ""),
        ("fieldSelector=metadata.name=nothing", ""),
        ("fieldSelector=metadata.name!=aaaaaaaaab-heap.pprof", "023"),
        ("fieldSelector=artifact.service=a%5C%2Cb", ""),
        ("run=hot", "023"),
        ("run=u-1", "1"),
        ("since=66m", "01"),
        ("until=66m", "23"),
        ("since=67m&until=66m", "2"),
        (f"since={rfc3339(NOW)}", ""),
        ("q=CPU.pprof", "3"),
        ("q=node-2&run=hot", "2"),
        ("limit=0", "0123"),
        ("limit=100000", "0123"),
        ("fieldSelector=&labelSelector=", "0123"),
        ("unknown=1", "0123"),
    ],
)
async def test_lists_select_by_labels_fields_run_time_and_text(stocked: Shelf, query: str, pods: str) -> None:
    """Newest first; every part must hold."""
    status, page = await stocked.ask("GET", f"{SHOP}?{query}")
    assert status == 200, page
    assert [one["artifact"]["pod"].removeprefix("cart-") for one in page["items"]] == list(pods)


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ("fieldSelector=spec.x=1", 400, "field label not supported: spec.x"),
        ("fieldSelector=artifact.size=1", 400, "field label not supported: artifact.size"),
        ("fieldSelector=artifact.run", 400, "fieldSelector"),
        ("fieldSelector=artifact.run=a=b", 400, "fieldSelector"),
        ("fieldSelector=%3Da", 400, "fieldSelector"),
        ("fieldSelector=artifact.run=a%5C", 400, "backslash"),
        ("fieldSelector=artifact.run=a%5Cb", 400, "fieldSelector"),
        (f"fieldSelector={','.join(['artifact.run=a'] * 33)}", 400, "32 terms"),
        (f"fieldSelector=artifact.run={'a' * 4096}", 400, "4096"),
        ("labelSelector=a%3D%3D%3Db", 400, "labelSelector"),
        ("labelSelector=a%2C", 400, "labelSelector"),
        (f"labelSelector={'a' * 4097}", 400, "4096"),
        ("limit=x", 400, "limit"),
        ("limit=-1", 400, "limit"),
        ("limit=%D9%A1", 400, "limit"),
        ("since=yesterday", 400, "since"),
        ("since=2026-01-01T00:00:00", 400, "since"),
        ("since=-1h", 400, "since"),
        ("until=12", 400, "until"),
        (f"q={'x' * 254}", 400, "q is longer"),
        (f"run={'x' * 254}", 400, "run is longer"),
        ("continue=!!", 410, "continue"),
        ("continue=WzFd", 410, "continue"),
    ],
)
async def test_what_cannot_be_read_is_an_error_and_never_an_empty_or_a_full_list(
    stocked: Shelf, query: str, status: int, told: str
) -> None:
    """The message names the part; the same query with DELETE removes nothing."""
    for method in ("GET", "DELETE"):
        found, error = await stocked.ask(method, f"{SHOP}?{query}")
        assert found == status, error
        assert told in error["message"]
        assert error["reason"] == {400: "BadRequest", 410: "Expired"}[status]
    assert len(on_disk(stocked.root)) == 5


async def test_a_right_for_one_name_lists_that_name(stocked: Shelf) -> None:
    """As an API server asks its authorizer for `--field-selector metadata.name=`."""
    await stocked.ask("GET", f"{SHOP}?fieldSelector=metadata.name%3D{NAME}")
    assert stocked.reviewer.asked[-1]["resourceAttributes"]["name"] == NAME


# -- deleting ---------------------------------------------------------------------------------------------------------


async def test_a_deleted_artifact_is_gone_for_good(full: Shelf) -> None:
    """From the list and from disk; the answer is the Status of a custom resource's deletion."""
    await full.keep(0)
    _, obj = await full.ask("GET", f"{SHOP}/{NAME}")
    status, answer = await full.ask("DELETE", f"{SHOP}/{NAME}", json={"propagationPolicy": "Background"})
    assert status == 200
    assert answer == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {
            "name": NAME,
            "group": "artifacts.toe.run",
            "kind": "artifacts",
            "uid": obj["metadata"]["uid"],
        },
    }
    assert (await full.ask("GET", f"{SHOP}/{NAME}"))[0] == 404
    assert (await full.ask("DELETE", f"{SHOP}/{NAME}"))[0] == 404
    assert (await full.ask("GET", f"{SHOP}/{NAME}/content"))[0] == 404
    assert not on_disk(full.root)


@pytest.mark.parametrize(
    ("body", "query", "status"),
    [
        ({"dryRun": ["All"]}, "", 200),
        (None, "?dryRun=All", 200),
        ({"preconditions": {"uid": "another"}}, "", 409),
        ({"preconditions": {"resourceVersion": "999999"}}, "", 409),
        ({"preconditions": {"uid": "mine", "resourceVersion": "1"}}, "", 409),
        ({"dryRun": ["Some"]}, "", 422),
        (None, "?dryRun=", 422),
        ([], "", 400),
        ({"preconditions": "x"}, "", 400),
    ],
)
async def test_a_deletion_with_conditions_that_do_not_hold_deletes_nothing(
    full: Shelf, body: Any, query: str, status: int
) -> None:
    """Neither does a dry run, which answers as if."""
    await full.keep(0)
    await full.keep(1)
    more = {} if body is None else {"json": body}
    found, answer = await full.ask("DELETE", f"{SHOP}/{NAME}{query}", **more)
    assert (found, answer["kind"]) == (status, "Status")
    assert len(on_disk(full.root)) == 2
    assert (await full.ask("GET", f"{SHOP}/{NAME}"))[0] == 200


async def test_a_deletion_whose_conditions_hold_deletes(full: Shelf) -> None:
    """UID and version as they were read."""
    await full.keep(0)
    _, obj = await full.ask("GET", f"{SHOP}/{NAME}")
    wanted = {key: obj["metadata"][key] for key in ("uid", "resourceVersion")}
    status, _ = await full.ask("DELETE", f"{SHOP}/{NAME}", json={"preconditions": wanted})
    assert (status, on_disk(full.root)) == (200, [])


async def test_a_held_artifact_is_not_deleted_and_the_way_out_is_named(full: Shelf) -> None:
    """Until it is released."""
    await full.keep(0, hold="case 4711")
    status, error = await full.ask("DELETE", f"{SHOP}/{NAME}")
    assert (status, error["reason"]) == (409, "Conflict")
    assert "case 4711" in error["message"]
    assert f"kubectl annotate artifacts {NAME} {HOLD}-" in error["message"]
    await full.library().hold("shop", NAME, "")
    assert (await full.ask("DELETE", f"{SHOP}/{NAME}"))[0] == 200


async def test_a_collection_is_deleted_as_selected_and_pages_do_not_end_it(full: Shelf) -> None:
    """As the namespace controller does when a namespace goes."""
    for number in range(6):
        await full.keep(number, run="hot" if number % 2 else "cold")
    status, answer = await full.ask("DELETE", f"{SHOP}?fieldSelector=artifact.run=hot&limit=1")
    assert (status, answer["status"], answer["details"]) == (
        200,
        "Success",
        {"group": "artifacts.toe.run", "kind": "artifacts"},
    )
    assert len(await full.names()) == len(on_disk(full.root)) == 3
    assert (await full.ask("DELETE", f"{SHOP}?dryRun=All"))[0] == 200
    assert len(await full.names()) == 3
    assert (await full.ask("DELETE", SHOP))[0] == 200
    assert await full.names() == []


async def test_a_collection_with_a_held_artifact_is_no_success(full: Shelf) -> None:
    """The rest of it is gone, and the answer says so."""
    await full.keep(0)
    await full.keep(1, hold="audit")
    await full.keep(2, namespace="bank")
    status, error = await full.ask("DELETE", SHOP)
    assert (status, error["reason"]) == (409, "Conflict")
    assert "audit" in error["message"]
    assert "1 that are not held are deleted" in error["message"]
    assert len(on_disk(full.root)) == 2


# -- holding ----------------------------------------------------------------------------------------------------------


def annotate(value: Any) -> bytes:
    return json.dumps({"metadata": {"annotations": {HOLD: value}}}).encode()


POINTER = "/metadata/annotations/toe.run~1hold"


@pytest.mark.parametrize(
    ("content_type", "held", "patch", "hold"),
    [
        (MERGE, "", annotate("case 1"), "case 1"),
        (STRATEGIC, "", annotate("case 1"), "case 1"),
        (f"{MERGE}; charset=utf-8", "", annotate(" case 1 "), "case 1"),
        (MERGE, "old", annotate("new"), "new"),
        (MERGE, "old", annotate(None), ""),
        (MERGE, "old", annotate(""), ""),
        (MERGE, "old", b'{"metadata":{"annotations":null}}', ""),
        (MERGE, "old", b"{}", "old"),
        (MERGE, "old", b'{"metadata":{"name":"aaaaaaaaaa-heap.pprof"}}', "old"),
        (MERGE, "old", b'{"kind":"Artifact","metadata":{"namespace":"shop","labels":{"app":"cart"}}}', "old"),
        (JSON_PATCH, "old", [{"op": "remove", "path": POINTER}], ""),
        (JSON_PATCH, "old", [{"op": "remove", "path": "/metadata/annotations"}], ""),
        (JSON_PATCH, "old", [{"op": "replace", "path": POINTER, "value": "new"}], "new"),
        (JSON_PATCH, "old", [{"op": "add", "path": POINTER, "value": "new"}], "new"),
        (JSON_PATCH, "", [{"op": "add", "path": "/metadata/annotations", "value": {HOLD: "new"}}], "new"),
        (JSON_PATCH, "old", [{"op": "test", "path": POINTER, "value": "old"}, {"op": "remove", "path": POINTER}], ""),
        (JSON_PATCH, "old", [], "old"),
    ],
)
async def test_a_patch_holds_and_releases(full: Shelf, content_type: str, held: str, patch: Any, hold: str) -> None:
    """On disk too; the version changes only when something does."""
    kept = await full.keep(0, hold=held)
    _, before = await full.ask("GET", f"{SHOP}/{NAME}")
    data = patch if isinstance(patch, bytes) else json.dumps(patch).encode()
    status, after = await full.ask("PATCH", f"{SHOP}/{NAME}", data=data, headers={"Content-Type": content_type})
    assert status == 200, after
    assert after["metadata"].get("annotations", {}) == ({HOLD: hold} if hold else {})
    assert after["artifact"]["hold"] == manifest_on_disk(full.root, kept)["hold"] == hold
    assert (after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]) is (hold != held)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert (await full.ask("GET", f"{SHOP}/{NAME}"))[1] == after


@pytest.mark.parametrize(
    ("content_type", "patch", "status", "field"),
    [
        (MERGE, {"metadata": {"annotations": {"team": "a"}}}, 422, "metadata.annotations[team]"),
        (MERGE, {"metadata": {"annotations": {HOLD: "a", "team": "a"}}}, 422, "metadata.annotations[team]"),
        (MERGE, {"metadata": {"labels": {"app": "pay"}}}, 422, "metadata.labels.app"),
        (MERGE, {"metadata": {"labels": None}}, 422, "metadata.labels"),
        (MERGE, {"metadata": {"name": "x"}}, 422, "metadata.name"),
        (MERGE, {"metadata": {"uid": "x"}}, 422, "metadata.uid"),
        (MERGE, {"metadata": {"finalizers": ["x"]}}, 422, "metadata.finalizers"),
        (MERGE, {"artifact": {"size": 1}}, 422, "artifact.size"),
        (MERGE, {"artifact": {"hold": "x"}}, 422, "artifact.hold"),
        (MERGE, {"artifact": {"directory": [".."]}}, 422, "artifact.directory"),
        (MERGE, {"artifact": None}, 422, "artifact"),
        (MERGE, {"spec": {"a": 1}}, 422, "spec"),
        (MERGE, {"kind": "Pod"}, 422, "kind"),
        (MERGE, {"metadata": None}, 422, "metadata"),
        (MERGE, {"metadata": {"annotations": []}}, 422, "metadata.annotations"),
        (MERGE, {"metadata": {"annotations": {HOLD: 1}}}, 422, f"metadata.annotations[{HOLD}]"),
        (MERGE, {"metadata": {"annotations": {HOLD: "a\nb"}}}, 422, f"metadata.annotations[{HOLD}]"),
        (MERGE, {"metadata": {"annotations": {HOLD: "a\u202eb"}}}, 422, f"metadata.annotations[{HOLD}]"),
        (MERGE, {"metadata": {"annotations": {HOLD: "a" * 1025}}}, 422, f"metadata.annotations[{HOLD}]"),
        (STRATEGIC, {"metadata": {"$patch": "replace"}}, 422, "$patch"),
        (STRATEGIC, {"$retainKeys": ["metadata"]}, 422, "$retainKeys"),
        (JSON_PATCH, [{"op": "replace", "path": "/artifact/size", "value": 1}], 422, "artifact.size"),
        (JSON_PATCH, [{"op": "remove", "path": POINTER}], 422, f"metadata.annotations.{HOLD}"),
        (JSON_PATCH, [{"op": "test", "path": "/artifact/pod", "value": "x"}], 422, "artifact.pod"),
        (JSON_PATCH, [{"op": "add", "path": "/artifact/directory/0", "value": "x"}], 422, "artifact.directory.0"),
        (JSON_PATCH, [{"op": "copy", "from": "/artifact", "path": "/spec"}], 400, ""),
        (JSON_PATCH, [{"op": "add", "path": "", "value": {}}], 400, ""),
        (JSON_PATCH, [{"op": "add", "path": "/spec"}], 400, ""),
        (JSON_PATCH, ["x"], 400, ""),
        (JSON_PATCH, [{"op": "test", "path": "/kind", "value": "Artifact"}] * 101, 413, ""),
        (MERGE, [], 400, ""),
        (MERGE, {"metadata": {"resourceVersion": "0"}}, 409, ""),
        ("application/apply-patch+yaml", {}, 415, ""),
        ("application/json", {}, 415, ""),
        ("", {}, 415, ""),
    ],
)
async def test_a_patch_of_anything_else_is_refused_and_names_the_field(
    full: Shelf, content_type: str, patch: Any, status: int, field: str
) -> None:
    """Nothing of it is applied, the hold neither."""
    kept = await full.keep(0)
    before = manifest_on_disk(full.root, kept)
    found, error = await full.ask(
        "PATCH", f"{SHOP}/{NAME}", data=json.dumps(patch).encode(), headers={"Content-Type": content_type}
    )
    assert (found, error["kind"]) == (status, "Status"), error
    if status == 422:
        assert error["reason"] == "Invalid"
        assert error["details"]["kind"] == "Artifact"
        assert error["details"]["causes"][0]["field"] == field
        assert field in error["message"]
    assert manifest_on_disk(full.root, kept) == before


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"a":' * 5000, b"\xff", b'{"dryRun":["\xff"],"metadata":{"name":"\xff"}}']
)
async def test_a_patch_that_is_no_json_is_400(full: Shelf, body: bytes) -> None:
    """Also when it is nested without end; one above 64 KiB is 413. A deletion's options likewise."""
    await full.keep(0)
    for content_type in (MERGE, JSON_PATCH):
        headers = {"Content-Type": content_type}
        assert (await full.ask("PATCH", f"{SHOP}/{NAME}", data=body, headers=headers))[0] == 400
        assert (await full.ask("PATCH", f"{SHOP}/{NAME}", data=b" " * 65_537, headers=headers))[0] == 413
    if body:
        assert (await full.ask("DELETE", f"{SHOP}/{NAME}", data=body))[0] == 400


async def test_a_patch_that_is_only_tried_changes_nothing(full: Shelf) -> None:
    """It answers as if it had."""
    kept = await full.keep(0)
    headers = {"Content-Type": MERGE}
    status, told = await full.ask("PATCH", f"{SHOP}/{NAME}?dryRun=All", data=annotate("x"), headers=headers)
    assert (status, told["metadata"]["annotations"]) == (200, {HOLD: "x"})
    assert manifest_on_disk(full.root, kept)["hold"] == ""
    assert (await full.ask("PATCH", f"{SHOP}/{NAME}?dryRun=Yes", data=annotate("x"), headers=headers))[0] == 422


async def test_holding_what_was_removed_meanwhile_is_404(full: Shelf) -> None:
    """The catalog may still know it for a moment."""
    await full.keep(0)
    for path in full.root.rglob("*heap.pprof*"):
        path.unlink()
    headers = {"Content-Type": MERGE}
    assert (await full.ask("PATCH", f"{SHOP}/{NAME}", data=annotate("x"), headers=headers))[0] == 404
    assert (await full.ask("GET", f"{SHOP}/{NAME}/content"))[0] == 404


# -- bytes ------------------------------------------------------------------------------------------------------------


async def test_content_is_an_attachment_that_no_browser_runs(full: Shelf) -> None:
    """Whatever the bytes are; HEAD says the same of them."""
    page = b"<html><script>alert(1)</script>"
    await full.keep(0, page)
    for method in ("GET", "HEAD"):
        async with full.call(method, f"{SHOP}/{NAME}/content") as reply:
            assert reply.status == 200
            assert await reply.read() == (page if method == "GET" else b"")
            assert reply.headers["Content-Length"] == str(len(page))
            assert reply.headers["Content-Type"] == "application/octet-stream"
            assert reply.headers["Content-Disposition"] == 'attachment; filename="heap.pprof"'
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
            assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert reply.headers["ETag"] == f'"{sha256(page)}"'
            assert reply.headers["Accept-Ranges"] == "bytes"
            assert "Python" not in reply.headers["Server"]


@pytest.mark.parametrize(
    ("headers", "status", "first", "end"),
    [
        ({}, 200, 0, 1000),
        ({"Range": "bytes=0-9"}, 206, 0, 10),
        ({"Range": "bytes=0-"}, 206, 0, 1000),
        ({"Range": "bytes=990-"}, 206, 990, 1000),
        ({"Range": "bytes=-5"}, 206, 995, 1000),
        ({"Range": "bytes=10-5000"}, 206, 10, 1000),
        ({"Range": "bytes=-5000"}, 206, 0, 1000),
        ({"Range": "bytes=0-9", "If-Range": '"another"'}, 200, 0, 1000),
        ({"Range": "bytes=1000-"}, 416, 0, 0),
        ({"Range": "bytes=9-0"}, 416, 0, 0),
        ({"Range": "bytes=0-1,5-6"}, 416, 0, 0),
        ({"Range": "lines=1-2"}, 416, 0, 0),
        ({"Range": "bytes=-0"}, 416, 0, 0),
    ],
)
async def test_content_comes_in_ranges(full: Shelf, headers: dict[str, str], status: int, first: int, end: int) -> None:
    """So that a broken download goes on where it stopped."""
    data = bytes(range(250)) * 4
    await full.keep(0, data)
    async with full.call("GET", f"{SHOP}/{NAME}/content", headers=headers) as reply:
        assert reply.status == status
        if status == 416:
            assert reply.headers["Content-Range"] == "bytes */1000"
            return
        assert await reply.read() == data[first:end]
        assert reply.headers.get("Content-Range") == (f"bytes {first}-{end - 1}/1000" if status == 206 else None)


async def test_a_range_of_the_content_that_was_read_before_is_given(full: Shelf) -> None:
    """If-Range with the digest that the first part came with."""
    await full.keep(0, b"0123456789")
    headers = {"Range": "bytes=5-", "If-Range": f'"{sha256(b"0123456789")}"'}
    async with full.call("GET", f"{SHOP}/{NAME}/content", headers=headers) as reply:
        assert (reply.status, await reply.read()) == (206, b"56789")


async def test_a_large_artifact_comes_back_as_it_was(full: Shelf) -> None:
    """More than one piece."""
    data = bytes(range(256)) * 4096
    await full.keep(0, data)
    async with full.call("GET", f"{SHOP}/{NAME}/content") as reply:
        assert sha256(await reply.read()) == sha256(data)


# -- views ------------------------------------------------------------------------------------------------------------


async def test_profiles_are_rendered_as_attachments(full: Shelf) -> None:
    """All four views of folded stacks."""
    await full.keep(0, folded("main;serve;parse 30\nmain;serve;write 10\n"))
    await full.keep(1, folded("main;serve;parse 10\nmain;serve;write 10\n"))
    types = {
        "as=top": "application/json",
        "as=flame": "text/html",
        "as=folded": "text/plain",
        "as=diff&base=aaaaaaaaab-heap.pprof": "text/html",
        "as=diff&base=shop/aaaaaaaaab-heap.pprof": "text/html",
    }
    for query, content_type in types.items():
        async with full.call("GET", f"{SHOP}/{NAME}/render?{query}") as reply:
            text = await reply.text()
            assert (reply.status, reply.content_type) == (200, content_type), text
            assert reply.headers["Content-Disposition"] == "attachment"
            assert "sandbox" in reply.headers["Content-Security-Policy"]
            if query == "as=top":
                told = json.loads(text)
                assert told["total"] == 40
                assert {row["function"] for row in told["rows"]} >= {"parse", "write"}


@pytest.mark.parametrize(
    ("query", "status", "cause"),
    [
        ("as=svg", 400, "BadQuery"),
        ("", 400, "BadQuery"),
        ("as=diff", 400, "BadQuery"),
        (f"as=top&base={NAME}", 400, "BadQuery"),
        ("as=top", 422, "NotAProfile"),
        ("as=diff&base=nothing", 404, ""),
        ("as=diff&base=a/b/c", 400, "BadName"),
        ("as=diff&base=/", 400, "BadName"),
    ],
)
async def test_what_cannot_be_rendered_is_a_status(full: Shelf, query: str, status: int, cause: str) -> None:
    """The renderer's own word is the cause."""
    await full.keep(0, b"\x00\x01 no profile")
    found, error = await full.ask("GET", f"{SHOP}/{NAME}/render?{query}")
    assert (found, error["kind"]) == (status, "Status"), error
    assert [one["reason"] for one in error["details"].get("causes", [])] == ([cause] if cause else [])


async def test_a_difference_needs_the_right_for_both(full: Shelf) -> None:
    """Else a viewer of one namespace would see another's profile in red and blue."""
    await full.keep(0, folded("a;b 1\n"))
    await full.keep(1, folded("a;b 2\n"), namespace="bank")
    path = f"{SHOP}/{NAME}/render?as=diff&base=bank/aaaaaaaaab-heap.pprof"
    status, error = await full.ask("GET", path)
    assert (status, error["reason"]) == (403, "Forbidden")
    assert 'in the namespace "bank"' in error["message"]
    full.reviewer.grant("ada", "bank", "get", resource="artifacts/render")
    async with full.call("GET", path) as reply:
        assert reply.status == 200
