"""A tool's security context, and what Pod Security levels say to it."""

from typing import Any

import msgspec
import pytest
from powertool_facts import tool

from toe_async.apis.powertoolconfig import ToolSecurity
from toe_async.capture.security import chosen, level_faults, security_context


def _context(target_user: int | None = 1000, **wire: Any) -> dict[str, Any]:
    return security_context(msgspec.convert(wire, ToolSecurity), target_user)


def test_without_wishes_the_tool_is_the_targets_user_and_has_nothing() -> None:
    assert _context() == {
        "privileged": False,
        "runAsUser": 1000,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize(
    ("wire", "target", "user"),
    [
        ({}, 0, 0),
        ({}, None, 65532),
        ({"runAsRoot": True}, 1000, 0),
        ({"runAsRoot": False}, 1000, 1000),
        ({"runAsRoot": False}, 0, 65532),
        ({"capabilities": {"add": ["SYS_PTRACE"]}}, 1000, 0),
        ({"allowPrivileged": True}, 1000, 0),
        ({"allowPrivileged": True, "runAsRoot": False}, 1000, 1000),
        ({"allowPrivileged": False}, 1000, 1000),
    ],
)
def test_who_the_tool_runs_as(wire: dict[str, Any], target: int | None, user: int) -> None:
    context = _context(target, **wire)
    assert (context["runAsUser"], context["runAsNonRoot"]) == (user, user != 0)


def test_capabilities_are_written_as_kubernetes_wants_them() -> None:
    context = _context(capabilities={"add": ["CAP_NET_RAW", "sys_ptrace"], "drop": ["ALL"]})
    assert context["capabilities"] == {"add": ["NET_RAW", "SYS_PTRACE"], "drop": ["ALL"]}


def test_root_keeps_the_default_capabilities_unless_they_are_dropped() -> None:
    assert "capabilities" not in _context(runAsRoot=True)
    assert _context(runAsRoot=True, capabilities={"drop": ["ALL"]})["capabilities"] == {"drop": ["ALL"]}


def test_escalation_is_off_unless_the_api_server_would_refuse_that() -> None:
    assert _context(capabilities={"add": ["SYS_PTRACE"]})["allowPrivilegeEscalation"] is False
    assert _context(capabilities={"add": ["SYS_ADMIN"]})["allowPrivilegeEscalation"] is True
    privileged = _context(allowPrivileged=True)
    assert privileged["privileged"] is True
    assert "allowPrivilegeEscalation" not in privileged


def test_a_level_has_its_own_profile_where_the_tool_has_one() -> None:
    approved = tool(
        securityContext={"capabilities": {"add": ["NET_RAW"]}},
        securityProfiles=[{"level": "baseline", "securityContext": {"runAsRoot": True}}],
    )
    assert chosen(approved, "privileged").capabilities.add == ("NET_RAW",)
    assert chosen(approved, "baseline").run_as_root is True


@pytest.mark.parametrize(
    ("wire", "baseline", "restricted"),
    [
        ({}, 0, 0),
        ({"runAsRoot": True}, 0, 2),
        ({"runAsRoot": True, "capabilities": {"drop": ["ALL"]}}, 0, 1),
        ({"capabilities": {"add": ["NET_RAW"], "drop": ["ALL"]}}, 1, 2),
        ({"capabilities": {"add": ["CHOWN"], "drop": ["ALL"]}}, 0, 2),
        ({"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}}, 0, 1),
        ({"allowPrivileged": True}, 1, 5),
    ],
)
def test_what_levels_have_against_a_context(wire: dict[str, Any], baseline: int, restricted: int) -> None:
    context = _context(**wire)
    found = [len(level_faults(level, context)) for level in ("privileged", "baseline", "restricted")]
    assert found == [0, baseline, restricted]
