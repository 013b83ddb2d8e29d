"""What a real API server says of good and bad objects of our kinds; the sentences are part of the product."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from admissioncases import FILES, STARTED_CHANGES, cases

from toe_async.apis.crd import all_crds
from toe_async.apis.kinds import CRDS, POWER_TOOLS, Kind
from toe_async.kube import requests
from toe_async.kube.client import Client, ClientSettings, connect
from toe_async.kube.errors import ApiError
from toe_async.kube.requests import Request

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif("KUBECONFIG" not in os.environ, reason="needs a cluster: set KUBECONFIG"),
]

NAMESPACE = "default"
each_kind = pytest.mark.parametrize("kind", list(FILES), ids=lambda kind: kind.crd_name)


async def established(client: Client, name: str) -> None:
    async with asyncio.timeout(30):
        while True:
            crd = msgspec.json.decode(await client.send(requests.get(CRDS, None, name)))
            # A definition just made says `conditions: null`.
            held = {one["type"]: one for one in crd.get("status", {}).get("conditions") or ()}
            assert "NonStructuralSchema" not in held, held["NonStructuralSchema"]["message"]
            if held.get("Established", {}).get("status") == "True":
                return
            await asyncio.sleep(0.2)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client of the cluster, which serves our kinds as they are here (and goes on serving them)."""
    async with connect(ClientSettings()) as client:
        for crd in all_crds():
            name = crd["metadata"]["name"]
            await client.send(
                requests.apply(CRDS, None, name, msgspec.json.encode(crd), field_manager="toe-admission-test")
            )
            await established(client, name)
        yield client


async def offer(client: Client, kind: Kind, spec: dict[str, Any]) -> dict[str, Any]:
    """Create it, as a dry run only, and give back the spec as it would be stored."""
    metadata = {"name": "case", "namespace": NAMESPACE}
    body = msgspec.json.encode({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec})
    query = (("dryRun", "All"), ("fieldValidation", "Strict"))
    stored = await client.send(Request("POST", kind.path(NAMESPACE), query, body))
    found: dict[str, Any] = msgspec.json.decode(stored)["spec"]
    return found


@each_kind
async def test_good_ones_are_accepted_and_get_the_promised_defaults(client: Client, kind: Kind) -> None:
    """Upstream's manifests among them."""
    for case in cases(kind, "valid"):
        stored = await offer(client, kind, case["spec"])
        for field, value in case.get("stored", {}).items():
            assert stored[field] == value, case["name"]
        assert not set(case.get("absent", ())) & set(stored), case["name"]


@each_kind
async def test_bad_ones_are_refused_with_the_field_and_the_way_out(client: Client, kind: Kind) -> None:
    """None gets as far as the operator."""
    for case in cases(kind, "invalid"):
        with pytest.raises(ApiError) as refusal:
            await offer(client, kind, case["spec"])
        assert case["field"] in refusal.value.message, case["name"]
        assert case["message"] in refusal.value.message, case["name"]
        assert refusal.value.status in {400, 422}, case["name"]


async def test_a_started_run_keeps_its_spec(client: Client) -> None:
    """The rule sits on the whole object: it sees the stored status when only the spec is written."""
    spec = cases(POWER_TOOLS, "valid")[0]["spec"]
    path = POWER_TOOLS.path(NAMESPACE, "a-name.of-60-characters.with-dots-in-it.abcdefghijklmnopqrstu")
    name = path.rpartition("/")[2]
    body = {"apiVersion": POWER_TOOLS.api_version, "kind": "PowerTool", "metadata": {"name": name}, "spec": spec}
    collection = POWER_TOOLS.path(NAMESPACE)

    async def patch(change: dict[str, Any], subresource: str = "") -> None:
        request = requests.merge_patch(
            POWER_TOOLS, NAMESPACE, name, msgspec.json.encode(change), field_manager="toe-admission-test",
            subresource=subresource,
        )  # fmt: skip
        await client.send(request)

    await client.send(Request("POST", collection, (), msgspec.json.encode(body)))
    try:
        await patch({"spec": {"tool": {"duration": "45s"}}})
        await patch({"status": {"startedAt": "2026-11-21T10:00:00Z", "phase": "Running"}}, "status")
        await patch({"spec": {"suspend": True}})
        for change in STARTED_CHANGES:
            with pytest.raises(ApiError) as refusal:
                await patch({"spec": change})
            assert "spec: Forbidden: the run has started" in refusal.value.message, change
        await patch({"status": {"phase": "Completed"}}, "status")
        await patch({"metadata": {"annotations": {"toe.run/skip-cancel": "true"}}})
    finally:
        await client.send(Request("DELETE", path))
