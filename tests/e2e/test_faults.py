"""Parts of the cluster break while captures go on: afterwards each one is stored once, or reported with its reason."""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.artifacts import Artifacts
from tests.e2e.conftest import S3
from tests.e2e.harness import (
    SYSTEM,
    Kube,
    Object,
    captures,
    cluster_tool,
    config,
    kill_pod,
    run,
    target,
    until,
    wait_for_capture,
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

PODS = 3
FINAL = ("Stored", "PartiallyStored", "Failed", "Lost")


class Busy:
    """A namespace whose pods are captured all the time, into both sinks."""

    SINKS = ("collector", "s3")

    def __init__(self, kube: Kube, s3: S3, artifacts: Artifacts, namespace: str) -> None:
        self.kube, self.s3, self.artifacts, self.namespace = kube, s3, artifacts, namespace
        self.prefix = f"faults/{secrets.token_hex(4)}"  # an earlier run's objects may still be there
        for sink in self.SINKS:
            where: Object = {"collector": {}} if sink == "collector" else {"s3Config": s3.spec(self.prefix)}
            pods = [target(f"{sink}-{number}") for number in range(PODS)]
            for pod in pods:
                pod["metadata"]["labels"]["app.kubernetes.io/name"] = sink
            wanted = config(
                sink,
                sink,
                # Long enough that no capture leaves the last 20 of the status during a test.
                onDemand={"enabled": True, "intervalSeconds": 60},
                profileTypes=["goroutine", "heap"],
                maxConcurrent=PODS,
                **where,
            )
            kube.apply(*pods, wanted, namespace=namespace)
        for sink in self.SINKS:
            wait_for_capture(kube, namespace, sink, seconds=120)

    def status(self, sink: str) -> Object:
        found: Object = self.kube.config(self.namespace, sink)["status"]
        return found

    def settle(self) -> None:
        """Start nothing more, and wait until all that was started has come to an end."""
        stop = '{"spec":{"suspend":true}}'
        for sink in self.SINKS:
            words = ("-n", self.namespace, "patch", "profilingconfigs.profiling.io", sink, "--type=merge", "-p", stop)
            until("the API server takes writes", lambda words=words: self.kube(*words, check=False).code == 0)  # type: ignore[misc]
        for sink in self.SINKS:
            until(
                f"every capture into {sink} has ended",
                lambda sink=sink: len(captures(self.status(sink), *FINAL)) == len(captures(self.status(sink))),  # type: ignore[misc]
                seconds=420,
                every=2,
                describe=lambda sink=sink: json.dumps(captures(self.status(sink)), indent=1),  # type: ignore[misc]
            )

    def check(self, *, lost_reasons: frozenset[str] = frozenset()) -> dict[str, int]:
        """Status, store and targets tell the same story. Returns how many captures ended in which state."""
        states: dict[str, int] = {}
        for sink in self.SINKS:
            recent = captures(self.status(sink))
            assert len(recent) < 20, "the status has forgotten captures: the scene ran too long"
            assert len({capture["id"] for capture in recent}) == len(recent)
            stored = []
            for capture in recent:
                states[capture["state"]] = states.get(capture["state"], 0) + 1
                for artifact in capture["artifacts"]:
                    if artifact["state"] == "Stored":
                        stored.append(artifact)
                    else:
                        assert artifact.get("reason"), capture
                        assert not lost_reasons or artifact["reason"] in lost_reasons, capture
            self._in_store(sink, stored)
            for number in range(PODS):
                pod = f"{sink}-{number}"
                served = self.kube("-n", self.namespace, "logs", pod).out.count("served goroutine")
                taken = len([capture for capture in recent if capture["pod"] == pod])
                assert served <= taken, f"{pod} was captured {served} times, {taken} times by the status"
        return states

    def _in_store(self, sink: str, stored: list[Object]) -> None:
        if sink == "s3":
            keys = self.s3.keys(f"{self.prefix}/")
            profiles = [key for key in keys if key.endswith(".pprof")]
            assert sorted(f"s3://profiles/{key}" for key in profiles) == sorted(a["uri"] for a in stored)
        else:
            token = self.artifacts.account(self.namespace, "reader", role="toe-artifact-reader")
            run = self.kube.config(self.namespace, sink)["metadata"]["uid"]
            listed = json.dumps(self.artifacts.list(self.namespace, token, run=run))
            for artifact in stored:
                assert artifact["sha256"] in listed, artifact
            assert len(json.loads(listed)) == len(stored)


@pytest.fixture
def busy(
    installed: Kube, s3: S3, artifacts: Artifacts, namespace: Callable[[str], str], request: pytest.FixtureRequest
) -> Iterator[Busy]:
    name = namespace("fault-" + "".join(c if c.isalnum() else "-" for c in request.node.callspec.id))
    yield Busy(installed, s3, artifacts, name)
    installed("delete", "namespace", name, "--wait=false")


def tool() -> Path:
    found = cluster_tool()
    if found is None:
        pytest.skip("faults of the control plane and of nodes need TOE_CLUSTER_TOOL")
    return found


@contextmanager
def component_killed(component: str, seconds: float) -> Iterator[None]:
    run([tool(), "kill", component])
    try:
        time.sleep(seconds)
    finally:
        run([tool(), "start", component])
    yield


@contextmanager
def component_paused(component: str, seconds: float) -> Iterator[None]:
    run([tool(), "pause", component])
    try:
        time.sleep(seconds)
    finally:
        run([tool(), "resume", component])
    yield


@contextmanager
def node_cut(node: int, seconds: float) -> Iterator[None]:
    run([tool(), "cut", str(node)])
    try:
        time.sleep(seconds)
    finally:
        run([tool(), "heal", str(node)])
    yield


FAULTS = {
    "api-server-killed-20s": lambda: component_killed("kube-apiserver", 20),
    "etcd-paused-10s": lambda: component_paused("etcd", 10),
    "node-cut-30s": lambda: node_cut(2, 30),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_every_capture_is_stored_once_or_reported(busy: Busy, fault: str) -> None:
    if fault.startswith("node") and len(busy.kube.items("nodes")) < 2:
        pytest.skip("needs two nodes")
    before = {sink: len(captures(busy.status(sink))) for sink in busy.SINKS}
    began = time.monotonic()
    with FAULTS[fault]():
        pass
    until("the API server answers", lambda: busy.kube("get", "--raw", "/readyz", check=False).code == 0)
    for sink in busy.SINKS:
        until(
            f"captures into {sink} go on",
            lambda sink=sink: len(captures(busy.status(sink), "Stored")) > before[sink],  # type: ignore[misc]
            seconds=240,
            every=2,
            describe=lambda sink=sink: json.dumps(busy.status(sink), indent=1),  # type: ignore[misc]
        )
    print(f"{fault}: captures go on {time.monotonic() - began:.0f} s after the fault began")
    busy.settle()
    print(f"{fault}: {busy.check()}")
    busy.kube.ready("toe-operator")


@pytest.mark.parametrize("seconds", [120], ids=["s3-down-120s"])
def test_an_s3_server_that_is_away_for_minutes_loses_nothing(busy: Busy, seconds: float) -> None:
    before = len(captures(busy.status("s3")))
    busy.s3.reachable(False)
    try:
        time.sleep(seconds)
        waiting = captures(busy.status("s3"), "Uploading")
        reachable = busy.kube.condition(busy.namespace, "s3", "StoreReachable")
    finally:
        busy.s3.reachable(True)
    assert waiting, "captures were to be taken and kept while the store was away"
    assert reachable["status"] == "False"
    busy.settle()
    states = busy.check()
    assert set(states) == {"Stored"}, states
    assert len(captures(busy.status("s3"))) > before


def test_a_collector_killed_in_the_middle_of_an_upload_gets_it_again(
    installed: Kube, artifacts: Artifacts, namespace: Callable[[str], str]
) -> None:
    name = namespace("collector-killed")
    (pod,) = installed.items("pods", namespace=SYSTEM, selector="app.kubernetes.io/name=toe-collector")
    installed.apply(
        target("target", f"-heap-bytes={1 << 30}", memory="256Mi"),
        config(
            "watch",
            "target",
            onDemand={"enabled": True, "intervalSeconds": 86400},
            profileTypes=["heap"],
            collector={},
        ),
        namespace=name,
    )
    wait_for_capture(installed, name, "watch", states=["Uploading"])
    if not kill_pod(pod):
        pytest.skip("the nodes' processes are not on this machine")
    assert not captures(installed.config(name, "watch")["status"], *FINAL), "the upload was over before the kill"
    capture = wait_for_capture(installed, name, "watch", seconds=300)
    (artifact,) = capture["artifacts"]
    token = artifacts.account(name, "reader", role="toe-artifact-reader")
    assert artifacts.name_of(name, artifact, token)
    assert len(artifacts.list(name, token, run=installed.config(name, "watch")["metadata"]["uid"])) == 1
    assert installed("-n", name, "logs", "target").out.count("served heap") == 1
