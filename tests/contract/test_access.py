"""Who asks and may they: tokens, reviews, RBAC and admission policies."""

import asyncio
import base64
import json

import pytest

from tests.contract.clusters import JSON, Answer, Server

API_AUDIENCE = "https://kubernetes.default.svc.cluster.local"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


async def issue(server: Server, account: str, **spec: object) -> Answer:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return await server.call("POST", server.core("serviceaccounts", f"{account}/token"), body)


async def review(server: Server, token: str, *audiences: str) -> JSON:
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": audiences},
    }
    answer = await server.call("POST", TOKEN_REVIEWS, body)
    assert answer.status == 201
    status: JSON = answer.body["status"]
    return status


async def account_with_secret(server: Server) -> JSON:
    await server.make(server.core("serviceaccounts"), {"metadata": {"name": "sa"}})
    return await server.make(server.core("secrets"), {"metadata": {"name": "bound"}})


def user(server: Server, name: str) -> str:
    return f"system:serviceaccount:{server.namespace}:{name}"


async def test_a_token_says_for_whom_for_what_and_until_when(server: Server) -> None:
    secret = await account_with_secret(server)
    reference = {"kind": "Secret", "apiVersion": "v1", "name": "bound", "uid": secret["metadata"]["uid"]}
    answer = await issue(server, "sa", audiences=["x", "y"], expirationSeconds=600, boundObjectRef=reference)
    assert answer.status == 201
    assert answer.body["kind"] == "TokenRequest"
    assert answer.body["spec"] == {"audiences": ["x", "y"], "expirationSeconds": 600, "boundObjectRef": reference}
    status = answer.body["status"]
    payload = status["token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert (claims["aud"], claims["sub"], claims["exp"] - claims["iat"]) == (["x", "y"], user(server, "sa"), 600)
    assert claims["iss"] == API_AUDIENCE
    assert claims["kubernetes.io"]["secret"] == {"name": "bound", "uid": secret["metadata"]["uid"]}
    assert claims["kubernetes.io"]["namespace"] == server.namespace


async def test_bad_token_requests_are_refused(server: Server) -> None:
    await account_with_secret(server)
    short = await issue(server, "sa", expirationSeconds=10)
    nobody = await issue(server, "nobody")
    gone = await issue(server, "sa", boundObjectRef={"kind": "Secret", "apiVersion": "v1", "name": "nope"})
    other = await issue(
        server, "sa", boundObjectRef={"kind": "Secret", "apiVersion": "v1", "name": "bound", "uid": "zz"}
    )
    kind = await issue(server, "sa", boundObjectRef={"kind": "ConfigMap", "apiVersion": "v1", "name": "bound"})
    assert (short.status, short.causes) == (422, [("FieldValueInvalid", "spec.expirationSeconds")])
    assert "may not specify a duration less than 10 minutes" in short.message
    assert (nobody.status, nobody.message) == (404, 'serviceaccounts "nobody" not found')
    assert (gone.status, gone.message) == (404, 'secrets "nope" not found')
    assert (other.status, other.body["reason"]) == (409, "Conflict")
    assert (kind.status, kind.body["reason"]) == (400, "BadRequest")


async def test_a_review_believes_a_token_for_its_own_audiences_only(server: Server) -> None:
    await account_with_secret(server)
    token = (await issue(server, "sa", audiences=["toe-collector/x", "y"])).body["status"]["token"]
    own = await review(server, token, "toe-collector/x")
    several = await review(server, token, "zz", "y", "toe-collector/x")
    foreign = await review(server, token, "zz")
    default = await review(server, token)
    garbage = await review(server, "garbage", "a")
    assert own["authenticated"] is True
    assert own["audiences"] == ["toe-collector/x"]
    assert own["user"]["username"] == user(server, "sa")
    assert set(own["user"]["groups"]) == {
        "system:serviceaccounts",
        f"system:serviceaccounts:{server.namespace}",
        "system:authenticated",
    }
    assert sorted(several["audiences"]) == ["toe-collector/x", "y"]
    assert ("authenticated" in foreign, foreign["user"]) == (False, {})
    assert 'token audiences ["toe-collector/x" "y"] is invalid for the target audiences ["zz"]' in foreign["error"]
    assert "authenticated" not in default
    assert garbage == {"user": {}, "error": "invalid bearer token"}


async def test_an_audience_of_512_characters_is_accepted(server: Server) -> None:
    await account_with_secret(server)
    long = "toe-collector/" + "x" * 498
    token = (await issue(server, "sa", audiences=[long])).body["status"]["token"]
    assert (await review(server, token, long))["audiences"] == [long]


async def test_a_review_of_nothing_is_400(server: Server) -> None:
    answer = await server.call("POST", TOKEN_REVIEWS, {"spec": {}})
    assert (answer.status, answer.message) == (400, "token is required for TokenReview in authentication")


@pytest.mark.slow
@pytest.mark.parametrize("ended", ["secrets/bound", "serviceaccounts/sa"])
async def test_a_token_ends_with_what_it_is_bound_to(server: Server, ended: str) -> None:
    """A real server goes on believing for about ten seconds out of its cache."""
    await account_with_secret(server)
    reference = {"kind": "Secret", "apiVersion": "v1", "name": "bound"}
    token = (await issue(server, "sa", audiences=["x"], boundObjectRef=reference)).body["status"]["token"]
    assert (await review(server, token, "x"))["authenticated"] is True
    await server.call("DELETE", server.core(ended))
    async with asyncio.timeout(30):
        while (found := await review(server, token, "x")).get("authenticated"):
            await asyncio.sleep(0.5)
    assert "invalid" in found["error"]


async def test_a_token_of_another_audience_opens_nothing_at_the_server(server: Server) -> None:
    await account_with_secret(server)
    token = (await issue(server, "sa", audiences=["toe-collector"])).body["status"]["token"]
    for held in (token, "garbage"):
        answer = await server.call("GET", server.core("pods"), token=held)
        assert answer.status == 401
        assert answer.body == {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "Unauthorized",
            "reason": "Unauthorized",
            "code": 401,
        }


async def test_without_rights_everything_is_403_and_says_what_was_asked(server: Server) -> None:
    token, who, where = await server.account("sa"), user(server, "sa"), f'in the namespace "{server.namespace}"'
    cannot = f'is forbidden: User "{who}" cannot'
    asked = [
        ("GET", "/api/v1/nodes", {}, f'nodes {cannot} list resource "nodes" in API group "" at the cluster scope'),
        ("GET", server.core("pods"), {}, f'pods {cannot} list resource "pods" in API group "" {where}'),
        ("GET", server.core("pods"), {"watch": "1"}, f'pods {cannot} watch resource "pods" in API group "" {where}'),
        ("DELETE", server.core("pods"), {}, f'pods {cannot} deletecollection resource "pods" in API group "" {where}'),
        ("GET", server.core("pods", "p/log"), {}, f'pods "p" {cannot} get resource "pods/log" in API group "" {where}'),
        (
            "GET",
            "/api/v1/namespaces/foo",
            {},
            f'namespaces "foo" {cannot} get resource "namespaces" in API group "" in the namespace "foo"',
        ),
        ("GET", "/metrics", {}, f'forbidden: User "{who}" cannot get path "/metrics"'),
    ]
    for method, path, query, said in asked:
        answer = await server.call(method, path, token=token, params=query)
        assert (answer.status, answer.body["reason"], answer.message) == (403, "Forbidden", said)
    assert (await server.call("GET", "/apis", token=token)).status == 200


async def test_nobody_is_system_anonymous(server: Server) -> None:
    refused = await server.call("GET", "/api/v1/nodes", token="")
    assert refused.status == 403
    assert refused.message.startswith('nodes is forbidden: User "system:anonymous" cannot list')
    assert (await server.call("GET", "/version", token="")).status == 200


async def grant(server: Server, name: str, rules: list[JSON], subjects: list[JSON]) -> None:
    path = f"{RBAC}/namespaces/{server.namespace}"
    await server.make(f"{path}/roles", {"metadata": {"name": name}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    await server.make(f"{path}/rolebindings", {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects})


def service_account(server: Server, name: str) -> JSON:
    return {"kind": "ServiceAccount", "name": name, "namespace": server.namespace}


async def test_a_role_allows_what_it_names_and_no_more(server: Server) -> None:
    token = await server.account("sa")
    for name in ("mine", "other"):
        await server.make(server.core("configmaps"), {"metadata": {"name": name}})
    rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["get", "list"]}
    await grant(server, "reader", [rule], [service_account(server, "sa")])

    async def status(method: str, name: str, **query: str) -> int:
        return (await server.call(method, server.core("configmaps", name), token=token, params=query)).status

    await server.eventually(
        lambda: server.call("GET", server.core("configmaps", "mine"), token=token), lambda a: a.status == 200
    )
    assert await status("GET", "other") == 403
    assert await status("DELETE", "mine") == 403
    assert await status("GET", "") == 403
    assert await status("GET", "", fieldSelector="metadata.name=mine") == 200


async def test_a_subresource_needs_its_own_right(server: Server) -> None:
    token = await server.account("sa")
    await grant(
        server, "pods", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}], [service_account(server, "sa")]
    )
    await server.eventually(lambda: server.call("GET", server.core("pods"), token=token), lambda a: a.status == 200)
    answer = await server.call("GET", server.core("pods", "p/log"), token=token)
    assert answer.status == 403


