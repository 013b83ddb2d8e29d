"""Watches: events, selectors, bookmarks, initial events and expiry."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from tests.contract.clusters import JSON, Server


async def take(events: AsyncIterator[JSON], count: int) -> list[JSON]:
    found: list[JSON] = []
    async with asyncio.timeout(20):
        async for event in events:
            found.append(event)
            if len(found) == count:
                return found
    return found


def brief(events: list[JSON]) -> list[tuple[str, str]]:
    return [(one["type"], one["object"]["metadata"].get("name", "")) for one in events]


async def test_a_watch_tells_every_change_after_its_version(server: Server) -> None:
    path = server.core("configmaps")
    made = await server.make(path, {"metadata": {"name": "a"}})
    await server.merge(f"{path}/a", {"data": {"n": "1"}})
    await server.call("DELETE", f"{path}/a")
    await server.make(path, {"metadata": {"name": "b"}})
    async with server.watch(path, resourceVersion=made["metadata"]["resourceVersion"]) as events:
        found = await take(events, 3)
    assert brief(found) == [("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "b")]
    assert found[1]["object"]["data"] == {"n": "1"}
    versions = [int(one["object"]["metadata"]["resourceVersion"]) for one in found]
    assert versions == sorted(set(versions))
    assert found[0]["object"]["kind"] == "ConfigMap"


async def test_a_watch_without_a_version_begins_with_what_is_there(server: Server) -> None:
    path = server.core("secrets")
    await server.make(path, {"metadata": {"name": "a"}})
    async with server.watch(path) as events:
        first = await take(events, 1)
        await server.make(path, {"metadata": {"name": "b"}})
        second = await take(events, 1)
    assert brief(first + second) == [("ADDED", "a"), ("ADDED", "b")]


async def test_what_leaves_a_selection_is_deleted_for_its_watcher(server: Server) -> None:
    path = server.core("configmaps")
    made = await server.make(path, {"metadata": {"name": "a"}})
    version = made["metadata"]["resourceVersion"]
    await server.merge(f"{path}/a", {"metadata": {"labels": {"in": "yes"}}})
    await server.merge(f"{path}/a", {"data": {"n": "1"}})
    out = await server.merge(f"{path}/a", {"metadata": {"labels": {"in": None}}})
    await server.merge(f"{path}/a", {"metadata": {"labels": {"in": "yes"}}})
    async with server.watch(path, resourceVersion=version, labelSelector="in=yes") as events:
        found = await take(events, 4)
    assert brief(found) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "a")]
    assert found[2]["object"]["metadata"]["resourceVersion"] == out.body["metadata"]["resourceVersion"]
    assert found[2]["object"]["metadata"]["labels"] == {"in": "yes"}


async def test_initial_events_end_with_a_marked_bookmark(server: Server) -> None:
    path = server.core("secrets")
    for name in ("a", "b"):
        await server.make(path, {"metadata": {"name": name}})
    async with server.watch(
        path, sendInitialEvents="true", resourceVersionMatch="NotOlderThan", allowWatchBookmarks="true"
    ) as events:
        found = await take(events, 3)
        await server.make(path, {"metadata": {"name": "c"}})
        after = await take(events, 1)
    assert sorted(brief(found[:2])) == [("ADDED", "a"), ("ADDED", "b")]
    bookmark = found[2]
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["kind"] == "Secret"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(bookmark["object"]["metadata"]["resourceVersion"]) >= int(
        found[1]["object"]["metadata"]["resourceVersion"]
    )
    assert brief(after) == [("ADDED", "c")]


@pytest.mark.slow
async def test_the_server_ends_a_watch_after_its_timeout_with_a_bookmark_before(server: Server) -> None:
    """A bookmark carries the version past changes that the watch did not see.

    The real server owes none to a watch as short as this (it counts on a timer of its own), so there only its form is
    checked; the sandbox sends it always, since clients are tested by it.
    """
    path = server.core("secrets")
    version = (await server.make(path, {"metadata": {"name": "a"}}))["metadata"]["resourceVersion"]
    unseen = (await server.make(path, {"metadata": {"name": "b"}}))["metadata"]["resourceVersion"]
    async with server.watch(
        path,
        resourceVersion=version,
        fieldSelector="metadata.name=a",
        timeoutSeconds="5",
        allowWatchBookmarks="true",
    ) as events:
        found = await take(events, 9)
    assert {one["type"] for one in found} <= {"BOOKMARK"}
    assert found or server.is_real
    for one in found:
        assert int(one["object"]["metadata"]["resourceVersion"]) >= int(unseen)


async def test_a_watch_from_before_the_history_gets_410_as_an_event(server: Server) -> None:
    """And so does a list of then, once etcd has compacted: in the real server's first five minutes it has not."""
    definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    group = f"{server.namespace}.toe.run"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    await server.make_cluster_wide(definition, body)
    path = f"/apis/{group}/v1/namespaces/{server.namespace}/things"
    await server.eventually(lambda: server.call("GET", path), lambda answer: answer.status == 200)
    async with server.watch(path, resourceVersion="1") as events:
        found = await take(events, 2)
    past = await server.call("GET", path, resourceVersion="1", resourceVersionMatch="Exact")
    assert len(found) == 1
    status = found[0]["object"]
    assert found[0]["type"] == "ERROR"
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
    assert status["message"].startswith("too old resource version: 1 (")
    if past.status != 200 or not server.is_real:
        assert (past.status, past.body["reason"]) == (410, "Expired")


async def test_a_watch_can_be_seen_as_a_table(server: Server) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    await server.make(server.core("secrets"), {"metadata": {"name": "a"}})
    answer = await server.call("GET", server.core("secrets"), accept=accept, watch="1", timeoutSeconds="1")
    event = json.loads(answer.raw.splitlines()[0])
    assert event["object"]["kind"] == "Table"
    assert event["object"]["rows"][0]["cells"][0] == "a"
