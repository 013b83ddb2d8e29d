"""APIs that somebody else serves: registration, availability, and what a proxied request looks like on both sides."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.contract.backends import (
    APISERVICES,
    CONTENT,
    RBAC,
    SERVICE,
    SLICES,
    VERSION,
    Backend,
    allow,
    apiservice,
    available,
    backend,
    condition,
    endpoints,
    group_of,
    reachable,
    register,
    service,
)
from tests.contract.clusters import JSON, Answer, Server

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
CONFIG = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"


@pytest.fixture
async def held(server: Server) -> AsyncIterator[Backend]:
    """A backend that nobody has registered."""
    async with backend(server) as running:
        yield running


@pytest.fixture
async def things(server: Server, held: Backend) -> Backend:
    """A registered and available backend."""
    await register(server, held)
    await reachable(server, held)
    return held


async def test_a_registered_backend_becomes_available_and_is_told_in_every_form_of_discovery(
    server: Server, held: Backend
) -> None:
    await register(server, held)
    path = f"{APISERVICES}/{held.apiservice}"
    made = (await server.call("GET", path)).body
    found = condition(made)
    assert made["spec"]["service"] == {"namespace": server.namespace, "name": SERVICE, "port": 443}
    assert (found["status"], found["message"]) == ("True", "all checks passed")
    table = (await server.call("GET", path, accept=TABLE)).body
    assert [one["name"] for one in table["columnDefinitions"]] == ["Name", "Service", "Available", "Age"]
    assert table["rows"][0]["cells"][:3] == [held.apiservice, f"{server.namespace}/{SERVICE}", "True"]

    answer = await server.eventually(lambda: server.call("GET", "/apis"), lambda one: held.group in one.raw.decode())
    plain = answer.body
    mine = next(one for one in plain["groups"] if one["name"] == held.group)
    wanted = {"groupVersion": f"{held.group}/{VERSION}", "version": VERSION}
    assert (mine["versions"], mine["preferredVersion"]) == ([wanted], wanted)
    assert (await server.call("GET", f"/apis/{held.group}")).body["preferredVersion"] == wanted
    answer = await server.eventually(lambda: server.call("GET", held.base), lambda one: one.status == 200)
    listed = answer.body
    assert [one["name"] for one in listed["resources"]] == ["things", "things/content", "things/log"]

    (version,) = (await group_of(server, held, DISCOVERY))["versions"]
    (resource,) = version["resources"]
    assert (version["version"], version["freshness"]) == (VERSION, "Current")
    assert (resource["resource"], resource["scope"], resource["shortNames"]) == ("things", "Namespaced", ["th"])
    assert resource["responseKind"]["kind"] == "Thing"
    assert [one["subresource"] for one in resource["subresources"]] == ["content", "log"]


async def test_the_schema_of_a_backend_is_found_in_the_index(server: Server, things: Backend) -> None:
    at = things.base[1:]
    index = await server.eventually(
        lambda: server.call("GET", "/openapi/v3"), lambda one: at in one.body.get("paths", {})
    )
    document = (await server.call("GET", index.body["paths"][at]["serverRelativeURL"])).body
    assert "run.toe.Thing" in document["components"]["schemas"]


@pytest.mark.parametrize(
    ("name", "spec", "fields"),
    [
        pytest.param("v1.other", {}, ["metadata.name"], id="another name"),
        pytest.param("", {"groupPriorityMinimum": 0}, ["spec.groupPriorityMinimum"], id="no priority of the group"),
        pytest.param("", {"groupPriorityMinimum": 20001}, ["spec.groupPriorityMinimum"], id="too high a priority"),
        pytest.param("", {"versionPriority": 1001}, ["spec.versionPriority"], id="too high a version"),
        pytest.param(
            "", {"insecureSkipTLSVerify": True}, ["spec.insecureSkipTLSVerify"], id="bundle, yet not verified"
        ),
        pytest.param("", {"service": {"namespace": "x"}}, ["spec.service.name"], id="no name of the Service"),
        pytest.param("", {"service": {"name": "x"}}, ["spec.service.namespace"], id="no namespace of the Service"),
        pytest.param("", {"service": None}, ["spec.caBundle"], id="a bundle for nobody"),
        pytest.param("v1alpha1.", {"group": ""}, ["spec.group"], id="no group"),
    ],
)
async def test_bad_registrations_are_refused(
    server: Server, held: Backend, name: str, spec: dict[str, object], fields: list[str]
) -> None:
    body = apiservice(held, server, **spec)
    body["metadata"]["name"] = name or held.apiservice
    answer = await server.call("POST", APISERVICES, body)
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert [field for _, field in answer.causes] == fields


async def test_a_bundle_that_is_no_base64_is_400(server: Server, held: Backend) -> None:
    answer = await server.call("POST", APISERVICES, apiservice(held, server, caBundle="no base64!"))
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")


async def test_an_apiservice_without_a_service_is_local(server: Server, held: Backend) -> None:
    await server.make_cluster_wide(APISERVICES, apiservice(held, server, service=None, caBundle=None))
    found = await available(server, held, "Local")
    assert (found["status"], found["message"]) == ("True", "Local APIServices are always available")
    table = (await server.call("GET", f"{APISERVICES}/{held.apiservice}", accept=TABLE)).body
    assert table["rows"][0]["cells"][1:3] == ["Local", "True"]
    assert (await server.call("GET", held.base)).status == 404


async def test_availability_follows_service_endpoints_and_discovery(server: Server, held: Backend) -> None:
    """Each obstacle has its reason, the nearest one counts, and meanwhile everybody gets a 503."""
    await server.make_cluster_wide(APISERVICES, apiservice(held, server))
    missing = await available(server, held, "ServiceNotFound")
    assert missing["status"] == "False"
    assert missing["message"] == f'service/{SERVICE} in "{server.namespace}" is not present'
    path = held.things(server.namespace)
    refused = await server.eventually(lambda: server.call("GET", path), lambda one: one.status == 503)
    assert refused.raw == b"service unavailable\n"

    await server.make(server.core("services"), service(port=8443))
    ports = await available(server, held, "ServicePortError")
    assert ports["message"].endswith("is not listening on port 443")
    await server.merge(server.core("services", SERVICE), {"spec": {"ports": [{"name": "https", "port": 443}]}})
    await available(server, held, "EndpointsNotFound")
    made = endpoints(held, ready=False)
    await server.make(SLICES.format(server.namespace), made)
    unready = await available(server, held, "MissingEndpoints")
    assert unready["message"].endswith('have no addresses with port name "https"')
    assert unready["lastTransitionTime"] == missing["lastTransitionTime"]

    held.healthy = False
    slice_path = f"{SLICES.format(server.namespace)}/{SERVICE}"
    await server.merge(slice_path, {"endpoints": endpoints(held)["endpoints"]})
    failed = await available(server, held, "FailedDiscoveryCheck")
    assert failed["message"].startswith("failing or missing response from https://")
    assert failed["message"].endswith(f"{held.base}: 500")
    table = (await server.call("GET", f"{APISERVICES}/{held.apiservice}", accept=TABLE)).body
    assert table["rows"][0]["cells"][2] == "False (FailedDiscoveryCheck)"
    refused = await server.call("GET", path)
    assert (refused.status, refused.raw, held.of_users()) == (503, b"service unavailable\n", [])
    held.healthy = True
    passed = await available(server, held, "Passed")
    assert passed["status"] == "True"
    await server.eventually(lambda: server.call("GET", path), lambda one: one.status == 200)

    await server.merge(slice_path, {"endpoints": made["endpoints"]})
    await available(server, held, "MissingEndpoints")
    await server.eventually(lambda: server.call("GET", path), lambda one: one.status == 503)
    assert "system:kube-aggregator" in {one.user for one in held.seen if one.path == held.base}


async def test_an_unreachable_backend_stays_in_discovery_as_stale(server: Server, things: Backend) -> None:
    await group_of(server, things, DISCOVERY)
    await server.call("DELETE", server.core("services", SERVICE))
    await available(server, things, "ServiceNotFound")
    plain = (await server.call("GET", "/apis")).body
    assert things.group in [one["name"] for one in plain["groups"]]
    if server.is_real:
        return  # its discovery is refreshed once a minute

    (version,) = (await group_of(server, things, DISCOVERY))["versions"]
    assert version["freshness"] == "Stale"


async def test_a_deregistered_group_is_gone(server: Server, things: Backend) -> None:
    await server.call("DELETE", f"{APISERVICES}/{things.apiservice}")
    path = things.things(server.namespace)
    answer = await server.eventually(lambda: server.call("GET", path), lambda one: one.status == 404)
    assert answer.raw == b"404 page not found\n"
    groups = await server.eventually(lambda: server.call("GET", "/apis"), lambda one: things.group not in str(one.raw))
    assert groups.status == 200


async def test_the_backend_learns_who_asks_from_the_api_server_alone(server: Server, things: Backend) -> None:
    """Whatever a client says in the API server's place is taken out, and so is the client's own credential."""
    token = await server.account("reader")
    await allow(server, things, "reader", ["things"], ["get"])
    forged = {
        "X-Remote-User": "root",
        "X-Remote-Group": "system:masters",
        "X-Remote-Uid": "0",
        "X-Remote-Extra-Scopes": "all",
        "X-Own": "kept",
        "X-Hop": "for the next hop",
        "Connection": "x-hop",
        "Accept": "application/x-own",
    }
    path = things.things(server.namespace, "one")

    async def ask() -> Answer:
        return await server.call("GET", path, token=token, headers=forged, params={"a": "b c", "q": "%2F&"})

    answer = await server.eventually(ask, lambda one: one.status == 200)
    assert answer.body["metadata"]["name"] == "one"
    (seen,) = [one for one in things.of_users() if one.path == path]
    account = f"system:serviceaccount:{server.namespace}"
    assert seen.certified == "front-proxy-client"
    assert seen.headers.getall("X-Remote-User") == [f"{account}:reader"]
    assert seen.headers.getall("X-Remote-Group") == [
        "system:serviceaccounts",
        f"system:serviceaccounts:{server.namespace}",
        "system:authenticated",
    ]
    uid = (await server.call("GET", server.core("serviceaccounts", "reader"))).body["metadata"]["uid"]
    assert seen.headers.getall("X-Remote-Uid") == [uid]
    extra = "X-Remote-Extra-Authentication.kubernetes.io%2fcredential-Id"
    assert seen.headers[extra].startswith("JTI=")
    assert "X-Remote-Extra-Scopes" not in seen.headers
    assert "Authorization" not in seen.headers
    assert "X-Hop" not in seen.headers
    assert (seen.headers["X-Own"], seen.headers["Accept"]) == ("kept", "application/x-own")
    assert seen.query == {"a": "b c", "q": "%2F&"}
    assert "X-Forwarded-For" in seen.headers


async def test_impersonation_reaches_the_backend_as_the_impersonated_user(server: Server, things: Backend) -> None:
    headers = {"Impersonate-User": "eve@example.org", "Impersonate-Group": "system:masters"}
    answer = await server.call("GET", things.things(server.namespace, "one"), headers=headers)
    seen = things.of_users()[-1]
    assert answer.status == 200
    assert seen.user == "eve@example.org"
    assert seen.headers.getall("X-Remote-Group") == ["system:masters", "system:authenticated"]
    assert not [name for name in seen.headers if name.lower().startswith("impersonate-")]


async def test_nobody_reaches_a_backend_without_rights(server: Server, things: Backend) -> None:
    """RBAC is asked first: for another namespace, verb or subresource the answer is the API server's 403."""
    token = await server.account("reader")
    await allow(server, things, "reader", ["things", "things/content"], ["get", "list"])
    allowed = things.things(server.namespace)
    await server.eventually(lambda: server.call("GET", allowed, token=token), lambda one: one.status == 200)
    things.seen.clear()
    for method, path in [
        ("GET", things.things("default")),
        ("GET", f"{things.base}/things"),
        ("DELETE", things.things(server.namespace, "one")),
        ("POST", things.things(server.namespace, "one", "content")),
        ("GET", things.things(server.namespace, "one", "log")),
    ]:
        answer = await server.call(method, path, token=token)
        assert (answer.status, answer.body["reason"]) == (403, "Forbidden"), (method, path)
        assert answer.body["details"]["group"] == things.group
    anonymous = await server.call("GET", allowed, token="")
    invalid = await server.call("GET", allowed, token="invalid")
    discovery = await server.call("GET", things.base, token="")
    assert (anonymous.status, invalid.status, discovery.status) == (403, 401, 403)
    assert things.of_users() == []
    assert (await server.call("GET", things.base, token=token)).status == 200


