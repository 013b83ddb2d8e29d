"""Which containers of which pods a run takes."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from powertool_world import BORN, config, observe, pod, refused, tool, uid

from toe_async.apis.pods import DEFAULT_CONTAINER, Pod
from toe_async.apis.powertool import TargetState
from toe_async.apis.reasons import Reason
from toe_async.capture.refusals import Refused
from toe_async.controllers.powertool.choosing import chosen, container_of, eligible
from toe_async.controllers.powertool.facts import NamespaceFacts, Observed, TargetFacts
from toe_async.controllers.powertool.members import Member


def names(seen: Observed, run: str = "") -> list[str]:
    """The pods that are chosen, in order."""
    found = chosen(seen, run)
    assert not isinstance(found, Refused)
    return [one.row.pod for one in found]


def sample(number: int, pick: str) -> Any:
    """A PowerTool that takes some of its pods."""
    return tool({"targets": {"maxTargets": number, "pick": pick}})


@pytest.mark.parametrize(
    ("wanted", "annotation", "found"),
    [
        pytest.param("", "", "app", id="the first"),
        pytest.param("", "side", "side", id="the pod's default"),
        pytest.param("", "gone", "app", id="a default that does not exist"),
        pytest.param("side", "app", "side", id="a sidecar by its name"),
    ],
)
def test_the_container_is_the_one_named_else_the_pods_own_choice(wanted: str, annotation: str, found: str) -> None:
    """spec.targets.container, then kubectl's annotation, then the first."""
    annotations = {DEFAULT_CONTAINER: annotation} if annotation else {}
    assert container_of(pod(annotations=annotations), wanted) == found


@pytest.mark.parametrize("container", ["nope", "toe-abc"])
def test_an_unknown_container_is_refused_with_those_that_exist(container: str) -> None:
    """PT8: never the first one instead."""
    found = container_of(pod(), container)
    assert isinstance(found, Refused)
    assert found.reason == Reason.TARGET_CONTAINER_MISSING
    assert "it has: app, side" in found.message
    assert isinstance(container_of(pod(containers=()), ""), Refused)


@pytest.mark.parametrize(
    ("changes", "fit"),
    [
        ({}, True),
        ({"os": "linux"}, True),
        ({"ready": False}, True),
        ({"os": "windows"}, False),
        ({"mirror": True}, False),
        ({"terminating": True}, False),
        ({"phase": "Pending"}, False),
        ({"phase": "Succeeded"}, False),
    ],
)
def test_only_running_linux_pods_of_their_own_are_taken(changes: dict[str, Any], fit: bool) -> None:
    """PT7."""
    assert eligible(pod(**changes)) is fit


def born(number: int, minutes: int) -> Pod:
    """A pod of some age, all on one node."""
    return pod(number, node="node", created=BORN + timedelta(minutes=minutes))


def test_pick_takes_the_oldest_newest_hottest_or_all_in_order_of_names() -> None:
    """Unknown ages and uses come last."""
    pods = [born(0, 5), born(1, 1), born(2, 9), pod(3, node="node", created=None, start_time=None)]
    cpu = {uid(0): 0.1, uid(1): 0.9, uid(3): 0.5}
    seen = observe(pods)
    seen = replace(seen, candidates=tuple(TargetFacts(one, cpu=cpu.get(one.uid)) for one in reversed(pods)))
    assert names(replace(seen, tool=sample(4, "All"))) == ["web-0", "web-1", "web-2", "web-3"]
    assert names(replace(seen, tool=sample(2, "Oldest"))) == ["web-1", "web-0"]
    assert names(replace(seen, tool=sample(4, "Oldest")))[-1] == "web-3"
    assert names(replace(seen, tool=sample(2, "Newest"))) == ["web-2", "web-0"]
    assert names(replace(seen, tool=sample(4, "Newest")))[-1] == "web-3"
    assert names(replace(seen, tool=sample(2, "Hottest"))) == ["web-1", "web-3"]
    assert names(replace(seen, tool=sample(4, "Hottest")))[-1] == "web-2"


def test_a_random_sample_is_the_same_for_whoever_plans_it_and_another_each_run() -> None:
    """No dice: the run itself decides, so a plan that is made again is equal."""
    seen = observe([pod(number, node="node") for number in range(40)], sample(5, "Random"))
    shuffled = replace(seen, candidates=tuple(reversed(seen.candidates)))
    assert names(seen) == names(shuffled)
    assert len({tuple(names(seen, run)) for run in ("", "a", "b")}) == 3
    other = replace(seen, tool=replace(seen.tool, metadata=replace(seen.tool.metadata, uid="pt-2")))
    assert names(other) != names(seen)


def test_samples_are_spread_over_the_nodes() -> None:
    """One of each node before a second of any; the hottest first within that."""
    pods = [pod(number, node="big" if number < 8 else f"small-{number}") for number in range(10)]
    seen = observe(pods, sample(4, "Hottest"))
    seen = replace(seen, candidates=tuple(TargetFacts(one, cpu=10.0 - at) for at, one in enumerate(pods)))
    assert names(seen) == ["web-0", "web-8", "web-9", "web-1"]


def test_hottest_without_any_metrics_waits_instead_of_guessing() -> None:
    """Unknown is not cold; where all pods are taken anyway, no metrics are needed."""
    seen = observe([pod(0), pod(1)], sample(1, "Hottest"))
    found = chosen(seen, "")
    assert isinstance(found, Refused)
    assert found.reason == Reason.METRICS_UNAVAILABLE
    assert len(names(replace(seen, tool=sample(2, "Hottest")))) == 2


@pytest.mark.parametrize(("matching", "most", "taken"), [(500, None, 500), (501, None, 0), (501, 500, 500), (9, 3, 3)])
def test_one_run_takes_five_hundred_targets_at_most(matching: int, most: int | None, taken: int) -> None:
    """More are refused unless the author asks for a sample."""
    spec = {"targets": {"maxTargets": most}} if most else {}
    found = chosen(observe([pod(number) for number in range(matching)], tool(spec)), "")
    assert (0 if isinstance(found, Refused) else len(found)) == taken
    if isinstance(found, Refused):
        assert found.reason == Reason.TOO_MANY_TARGETS


def test_a_sample_prefers_pods_in_which_the_tool_can_run() -> None:
    """One that cannot is a failed target, and takes a place only when there are too few others."""
    pods = [pod(number, node="node") for number in range(3)]
    facts = (TargetFacts(pods[0], refused(Reason.VOLUME_NOT_MOUNTED)), TargetFacts(pods[1]), TargetFacts(pods[2]))

    def taken(number: int) -> list[Member]:
        found = chosen(observe(pods, sample(number, "All"), candidates=facts), "")
        assert not isinstance(found, Refused)
        return list(found)

    assert [one.row.pod for one in taken(2)] == ["web-1", "web-2"]
    assert [(one.row.pod, one.state) for one in taken(3)][-1] == ("web-0", TargetState.FAILED)


def test_a_namespace_found_by_expression_is_left_out_when_the_tool_is_not_allowed_there() -> None:
    """Named ones are refused aloud (see the plan); the others are simply not chosen."""
    pods = [pod(0), pod(1, namespace="bank"), pod(2, namespace="zoo")]
    namespaces = (
        NamespaceFacts("shop", granted=True, named=False),
        NamespaceFacts("bank", granted=True, named=False),
        NamespaceFacts("zoo", granted=False, named=False),
    )
    seen = observe(pods, namespaces=namespaces, config=config(allowedNamespaces=["sh*", "zoo"]))
    assert names(seen) == ["web-0"]