async def access(server: Server, **spec: object) -> JSON:
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    answer = await server.call("POST", ACCESS_REVIEWS, body)
    assert answer.status == 201, answer.raw
    status: JSON = answer.body["status"]
    return status


async def test_access_reviews_answer_for_users_and_groups(server: Server) -> None:
    rule = {"apiGroups": ["artifacts.toe.run"], "resources": ["artifacts/content"], "verbs": ["get"]}
    group = {"kind": "Group", "name": "contract-readers", "apiGroup": "rbac.authorization.k8s.io"}
    await grant(server, "content", [rule], [group])
    want = {
        "namespace": server.namespace,
        "verb": "get",
        "group": "artifacts.toe.run",
        "resource": "artifacts",
        "subresource": "content",
    }
    async with asyncio.timeout(20):
        while not (found := await access(server, user="u", groups=["contract-readers"], resourceAttributes=want))[
            "allowed"
        ]:
            await asyncio.sleep(0.2)
    name = f'RoleBinding "content/{server.namespace}" of Role "content" to Group "contract-readers"'
    assert found == {"allowed": True, "reason": f"RBAC: allowed by {name}"}
    assert await access(server, user="u", groups=["x"], resourceAttributes=want) == {"allowed": False}
    assert (await access(server, user="u", groups=["system:masters"], resourceAttributes=want))["allowed"] is True
    elsewhere = {**want, "namespace": "default"}
    assert (await access(server, user="u", groups=["contract-readers"], resourceAttributes=elsewhere))[
        "allowed"
    ] is False
    path = {"path": "/version", "verb": "get"}
    assert (await access(server, user="u", groups=["system:authenticated"], nonResourceAttributes=path))[
        "allowed"
    ] is True


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"user": "x"}, "spec.resourceAttributes"),
        ({"resourceAttributes": {"verb": "get", "resource": "pods"}}, "spec.user"),
    ],
)
async def test_an_access_review_that_asks_nothing_is_422(server: Server, spec: JSON, field: str) -> None:
    answer = await server.call("POST", ACCESS_REVIEWS, {"spec": spec})
    assert (answer.status, answer.causes) == (422, [("FieldValueInvalid", field)])


