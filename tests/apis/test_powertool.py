"""PowerTool and PowerToolConfig: what an API server takes and refuses, and what the operator reads from it."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from admissioncases import STARTED_CHANGES, cases
from directapi import DirectApi

from toe_async.apis.kinds import POWER_TOOL_CONFIGS, POWER_TOOLS, Kind
from toe_async.apis.meta import Decoder, LabelSelectorRequirement, SelectorOperator, encode
from toe_async.apis.powertool import (
    NamespaceSelector,
    Output,
    PowerTool,
    PowerToolSpec,
    Targets,
    TargetSelector,
    Tool,
    decode_power_tool,
)
from toe_async.apis.powertoolconfig import decode_power_tool_config
from toe_async.lib.clock import SystemClock
from toe_async.sandbox.status import Refusal

DECODERS: dict[Kind, Decoder[Any]] = {POWER_TOOLS: decode_power_tool, POWER_TOOL_CONFIGS: decode_power_tool_config}
VALID = [(kind, case) for kind in DECODERS for case in cases(kind, "valid")]
INVALID = [(kind, case) for kind in DECODERS for case in cases(kind, "invalid")]
Row = tuple[Kind, dict[str, Any]]


def named(row: Row) -> str:
    return f"{row[0].singular}-{row[1]['name']}"


@pytest.fixture(scope="module")
def api() -> DirectApi:
    """The sandbox's API server with our definitions."""
    made = DirectApi(SystemClock())
    made.install("home")
    return made


def offer(api: DirectApi, kind: Kind, spec: dict[str, Any], name: str = "case") -> dict[str, Any]:
    """Create it and take it away again; gives back what was stored."""
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec}
    stored = api.create(kind.plural, "home", body)
    api.delete(kind.plural, "home", name)
    return stored


@pytest.mark.parametrize("row", VALID, ids=named)
def test_good_ones_are_stored_and_read_back(api: DirectApi, row: Row) -> None:
    """With the promised defaults; manifests of the earlier system among them."""
    kind, case = row
    stored = offer(api, kind, case["spec"])
    for field, value in case.get("stored", {}).items():
        assert stored["spec"][field] == value
    read = DECODERS[kind](msgspec.json.encode(stored))
    assert msgspec.json.decode(encode(read))["spec"].keys() <= stored["spec"].keys()


@pytest.mark.parametrize("row", INVALID, ids=named)
def test_bad_ones_are_refused_with_the_field_and_the_way_out(api: DirectApi, row: Row) -> None:
    """None gets as far as the operator."""
    kind, case = row
    with pytest.raises(Refusal) as refusal:
        offer(api, kind, case["spec"])
    assert case["field"] in refusal.value.message
    assert case["message"] in refusal.value.message


@pytest.mark.parametrize("name", ["a", "a.b", "a" * 253, "x" * 58 + "-1", "a-b.c-d.e" * 6])
def test_every_legal_object_name_is_taken(api: DirectApi, name: str) -> None:
    """Names of containers and pods are derived from identities, never from this one."""
    assert offer(api, POWER_TOOLS, VALID[0][1]["spec"], name)["metadata"]["name"] == name


@pytest.fixture
def started(api: DirectApi) -> Any:
    """A PowerTool whose run has started."""
    body = {
        "apiVersion": POWER_TOOLS.api_version,
        "kind": "PowerTool",
        "metadata": {"name": "run"},
        "spec": VALID[0][1]["spec"],
    }
    api.create("powertools", "home", body)
    api.change("powertools", "home", "run", {"spec": {"tool": {"duration": "45s"}}})
    status = {"startedAt": "2026-11-21T10:00:00Z", "phase": "Running"}
    api.change("powertools", "home", "run", {"status": status}, subresource="status")
    yield api
    api.delete("powertools", "home", "run")


@pytest.mark.parametrize("change", STARTED_CHANGES, ids=str)
def test_once_started_the_spec_stays(started: DirectApi, change: dict[str, Any]) -> None:
    """Selector, tool, arguments and all else: what runs is what is written."""
    with pytest.raises(Refusal, match=r"spec: Forbidden: the run has started"):
        started.change("powertools", "home", "run", {"spec": change})


