"""The main job on a real cluster: hot pods, and pods by the clock, end as profiles in the collector and in S3."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.artifacts import Artifacts
from tests.e2e.conftest import BUCKET, S3
from tests.e2e.harness import Kube, Object, config, pprof_top, target, until, wait_for_capture, wait_for_condition

pytestmark = pytest.mark.e2e

TRIGGERS = ("cpu", "memory", "on-demand")
SINKS = ("collector", "s3")
# (trigger, profile) -> the sample that counts, and the function that must be on top of it. The others must only read.
HOTTEST = {
    ("cpu", "cpu"): ("cpu", "main.burnCPUHere"),
    ("memory", "heap"): ("inuse_space", "main.leakMemoryHere"),
    ("memory", "allocs"): ("alloc_space", "main.leakMemoryHere"),
}


@dataclass(frozen=True)
class Scene:
    """One namespace with one target pod and the ProfilingConfig that watches it."""

    namespace: str
    trigger: str
    sink: str


def scene_of(namespace: str, trigger: str, sink: str, s3: S3) -> tuple[Object, Object]:
    where: Object = {"collector": {}} if sink == "collector" else {"s3Config": s3.spec("team/e2e")}
    often: Object = {"checkIntervalSeconds": 10, "cooldownSeconds": 3600}
    if trigger == "cpu":
        pod = target("target", "-burn=1", cpu="200m")
        how: Object = {
            "thresholds": {"cpuThresholdPercent": 70, **often},
            "profileTypes": ["heap", "cpu", "goroutine", "mutex"],
            "cpuSeconds": 5,
        }
    elif trigger == "memory":
        pod = target("target", "-leak=8", "-leak-most=96", memory="128Mi")
        how = {"thresholds": {"memoryThresholdPercent": 60, **often}, "profileTypes": ["heap", "allocs"]}
    else:
        pod = target("target")
        how = {"onDemand": {"enabled": True, "intervalSeconds": 10}, "profileTypes": ["goroutine", "heap"]}
    return pod, config("watch", "target", **how, **where)


@pytest.fixture(scope="module")
def scenes(installed: Kube, s3: S3, namespace: Callable[[str], str]) -> dict[tuple[str, str], Scene]:
    """All six at once, so that they run side by side."""
    made = {}
    for trigger in TRIGGERS:
        for sink in SINKS:
            name = namespace(f"{trigger}-{sink}")
            installed.apply(*scene_of(name, trigger, sink, s3), namespace=name)
            made[trigger, sink] = Scene(name, trigger, sink)
    return made


def fetch(scene: Scene, artifact: Object, into: Path, s3: S3, artifacts: Artifacts) -> Path:
    """The stored bytes of one artifact, from where its URI says that they are."""
    path = into / f"{artifact['type']}.pprof"
    if scene.sink == "s3":
        s3.fetch(artifact["uri"], path)
    else:
        artifacts.fetch(scene.namespace, artifact, path)
    return path


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("trigger", TRIGGERS)
def test_a_pod_is_captured_and_every_profile_reads(
    installed: Kube,
    s3: S3,
    artifacts: Artifacts,
    scenes: dict[tuple[str, str], Scene],
    trigger: str,
    sink: str,
    tmp_path: Path,
) -> None:
    scene = scenes[trigger, sink]
    spec = installed.config(scene.namespace, "watch")["spec"]
    capture = wait_for_capture(installed, scene.namespace, "watch")
    assert capture["pod"] == "target"
    assert capture["container"] == "main"
    assert capture["reason"] == ("on-demand" if trigger == "on-demand" else "threshold-exceeded")
    assert [a["type"] for a in capture["artifacts"]] == spec["profileTypes"]
    for artifact in capture["artifacts"]:
        assert artifact["state"] == "Stored", artifact
        path = fetch(scene, artifact, tmp_path, s3, artifacts)
        data = path.read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (artifact["size"], artifact["sha256"])
        sample, hottest = HOTTEST.get((trigger, artifact["type"]), ("", ""))
        functions = pprof_top(path, sample=sample)
        if hottest:
            assert functions[0] == hottest


@pytest.mark.parametrize("sink", SINKS)
def test_the_trigger_says_which_figure_crossed_what(
    installed: Kube, scenes: dict[tuple[str, str], Scene], sink: str
) -> None:
    for trigger, word in (("cpu", "CPU"), ("memory", "memory")):
        capture = wait_for_capture(installed, scenes[trigger, sink].namespace, "watch")
        assert word.lower() in capture["trigger"].lower()
        assert "%" in capture["trigger"] or "per cent" in capture["trigger"]


def test_a_hot_pod_is_left_alone_during_its_cooldown(installed: Kube, scenes: dict[tuple[str, str], Scene]) -> None:
    scene = scenes["cpu", "collector"]
    wait_for_capture(installed, scene.namespace, "watch")

    def held_back() -> Object:
        status: Object = installed.config(scene.namespace, "watch")["status"]
        return status if status.get("notFired", {}).get("Cooldown") else {}

    status = until("the next look counts the pod as cooling down", held_back, seconds=60)
    assert len(status["recent"]) == 1
    log = installed("-n", scene.namespace, "logs", "target").out
    assert log.count("served profile") == 1, "the target was profiled more than once"


def test_captures_by_the_clock_go_on(installed: Kube, scenes: dict[tuple[str, str], Scene]) -> None:
    scene = scenes["on-demand", "collector"]

    def several() -> int:
        return int(installed.config(scene.namespace, "watch")["status"].get("totalUploads", 0)) >= 4

    until("two captures with two profiles each", several, seconds=90)
    status = installed.config(scene.namespace, "watch")["status"]
    ids = [capture["id"] for capture in status["recent"]]
    assert len(set(ids)) == len(ids)


def test_s3_keys_and_metadata_are_as_promised(
    installed: Kube, s3: S3, scenes: dict[tuple[str, str], Scene], tmp_path: Path
) -> None:
    scene = scenes["cpu", "s3"]
    capture = wait_for_capture(installed, scene.namespace, "watch")
    for artifact in capture["artifacts"]:
        pattern = (
            rf"s3://{BUCKET}/team/e2e/\d{{4}}-\d\d-\d\d/target/\d{{8}}-\d{{6}}-{artifact['type']}(-[\w.-]+)?\.pprof"
        )
        assert re.fullmatch(pattern, artifact["uri"]), artifact["uri"]
        metadata = s3.fetch(artifact["uri"], tmp_path / "profile")
        assert metadata["pod-name"] == "target"
        assert metadata["pod-namespace"] == scene.namespace
        assert metadata["profile-type"] == artifact["type"]
        assert metadata["reason"] == "threshold-exceeded"
        assert metadata["capture-id"] == capture["id"]


def test_manifests_of_the_second_group_work_unchanged(installed: Kube, namespace: Callable[[str], str]) -> None:
    name = namespace("bolometer")
    on_demand = {"enabled": True, "intervalSeconds": 86400}
    pod = target("target", annotations={"bolometer.io/enabled": "true", "bolometer.io/port": "6060"})
    wanted = config("watch", "target", group="bolometer.io", onDemand=on_demand, profileTypes=["heap"], collector={})
    installed.apply(pod, wanted, namespace=name)

    def stored() -> bool:
        found = installed.get("profilingconfigs.bolometer.io", "watch", namespace=name)
        return bool(found.get("status", {}).get("totalUploads") == 1)

    until("the profile is stored", stored)


@pytest.mark.parametrize("sink", SINKS)
def test_conditions_say_that_all_is_well_and_why(
    installed: Kube, scenes: dict[tuple[str, str], Scene], sink: str
) -> None:
    scene = scenes["cpu", sink]
    wait_for_capture(installed, scene.namespace, "watch")
    for type_, status in (("Accepted", "True"), ("Ready", "True"), ("StoreReachable", "True"), ("Degraded", "False")):
        condition = wait_for_condition(installed, scene.namespace, "watch", type_, status)
        assert condition["reason"]
        assert condition["message"]
    assert installed.config(scene.namespace, "watch")["status"]["activePods"] == 1


def test_each_capture_leaves_an_event(installed: Kube, scenes: dict[tuple[str, str], Scene]) -> None:
    scene = scenes["cpu", "collector"]
    wait_for_capture(installed, scene.namespace, "watch")

    def stored() -> list[Object]:
        events = installed.items("events", namespace=scene.namespace)
        return [event for event in events if event["reason"] == "CaptureStored"]

    event = until(
        "an Event CaptureStored",
        stored,
        seconds=30,
        describe=lambda: [e["reason"] for e in installed.items("events", namespace=scene.namespace)],
    )[0]
    assert event["involvedObject"]["name"] in ("watch", "target")
    assert event["type"] == "Normal"
    assert len(event["message"]) <= 1024
