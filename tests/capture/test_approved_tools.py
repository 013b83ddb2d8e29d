"""Which configurations of tools can be used, and which one a name means."""

from typing import Any

import pytest
from powertool_facts import config

from toe_async.apis.powertoolconfig import PowerToolConfig
from toe_async.apis.reasons import Reason
from toe_async.capture.refusals import Refused
from toe_async.capture.toolconfig import ToolPolicy, faults, resolve

ANY = ToolPolicy()
DIGEST = "@sha256:" + "0" * 64


def test_a_good_one_has_no_faults() -> None:
    good = config(
        image="localhost:32000/a/b_c/tool:v1.0-x" + DIGEST,
        securityContext={"runAsRoot": True, "capabilities": {"add": ["SYS_ADMIN", "CAP_PERFMON"], "drop": ["ALL"]}},
        allowedNamespaces=["prod", "team-*"],
        command=["perf", "-p", "{target_pid}"],
        allowedArgs=[{"flag": "-F", "type": "integer"}],
        presets=[{"name": "low", "args": ["-F", "19"]}],
        maxDuration="1h",
        outputs=["*.txt", "sub/*.bin"],
        compatibleWith=["strace"],
        uploadLimit="100Mi",
        resources={"limits": {"cpu": "500m", "memory": "64Mi"}},
    )
    assert faults(good, [good], ANY) == ()
    assert resolve("tcpdump", [good], ANY) is good


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"image": "registry.example/UPPER:1"}, "spec.image"),
        ({"image": "a b"}, "spec.image"),
        ({"image": "tool@sha256:short"}, "spec.image"),
        ({"securityContext": {"capabilities": {"add": ["SYS_PTRACES"]}}}, "spec.securityContext.capabilities.add"),
        ({"securityContext": {"capabilities": {"add": ["ALL"]}}}, "ALL is not accepted"),
        ({"securityContext": {"capabilities": {"drop": ["EVERYTHING"]}}}, "spec.securityContext.capabilities.drop"),
        ({"securityContext": {"runAsRoot": False, "capabilities": {"add": ["NET_RAW"]}}}, "runAsRoot"),
        (
            {"securityProfiles": [{"level": "baseline", "securityContext": {"capabilities": {"add": ["X"]}}}]},
            "spec.securityProfiles[baseline]",
        ),
        ({"command": ["{pid}"]}, "spec.command"),
        ({"defaultArgs": ["{"]}, "spec.defaultArgs"),
        ({"presets": [{"name": "low", "args": ["{x}"]}]}, "spec.presets[low].args"),
        ({"allowedArgs": [{"pattern": "["}]}, "spec.allowedArgs"),
        ({"maxDuration": "0s"}, "spec.maxDuration"),
        ({"maxDuration": "soon"}, "spec.maxDuration"),
        ({"uploadLimit": "-1Gi"}, "spec.uploadLimit"),
        ({"uploadLimit": "many"}, "spec.uploadLimit"),
        ({"resources": {"limits": {"memory": "64MB"}}}, "spec.resources.limits.memory"),
        ({"allowedNamespaces": ["["]}, "spec.allowedNamespaces"),
        ({"outputs": ["../x"]}, "spec.outputs"),
        ({"outputs": ["/etc/*"]}, "spec.outputs"),
        ({"suspend": True}, "spec.suspend"),
    ],
)
def test_each_fault_names_its_field(changes: dict[str, Any], field: str) -> None:
    wrong = config(**changes)
    found = faults(wrong, [wrong], ANY)
    assert len(found) == 1
    assert field in found[0]


def test_two_that_claim_one_name_are_both_unusable() -> None:
    one, other = config("a"), config("b")
    assert "claimed by b" in faults(one, [one, other], ANY)[0]
    assert "claimed by a" in faults(other, [one, other], ANY)[0]
    refused = resolve("tcpdump", [one, other], ANY)
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.TOOL_NOT_READY


def test_a_name_is_what_the_spec_says_not_the_object() -> None:
    held = config("something-else")
    assert resolve("tcpdump", [held], ANY) is held
    refused = resolve("something-else", [held], ANY)
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.TOOL_NOT_FOUND
    assert "approved tools are: tcpdump" in refused.message


def _found(held: PowerToolConfig, policy: ToolPolicy) -> int:
    return len(faults(held, [held], policy))


def test_a_digest_can_be_demanded() -> None:
    demand = ToolPolicy(require_digest=True)
    assert _found(config(image="tool:1"), demand) == 1
    assert _found(config(image="tool:1" + DIGEST), demand) == 0


def test_tools_that_disturb_can_be_switched_off_together() -> None:
    off = ToolPolicy(heartbeat_tools=False)
    assert _found(config(heartbeat=True), off) == 1
    assert _found(config(), off) == 0
