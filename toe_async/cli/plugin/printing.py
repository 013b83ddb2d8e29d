"""Forms of what is printed: a table for people, JSON, YAML and names for programs."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toe_async.cli.plugin import text

if TYPE_CHECKING:
    from datetime import datetime

    from toe_async.cli.plugin.artifact import Artifact

_GAP = "   "


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Lines of a table, each cell cleaned; columns in `right` are set to the right."""
    cells = [list(head), *([text.clean(cell) or "-" for cell in row] for row in rows)]
    widths = [max(text.width(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        padded = []
        for column, cell in enumerate(row):
            space = " " * (widths[column] - text.width(cell))
            padded.append(space + cell if column in right else cell + space)
        lines.append(_GAP.join(padded).rstrip())
    return lines


def artifact_table(found: "Sequence[Artifact]", now: "datetime", *, wide: bool, namespaces: bool) -> list[str]:
    """What `list` shows."""
    head = ["NAME", "SIZE", "AGE", "POD", "RUN", "REASON"]
    if wide:
        head += ["TYPE", "CONTAINER", "KIND", "TOOL", "NODE", "HELD", "SHA256"]
    rows = []
    for one in found:
        row = [
            one.name,
            text.size(one.size) if one.size >= 0 else "?",
            text.age((now - one.created).total_seconds()) if one.created is not None else "?",
            one.pod,
            one.run,
            one.reason,
        ]
        if wide:
            row += [one.leaf, one.container, one.kind, one.tool, one.node, one.hold, one.sha256[:12]]
        rows.append([one.namespace, *row] if namespaces else row)
    return aligned(["NAMESPACE", *head] if namespaces else head, rows, right=frozenset({2 if namespaces else 1}))


def as_json(value: Mapping[str, Any]) -> str:
    """Indented JSON in ASCII: what could drive a terminal is escaped, and stays what it is for a program."""
    return json.dumps(value, indent=4, ensure_ascii=True).replace("\x7f", "\\u007f")


def as_yaml(value: Mapping[str, Any]) -> str:
    """Block YAML in ASCII, escaped likewise."""
    import yaml

    dumped: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=False, default_flow_style=False)
    return dumped.rstrip("\n")


def name_of(name: str) -> str:
    """An artifact as `kubectl -o name` writes it."""
    return f"artifact.artifacts.toe.run/{name}"


def named(name: str) -> str:
    """An artifact as kubectl names it in a sentence."""
    return f'artifact.artifacts.toe.run "{name}"'
