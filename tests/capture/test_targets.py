"""Which pods opted in, and where they are asked for profiles: one row a rule."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from toe_async.apis.pods import Container, Pod
from toe_async.apis.reasons import Reason
from toe_async.capture.identity import capture_id
from toe_async.capture.targets import PprofTarget, Refused, is_running, opted_in, service_of, target_of


def container(name: str, *ports: tuple[str, int], sidecar: bool = False) -> Container:
    return Container(name, sidecar, ports, None, None, None, None)


def pod(*containers: Container, host: bool = False, notes: Mapping[str, str] | None = None) -> Pod:
    """A running pod with these annotations."""
    return Pod(
        "shop", "web-1", "uid-1", "1", "Running", "node-1", "10.0.0.1", {}, notes or {},
        False, host, True, "", "", None, containers or (container("app"),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        pytest.param({}, False, id="no annotation"),
        pytest.param({"profiling.io/enabled": "true"}, True, id="ours says true"),
        pytest.param({"profiling.io/enabled": "True"}, False, id="only the exact word counts"),
        pytest.param({"profiling.io/enabled": "1"}, False, id="a number is not true"),
        pytest.param({"bolometer.io/enabled": "true"}, True, id="the other group's where ours is absent"),
        pytest.param(
            {"profiling.io/enabled": "false", "bolometer.io/enabled": "true"}, False, id="ours wins when it is there"
        ),
    ],
)
def test_a_pod_opts_in_by_annotation(annotations: dict[str, str], expected: bool) -> None:
    """D8, D9."""
    assert opted_in(pod(notes=annotations)) is expected


@pytest.mark.parametrize(
    ("phase", "terminating", "expected"),
    [
        ("Running", False, True),
        ("Running", True, False),
        ("Pending", False, False),
        ("Succeeded", False, False),
        ("Failed", False, False),
        ("Unknown", False, False),
    ],
)
def test_only_running_pods_that_stay_are_captured(phase: str, terminating: bool, expected: bool) -> None:
    """PR3: a terminating pod is left out."""
    assert is_running(replace(pod(), phase=phase, terminating=terminating)) is expected


NAMED = container("app", ("http", 8080), ("pprof", 6061))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(pod(), ("app", 6060, "/debug/pprof"), id="defaults"),
        pytest.param(
            pod(notes={"profiling.io/port": "7070"}), ("app", 7070, "/debug/pprof"), id="number, declared or not"
        ),
        pytest.param(
            pod(NAMED, notes={"profiling.io/port": "pprof"}), ("app", 6061, "/debug/pprof"), id="name of a port"
        ),
        pytest.param(
            pod(container("a", ("pprof", 7001)), container("b", ("pprof", 7002)), notes={"profiling.io/port": "pprof"}),
            ("a", 7001, "/debug/pprof"),
            id="the first of two ports with one name",
        ),
        pytest.param(pod(notes={"bolometer.io/port": "7070"}), ("app", 7070, "/debug/pprof"), id="bolometer's port"),
        pytest.param(
            pod(notes={"profiling.io/port": "1", "bolometer.io/port": "2"}),
            ("app", 1, "/debug/pprof"),
            id="our port before it",
        ),
        pytest.param(
            pod(notes={"profiling.io/path": "/internal/pprof/"}), ("app", 6060, "/internal/pprof"), id="a prefix"
        ),
        pytest.param(pod(notes={"profiling.io/path": "/"}), ("app", 6060, ""), id="served at the root"),
        pytest.param(
            pod(container("app"), container("side", ("pprof", 6060), sidecar=True)),
            ("side", 6060, "/debug/pprof"),
            id="the container that declares the port, sidecars too",
        ),
        pytest.param(
            pod(container("proxy"), container("app"), notes={"kubectl.kubernetes.io/default-container": "x"}),
            ("proxy", 6060, "/debug/pprof"),
            id="a default container that does not exist counts as none",
        ),
        pytest.param(pod(container("a"), container("b")), ("a", 6060, "/debug/pprof"), id="else the first"),
        pytest.param(
            pod(NAMED, host=True, notes={"profiling.io/port": "8080"}), ("app", 8080, "/debug/pprof"), id="host, named"
        ),
    ],
)
def test_the_pod_says_where_its_profiles_are(seen: Pod, expected: tuple[str, int, str]) -> None:
    """Container, port and path."""
    assert target_of(seen) == PprofTarget("shop", "web-1", "uid-1", *expected)


def test_the_default_container_is_kubectls() -> None:
    """kubectl.kubernetes.io/default-container names the container when none declares the port."""
    noted = {"kubectl.kubernetes.io/default-container": "app"}
    chosen = target_of(pod(container("proxy"), container("app"), notes=noted))
    assert isinstance(chosen, PprofTarget)
    assert chosen.container == "app"


@pytest.mark.parametrize(
    ("seen", "reason", "words"),
    [
        *[
            pytest.param(
                pod(NAMED, notes={"profiling.io/port": text}), Reason.BAD_ANNOTATION, "http, pprof", id=f"port {text!r}"
            )
            for text in ("", "nope", "-1", "60 60", "6060.0", "0x17", "٦٠٦٠", "999999", "../x")
        ],
        pytest.param(pod(notes={"profiling.io/port": "0"}), Reason.BAD_ANNOTATION, "1 to 65535", id="port 0"),
        pytest.param(pod(notes={"profiling.io/port": "65536"}), Reason.BAD_ANNOTATION, "1 to 65535", id="port 65536"),
        pytest.param(
            pod(notes={"bolometer.io/port": "x"}), Reason.BAD_ANNOTATION, "bolometer.io/port", id="names the annotation"
        ),
        *[
            pytest.param(
                pod(notes={"profiling.io/path": text}), Reason.BAD_ANNOTATION, "plain path", id=f"path {text!r}"
            )
            for text in (
                "",
                "debug",
                "//evil.example",
                "/a//b",
                "/..",
                "/a/../b",
                "/./a",
                "/a?x=1",
                "/a#b",
                "/%2e%2e",
                "/a b",
                "/a\nHost: x",
                "/a\\b",
                "/é",
                "/" + "a" * 200,
                "http://169.254.169.254/",
                "/a;b",
                "@x",
                "//",
            )
        ],
        pytest.param(pod(host=True), Reason.HOST_NETWORK_REFUSED, "port 6060", id="host network, nothing declared"),
        pytest.param(
            pod(NAMED, host=True, notes={"profiling.io/port": "10250"}),
            Reason.HOST_NETWORK_REFUSED,
            "10250",
            id="the kubelet's",
        ),
    ],
)
def test_a_bad_annotation_is_a_reason_and_never_a_default(seen: Pod, reason: Reason, words: str) -> None:
    """PR13, H20, D10: refused in a sentence that names pod and way out."""
    refused = target_of(seen)
    assert isinstance(refused, Refused)
    assert refused.reason is reason
    assert words in refused.sentence
    assert "shop/web-1" in refused.sentence
    assert len(refused.sentence) < 400
    assert refused.sentence.isprintable()


def test_a_pod_without_containers_has_no_target() -> None:
    """Cannot happen in a cluster; a hand-made object must not crash us."""
    refused = target_of(replace(pod(), containers=()))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.TARGET_CONTAINER_MISSING


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_annotation_gives_a_plain_path_and_a_real_port_or_a_refusal(port: str, path: str) -> None:
    """H20: whatever an author writes, the request stays one origin-form path on one port of the own pod."""
    found = target_of(pod(NAMED, notes={"profiling.io/port": port, "profiling.io/path": path}))
    if isinstance(found, PprofTarget):
        assert 1 <= found.port <= 65535
        assert found.path == "" or found.path.startswith("/")
        assert found.path.isascii()
        assert not set(found.path) & set("?#%\\ \r\n;@:")
        assert ".." not in found.path.split("/")
        assert not found.path.startswith("//")
    else:
        assert found.reason is Reason.BAD_ANNOTATION


def owned(kind: str, owner: str, name: str = "x", labels: dict[str, str] | None = None, node: str = "node-1") -> Pod:
    return replace(pod(), owner_kind=kind, owner_name=owner, name=name, labels=labels or {}, node=node)


HASH = {"pod-template-hash": "7d4b9c6f5"}


@pytest.mark.parametrize(
    ("seen", "service"),
    [
        pytest.param(owned("", "", "x", {"app.kubernetes.io/name": "a", "app": "b"}), "a", id="first label"),
        pytest.param(owned("", "", "x", {"app": "b", "k8s-app": "c"}), "b", id="second label"),
        pytest.param(owned("", "", "x", {"k8s-app": "c"}), "c", id="third label"),
        pytest.param(owned("StatefulSet", "db", "db-0", {"app": ""}), "db", id="an empty label counts as none"),
        pytest.param(owned("ReplicaSet", "web-7d4b9c6f5", "web-7d4b9c6f5-x2x4k", HASH), "web", id="a Deployment"),
        pytest.param(owned("ReplicaSet", "my-web-7d4b9c6f5", labels=HASH), "my-web", id="a Deployment with a dash"),
        pytest.param(owned("ReplicaSet", "web"), "web", id="a ReplicaSet without a Deployment, no dash"),
        pytest.param(owned("ReplicaSet", "my-web"), "my-web", id="a ReplicaSet without a Deployment, with a dash"),
        pytest.param(owned("ReplicaSet", "web-cache", labels=HASH), "web-cache", id="another hash stays"),
        pytest.param(owned("Job", "report-29384160"), "report", id="a CronJob's run"),
        pytest.param(owned("Job", "my-report-1700000000"), "my-report", id="an old CronJob's run"),
        pytest.param(owned("Job", "migrate-2"), "migrate-2", id="a Job with a number of its own"),
        pytest.param(owned("Job", "migrate"), "migrate", id="a Job without a dash"),
        pytest.param(owned("DaemonSet", "agent", "agent-x2x4k"), "agent", id="a DaemonSet"),
        pytest.param(owned("Node", "n1", "etcd-n1", node="n1"), "etcd", id="a static pod"),
        pytest.param(owned("", "", "web"), "web", id="a bare pod without a dash"),
        pytest.param(owned("", "", "web-cache"), "web-cache", id="a bare pod with a name of its own"),
        pytest.param(owned("", "", "run-x2x4k"), "run", id="a generated name"),
    ],
)
def test_the_service_is_told_from_labels_owner_and_name(seen: Pod, service: str) -> None:
    """D11, PR7."""
    assert service_of(seen) == service


def test_a_capture_id_depends_on_every_part_and_on_their_borders() -> None:
    """D1: 32 characters that fit every name, the same wherever they are derived."""
    one = capture_id("cr", "pod", "app", "2026-01-24T20:44:08Z")
    assert one == capture_id("cr", "pod", "app", "2026-01-24T20:44:08Z")
    assert len(one) == 32
    assert set(one) <= set("abcdefghijklmnopqrstuvwxyz234567")
    others = [
        ("cx", "pod", "app", "2026-01-24T20:44:08Z"),
        ("cr", "pox", "app", "2026-01-24T20:44:08Z"),
        ("cr", "pod", "apx", "2026-01-24T20:44:08Z"),
        ("cr", "pod", "app", "2026-01-24T20:44:09Z"),
        ("crp", "od", "app", "2026-01-24T20:44:08Z"),
    ]
    assert len({one, *(capture_id(*parts) for parts in others)}) == 6
