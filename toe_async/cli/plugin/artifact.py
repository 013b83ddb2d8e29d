"""The slice of an Artifact that a command line shows and fetches by; wrong types count as absent, never as an error."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from toe_async.cli.plugin.remote import HOLD
from toe_async.collector.errors import Refused
from toe_async.lib.clock import parse_rfc3339

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Artifact(Struct, frozen=True, kw_only=True):
    """One artifact as the collector describes it. Texts are the cluster's own words: `text.clean` before a terminal.

    `size` -1 and `sha256` empty: the answer does not say.
    """

    name: str
    namespace: str
    created: datetime | None
    size: int
    sha256: str
    hold: str
    pod: str
    container: str
    capture: str
    leaf: str
    run: str
    kind: str
    tool: str
    node: str
    service: str
    reason: str


def read(item: Mapping[str, Any]) -> Artifact:
    """Read an object of the API."""
    metadata, held = _part(item, "metadata"), _part(item, "artifact")
    sha256, size = _text(held, "sha256"), held.get("size")
    try:
        created = parse_rfc3339(_text(metadata, "creationTimestamp"))
    except ValueError:
        created = None
    return Artifact(
        name=_text(metadata, "name"), namespace=_text(metadata, "namespace"), created=created,
        size=size if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 60 else -1,
        sha256=sha256 if _SHA256.fullmatch(sha256) else "", hold=_text(_part(metadata, "annotations"), HOLD),
        **{name: _text(held, name) for name in _WORDS},
    )  # fmt: skip


_WORDS = ("pod", "container", "capture", "leaf", "run", "kind", "tool", "node", "service", "reason")


def fetchable(found: Artifact) -> Artifact:
    """The same artifact, when what is needed to prove its bytes is there.

    Raises:
        Refused: it names no size, no digest, or no name of its own.
    """
    if found.size < 0 or not found.sha256 or not found.name or not found.namespace:
        raise Refused(
            502, "UnexpectedAnswer", "the collector does not say how large the artifact is and what its digest is"
        )
    return found


def type_of(leaf: str) -> str:
    """What was taken, by its file name: `heap` of `heap.pb.gz`."""
    return leaf.partition(".")[0]


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    return text if isinstance(text, str) else ""
