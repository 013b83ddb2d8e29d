"""ProfilingConfig as the operator sees it."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from toe_async.apis.meta import encode
from toe_async.apis.profilingconfig import (
    CaptureState,
    OnDemand,
    ProfilingConfig,
    ProfilingConfigSpec,
    ProfilingConfigStatus,
    Thresholds,
    decode_profiling_config,
)
from toe_async.apis.schema import schema_of

CASES: dict[str, list[dict[str, Any]]] = yaml.safe_load(
    (Path(__file__).parent / "profilingconfig_cases.yaml").read_text()
)


def config(**spec: Any) -> ProfilingConfig:
    document = {"metadata": {"name": "c", "namespace": "home"}, "spec": {"collector": {}, **spec}}
    return decode_profiling_config(json.dumps(document).encode())


@pytest.mark.parametrize("case", CASES["valid"], ids=lambda case: case["name"])
def test_what_the_server_accepts_is_decoded(case: dict[str, Any]) -> None:
    """As it was sent, and as it is stored with the defaults filled in."""
    for spec in (case["spec"], {**case["spec"], **case.get("stored", {})}):
        document = {"metadata": {"name": "c", "namespace": "home"}, "spec": spec}
        decode_profiling_config(json.dumps(document).encode()).spec.selector.compiled()


THRESHOLDS: list[tuple[str, dict[str, Any], tuple[int, int]]] = [
    ("nothing named", {}, (80, 90)),
    ("empty thresholds", {"thresholds": {}}, (80, 90)),
    ("only the interval named", {"thresholds": {"checkIntervalSeconds": 60}}, (80, 90)),
    ("only CPU named", {"thresholds": {"cpuThresholdPercent": 50}}, (50, 0)),
    ("only memory named", {"thresholds": {"memoryThresholdPercent": 50}}, (0, 50)),
    ("CPU switched off, memory not named", {"thresholds": {"cpuThresholdPercent": 0}}, (0, 0)),
    ("both off", {"thresholds": {"cpuThresholdPercent": 0, "memoryThresholdPercent": 0}}, (0, 0)),
    ("on demand alone", {"onDemand": {"enabled": True}}, (0, 0)),
    ("on demand switched off", {"onDemand": {"enabled": False}}, (80, 90)),
    ("on demand beside empty thresholds", {"onDemand": {"enabled": True}, "thresholds": {}}, (80, 90)),
    (
        "on demand beside one threshold",
        {"onDemand": {"enabled": True}, "thresholds": {"memoryThresholdPercent": 70}},
        (0, 70),
    ),
]


@pytest.mark.parametrize(("spec", "expected"), [row[1:] for row in THRESHOLDS], ids=[row[0] for row in THRESHOLDS])
def test_which_thresholds_are_in_force(spec: dict[str, Any], expected: tuple[int, int]) -> None:
    """0 means that one is off."""
    found = config(**spec).spec.thresholds_in_force()
    assert (found.cpu_threshold_percent, found.memory_threshold_percent) == expected


def test_the_rest_of_the_thresholds_stays_as_it_is() -> None:
    """Only the two percentages are resolved."""
    found = config(thresholds={"checkIntervalSeconds": 60, "of": "Limit", "forSeconds": 5}).spec.thresholds_in_force()
    assert (found.check_interval_seconds, found.of, found.for_seconds) == (60, "Limit", 5)


def test_the_python_defaults_are_those_that_the_server_fills_in() -> None:
    """An object that was stored before a default existed must behave like one that was stored after."""
    smallest = config().spec
    assert (smallest.cpu_seconds, smallest.max_concurrent, smallest.suspend) == (30, 1, False)
    assert smallest.profile_types == ("heap", "cpu", "goroutine", "mutex")
    assert smallest.on_demand == OnDemand(enabled=False, interval_seconds=35)
    thresholds = smallest.thresholds_in_force()
    assert (thresholds.check_interval_seconds, thresholds.cooldown_seconds) == (30, 300)


def test_pods_are_looked_for_at_home_unless_another_namespace_is_named() -> None:
    """Empty means the object's own namespace, as absent does."""
    assert config().target_namespace == "home"
    assert config(selector={"namespace": ""}).target_namespace == "home"
    assert config(selector={"namespace": "away"}).target_namespace == "away"


def test_the_selector_joins_map_and_expressions() -> None:
    """Both must hold."""
    selector = config(
        selector={"labelSelector": {"app": "a"}, "matchExpressions": [{"key": "t", "operator": "In", "values": ["1"]}]}
    ).spec.selector.compiled()
    assert selector.matches({"app": "a", "t": "1"})
    assert not selector.matches({"app": "a"})


def test_an_object_from_before_a_rule_existed_is_an_error_and_not_a_guess() -> None:
    """The informer skips and counts it."""
    with pytest.raises(msgspec.DecodeError, match="flame"):
        config(profileTypes=["flame"])


SPEC_NAMES = [
    "collector",
    "cpuSeconds",
    "maxConcurrent",
    "onDemand",
    "profileTypes",
    "s3Config",
    "selector",
    "suspend",
    "thresholds",
]
THRESHOLD_NAMES = [
    "checkIntervalSeconds",
    "cooldownSeconds",
    "cpuThresholdPercent",
    "forSeconds",
    "memoryThresholdPercent",
    "of",
    "rearmPercent",
    "risePercent",
]
STATUS_NAMES = [
    "activePods",
    "conditions",
    "cooldowns",
    "lastProfileTime",
    "notFired",
    "observedGeneration",
    "recent",
    "totalProfiles",
    "totalUploads",
]
CAPTURE_NAMES = [
    "artifacts",
    "container",
    "deadline",
    "finishedAt",
    "holder",
    "id",
    "pod",
    "podUID",
    "reason",
    "startedAt",
    "state",
    "trigger",
]


def names(schema: dict[str, Any]) -> list[str]:
    return sorted(schema["properties"])


def test_wire_names_are_pinned() -> None:
    """A renamed field would be silent: it just stays at its default."""
    spec, status = schema_of(ProfilingConfigSpec), schema_of(ProfilingConfigStatus)
    assert names(spec) == SPEC_NAMES
    assert names(schema_of(Thresholds)) == THRESHOLD_NAMES
    assert names(spec["properties"]["onDemand"]) == ["enabled", "intervalSeconds"]
    assert names(spec["properties"]["selector"]) == ["labelSelector", "matchExpressions", "namespace"]
    assert names(spec["properties"]["s3Config"]) == ["bucket", "credentialsSecret", "endpoint", "prefix", "region"]
    assert names(status) == STATUS_NAMES
    recent = status["properties"]["recent"]["items"]
    assert names(recent) == CAPTURE_NAMES
    assert names(recent["properties"]["artifacts"]["items"]) == [
        "message",
        "reason",
        "sha256",
        "size",
        "state",
        "type",
        "uri",
    ]
    assert names(status["properties"]["cooldowns"]["items"]) == ["podUID", "reason", "until"]


def test_an_empty_status_is_written_with_every_field() -> None:
    """A merge patch would keep old figures where a field is left out."""
    assert sorted(json.loads(encode(ProfilingConfigStatus()))) == STATUS_NAMES


def test_the_final_states_of_a_capture_are_the_last_four() -> None:
    """A capture in any other state still has to be finished or declared lost by somebody."""
    assert [state.value for state in CaptureState if not state.final] == ["Capturing", "Uploading"]
