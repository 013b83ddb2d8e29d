"""What the files of a tool are called where they are stored: one plain ASCII segment, never the same for two of them.

The rule is the collector's for the leaves of a capture, so that no name is refused there.
"""

from __future__ import annotations

import re
from collections.abc import Container

from toe_async.lib.names import digest, safe_segment

LONGEST_LEAF = 100
COMPRESSED = (".gz", ".tgz", ".zst", ".xz", ".bz2", ".lz4", ".br", ".zip", ".7z", ".png", ".jpg")
"""Endings of files that nothing makes smaller."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")
_ENDING = re.compile(r"(?:\.[A-Za-z0-9]{1,10}){1,2}\Z")
_NEVER_LAST = (".manifest.json", ".part")
_HASH = 10


def is_compressed(path: str) -> bool:
    """Tell by a file's ending whether compressing it is of no use."""
    return path.lower().endswith(COMPRESSED)


def leaf_name(path: str, suffix: str, taken: Container[str]) -> str:
    """The name for a file at `path` below the output folder, `suffix` appended, that is not in `taken`.

    A name that could be used as it stands is unchanged (`/` becomes `-`); every other one keeps its ending and gets a
    hash of the path.
    """
    wanted = path.replace("/", "-") + suffix
    if is_leaf(wanted) and wanted not in taken:
        return wanted
    plain = _OTHER.sub("_", path).strip("._-")
    found = _ENDING.search(plain)
    ending = found.group() if found and found.start() else ""
    stem = plain[: len(plain) - len(ending)].rstrip("._-") or "file"
    number = 0
    while True:
        hashed = digest(path, str(number), length=_HASH)
        if (ending + suffix).endswith(_NEVER_LAST):
            stem, ending = stem + ending.replace(".", "_"), ""
        room = LONGEST_LEAF - len(hashed) - len(ending) - len(suffix) - 1
        name = f"{stem[:room]}-{hashed}{ending}{suffix}"
        if name not in taken:
            return name
        number += 1


def is_leaf(text: str) -> bool:
    """Tell whether a capture may have an artifact of this file name."""
    return (
        len(text) <= LONGEST_LEAF
        and _PLAIN.fullmatch(text) is not None
        and safe_segment(text, LONGEST_LEAF) == text
        and not text.endswith(_NEVER_LAST)
    )
