"""A leader that dies in the middle of a capture: the other replica takes over, nothing is captured twice."""

import time
from collections.abc import Callable

import pytest

from tests.e2e.harness import SYSTEM, Kube, Object, captures, config, kill_pod, target, until, wait_for_capture

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

CPU_SECONDS = 20


def force_delete(kube: Kube, pod: Object) -> None:
    """The pod is gone without a word: what a lost node looks like to the rest."""
    kube("-n", SYSTEM, "delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")


def kill_process(kube: Kube, pod: Object) -> None:
    """SIGKILL to the operator; its container is started again in the same pod."""
    if not kill_pod(pod):
        pytest.skip("the nodes' processes are not on this machine")


@pytest.mark.parametrize("kill", [force_delete, kill_process])
def test_a_capture_whose_leader_dies_is_reported_and_not_repeated(
    installed: Kube, namespace: Callable[[str], str], kill: Callable[[Kube, Object], None]
) -> None:
    name = namespace(kill.__name__.replace("_", "-"))
    installed.apply(
        target("target", "-burn=1", cpu="200m"),
        config(
            "watch",
            "target",
            thresholds={"cpuThresholdPercent": 50, "checkIntervalSeconds": 10, "cooldownSeconds": 3600},
            profileTypes=["heap", "cpu"],
            cpuSeconds=CPU_SECONDS,
            collector={},
        ),
        namespace=name,
    )
    claimed = wait_for_capture(installed, name, "watch", states=["Capturing"])
    # The CPU profile is running: its request has reached the target.
    until("the CPU profile began", lambda: "served profile" in installed("-n", name, "logs", "target").out)
    leader = installed.leader()
    (pod,) = (p for p in installed.operators() if p["metadata"]["name"] == leader)
    assert claimed["holder"].startswith(leader)
    cooldowns = installed.config(name, "watch")["status"]["cooldowns"]
    assert len(cooldowns) == 1

    killed_at = time.monotonic()
    kill(installed, pod)
    # A container that is started again in its pod keeps its name, and with it the Lease.
    others = [p["metadata"]["name"] for p in installed.operators() if p["metadata"]["name"] != leader]
    wanted = [*others, leader] if kill is kill_process else others
    successor = until("a leader", lambda: now if (now := installed.leader()) in wanted else "", seconds=60)
    print(f"{kill.__name__}: {leader} -> {successor} in {time.monotonic() - killed_at:.1f} s")

    ended = wait_for_capture(
        installed, name, "watch", states=["Lost", "Stored", "PartiallyStored", "Failed"], seconds=300
    )
    assert ended["id"] == claimed["id"]
    if ended["state"] != "Stored":
        unstored = [artifact for artifact in ended.get("artifacts", ()) if artifact["state"] != "Stored"]
        assert {artifact.get("reason") for artifact in unstored} == {"ReplicaGone"}, ended

    # The new leader looks at the pod, which is still hot, and leaves it alone (the counts are written once a minute).
    def held_back() -> Object:
        status: Object = installed.config(name, "watch")["status"]
        return status if status.get("notFired", {}).get("Cooldown") == 1 else {}

    after = until("the pod is counted as cooling down", held_back, seconds=120, every=2)
    time.sleep(15)
    assert [capture["id"] for capture in captures(after)] == [claimed["id"]]
    assert after["cooldowns"] == cooldowns
    assert installed("-n", name, "logs", "target").out.count("served profile") == 1
    installed.ready("toe-operator")