async def test_tables_and_lists_come_from_the_backend(server: Server, things: Backend) -> None:
    path = things.things(server.namespace)
    table = await server.call("GET", path, accept=TABLE, labelSelector="a=b", limit="500")
    assert table.body["rows"][0]["cells"] == ["one", "green"]
    assert things.of_users()[-1].query == {"labelSelector": "a=b", "limit": "500"}
    assert (await server.call("GET", path)).body["kind"] == "ThingList"


async def test_a_range_passes_with_its_headers(server: Server, things: Backend) -> None:
    path = things.things(server.namespace, "one", "content")
    answer = await server.call("GET", path, headers={"Range": "bytes=1000-1999", "If-Range": '"e"'})
    seen = things.of_users()[-1]
    assert (answer.status, answer.raw) == (206, CONTENT[1000:2000])
    assert answer.headers["Content-Range"] == f"bytes 1000-1999/{len(CONTENT)}"
    assert (answer.headers["ETag"], answer.headers["Content-Disposition"]) == ('"e"', "attachment")
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert (seen.headers["Range"], seen.headers["If-Range"]) == ("bytes=1000-1999", '"e"')


async def test_a_head_has_the_size_and_no_body(server: Server, things: Backend) -> None:
    answer = await server.call("HEAD", things.things(server.namespace, "one", "content"))
    assert (answer.status, answer.raw) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert things.of_users()[-1].method == "HEAD"


