"""Statuses are written under their version: nobody's entry is lost, nothing is written for another incarnation."""

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from profilingconfig_facts import NOW

from toe_async.apis.profilingstatus import ProfilingConfigStatus
from toe_async.controllers.profilingconfig.facts import ConfigKey
from toe_async.controllers.profilingconfig.ledger import Ledger, status_patch
from toe_async.kube.errors import Conflict, NotFound, TransportError
from toe_async.kube.requests import Request

KEY = ConfigKey("profiling.io", "shop", "hot")


class Server:
    """Keeps one object as an API server does: versions, merge patches, preconditions on uid and version."""

    def __init__(self) -> None:
        self.object: dict[str, Any] | None = {
            "metadata": {"name": "hot", "namespace": "shop", "uid": "u1", "resourceVersion": "1"},
            "spec": {"collector": {}},
            "status": {},
        }
        self.patches: list[dict[str, Any]] = []
        self.fail: list[Exception] = []

    async def send(self, request: Request) -> bytes:
        await asyncio.sleep(0)
        if self.fail:
            raise self.fail.pop(0)
        if self.object is None:
            raise NotFound(404, "NotFound", "not there")
        if request.method == "PATCH":
            assert request.path.endswith("/status")
            assert request.body is not None
            patch = msgspec.json.decode(request.body)
            held = self.object["metadata"]
            if any(patch["metadata"][key] != held[key] for key in ("uid", "resourceVersion")):
                raise Conflict(409, "Conflict", "changed")
            self.patches.append(patch)
            held["resourceVersion"] = str(int(held["resourceVersion"]) + 1)
            status = self.object["status"]
            for key, value in patch["status"].items():
                if isinstance(value, dict):
                    merged = {**status.get(key, {}), **value}
                    status[key] = {name: one for name, one in merged.items() if one is not None}
                else:
                    status[key] = value
        return msgspec.json.encode(self.object)


def one_more(status: ProfilingConfigStatus) -> ProfilingConfigStatus:
    """A step that shows when it was lost."""
    return replace(status, total_profiles=status.total_profiles + 1)


@pytest.mark.looptime
async def test_entries_that_overtake_each_other_are_all_kept() -> None:
    """Two replicas and many captures write one status: every one of their entries is in it."""
    server = Server()
    ledgers = [Ledger(server), Ledger(server)]
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(ledgers[number % 2].enter(KEY, "u1", one_more))
    assert server.object is not None
    assert server.object["status"]["totalProfiles"] == 20


async def test_nothing_is_written_for_another_incarnation_or_a_deleted_object() -> None:
    """A config made anew under the same name has not taken these captures."""
    server = Server()
    assert await Ledger(server).enter(KEY, "older", one_more) is None
    assert server.patches == []
    server.object = None
    assert await Ledger(server).enter(KEY, "u1", one_more) is None


async def test_a_step_that_changes_nothing_is_not_sent() -> None:
    """Idle steps cost a read, never a write."""
    server = Server()
    assert await Ledger(server).enter(KEY, "u1", lambda status: status) is not None
    assert server.patches == []


async def test_an_outage_is_told_to_the_caller() -> None:
    """Whether to wait is not the ledger's decision."""
    server = Server()
    server.fail = [TransportError("connection refused")]
    with pytest.raises(TransportError):
        await Ledger(server).enter(KEY, "u1", one_more)


def test_a_patch_holds_only_what_differs_and_removes_vanished_keys() -> None:
    """Other writers' fields are not ours to repeat; a merge patch removes a map's key by null only."""
    old = ProfilingConfigStatus(active_pods=1, not_fired={"Busy": 1, "Cooldown": 2}, last_profile_time=NOW)
    new = replace(old, not_fired={"Cooldown": 3})
    patch = status_patch(old, new, "7", "u1")
    assert patch is not None
    assert patch["status"] == {"notFired": {"Cooldown": 3, "Busy": None}}
    assert patch["metadata"] == {"resourceVersion": "7", "uid": "u1"}
    assert status_patch(old, old, "7", "u1") is None
