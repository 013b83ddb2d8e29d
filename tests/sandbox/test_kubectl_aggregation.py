"""The real kubectl on an aggregated API of the sandbox, as users of every kind."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.backends import CONTENT, RBAC, Backend, apiservice, available, backend, register
from tests.contract.clusters import Server, sandbox_server
from tests.sandbox.kubectl import NEEDED, Kubectl

pytestmark = [pytest.mark.slow, NEEDED]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with sandbox_server() as held:
        yield held


@pytest.fixture
async def things(server: Server) -> AsyncIterator[Backend]:
    async with backend(server) as held:
        await register(server, held)
        yield held


async def kubectl_of(
    server: Server, folder: Path, user: str = "admin", groups: tuple[str, ...] | None = None
) -> Kubectl:
    assert server.sandbox is not None
    path = folder / user.replace(":", "-")
    await asyncio.to_thread(server.sandbox.write_kubeconfig, path, user, groups)
    return Kubectl(path)


async def test_an_aggregated_kind_is_listed_read_and_explained(server: Server, things: Backend, tmp_path: Path) -> None:
    kubectl, at = await kubectl_of(server, tmp_path), ("-n", server.namespace)
    await kubectl("wait", "--for=condition=Available", f"apiservice/{things.apiservice}", "--timeout=20s")
    header, row = (await kubectl("get", "apiservices")).splitlines()
    assert header.split() == ["NAME", "SERVICE", "AVAILABLE", "AGE"]
    assert row.split()[:3] == [things.apiservice, f"{server.namespace}/backend", "True"]
    listed = await kubectl("api-resources", f"--api-group={things.group}", "--no-headers")
    assert listed.split() == ["things", "th", f"{things.group}/v1alpha1", "true", "Thing"]
    assert f"{things.group}/v1alpha1" in (await kubectl("api-versions")).splitlines()
    assert [line.split() for line in (await kubectl("get", "things", *at)).splitlines()] == [
        ["NAME", "COLOR"],
        ["one", "green"],
    ]
    assert json.loads(await kubectl("get", "th", "one", "-o", "json", *at))["kind"] == "Thing"
    assert "Which color a thing has." in await kubectl("explain", "things.color")
    assert 'things "missing" not found' in await kubectl("get", "things", "missing", *at, fails=True)


async def test_a_backend_that_is_away_is_told_by_kubectl(server: Server, things: Backend, tmp_path: Path) -> None:
    kubectl = await kubectl_of(server, tmp_path)
    await server.call("DELETE", server.core("services", "backend"))
    await available(server, things, "ServiceNotFound")
    assert "False (ServiceNotFound)" in await kubectl("get", "apiservices")
    said = await kubectl("get", "--raw", things.things(server.namespace), fails=True)
    assert "the server is currently unable to handle the request" in said
    listed = (await kubectl("api-resources", "-o", "name")).split()
    assert "configmaps" in listed
    assert f"things.{things.group}" not in listed


async def test_a_certificate_user_and_a_service_account_list_their_namespace_and_no_other(
    server: Server, things: Backend, tmp_path: Path
) -> None:
    await server.make("/api/v1/namespaces", {"metadata": {"name": "other"}})
    await server.account("reader")
    account = {"kind": "ServiceAccount", "name": "reader", "namespace": server.namespace}
    team = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "team-a"}
    rules = [{"apiGroups": [things.group], "resources": ["things"], "verbs": ["get", "list"]}]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    at = f"{RBAC}/namespaces/{server.namespace}"
    await server.make(f"{at}/roles", {"metadata": {"name": "reader"}, "rules": rules})
    binding = {"metadata": {"name": "reader"}, "subjects": [account, team], "roleRef": reference}
    await server.make(f"{at}/rolebindings", binding)

    for user, groups in [("jane", ("team-a", "staff")), (f"system:serviceaccount:{server.namespace}:reader", None)]:
        kubectl = await kubectl_of(server, tmp_path, user, groups)
        assert "one" in await kubectl("get", "things", "-n", server.namespace)
        seen = things.of_users()[-1]
        assert seen.user == user
        assert seen.headers.getall("X-Remote-Group")[-1] == "system:authenticated"
        count = len(things.of_users())
        refused = await kubectl("get", "things", "-n", "other", fails=True)
        assert f'User "{user}" cannot list resource "things" in API group "{things.group}"' in refused
        assert len(things.of_users()) == count
    stranger = await kubectl_of(server, tmp_path, "eve", ())
    assert "Forbidden" in await stranger("get", "things", "-n", server.namespace, fails=True)


async def test_content_goes_through_kubectl_byte_by_byte(server: Server, things: Backend, tmp_path: Path) -> None:
    kubectl = await kubectl_of(server, tmp_path)
    path = tmp_path / "content"
    raw = f"kubectl get --raw {things.things(server.namespace, 'one', 'content')} > {path}"
    process = await asyncio.create_subprocess_exec("sh", "-c", raw, env=kubectl.environment)
    assert await process.wait() == 0
    assert await asyncio.to_thread(path.read_bytes) == CONTENT


async def test_an_apiservice_can_be_applied_and_deleted(server: Server, tmp_path: Path) -> None:
    kubectl = await kubectl_of(server, tmp_path)
    async with backend(server) as held:
        manifest = json.dumps(apiservice(held, server))
        name = f"apiservice.apiregistration.k8s.io/{held.apiservice}"
        assert await kubectl("apply", "-f", "-", stdin=manifest) == f"{name} created\n"
        assert await kubectl("apply", "-f", "-", stdin=manifest) == f"{name} unchanged\n"
        assert "deleted" in await kubectl("delete", "apiservice", held.apiservice)