async def test_sixteen_mebibytes_pass_both_ways(server: Server, things: Backend) -> None:
    path = things.things(server.namespace, "one", "content")
    down = await server.call("GET", path, params={"times": "16"})
    up = await server.call("POST", path, CONTENT * 16, content_type="application/octet-stream")
    assert len(down.raw) == 16 << 20
    assert hashlib.sha256(down.raw).hexdigest() == up.body["sha256"]
    assert (down.headers["Content-Length"], up.status) == (str(16 << 20), 201)


async def test_what_a_backend_refuses_arrives_as_it_said_it(server: Server, things: Backend) -> None:
    missing = await server.call("GET", things.things(server.namespace, "missing"))
    held = await server.call("GET", things.things(server.namespace, "held"))
    assert (missing.status, missing.message) == (404, 'things "missing" not found')
    assert (held.status, held.body["reason"], held.headers["X-Own"]) == (409, "Conflict", "kept")


async def test_a_page_arrives_with_its_scripts_styles_and_policy_untouched(server: Server, things: Backend) -> None:
    """A real API server writes the tags of HTML anew, so a policy's hashes must hold for what is inside them."""
    script = """<script>if (1 < 2 && "</p>" > '&amp;') { x = `<b a='1'>` }</script>"""
    style = "<style>a > b::after { content: '<i>&lt;' }</style>"
    page = f"<!doctype html>\n<html><head>{style}</head><body data-x='1' hidden><p>&lt;</p>{script}</body></html>"
    policy = "default-src 'none'; script-src 'sha256-x'"

    async def answer_page(request: web.Request) -> web.StreamResponse:
        return web.Response(text=page, content_type="text/html", headers={"Content-Security-Policy": policy})

    things.more["page"] = answer_page
    answer = await server.call("GET", things.things(server.namespace, "one", "page"))
    text = answer.raw.decode()
    assert (answer.status, answer.headers["Content-Security-Policy"]) == (200, policy)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert script in text
    assert style in text
    assert "<p>&lt;</p>" in text


