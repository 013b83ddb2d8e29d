"""Slices of foreign kinds, read from what a real API server sends and written as it wants them."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from toe_async.apis.core import (
    POWERTOOLS_GRANT,
    BoundObject,
    Event,
    EventSource,
    NamespaceObject,
    Node,
    PodUsage,
    ResourceAttributes,
    Secret,
    SubjectAccessReview,
    SubjectAccessReviewSpec,
    TokenRequest,
    TokenRequestSpec,
    TokenReview,
    TokenReviewSpec,
    decode_lease,
    decode_namespace,
    decode_node,
    decode_pod_metrics_list,
    decode_secret,
    decode_subject_access_review,
    decode_token_request,
    decode_token_review,
)
from toe_async.apis.meta import ObjectMeta, ObjectRef, encode


def written(value: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode(value))
    return found


def test_a_namespace_keeps_its_grants_and_labels() -> None:
    """Other annotations are dropped."""
    raw = {
        "metadata": {
            "name": "shop",
            "resourceVersion": "7",
            "labels": {"team": "a"},
            "annotations": {"profiling.io/allow-from": "ops,ci-*", "bolometer.io/allow-from": "x", "big": "y" * 1000},
        }
    }
    assert decode_namespace(json.dumps(raw).encode()) == NamespaceObject(
        "shop", "7", {"team": "a"}, {"profiling.io/allow-from": "ops,ci-*", "bolometer.io/allow-from": "x"}
    )


def test_a_namespace_keeps_what_powertools_depend_on() -> None:
    """The grant of its pods, and its labels, of which one names the Pod Security level."""
    annotations = {"toe.run/powertools-from": "ops,ci-*", "other": "x"}
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    raw = json.dumps({"metadata": {"name": "shop", "labels": labels, "annotations": annotations}}).encode()
    found = decode_namespace(raw)
    assert found.annotations == {POWERTOOLS_GRANT: "ops,ci-*"}
    assert found.labels == labels


def test_a_node_tells_what_it_can_give() -> None:
    """In cores and bytes; 0 while the kubelet has not reported."""
    allocatable = {"cpu": "1930m", "memory": "3Gi", "pods": "110"}
    raw = json.dumps(
        {"metadata": {"name": "n", "resourceVersion": "1"}, "status": {"allocatable": allocatable}}
    ).encode()
    assert decode_node(raw) == Node("n", "1", 1.93, 3 * 2**30)
    assert decode_node(b'{"metadata":{"name":"n"},"status":{"allocatable":null}}') == Node("n", "", 0, 0)


def test_a_lease_may_be_empty() -> None:
    """One that kubectl made has no spec at all."""
    lease = decode_lease(b'{"metadata":{"name":"l"},"spec":{"renewTime":null}}')
    assert (lease.spec.holder_identity, lease.spec.renew_time) == ("", None)
    held = {"holderIdentity": "a", "renewTime": "2026-11-21T08:20:17.123456Z", "leaseTransitions": 3}
    spec = decode_lease(json.dumps({"metadata": {"name": "l"}, "spec": held}).encode()).spec
    assert (spec.holder_identity, spec.lease_transitions) == ("a", 3)
    assert spec.renew_time == datetime(2026, 11, 21, 8, 20, 17, 123456, tzinfo=UTC)


def test_an_event_has_core_v1s_own_names() -> None:
    """Its controller is called reportingComponent there, unlike in events.k8s.io."""
    event = Event(
        api_version="v1",
        kind="Event",
        metadata=ObjectMeta(name="a.1", namespace="n"),
        involved_object=ObjectRef(api_version="v1", kind="Pod", namespace="n", name="a", uid="u"),
        type="Normal",
        reason="Why",
        source=EventSource(component="toe"),
        reporting_controller="toe",
        first_timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        count=2,
    )
    assert written(event) == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "a.1", "namespace": "n"},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": "n", "name": "a", "uid": "u"},
        "type": "Normal",
        "reason": "Why",
        "source": {"component": "toe"},
        "reportingComponent": "toe",
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "count": 2,
    }


def test_a_secrets_data_is_bytes_on_our_side_and_base64_on_the_wire() -> None:
    """So that nobody encodes twice."""
    secret = Secret(metadata=ObjectMeta(name="s"), data={"key": b"\x00\xff"})
    assert written(secret)["data"] == {"key": "AP8="}
    assert decode_secret(encode(secret)).data == {"key": b"\x00\xff"}


def test_a_token_request_names_audience_life_and_what_it_hangs_on() -> None:
    """The token dies with the bound object."""
    bound = BoundObject(kind="Secret", name="s", uid="u")
    ask = TokenRequest(spec=TokenRequestSpec(audiences=("a",), expiration_seconds=600, bound_object_ref=bound))
    sent = written(ask)
    assert sent["apiVersion"] == "authentication.k8s.io/v1"
    assert sent["spec"]["audiences"] == ["a"]
    assert sent["spec"]["expirationSeconds"] == 600
    assert sent["spec"]["boundObjectRef"] == {"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "u"}
    answer = b'{"spec":{"audiences":["a"]},"status":{"token":"t","expirationTimestamp":"2026-01-01T00:00:00Z"}}'
    status = decode_token_request(answer).status
    assert status is not None
    assert (status.token, status.expiration_timestamp) == ("t", datetime(2026, 1, 1, tzinfo=UTC))


def test_a_token_review_without_a_verdict_is_no_yes() -> None:
    """`authenticated` is simply absent when the token is bad."""
    sent = written(TokenReview(spec=TokenReviewSpec(token="t", audiences=("a",))))
    assert (sent["kind"], sent["spec"]) == ("TokenReview", {"token": "t", "audiences": ["a"]})
    status = decode_token_review(b'{"status":{"user":{},"error":"invalid"}}').status
    assert status is not None
    assert not status.authenticated
    user = {"username": "u", "groups": ["g"], "extra": {"k": ["v"]}}
    good = {"status": {"authenticated": True, "audiences": ["a"], "user": user}}
    status = decode_token_review(json.dumps(good).encode()).status
    assert status is not None
    assert (status.authenticated, status.audiences, status.user.username, status.user.extra) == (
        True,
        ("a",),
        "u",
        {"k": ("v",)},
    )


def test_an_access_review_without_a_verdict_is_no_yes() -> None:
    """Allowed only when the server says so."""
    spec = SubjectAccessReviewSpec(resource_attributes=ResourceAttributes(verb="get", resource="pods"), user="u")
    assert written(SubjectAccessReview(spec=spec))["spec"] == {
        "resourceAttributes": {"verb": "get", "resource": "pods"},
        "user": "u",
    }
    raw = b'{"spec":{"resourceAttributes":{"verb":"get","resource":"pods"}},"status":{"allowed":false,"reason":"no"}}'
    status = decode_subject_access_review(raw).status
    assert status is not None
    assert not status.allowed


METRICS = {
    "kind": "PodMetricsList",
    "items": [
        {
            "metadata": {"name": "a", "namespace": "n", "labels": None},
            "timestamp": "2026-11-21T08:20:17Z",
            "window": "9.992s",
            "containers": [
                {"name": "app", "usage": {"cpu": "199633923n", "memory": "4108Ki"}},
                {"name": "side", "usage": {"cpu": "0", "memory": "1e3"}},
                {"name": "tool", "usage": None},
                {"name": "more", "usage": {"cpu": "12m", "memory": "1Gi", "ephemeral": "1"}},
            ],
        },
        {"metadata": {"name": "b", "namespace": "n"}, "timestamp": "2026-11-21T08:20:18Z", "containers": None},
    ],
}


def test_pod_metrics_become_cores_and_bytes() -> None:
    """Every notation that metrics-server uses; a container without figures is absent, never zero."""
    first, second = decode_pod_metrics_list(json.dumps(METRICS).encode())
    assert first == PodUsage(
        "n",
        "a",
        datetime(2026, 11, 21, 8, 20, 17, tzinfo=UTC),
        9.992,
        {"app": (0.199633923, 4108 * 1024.0), "side": (0.0, 1000.0), "more": (0.012, 2.0**30)},
    )
    assert (second.name, second.window_seconds, second.containers) == ("b", 0.0, {})


def test_a_list_without_items_is_empty() -> None:
    """metrics-server says null when there is nothing."""
    assert decode_pod_metrics_list(b'{"items":null}') == []


@pytest.mark.parametrize(
    ("path", "value"),
    [("window", "long"), ("timestamp", "yesterday"), ("containers", [{"name": "a", "usage": {"cpu": "x"}}])],
)
def test_figures_that_cannot_be_read_are_a_decode_error(path: str, value: object) -> None:
    """Nothing is guessed: a wrong figure would trigger or hide a capture."""
    broken = {"items": [{**METRICS["items"][0], path: value}]}  # type: ignore[dict-item]
    with pytest.raises(msgspec.DecodeError):
        decode_pod_metrics_list(json.dumps(broken).encode())
