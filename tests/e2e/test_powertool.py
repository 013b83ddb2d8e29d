"""PowerTools on a real kubelet: where output goes, how a run fails, and what is left alone."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.artifacts import Artifacts
from tests.e2e.conftest import BUCKET, S3
from tests.e2e.harness import Kube, until
from tests.e2e.powertools import (
    GROUP,
    adds_up,
    condition,
    finished,
    most_at_once,
    powertool,
    probe,
    ready,
    running,
    spans,
    status,
    tool_containers,
    wait_for,
    web,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def approved(installed: Kube, tools: None) -> Kube:
    """The tool that these tests run is approved."""
    installed.apply(probe(), probe("picky", allowedNamespaces=["nowhere-*"], allowedArgs=[]))
    installed.apply(probe("broken", image="localhost/there-is-none:dev"))
    installed.apply(probe("mighty", securityContext={"capabilities": {"add": ["NET_RAW"]}}))
    ready(installed, "probe", "picky", "broken", "mighty")
    return installed


@pytest.fixture(scope="module")
def shop(approved: Kube, namespace: Callable[[str], str]) -> str:
    """A namespace with two pods that stay."""
    name = namespace("powertool")
    approved.apply(web("web-1"), web("web-2"), namespace=name)
    running(approved, name, "web-1", "web-2")
    return name


@pytest.fixture
def toe(approved: Kube) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs ``kubectl toe`` as the administrator."""

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        argv = [Path(sys.executable).parent / "kubectl-toe", "--kubeconfig", approved.kubeconfig, *words]
        return subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, timeout=120)

    return run


def test_a_run_ends_completed_and_every_target_s_output_is_in_the_collector(
    approved: Kube, shop: str, artifacts: Artifacts, tmp_path: Path
) -> None:
    approved.apply(powertool("to-collector", "look", "", "a b"), namespace=shop)
    held = finished(approved, shop, "to-collector")
    assert (held["selectedPods"], held["completedPods"], held.get("failedPods", 0)) == (2, 2, 0)
    assert {condition(held, type_).get("status") for type_ in ("Complete", "ArtifactsStored", "Accepted")} == {"True"}
    assert {condition(held, type_).get("status") for type_ in ("Failed", "Running")} == {"False"}
    assert held["bytesWritten"] == sum(one["size"] for one in held["artifacts"])
    assert {row["state"] for row in held["targets"]} == {"Completed"}
    found = [one for one in held["artifacts"] if "found.txt" in one["uri"]]
    assert len(found) == 2
    artifacts.fetch(shop, found[0], tmp_path / "found.txt.gz")
    import gzip

    text = gzip.decompress((tmp_path / "found.txt.gz").read_bytes()).decode()
    assert text.startswith("target 1, look  a b\n")  # the empty argument is there
    assert "sees python3" in text


def test_a_finished_run_stays_as_it_is(approved: Kube, shop: str) -> None:
    approved.apply(powertool("once", "look"), namespace=shop)
    before = finished(approved, shop, "once")
    names = {pod: len(held) for pod, held in tool_containers(approved, shop).items()}
    approved.apply(web("web-late"), namespace=shop)
    running(approved, shop, "web-late")
    time.sleep(10)
    assert status(approved, shop, "once") == before
    after = {pod: len(held) for pod, held in tool_containers(approved, shop).items()}
    assert after == {**names, "web-late": 0}
    approved("-n", shop, "delete", "pod", "web-late")


