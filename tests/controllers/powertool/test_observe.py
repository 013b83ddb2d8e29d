"""What is read from memory for a decision: grants, what stands against a tool in a pod, and who decides about it."""

import asyncio
from typing import Any

import pytest
from powertool_rig import Rig, until

from toe_async.apis.core import POWERTOOLS_GRANT, NamespaceObject
from toe_async.apis.meta import find_condition
from toe_async.capture.toolconfig import ToolPolicy
from toe_async.controllers.powertool.reach import grants

WEB = {"labelSelector": {"matchLabels": {"app": "web"}}}


@pytest.mark.parametrize(
    ("annotation", "other", "granted"),
    [
        (None, "shop", False),
        ("", "shop", False),
        ("shop", "shop", True),
        ("team-*, shop", "shop", True),
        ("team-*,shop", "team-a", True),
        ("team-*", "shop", False),
        ("SHOP", "shop", False),
        ("sho", "shop", False),
        ("[broken, shop", "shop", True),
        ("[broken", "[broken", False),
        (",", "", False),
    ],
)
def test_a_grant_names_namespaces_or_globs_and_a_broken_one_grants_nothing(
    annotation: str | None, other: str, granted: bool
) -> None:
    """The rest of the list still counts."""
    annotations = {} if annotation is None else {POWERTOOLS_GRANT: annotation}
    assert grants(NamespaceObject("target", "1", {}, annotations), other) is granted


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("config", "spec", "labels", "reason"),
    [
        ({}, {"output": {"mode": "pvc", "pvc": {"claimName": "data"}}}, {}, "VolumeNotMounted"),
        (
            {"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}},
            {},
            {"pod-security.kubernetes.io/enforce": "baseline"},
            "PodSecurityDenied",
        ),
        ({}, {"targets": {**WEB, "container": "nope"}}, {}, "TargetContainerMissing"),
    ],
    ids=["claim", "pod security", "container"],
)
async def test_what_would_be_refused_later_fails_the_target_before_anything_is_begun(
    config: dict[str, Any], spec: dict[str, Any], labels: dict[str, str], reason: str
) -> None:
    """U3: the reason is in the row, no container is asked for."""
    rig = Rig()
    rig.api.change("namespaces", "", "shop", {"metadata": {"labels": labels}})
    rig.tool_config(**config)
    rig.pod("web-0")
    async with rig.process():
        rig.tool(**spec)
        await until(lambda: rig.read().status.finished_at is not None, 30)
    (row,) = rig.read().status.targets
    assert row.reason == reason
    assert not rig.world.tools


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("config", "spec", "policy", "reason"),
    [
        ({"allowedNamespaces": ["other", "team-*"]}, {}, ToolPolicy(), "NamespaceNotAllowed"),
        (
            {"allowedArgs": []},
            {"tool": {"name": "dump", "duration": "5s", "args": ["-x"]}},
            ToolPolicy(),
            "InvalidSpec",
        ),
        ({}, {}, ToolPolicy(require_digest=True), "ToolNotReady"),
        ({"heartbeat": True}, {}, ToolPolicy(heartbeat_tools=False), "ToolNotReady"),
        ({"suspend": True}, {}, ToolPolicy(), "ToolNotReady"),
        (
            {},
            {"output": {"mode": "collector", "collector": {"endpoint": "https://elsewhere.example"}}},
            ToolPolicy(),
            "SinkNotAllowed",
        ),
    ],
    ids=["namespace", "arguments", "digest", "chaos off", "suspended", "endpoint"],
)
async def test_what_may_not_run_is_refused_with_its_reason(
    config: dict[str, Any], spec: dict[str, Any], policy: ToolPolicy, reason: str
) -> None:
    """The condition says it, no target is chosen, and looking again writes nothing."""
    rig = Rig()
    rig.policy = policy
    rig.tool_config(**config)
    rig.pod("web-0")
    async with rig.process() as process:
        rig.tool(**spec)
        await asyncio.sleep(5)
        accepted = find_condition(rig.read().status.conditions, "Accepted")
        assert accepted is not None
        assert (accepted.status, accepted.reason) == ("False", reason)
        before = len(rig.api.writes)
        for _ in range(5):
            process.look_again("run")
            await asyncio.sleep(61)
        assert len(rig.api.writes) == before
    assert not rig.world.tools


@pytest.mark.looptime
async def test_a_tool_that_is_switched_off_while_it_runs_is_stopped() -> None:
    """The administrator's suspend reaches what runs already."""
    rig = Rig(seconds=3600)
    rig.tool_config()
    rig.pod("web-0")
    async with rig.process() as process:
        rig.tool(tool={"name": "dump", "duration": "1h"})
        await until(lambda: rig.read().status.running_pods == 1)
        rig.api.change("powertoolconfigs", "toe-system", "dump", {"spec": {"suspend": True}})
        await until(lambda: not process.runner.running, 10)
        await until(lambda: rig.read().status.finished_at is not None, 10)
    assert rig.read().status.cancelled_pods == 1