def test_once_started_suspend_status_and_metadata_may_change(started: DirectApi) -> None:
    """All that a run needs to be steered by."""
    started.change("powertools", "home", "run", {"spec": {"suspend": True}})
    started.change("powertools", "home", "run", {"status": {"phase": "Completed"}}, subresource="status")
    started.change("powertools", "home", "run", {"metadata": {"annotations": {"toe.run/skip-cancel": "true"}}})
    stored = started.get("powertools", "home", "run")
    assert stored is not None
    assert stored["spec"]["suspend"] is True


def test_the_python_defaults_are_those_that_the_server_fills_in(api: DirectApi) -> None:
    """An object that was stored before a default existed must behave like one that was stored after."""
    bare = PowerToolSpec(
        targets=Targets(label_selector=TargetSelector(match_labels={"app": "web"})),
        tool=Tool(name="perf", duration="30s"),
        output=Output(mode="collector"),
    )
    stored = offer(api, POWER_TOOLS, {**VALID[0][1]["spec"], "failurePolicy": {"backoff": {}}})
    assert msgspec.convert(stored["spec"], PowerToolSpec) == bare


SELECTOR = TargetSelector(
    match_labels={"tier": "web"},
    match_expressions=(
        LabelSelectorRequirement(key="app", operator=SelectorOperator.IN, values=("a", "b")),
        LabelSelectorRequirement(key="canary", operator=SelectorOperator.DOES_NOT_EXIST),
    ),
)


def test_both_parts_of_a_selector_count() -> None:
    """All requirements must hold."""
    compiled = SELECTOR.compiled()
    assert compiled.matches({"tier": "web", "app": "b", "x": "y"})
    assert not compiled.matches({"tier": "web", "app": "c"})
    assert not compiled.matches({"tier": "web", "app": "a", "canary": ""})


def test_the_labels_that_a_selector_names_are_told_apart_from_the_rest() -> None:
    """In one order whatever order the pod has them in, so that the path of its artifacts is one."""
    labels = {"x": "y", "tier": "web", "app": "b"}
    found = SELECTOR.matching_labels(labels)
    assert list(found.items()) == [("app", "b"), ("tier", "web")]
    assert SELECTOR.matching_labels(dict(reversed(labels.items()))) == found


NAMESPACES: list[tuple[NamespaceSelector, str, bool]] = [
    (NamespaceSelector(match_names=("a", "b")), "b", True),
    (NamespaceSelector(match_names=("a", "b")), "c", False),
    (NamespaceSelector(match_regex="team-.*"), "team-a", True),
    (NamespaceSelector(match_regex="team"), "team-a", False),
    (NamespaceSelector(match_regex="^team-a$"), "team-a", True),
    (NamespaceSelector(match_names=("x",), match_regex="team-(a|b)"), "team-b", True),
    (NamespaceSelector(match_names=("x",), match_regex="team-(a|b)"), "x", True),
    (NamespaceSelector(), "", False),
]


@pytest.mark.parametrize(("selector", "namespace", "expected"), NAMESPACES)
def test_a_namespace_is_covered_by_name_or_as_a_whole_by_the_expression(
    selector: NamespaceSelector, namespace: str, expected: bool
) -> None:
    assert selector.covers(namespace) is expected


def test_a_broken_expression_is_told_and_not_taken_for_no_match() -> None:
    """Admission lets through what only compiling can find."""
    with pytest.raises(ValueError, match=r"'\(a' is no regular expression"):
        NamespaceSelector(match_regex="(a").covers("a")


def test_the_worst_expression_that_is_admitted_is_refused_in_no_time(api: DirectApi) -> None:
    """Four repetitions over the longest name."""
    worst = "[a-z]*[a-z]*[a-z]*[a-z]*0"
    offer(api, POWER_TOOLS, {**VALID[0][1]["spec"], "targets": {
        **VALID[0][1]["spec"]["targets"], "namespaceSelector": {"matchRegex": worst}}})  # fmt: skip
    before = datetime.now(UTC)
    assert not NamespaceSelector(match_regex=worst).covers("a" * 63)
    assert (datetime.now(UTC) - before).total_seconds() < 1


def test_a_status_is_written_whole() -> None:
    """What became empty is said, so that a merge patch takes it away."""
    empty = PowerTool(spec=decode_power_tool(b'{"spec":' + msgspec.json.encode(VALID[0][1]["spec"]) + b"}").spec)
    written = msgspec.json.decode(encode(empty.status))
    assert written["finishedAt"] is None
    assert written["targets"] == []
    assert written["phase"] is None
