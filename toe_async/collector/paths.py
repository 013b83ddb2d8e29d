"""Where an artifact is stored and how it is called: pure functions of the capture's record.

`{namespace}/{matching-labels}/{run}/{date}/{pod}-{container}-{capture id, 10}-{leaf}`. Nothing that an uploader sends
reaches a path: the leaf must be one that the record allows.
"""

import re
from collections.abc import Mapping

from toe_async.lib.names import digest, safe_segment

MANIFEST_SUFFIX = ".manifest.json"
LONGEST_LEAF = 100
SHORT_ID = 10

_LONGEST_LABEL = 120
_LONGEST_LABELS = 200
# pod (<= 253) and container (<= 63) are cut so that 100 + id + leaf + manifest suffix stays below the 255 of NAME_MAX
_LONGEST_TARGET = 100
_LEAF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CAPTURE_ID = re.compile(r"[a-z2-7]{32}")
_HASH = 6


def is_capture_id(text: str) -> bool:
    """Tell whether the text can be a capture id: 32 characters of a-z2-7."""
    return _CAPTURE_ID.fullmatch(text) is not None


def is_leaf(text: str) -> bool:
    """Tell whether a capture may have an artifact of this file name.

    One plain ASCII segment that no file system takes for something else, and that no manifest could be called.
    """
    return (
        len(text) <= LONGEST_LEAF
        and _LEAF.fullmatch(text) is not None
        and safe_segment(text, LONGEST_LEAF) == text
        and not text.endswith((MANIFEST_SUFFIX, ".part"))
    )


def labels_segment(labels: Mapping[str, str]) -> str:
    """One segment for the labels that selected the target: sorted `key-value` pairs joined by commas, `/` as `%2F`.

    The order in which labels come makes no difference; neither `/` nor `,` can occur in a part.
    """
    parts = [_cut(f"{key}-{value}".replace("/", "%2F"), _LONGEST_LABEL) for key, value in sorted(labels.items())]
    return _cut(",".join(parts), _LONGEST_LABELS) if parts else "no-labels"


def directory(namespace: str, labels: Mapping[str, str], run: str, date: tuple[str, ...]) -> tuple[str, ...]:
    """The folder of a capture, as segments below the root."""
    return (safe_segment(namespace), labels_segment(labels), safe_segment(run), *date)


def file_name(pod: str, container: str, capture_id: str, leaf: str) -> str:
    """The artifact's file; its manifest has MANIFEST_SUFFIX appended."""
    return f"{safe_segment(f'{pod}-{container}', _LONGEST_TARGET)}-{capture_id[:SHORT_ID]}-{leaf}"


def artifact_name(capture_id: str, leaf: str) -> str:
    """The name in the read API: capture id (10) and leaf as a DNS-1123 subdomain; two leaves never share one."""
    dns = re.sub(r"[^a-z0-9.]+", "-", leaf.lower())
    dns = re.sub(r"-*\.[-.]*", ".", dns).strip("-.")
    changed = "" if dns == leaf else f"-{digest(leaf, length=_HASH)}"
    return f"{capture_id[:SHORT_ID]}-{dns}{changed}"


def _cut(text: str, limit: int) -> str:
    allowed = re.sub(r"[^A-Za-z0-9._,%=@+-]", "_", text)
    hidden = allowed.startswith(".")
    if allowed == text and not hidden and len(text) <= limit:
        return text
    return f"{allowed.lstrip('.')[: limit - SHORT_ID - 1]}-{digest(text, length=SHORT_ID)}"