async def test_a_stream_passes_piece_by_piece(server: Server, things: Backend) -> None:
    path = things.things(server.namespace, "one", "log")
    async with asyncio.timeout(20), server.stream(path) as response:
        assert await response.content.readexactly(6) == b"first "
        things.go_on.set()
        assert await response.content.read() == b"second"


@pytest.mark.parametrize("names", [("other.example.org",), ()], ids=["another name", "another authority"])
async def test_a_backend_that_cannot_prove_its_name_gets_nothing(server: Server, names: tuple[str, ...]) -> None:
    """It is not even asked what it serves, so it never becomes available."""
    async with backend(server, names) as held, backend(server) as other:
        bundle = held if names else other
        authority = base64.b64encode(bundle.authority.certificate).decode()
        await register(server, held, "FailedDiscoveryCheck", caBundle=authority)
        told = await available(server, held, "FailedDiscoveryCheck")
        assert "tls: failed to verify certificate: " in told["message"]
        path = held.things(server.namespace, "one")
        answer = await server.call("GET", path)
        assert (answer.status, answer.raw) == (503, b"service unavailable\n")
        assert held.seen == []
        unverified = {"caBundle": None, "insecureSkipTLSVerify": True}
        changed = await server.merge(f"{APISERVICES}/{held.apiservice}", {"spec": unverified})
        assert changed.status == 200, changed.raw
        await server.eventually(lambda: server.call("GET", path), lambda one: one.status == 200)