def test_an_ephemeral_result_is_fetched_from_the_pod_and_then_let_go(
    approved: Kube, shop: str, toe: Callable[..., Any], tmp_path: Path
) -> None:
    approved.apply(powertool("in-the-pod", "look", output={"mode": "ephemeral", "compress": "none"}), namespace=shop)
    held = finished(approved, shop, "in-the-pod")
    assert all(one["uri"].startswith("pod://") for one in held["artifacts"])
    done = toe("-n", shop, "get", "powertool/in-the-pod", "-d", str(tmp_path))
    assert done.returncode == 0, done.stderr
    files = [path for path in tmp_path.iterdir() if path.name.endswith("found.txt")]
    assert len(files) == 2
    assert all(path.read_text().startswith("target 1, look") for path in files)
    containers = {row["toolContainer"] for row in held["targets"]}

    def let_go() -> bool:
        states = [
            c["state"] for held in tool_containers(approved, shop).values() for c in held if c["name"] in containers
        ]
        return len(states) == 2 and all("terminated" in state for state in states)

    until("the containers end once they are fetched from", let_go, seconds=30)


def test_a_claim_gets_the_file_where_the_status_says(
    approved: Kube, namespace: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = namespace("claim")
    folder = tmp_path_factory.mktemp("claim")
    folder.chmod(0o777)
    for parent in (folder, *folder.parents[:-1]):
        parent.chmod(parent.stat().st_mode | 0o055)
    volume = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "",
        "hostPath": {"path": str(folder)},
        "claimRef": {"namespace": name, "name": "out"},
    }
    claim = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "",
        "volumeName": f"{name}-out",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    approved.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{name}-out"}, "spec": volume}
    )
    approved.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "out"}, "spec": claim},
        web(
            "web-1",
            volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "out"}}],
            container={"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        ),
        web("without", app="other"),
        namespace=name,
    )
    running(approved, name, "web-1", "without")
    output = {"mode": "pvc", "pvc": {"claimName": "out", "path": "/runs/today"}, "compress": "none"}
    approved.apply(powertool("to-claim", "look", output=output), namespace=name)
    held = finished(approved, name, "to-claim")
    (found,) = (one for one in held["artifacts"] if "found.txt" in one["uri"])
    where = found["uri"].removeprefix(f"pvc://{name}/out/")
    assert where.startswith("runs/today/")
    assert (folder / where).read_text().startswith("target 1, look")
    assert (folder / where).stat().st_size == found["size"]

    approved.apply(powertool("not-mounted", "look", app="other", output=output), namespace=name)
    refused = finished(approved, name, "not-mounted", "Failed")
    assert refused["targets"][0]["reason"] == "VolumeNotMounted"
    assert tool_containers(approved, name)["without"] == []
    approved("delete", "persistentvolume", f"{name}-out", "--wait=false")


def test_the_operator_brings_output_to_s3_and_the_tool_has_no_keys(
    approved: Kube, shop: str, s3: S3, tmp_path: Path
) -> None:
    spec = {"mode": "s3", "s3": s3.spec("tools"), "compress": "none"}
    approved.apply(powertool("to-s3", "look", output=spec), namespace=shop)
    held = finished(approved, shop, "to-s3", seconds=240)
    # Two pods in one second: the second key has the pod's name in it.
    found = [one for one in held["artifacts"] if "-found" in one["uri"]]
    assert len({one["uri"] for one in found}) == 2
    assert all(one["uri"].startswith(f"s3://{BUCKET}/tools/") for one in found)
    s3.fetch(found[0]["uri"], tmp_path / "found.txt")
    assert (tmp_path / "found.txt").read_text().startswith("target 1, look")


@pytest.mark.parametrize(
    ("name", "args", "more", "phase", "reason"),
    [
        ("exit-three", ["fail"], {}, "Failed", "ToolFailed"),
        ("one-of-two", ["fail-on", "web-1"], {}, "PartiallyFailed", "ToolFailed"),
        ("no-image", ["look"], {"tool": "broken"}, "Failed", "ImagePullFailed"),
        ("no-match", ["look"], {"app": "nobody"}, "Failed", "NoMatchingPods"),
    ],
)
def test_a_failure_is_told_with_its_reason(
    approved: Kube, shop: str, name: str, args: list[str], more: dict[str, Any], phase: str, reason: str
) -> None:
    approved.apply(powertool(name, *args, **more), namespace=shop)
    held = finished(approved, shop, name, phase, seconds=240)
    told = {row.get("reason") for row in held.get("targets", ())} | {condition(held, "Failed").get("reason")}
    assert reason in told, held
    if reason == "ToolFailed":
        assert {row.get("exitCode") for row in held["targets"] if row["state"] == "Failed"} <= {3, 4}
        assert held["lastError"]