async def test_everybody_may_ask_about_themselves(server: Server) -> None:
    token = await server.account("sa")
    want = {"namespace": server.namespace, "verb": "get", "resource": "pods"}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    rights = await server.call("POST", path, {"spec": {"resourceAttributes": want}}, token=token)
    self = await server.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, token=token)
    assert (rights.status, rights.body["status"]) == (201, {"allowed": False})
    assert self.body["status"]["userInfo"]["username"] == user(server, "sa")


async def test_an_administrator_may_act_as_somebody_else(server: Server) -> None:
    answer = await server.call("GET", server.core("pods"), headers={"Impersonate-User": "eve"})
    token = await server.account("sa")
    refused = await server.call("GET", server.core("pods"), token=token, headers={"Impersonate-User": "eve"})
    assert answer.message.startswith('pods is forbidden: User "eve" cannot list')
    assert refused.status == 403
    assert "cannot impersonate" in refused.message


def policy(server: Server) -> tuple[JSON, JSON]:
    """The shape of the policy that we ship, on ConfigMaps of the test's own label."""
    right = "authorizer.group('').resource('pods').subresource('portforward').namespace(request.namespace)"
    rules = {"apiGroups": [""], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rules]},
        "matchConditions": [
            {"name": "ours", "expression": f"request.namespace == '{server.namespace}'"},
            {"name": "written", "expression": "request.operation == 'CREATE' || object.data != oldObject.data"},
        ],
        "validations": [
            {
                "expression": f"{right}.check('create').allowed()",
                "reason": "Forbidden",
                "messageExpression": "'you may not open port-forwards in ' + request.namespace",
            }
        ],
    }
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": server.namespace}}
    binding = {"policyName": server.namespace, "validationActions": ["Deny"]}
    return (
        {**head, "kind": "ValidatingAdmissionPolicy", "spec": spec},
        {**head, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
    )


async def test_a_bound_policy_asks_for_the_authors_rights(server: Server) -> None:
    token, who = await server.account("sa"), service_account(server, "sa")
    await grant(server, "write", [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}], [who])
    group = "/apis/admissionregistration.k8s.io/v1"
    made, binding = policy(server)
    await server.make_cluster_wide(f"{group}/validatingadmissionpolicies", made)
    await server.make_cluster_wide(f"{group}/validatingadmissionpolicybindings", binding)

    async def write() -> Answer:
        body = {"metadata": {"generateName": "by-sa-"}, "data": {"a": "b"}}
        return await server.call("POST", server.core("configmaps"), body, token=token, dryRun="All")

    refused = await server.eventually(write, lambda answer: "denied request" in answer.message)
    assert (refused.status, refused.body["reason"]) == (403, "Forbidden")
    assert (
        f"ValidatingAdmissionPolicy '{server.namespace}' with binding '{server.namespace}' denied request: "
        in refused.message
    )
    assert refused.message.endswith(f"you may not open port-forwards in {server.namespace}")
    by_admin = await server.call(
        "POST", server.core("configmaps"), {"metadata": {"name": "by-admin"}, "data": {"a": "b"}}
    )
    labelled = await server.call(
        "PATCH",
        server.core("configmaps", "by-admin"),
        {"metadata": {"labels": {"l": "1"}}},
        content_type="application/merge-patch+json",
        token=token,
    )
    assert (by_admin.status, labelled.status) == (201, 200)
    await grant(server, "forward", [{"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["create"]}], [who])
    await server.eventually(write, lambda answer: answer.status == 201)
