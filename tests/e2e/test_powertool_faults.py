"""What a run survives: operators killed at any step, a collector that is away; and what nobody may ever find."""

import json
import os
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.e2e.harness import AGENTS, SYSTEM, Kube, kill_pod, until
from tests.e2e.powertools import (
    GROUP,
    at_work,
    condition,
    finished,
    powertool,
    probe,
    ready,
    running,
    status,
    tool_containers,
    wait_for,
    web,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

COLLECTOR_AWAY_SECONDS = int(os.environ.get("TOE_E2E_AWAY", "60"))


@pytest.fixture(scope="module")
def scene(installed: Kube, tools: None, namespace: Callable[[str], str]) -> str:
    """A namespace with three pods that stay."""
    installed.apply(probe())
    ready(installed, "probe")
    name = namespace("tool-faults")
    names = [f"web-{number}" for number in range(3)]
    installed.apply(*(web(each) for each in names), namespace=name)
    running(installed, name, *names)
    return name


def _kill_leader(kube: Kube) -> None:
    leader = kube.leader()
    (pod,) = (p for p in kube.operators() if p["metadata"]["name"] == leader)
    if not kill_pod(pod):
        pytest.skip("the nodes' processes are not on this machine")


@pytest.mark.parametrize(
    "step",
    [
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("just created", "claimed", "storing")),
        "container wanted",
        "running",
    ],
)
def test_an_operator_killed_at_a_step_costs_no_second_container_and_no_artifact(
    installed: Kube, scene: str, step: str
) -> None:
    name = step.replace(" ", "-")
    before = {pod: len(held) for pod, held in tool_containers(installed, scene).items()}
    duration = "12s" if step == "running" else "4s"
    installed.apply(powertool(name, "stay", duration=duration), namespace=scene)

    def containers() -> int:
        return sum(len(held) for held in tool_containers(installed, scene).values()) - sum(before.values())

    match step:
        case "claimed":
            until("a claim", lambda: status(installed, scene, name).get("ledger"), seconds=60, every=0.05)
        case "container wanted":
            until("a container", containers, seconds=60, every=0.05)
        case "running":
            wait_for(installed, scene, name, "runs", lambda s: s.get("runningPods") == 3)
            time.sleep(3)
        case "storing":
            wait_for(installed, scene, name, "runs", lambda s: s.get("runningPods") == 3)
            time.sleep(3.5)
        case _:
            pass
    _kill_leader(installed)
    held = finished(installed, scene, name, seconds=240)
    assert held["completedPods"] == 3
    assert sum("found.txt" in one["uri"] for one in held["artifacts"]) == 3
    after = {pod: len(each) for pod, each in tool_containers(installed, scene).items()}
    assert after == {pod: count + 1 for pod, count in before.items()}
    listed = json.loads(
        installed("get", "--raw", f"/apis/artifacts.toe.run/v1alpha1/namespaces/{scene}/artifacts?run={name}").out
    )["items"]
    assert sum("found" in item["metadata"]["name"] for item in listed) == 3
    installed.ready("toe-operator")


def test_output_waits_for_a_collector_that_is_away(installed: Kube, scene: str) -> None:
    installed.apply(powertool("patient", "stay", duration="10s"), namespace=scene)
    wait_for(installed, scene, "patient", "runs", lambda s: s.get("runningPods") == 3)
    installed("-n", SYSTEM, "scale", "deployment/toe-collector", "--replicas=0")
    began = time.monotonic()
    wait_for(
        installed,
        scene,
        "patient",
        "stores",
        lambda s: {row["state"] for row in s.get("targets", ())} == {"Storing"},
        seconds=90,
    )
    time.sleep(max(0.0, COLLECTOR_AWAY_SECONDS - (time.monotonic() - began)))
    assert status(installed, scene, "patient")["phase"] == "Running"
    installed("-n", SYSTEM, "scale", "deployment/toe-collector", "--replicas=1")
    installed.ready("toe-collector")
    held = finished(installed, scene, "patient", seconds=240)
    assert held["completedPods"] == 3


def test_no_credential_is_anywhere_to_be_found(installed: Kube, scene: str) -> None:
    """Tokens reach a tool's container over stdin alone: no object, Event, log or process shows one."""
    installed.apply(powertool("discreet", "stay", duration="15s"), namespace=scene)
    held = at_work(installed, scene, "discreet", 3)
    shown = "\n".join(
        [
            installed("-n", scene, "get", "pods,events,powertools", "-o", "json").out,
            installed("-n", AGENTS, "get", "pods,events,secrets", "-o", "json").out,
            installed("-n", SYSTEM, "get", f"events,powertoolconfigs.{GROUP}", "-o", "json").out,
        ]
    )
    for pod, container in ((row["pod"], row["toolContainer"]) for row in held["targets"]):
        shown += installed("-n", scene, "logs", pod, "-c", container).out
        for path in ("environ", "cmdline"):
            command = f"cat /proc/[0-9]*/{path} 2>/dev/null; true"
            shown += installed("-n", scene, "exec", pod, "-c", container, "--", "sh", "-c", command).out
    finished(installed, scene, "discreet")
    for pod in installed.operators():
        shown += installed("-n", SYSTEM, "logs", pod["metadata"]["name"]).out
    shown += installed("-n", SYSTEM, "logs", "deployment/toe-collector").out
    # A service account's token begins with the header of a JSON Web Token.
    assert "eyJhbGciOi" not in shown


def test_orders_of_somebody_else_who_may_attach_are_refused(installed: Kube, scene: str) -> None:
    installed.apply(powertool("target-of-orders", "stay", duration="20s"), namespace=scene)
    held = at_work(installed, scene, "target-of-orders", 3)
    row = held["targets"][0]
    forged = json.dumps({"type": "orders", "orders": {"capture": "x", "argv": ["touch", "/tmp/forged"]}})
    argv = ["kubectl", f"--kubeconfig={installed.kubeconfig}", "-n", scene, "attach", "-i", row["pod"]]
    with subprocess.Popen(
        [*argv, "-c", row["toolContainer"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as attached:
        assert attached.stdin is not None
        assert attached.stdout is not None
        attached.stdin.write(forged + "\nnonsense\n" + "x" * 300_000 + "\n")
        attached.stdin.flush()
        refused = 0
        for line in attached.stdout:
            refused += '"refused"' in line
            if refused >= 2:
                break
        attached.kill()
    assert refused >= 2
    assert finished(installed, scene, "target-of-orders")["completedPods"] == 3


def test_without_the_policy_nothing_begins(installed: Kube, scene: str) -> None:
    policy = "validatingadmissionpolicybinding/toe-powertool-author"
    kept = installed("get", policy, "-o", "yaml").out
    installed("delete", policy)
    try:

        def missing() -> bool:
            installed("-n", scene, "delete", "powertool", "unvetted", "--ignore-not-found")
            installed.apply(powertool("unvetted", "look"), namespace=scene)
            time.sleep(5)
            said = condition(status(installed, scene, "unvetted"), "Accepted")
            return said.get("reason") == "PolicyMissing"

        until("runs are refused", missing, seconds=120, every=5)
    finally:
        cleaned = "\n".join(line for line in kept.splitlines() if "resourceVersion" not in line and "uid:" not in line)
        installed("apply", "-f", "-", stdin=cleaned)
    finished(installed, scene, "unvetted", seconds=120)
