"""Wrong values end in an admission error or a condition that says why; the operator neither falls over nor spins."""

from collections.abc import Callable

import pytest

from tests.e2e.harness import Kube, Object, captures, config, target, until, wait_for_capture, wait_for_condition

pytestmark = pytest.mark.e2e

BUCKET: Object = {"s3Config": {"bucket": "profiles"}}

# what is wrong -> (the rest of the spec, a word of the answer)
REFUSED: dict[str, tuple[Object, str]] = {
    "no sink": ({}, "sink"),
    "two sinks": ({"collector": {}, **BUCKET}, "exactly one"),
    "an empty bucket": ({"s3Config": {"bucket": ""}}, "bucket"),
    "a bucket with upper case": ({"s3Config": {"bucket": "Profiles"}}, "bucket"),
    "an endpoint with a user": ({"s3Config": {"bucket": "profiles", "endpoint": "https://u:p@host"}}, "endpoint"),
    "an endpoint of another scheme": ({"s3Config": {"bucket": "profiles", "endpoint": "file:///etc"}}, "endpoint"),
    "a prefix that climbs": ({"s3Config": {"bucket": "profiles", "prefix": "a/../b"}}, "prefix"),
    "a secret of no possible name": ({"s3Config": {"bucket": "profiles", "credentialsSecret": "A/B"}}, "credentials"),
    "a profile type that does not exist": ({"collector": {}, "profileTypes": ["heaps"]}, "profileTypes"),
    "a profile type twice": ({"collector": {}, "profileTypes": ["heap", "heap"]}, "profileTypes"),
    "no profile type": ({"collector": {}, "profileTypes": []}, "profileTypes"),
    "a negative threshold": ({"collector": {}, "thresholds": {"cpuThresholdPercent": -1}}, "cpuThresholdPercent"),
    "a threshold in words": ({"collector": {}, "thresholds": {"cpuThresholdPercent": "high"}}, "cpuThresholdPercent"),
    "an unknown base": ({"collector": {}, "thresholds": {"of": "Guess"}}, "of"),
    "an interval below ten seconds": ({"collector": {}, "thresholds": {"checkIntervalSeconds": 9}}, "checkInterval"),
    "a negative cooldown": ({"collector": {}, "thresholds": {"cooldownSeconds": -1}}, "cooldownSeconds"),
    "an on-demand interval of a second": ({"collector": {}, "onDemand": {"intervalSeconds": 1}}, "intervalSeconds"),
    "CPU profiles of no length": ({"collector": {}, "cpuSeconds": 0}, "cpuSeconds"),
    "CPU profiles of a day": ({"collector": {}, "cpuSeconds": 86400}, "cpuSeconds"),
    "no captures at a time": ({"collector": {}, "maxConcurrent": 0}, "maxConcurrent"),
    "suspend in words": ({"collector": {}, "suspend": "yes"}, "suspend"),
    "an expression without values": (
        {"collector": {}, "selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        "value",
    ),
    "an operator that does not exist": (
        {"collector": {}, "selector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}},
        "operator",
    ),
    "a label value with a space": ({"collector": {}, "selector": {"labelSelector": {"a": "b c"}}}, "labelSelector"),
    "a namespace of no possible name": ({"collector": {}, "selector": {"namespace": "A_B"}}, "namespace"),
}


@pytest.fixture(scope="module")
def place(installed: Kube, namespace: Callable[[str], str]) -> str:
    """A namespace with one pod that is no trouble."""
    name = namespace("bad-input")
    installed.apply(target("target"), namespace=name)
    return name


@pytest.mark.parametrize("wrong", REFUSED)
def test_admission_refuses_it_and_names_the_field(installed: Kube, place: str, wrong: str) -> None:
    spec, word = REFUSED[wrong]
    selector = {"labelSelector": {"app.kubernetes.io/name": "target"}}
    refused = installed.apply(
        {
            "apiVersion": "profiling.io/v1alpha1",
            "kind": "ProfilingConfig",
            "metadata": {"name": "wrong"},
            "spec": {"selector": selector, **spec},
        },
        namespace=place,
        check=False,
    )
    assert refused.code != 0, f"{wrong} was taken"
    assert word.lower() in refused.err.lower()


def test_a_sink_that_nobody_listed_is_a_condition_with_the_way_out(installed: Kube, place: str) -> None:
    installed.apply(
        config("elsewhere", "target", collector={"endpoint": "https://collector.elsewhere.svc:8443"}), namespace=place
    )
    condition = wait_for_condition(installed, place, "elsewhere", "Accepted", "False", reason="SinkNotAllowed")
    assert "https://toe-collector.toe-system.svc:8443" in condition["message"]


def test_a_namespace_that_did_not_grant_it_is_a_condition(
    installed: Kube, place: str, namespace: Callable[[str], str]
) -> None:
    other = namespace("granting")
    installed.apply(target("target"), namespace=other)
    on_demand = {"enabled": True, "intervalSeconds": 10}
    wanted = config("abroad", "target", onDemand=on_demand, profileTypes=["goroutine"], collector={})
    wanted["spec"]["selector"]["namespace"] = other
    installed.apply(wanted, namespace=place)
    refused = wait_for_condition(installed, place, "abroad", "Accepted", "False", reason="NamespaceNotGranted")
    assert "profiling.io/allow-from" in refused["message"]
    installed("annotate", "namespace", other, f"profiling.io/allow-from={place}")
    wait_for_condition(installed, place, "abroad", "Accepted", "True")
    assert wait_for_capture(installed, place, "abroad")["pod"] == "target"
    installed("annotate", "namespace", other, "profiling.io/allow-from-")
    wait_for_condition(installed, place, "abroad", "Accepted", "False", reason="NamespaceNotGranted")


ANNOTATIONS = {
    "not-a-port": ({"profiling.io/enabled": "true", "profiling.io/port": "eighty"}, "BadAnnotation"),
    "port-zero": ({"profiling.io/enabled": "true", "profiling.io/port": "0"}, "BadAnnotation"),
    "huge-port": ({"profiling.io/enabled": "true", "profiling.io/port": "65536"}, "BadAnnotation"),
    "odd-path": (
        {"profiling.io/enabled": "true", "profiling.io/port": "6060", "profiling.io/path": "/../x y"},
        "BadAnnotation",
    ),
}


def test_bad_annotations_are_counted_as_reasons_and_hurt_no_other_pod(
    installed: Kube, namespace: Callable[[str], str]
) -> None:
    name = namespace("annotations")
    pods = [target(pod, annotations=annotations) for pod, (annotations, _) in ANNOTATIONS.items()]
    pods.append(target("good"))
    for pod in pods:
        pod["metadata"]["labels"]["app.kubernetes.io/name"] = "mixed"
    on_demand = {"enabled": True, "intervalSeconds": 10}
    wanted = config("watch", "mixed", onDemand=on_demand, profileTypes=["goroutine"], collector={})
    installed.apply(*pods, wanted, namespace=name)
    assert wait_for_capture(installed, name, "watch")["pod"] == "good"

    def counted() -> bool:
        status = installed.config(name, "watch")["status"]
        return bool(status.get("notFired", {}).get("BadAnnotation") == len(ANNOTATIONS))

    until("each bad pod is counted", counted, describe=lambda: installed.config(name, "watch")["status"])


def test_a_target_that_serves_nothing_is_a_failed_capture_with_a_reason(
    installed: Kube, namespace: Callable[[str], str]
) -> None:
    name = namespace("deaf")
    deaf = target("target", "-listen=:7070")
    on_demand = {"enabled": True, "intervalSeconds": 10}
    installed.apply(
        deaf, config("watch", "target", onDemand=on_demand, profileTypes=["heap"], collector={}), namespace=name
    )
    capture = wait_for_capture(installed, name, "watch", states=["Failed"])
    assert capture["artifacts"][0]["reason"] == "PortRefused"
    assert "6060" in capture["artifacts"][0]["message"]
    degraded = wait_for_condition(installed, name, "watch", "Degraded", "True")
    assert degraded["message"]
    events = until(
        "an Event CaptureFailed",
        lambda: [e for e in installed.items("events", namespace=name) if e["reason"] == "CaptureFailed"],
    )
    assert events[0]["type"] == "Warning"


def test_a_profile_that_is_missing_does_not_lose_the_others(installed: Kube, namespace: Callable[[str], str]) -> None:
    name = namespace("partial")
    on_demand = {"enabled": True, "intervalSeconds": 10}
    installed.apply(
        target("target", "-without=mutex"),
        config("watch", "target", onDemand=on_demand, profileTypes=["heap", "mutex", "goroutine"], collector={}),
        namespace=name,
    )
    capture = wait_for_capture(installed, name, "watch", states=["PartiallyStored"])
    by_type = {artifact["type"]: artifact for artifact in capture["artifacts"]}
    assert by_type["mutex"]["reason"] == "ProfileMissing"
    assert {by_type["heap"]["state"], by_type["goroutine"]["state"]} == {"Stored"}


def test_a_config_without_pods_says_so(installed: Kube, place: str) -> None:
    installed.apply(config("lonely", "nobody", collector={}), namespace=place)
    condition = wait_for_condition(installed, place, "lonely", "Ready", "True", reason="NoMatchingPods")
    assert condition["message"]


def test_suspend_starts_nothing(installed: Kube, namespace: Callable[[str], str]) -> None:
    name = namespace("suspended")
    on_demand = {"enabled": True, "intervalSeconds": 10}
    installed.apply(
        target("target"), config("watch", "target", onDemand=on_demand, suspend=True, collector={}), namespace=name
    )
    wait_for_condition(installed, name, "watch", "Ready", "False", reason="Suspended")
    assert not captures(installed.config(name, "watch")["status"])
    installed("-n", name, "patch", "profilingconfigs.profiling.io", "watch", "--type=merge", "-p", '{"spec":{"suspend":false}}')  # fmt: skip  # noqa: E501
    wait_for_capture(installed, name, "watch", states=["Capturing", "Uploading", "Stored"])


def test_the_operator_lives_on(installed: Kube) -> None:
    pods = installed.operators()
    assert not any(status["restartCount"] for pod in pods for status in pod["status"]["containerStatuses"])