@pytest.mark.parametrize(
    ("name", "more", "reason", "word"),
    [
        ("no-such-tool", {"tool": "nonsense"}, "ToolNotFound", "approved tools are"),
        ("elsewhere-only", {"tool": "picky"}, "NamespaceNotAllowed", "nowhere-"),
        ("not-granted", {"targets": {"labelSelector": {"matchLabels": {"app": "web"}},
                                     "namespaceSelector": {"matchNames": ["kube-system"]}}}, "NamespaceNotGranted",
         "kubectl annotate namespace kube-system"),
    ],
)  # fmt: skip
def test_what_may_not_begin_says_why_and_the_way_out(
    approved: Kube, shop: str, name: str, more: dict[str, Any], reason: str, word: str
) -> None:
    approved.apply(powertool(name, "look", **more), namespace=shop)
    held = wait_for(
        approved, shop, name, "is refused", lambda s: condition(s, "Accepted").get("status") == "False", seconds=60
    )
    said = condition(held, "Accepted")
    assert said["reason"] == reason
    assert word in said["message"]


def test_an_unknown_container_is_no_target(approved: Kube, shop: str) -> None:
    targets = {"labelSelector": {"matchLabels": {"app": "web"}}, "container": "nginx"}
    approved.apply(powertool("which-container", "look", targets=targets), namespace=shop)
    held = wait_for(approved, shop, "which-container", "tells", lambda s: "TargetContainerMissing" in json.dumps(s))
    assert held["selectedPods"] in {0, 2}


@pytest.mark.parametrize(
    ("level", "tool", "phase"),
    [("restricted", "probe", "Completed"), ("baseline", "mighty", "Failed"), ("restricted", "mighty", "Failed"),
     ("privileged", "mighty", "Completed")],
)  # fmt: skip
def test_pod_security_levels_give_the_right_answer(
    approved: Kube, namespace: Callable[[str], str], level: str, tool: str, phase: str
) -> None:
    name = namespace(f"{level}-{tool}")
    approved("label", "namespace", name, f"pod-security.kubernetes.io/enforce={level}")
    approved.apply(web("web-1"), namespace=name)
    running(approved, name, "web-1")
    approved.apply(powertool("leveled", "look", tool=tool), namespace=name)
    held = finished(approved, name, "leveled", phase)
    if phase == "Failed":
        (row,) = held["targets"]
        assert row["reason"] == "PodSecurityDenied"
        assert "NET_RAW" in row["message"]
        assert tool_containers(approved, name)["web-1"] == []


def test_a_hung_tool_ends_at_its_deadline(approved: Kube, shop: str) -> None:
    approved.apply(powertool("hung", "deaf", duration="3s"), namespace=shop)
    held = finished(approved, shop, "hung", "Completed", "Failed")
    containers = {row["toolContainer"] for row in held["targets"]}
    ours = [c for each in tool_containers(approved, shop).values() for c in each if c["name"] in containers]
    assert all((end - begin).total_seconds() < 40 for begin, end in spans(ours))


def test_deleting_a_run_stops_its_tools(approved: Kube, shop: str) -> None:
    approved.apply(powertool("long", "stay", duration="10m"), namespace=shop)
    held = wait_for(approved, shop, "long", "both run", lambda s: s.get("runningPods") == 2)
    containers = set(held["activePods"].values())
    began = time.monotonic()
    approved("-n", shop, "delete", "powertool", "long", timeout=60)
    print(f"deleted in {time.monotonic() - began:.1f} s")

    def ended() -> bool:
        ours = [c for each in tool_containers(approved, shop).values() for c in each if c["name"] in containers]
        return len(ours) == 2 and all("terminated" in one["state"] for one in ours)

    until("the tools have ended", ended, seconds=30)


