"""Lists: their form, selectors, paging and the rules of resourceVersion."""

import pytest

from tests.contract.clusters import JSON, Server

PODS = [
    ("p1", "contract-node-1", {"app": "a", "tier": "x"}),
    ("p2", "contract-node-1", {"app": "b"}),
    ("p3", "contract-node-2", {"app": "a"}),
]


async def three_config_maps(server: Server) -> None:
    for name in ("l0", "l1", "l2"):
        await server.make(server.core("configmaps"), {"metadata": {"name": name, "labels": {"mine": "yes"}}})


def names(body: JSON) -> list[str]:
    return [one["metadata"]["name"] for one in body["items"]]


async def test_items_of_a_built_in_list_carry_no_kind_and_begin_with_metadata(server: Server) -> None:
    await three_config_maps(server)
    answer = await server.call("GET", server.core("configmaps"), labelSelector="mine=yes")
    assert answer.raw.startswith(b'{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"')
    assert b',"items":[{"metadata":{"name":"l0"' in answer.raw
    assert answer.raw.count(b'},{"metadata":{') == 2
    assert all("kind" not in one for one in answer.body["items"])


async def test_an_empty_list_has_empty_items(server: Server) -> None:
    answer = await server.call("GET", server.core("pods"))
    assert answer.body["items"] == []
    assert b'"items":[]' in answer.raw


@pytest.mark.parametrize(
    ("labels", "fields", "expected"),
    [
        ("app=a", "", ["p1", "p3"]),
        ("app==a,tier", "", ["p1"]),
        ("app!=a", "", ["p2"]),
        ("app in (a,b),!tier", "", ["p2", "p3"]),
        ("app notin (a)", "", ["p2"]),
        ("", "metadata.name=p2", ["p2"]),
        ("", "spec.nodeName=contract-node-1", ["p1", "p2"]),
        ("app=a", "spec.nodeName!=contract-node-1", ["p3"]),
        ("", "status.phase=Pending,spec.nodeName=contract-node-2", ["p3"]),
        ("", "status.phase=Running", []),
    ],
)
async def test_selectors_choose(server: Server, labels: str, fields: str, expected: list[str]) -> None:
    for name, node, held in PODS:
        spec = {"nodeName": node, "containers": [{"name": "c", "image": "x"}]}
        await server.make(server.core("pods"), {"metadata": {"name": name, "labels": held}, "spec": spec})
    answer = await server.call("GET", server.core("pods"), labelSelector=labels, fieldSelector=fields)
    everywhere = await server.call(
        "GET", "/api/v1/pods", labelSelector=labels, fieldSelector=f"metadata.namespace={server.namespace}"
    )
    await server.call("DELETE", server.core("pods"), gracePeriodSeconds="0")
    assert names(answer.body) == expected
    assert fields or names(everywhere.body) == expected


@pytest.mark.parametrize(
    ("plural", "query", "said"),
    [
        (
            "configmaps",
            {"fieldSelector": "spec.foo=1"},
            '"spec.foo" is not a known field selector: only "metadata.name"',
        ),
        ("pods", {"fieldSelector": "spec.zz=1"}, "field label not supported: spec.zz"),
        ("pods", {"fieldSelector": "foo"}, "invalid selector: 'foo'; can't understand 'foo'"),
        ("pods", {"labelSelector": "a in (b"}, ""),
        ("pods", {"limit": "x"}, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("pods", {"continue": "zzz"}, "continue key is not valid"),
        ("pods", {"resourceVersion": "abc"}, "invalid resource version"),
    ],
)
async def test_what_cannot_be_understood_is_400(server: Server, plural: str, query: dict[str, str], said: str) -> None:
    answer = await server.call("GET", server.core(plural), params=query)
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    assert said in answer.message


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"resourceVersionMatch": "Exact"}, "resourceVersionMatch"),
        ({"sendInitialEvents": "true"}, "sendInitialEvents"),
        ({"watch": "1", "sendInitialEvents": "true"}, "resourceVersionMatch"),
        ({"watch": "1", "resourceVersionMatch": "NotOlderThan", "resourceVersion": "1"}, "resourceVersionMatch"),
    ],
)
async def test_options_that_do_not_fit_together_are_422(server: Server, query: dict[str, str], field: str) -> None:
    answer = await server.call("GET", server.core("configmaps"), params=query)
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert answer.message.startswith('ListOptions.meta.k8s.io "" is invalid: ')
    assert ("FieldValueForbidden", field) in answer.causes


async def test_pages_are_cut_from_one_state(server: Server) -> None:
    await three_config_maps(server)
    path = server.core("configmaps")
    first = await server.call("GET", path, limit="2", labelSelector="mine=yes")
    await server.call("DELETE", server.core("configmaps", "l2"))
    await server.make(path, {"metadata": {"name": "l3", "labels": {"mine": "yes"}}})
    token = first.body["metadata"]["continue"]
    second = await server.call("GET", path, limit="2", labelSelector="mine=yes", params={"continue": token})
    both = await server.call("GET", path, resourceVersion="5", params={"continue": token})
    assert names(first.body) == ["l0", "l1"]
    assert names(second.body) == ["l2"]
    assert second.body["metadata"]["resourceVersion"] == first.body["metadata"]["resourceVersion"]
    assert "continue" not in second.body["metadata"]
    assert both.message == "specifying resource version is not allowed when using continue"


async def test_a_page_without_selectors_says_how_many_remain(server: Server) -> None:
    await three_config_maps(server)
    whole = await server.call("GET", server.core("configmaps"))
    page = await server.call("GET", server.core("configmaps"), limit="1")
    assert page.body["metadata"]["remainingItemCount"] == len(whole.body["items"]) - 1


async def test_a_limit_is_ignored_at_version_zero(server: Server) -> None:
    await three_config_maps(server)
    answer = await server.call(
        "GET", server.core("configmaps"), limit="1", resourceVersion="0", labelSelector="mine=yes"
    )
    assert len(answer.body["items"]) == 3
    assert "continue" not in answer.body["metadata"]


async def test_an_exact_list_shows_the_past(server: Server) -> None:
    made = await server.make(server.core("configmaps"), {"metadata": {"name": "a"}, "data": {"n": "1"}})
    version = made["metadata"]["resourceVersion"]
    await server.merge(server.core("configmaps", "a"), {"data": {"n": "2"}})
    then = await server.call(
        "GET",
        server.core("configmaps"),
        resourceVersion=version,
        resourceVersionMatch="Exact",
        fieldSelector="metadata.name=a",
    )
    assert then.body["metadata"]["resourceVersion"] == version
    assert then.body["items"][0]["data"] == {"n": "1"}


@pytest.mark.timeout(20)
async def test_a_version_of_the_future_is_504(server: Server) -> None:
    answer = await server.call("GET", server.core("configmaps"), resourceVersion="99999999")
    assert (answer.status, answer.body["reason"]) == (504, "Timeout")
    assert answer.body["details"]["causes"] == [
        {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    ]
    assert answer.body["details"]["retryAfterSeconds"] == 1
