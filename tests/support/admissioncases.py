"""Objects and what an API server says of them, from tests/apis/*_cases.yaml: one table for every kind of server."""

from pathlib import Path
from typing import Any

import yaml

from toe_async.apis.kinds import BOLOMETER_CONFIGS, POWER_TOOL_CONFIGS, POWER_TOOLS, PROFILING_CONFIGS, Kind

FOLDER = Path(__file__).parents[1] / "apis"
FILES: dict[Kind, str] = {
    PROFILING_CONFIGS: "profilingconfig_cases.yaml",
    BOLOMETER_CONFIGS: "profilingconfig_cases.yaml",
    POWER_TOOLS: "powertool_cases.yaml",
    POWER_TOOL_CONFIGS: "powertoolconfig_cases.yaml",
}


def merged(base: Any, change: Any) -> Any:
    """A JSON merge patch: maps are merged, null takes a key away, everything else replaces."""
    if not isinstance(change, dict):
        return change
    found = dict(base) if isinstance(base, dict) else {}
    for key, value in change.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def cases(kind: Kind, group: str) -> list[dict[str, Any]]:
    """The cases of a group, `valid` or `invalid`, each with its whole `spec`."""
    loaded = yaml.safe_load((FOLDER / FILES[kind]).read_text())
    base = loaded.get("base", {})
    return [{"spec": merged(base, one["with"]) if "with" in one else one["spec"], **one} for one in loaded[group]]


STARTED_CHANGES: tuple[dict[str, Any], ...] = (
    {"tool": {"duration": "31s"}},
    {"tool": {"args": ["more"]}},
    {"targets": {"labelSelector": {"matchLabels": {"app": "other"}}}},
    {"output": {"mode": "ephemeral"}},
    {"budgets": {"maxConcurrentPods": 1}},
    {"failurePolicy": {"onError": "stop"}},
    {"schedule": "@daily"},
    {"concurrencyPolicy": "Allow"},
    {"ttlSecondsAfterFinished": 1},
    {"activeDeadlineSeconds": 1},
    {"suspend": False, "activeDeadlineSeconds": 2},
)
"""Changes of the first valid PowerTool that are refused once it has started."""