def test_kubectl_toe_runs_waits_and_cancels(approved: Kube, shop: str, toe: Callable[..., Any]) -> None:
    ran = toe(
        "-n", shop, "run", "probe", "-l", "app=web", "--duration", "2s", "--wait", "--timeout", "2m", "--", "look"
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Completed" in ran.stdout
    assert "found.txt" in ran.stdout
    listed = toe("-n", shop, "tools")
    assert "probe" in listed.stdout
    named = toe("-n", shop, "run", "probe", "-l", "app=web", "--name", "by-hand", "--duration", "10m", "--", "stay")
    assert named.returncode == 0, named.stderr
    wait_for(approved, shop, "by-hand", "runs", lambda s: s.get("runningPods") == 2)
    cancelled = toe("-n", shop, "cancel", "by-hand", "--wait", "--timeout", "1m")
    assert cancelled.returncode == 0, cancelled.stderr
    held = finished(approved, shop, "by-hand", "Cancelled")
    assert held["cancelledPods"] == 2
    asked = toe("-n", shop, "preflight", "mighty", "-l", "app=web", "--", "look")
    assert asked.returncode == 0, asked.stdout + asked.stderr


def test_two_tools_on_one_container_take_turns(approved: Kube, namespace: Callable[[str], str]) -> None:
    name = namespace("turns")
    approved.apply(web("web-1"), namespace=name)
    running(approved, name, "web-1")
    approved.apply(powertool("first", "stay", duration="6s"), namespace=name)
    wait_for(approved, name, "first", "runs", lambda s: s.get("runningPods") == 1)
    approved.apply(powertool("second", "stay", duration="3s"), namespace=name)
    waiting = wait_for(approved, name, "second", "waits", lambda s: s.get("phase") == "Conflicted", seconds=20)
    assert waiting["pendingPods"] == 1
    finished(approved, name, "first")
    finished(approved, name, "second")
    assert most_at_once(spans(tool_containers(approved, name)["web-1"])) == 1


def test_a_pod_that_vanishes_in_the_middle_is_closed(approved: Kube, namespace: Callable[[str], str]) -> None:
    name = namespace("vanish")
    approved.apply(web("web-1"), web("web-2"), namespace=name)
    running(approved, name, "web-1", "web-2")
    approved.apply(powertool("half", "stay", duration="15s"), namespace=name)
    wait_for(approved, name, "half", "both run", lambda s: s.get("runningPods") == 2)
    approved("-n", name, "delete", "pod", "web-1", "--force", "--grace-period=0")
    approved.apply(web("web-1"), namespace=name)  # another pod of the same name
    held = finished(approved, name, "half", "PartiallyFailed")
    assert {row["pod"]: row.get("reason", "") for row in held["targets"]}["web-1"] == "PodGone"
    assert tool_containers(approved, name)["web-1"] == []


def test_long_names_with_dots_work(approved: Kube, shop: str) -> None:
    names = ["n" * 57 + ".a1", "n" * 57 + ".a2"]
    approved.apply(*(powertool(name, "look", duration="1s") for name in names), namespace=shop)
    tools = [{row["toolContainer"] for row in finished(approved, shop, name)["targets"]} for name in names]
    assert not tools[0] & tools[1]
    assert all(len(name) <= 63 for name in tools[0] | tools[1])


def test_a_started_spec_is_fixed_but_for_suspend(approved: Kube, shop: str) -> None:
    approved.apply(powertool("fixed", "stay", duration="20s"), namespace=shop)
    wait_for(approved, shop, "fixed", "runs", lambda s: s.get("startedAt"))
    changed = approved.apply(powertool("fixed", "look", duration="21s"), namespace=shop, check=False)
    assert changed.code != 0
    assert "immutable" in changed.err or "cannot be changed" in changed.err, changed.err
    approved("-n", shop, "patch", "powertool", "fixed", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    approved("-n", shop, "delete", "powertool", "fixed")


def test_a_finished_run_goes_after_its_time_to_live(approved: Kube, shop: str) -> None:
    approved.apply(powertool("short-lived", "look", duration="1s", ttlSecondsAfterFinished=2), namespace=shop)
    until(
        "the finished run is deleted",
        lambda: not approved.get(f"powertools.{GROUP}", "short-lived", namespace=shop),
        seconds=90,
    )


def test_a_tool_for_the_whole_node_runs_in_a_pod_of_its_own(approved: Kube, shop: str) -> None:
    """With allowHostPID: it finds the target among all processes of the node, and its pod is gone in the end."""
    approved.apply(probe("on-node", securityContext={"allowHostPID": True, "runAsRoot": True}))
    ready(approved, "on-node")
    approved.apply(powertool("node-wide", "look", tool="on-node"), namespace=shop)
    held = finished(approved, shop, "node-wide")
    assert held["completedPods"] == 2
    assert sum("found.txt" in one["uri"] for one in held["artifacts"]) == 2
    agents = {row["toolContainer"] for row in held["targets"]}

    def left() -> set[str]:
        return agents & {pod["metadata"]["name"] for pod in approved.items("pods", namespace="toe-agents")}

    until("the pods on the nodes are gone", lambda: not left(), seconds=60)


@pytest.mark.slow
def test_a_schedule_runs_at_its_time(approved: Kube, shop: str) -> None:
    approved.apply(powertool("minutely", "look", duration="1s", schedule="* * * * *"), namespace=shop)
    held = wait_for(approved, shop, "minutely", "has run", lambda s: s.get("completedPods") == 2, seconds=120)
    assert held["scheduledAt"].endswith(":00Z")
    approved("-n", shop, "delete", "powertool", "minutely")


@pytest.fixture
def crowd(approved: Kube, namespace: Callable[[str], str]) -> Iterator[str]:
    """60 pods on both nodes."""
    name = namespace("crowd")
    pods = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 60,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [
                        {
                            "name": "web",
                            "image": "localhost/toe-tool-sysreport:dev",
                            "command": ["sleep", "infinity"],
                            "securityContext": {"runAsUser": 1000},
                        }
                    ],
                },
            },
        },
    }
    approved.apply(pods, namespace=name)
    approved("-n", name, "rollout", "status", "deployment/web", "--timeout=240s", timeout=250)
    yield name
    approved("-n", name, "delete", "deployment", "web", "--wait=false")