async def test_a_backend_that_has_just_gone_is_503(server: Server) -> None:
    async with backend(server) as held:
        await register(server, held)
    answer = await server.call("GET", held.things(server.namespace, "one"))
    assert answer.status == 503
    assert answer.raw.startswith((b"error trying to reach service: ", b"service unavailable"))


async def test_an_aggregated_api_may_learn_whom_to_believe(server: Server) -> None:
    """The ConfigMap is there for who is bound to its Role, and for nobody else."""
    token = await server.account("backend")
    assert (await server.call("GET", CONFIG, token=token)).status == 403
    name = f"{server.namespace}-authentication-reader"
    subject = {"kind": "ServiceAccount", "name": "backend", "namespace": server.namespace}
    reference = {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": "extension-apiserver-authentication-reader",
    }
    binding: JSON = {"metadata": {"name": name}, "subjects": [subject], "roleRef": reference}
    await server.make_cluster_wide(f"{RBAC}/namespaces/kube-system/rolebindings", binding)
    answer = await server.eventually(lambda: server.call("GET", CONFIG, token=token), lambda one: one.status == 200)
    data = answer.body["data"]
    assert data["requestheader-allowed-names"] == '["front-proxy-client"]'
    assert data["requestheader-username-headers"] == '["X-Remote-User"]'
    assert data["requestheader-group-headers"] == '["X-Remote-Group"]'
    assert data["requestheader-extra-headers-prefix"] == '["X-Remote-Extra-"]'
    for key in ("client-ca-file", "requestheader-client-ca-file"):
        assert data[key].startswith("-----BEGIN CERTIFICATE-----")
    watched = await server.call("GET", CONFIG.rpartition("/")[0], token=token)
    assert watched.status == 403
    delegator = await server.call("GET", f"{RBAC}/clusterroles/system:auth-delegator")
    granted = {resource for rule in delegator.body["rules"] for resource in rule["resources"]}
    assert granted == {"tokenreviews", "subjectaccessreviews"}
