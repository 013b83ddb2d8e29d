"""Verbs become requests: the exact path, query, body and type that go on the wire."""

import pytest

from toe_async.apis.kinds import LEASES, NODES, PODS, PROFILING_CONFIGS, SERVICE_ACCOUNTS
from toe_async.kube import requests
from toe_async.kube.requests import Request

POD = "/api/v1/namespaces/a/pods"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (requests.get(PODS, "a", "p"), f"GET {POD}/p"),
        (requests.get(NODES, None, "n"), "GET /api/v1/nodes/n"),
        (requests.get(PODS, "a", "p", subresource="status"), f"GET {POD}/p/status"),
        (requests.list_(PODS), "GET /api/v1/pods"),
        (
            requests.list_(
                PODS,
                "a",
                label_selector="app in (x, y),!z",
                field_selector="spec.nodeName=n",
                resource_version="0",
                limit=500,
                continue_="a+b/c=",
            ),
            (
                f"GET {POD}?labelSelector=app%20in%20%28x%2C%20y%29%2C%21z&fieldSelector=spec.nodeName%3Dn"
                "&resourceVersion=0&limit=500&continue=a%2Bb%2Fc%3D"
            ),
        ),
        (
            requests.watch(PODS, resource_version="5", timeout_seconds=300),
            "GET /api/v1/pods?watch=true&allowWatchBookmarks=true&resourceVersion=5&timeoutSeconds=300",
        ),
        (
            requests.watch(PODS, timeout_seconds=300, send_initial_events=True),
            (
                "GET /api/v1/pods?watch=true&allowWatchBookmarks=true&timeoutSeconds=300"
                "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
            ),
        ),
        (requests.create(PODS, "a", b"{}", field_manager="m"), f"POST {POD}?fieldManager=m"),
        (
            requests.create(SERVICE_ACCOUNTS, "a", b"{}", name="s", subresource="token"),
            "POST /api/v1/namespaces/a/serviceaccounts/s/token",
        ),
        (
            requests.replace(LEASES, "a", "l", b"{}"),
            "PUT /apis/coordination.k8s.io/v1/namespaces/a/leases/l",
        ),
        (
            requests.merge_patch(PROFILING_CONFIGS, "a", "c", b"{}", subresource="status"),
            "PATCH /apis/profiling.io/v1alpha1/namespaces/a/profilingconfigs/c/status",
        ),
        (requests.apply(PODS, "a", "p", b"{}", field_manager="m"), f"PATCH {POD}/p?fieldManager=m&force=true"),
        (requests.apply(PODS, "a", "p", b"{}", field_manager="m", force=False), f"PATCH {POD}/p?fieldManager=m"),
        (
            requests.delete(PODS, "a", "p", grace_period_seconds=0, propagation="Background"),
            f"DELETE {POD}/p?gracePeriodSeconds=0&propagationPolicy=Background",
        ),
    ],
)
def test_each_verb_goes_where_it_should(request_: Request, expected: str) -> None:
    """Method and request target, quoted as they are sent."""
    assert f"{request_.method} {request_.target}" == expected


def test_bodies_carry_their_own_type() -> None:
    """The server reads a patch by its content type, so a wrong one is refused or does something else."""
    assert requests.create(PODS, "a", b"{}").content_type == "application/json"
    assert requests.merge_patch(PODS, "a", "p", b"{}").content_type == "application/merge-patch+json"
    assert requests.apply(PODS, "a", "p", b"{}", field_manager="m").content_type == "application/apply-patch+yaml"
    assert requests.merge_patch(PODS, "a", "p", b"{1}").body == b"{1}"


def test_deleting_by_uid_leaves_a_successor_alone() -> None:
    """The precondition travels in the body; without a UID there is none."""
    body = requests.delete(PODS, "a", "p", uid="0a-1b").body
    assert body == b'{"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":"0a-1b"}}'
    assert requests.delete(PODS, "a", "p").body is None
    with pytest.raises(ValueError, match="no UID"):
        requests.delete(PODS, "a", "p", uid='x"}')


@pytest.mark.parametrize("path", ["pods", "", "/a b", "/a?b", "/a#b", "/a\r\nb", "/é", "/a/../b", "/a/.", "//x\\y"])
def test_a_path_that_could_be_read_otherwise_is_refused(path: str) -> None:
    """Whatever a name holds, it cannot lead to another resource."""
    with pytest.raises(ValueError, match=r"quoted absolute|dot segment"):
        Request("GET", path)


def test_a_name_stays_in_its_segment() -> None:
    """A slash in a name is quoted, not a way out."""
    assert requests.get(PODS, "a", "../../nodes").path == f"{POD}/..%2F..%2Fnodes"


def test_only_verbs_that_can_be_repeated_are_called_idempotent() -> None:
    """A create or a patch may act twice."""
    repeatable = {method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") if _idempotent(method)}
    assert repeatable == {"GET", "HEAD", "PUT", "DELETE"}


def _idempotent(method: str) -> bool:
    return Request(method, "/x").idempotent  # type: ignore[arg-type]