def test_batches_of_ten_over_sixty_pods_hold_at_every_instant(approved: Kube, crowd: str, tmp_path: Path) -> None:
    seen = []
    with (tmp_path / "watched").open("w") as file, subprocess.Popen(
        ["kubectl", f"--kubeconfig={approved.kubeconfig}", "-n", crowd, "get", "powertools", "-w", "-o", "json",
         "--output-watch-events"],
        stdout=file,
    ) as watch:  # fmt: skip
        began = time.monotonic()
        approved.apply(powertool("all", "look", duration="2s", budgets={"maxConcurrentPods": 10}), namespace=crowd)
        held = finished(approved, crowd, "all", seconds=400)
        print(f"60 pods in batches of 10: {time.monotonic() - began:.0f} s")
        time.sleep(1)
        watch.kill()
    text, decoder, at = (tmp_path / "watched").read_text(), json.JSONDecoder(), 0
    while (at := text.find("{", at)) >= 0:
        try:
            event, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            break
        seen.append(event["object"].get("status", {}))
    assert held["completedPods"] == 60
    assert len(seen) > 6
    assert all(adds_up(one) for one in seen if one)
    assert max(int(one.get("runningPods", 0)) for one in seen) <= 10
    containers = [c for each in tool_containers(approved, crowd).values() for c in each]
    assert len(containers) == 60
    assert most_at_once(spans(containers)) <= 10
