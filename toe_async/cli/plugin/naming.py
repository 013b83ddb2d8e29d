"""The file that an artifact is written to: one plain segment, whatever the server calls its pod, container or leaf."""

from toe_async.cli.plugin.artifact import Artifact
from toe_async.lib.names import safe_segment

_LONGEST = 220  # of the 255 that file systems allow; what `part_name` adds must still fit
_LONGEST_PIECE = 100
_SHORT_ID = 10


def file_name(found: Artifact) -> str:
    """`{pod}-{container}-{capture id, 10}-{leaf}`.

    Never empty, hidden, reserved, like an option, longer than a file system takes, or with anything but letters,
    digits and `._=@+-`. Names that had to be changed end in a hash, so two artifacts never share one by that.
    """
    target = safe_segment(f"{found.pod}-{found.container}", _LONGEST_PIECE)
    leaf = safe_segment(found.leaf, _LONGEST_PIECE)
    name = safe_segment(f"{target}-{safe_segment(found.capture[:_SHORT_ID], 2 * _SHORT_ID)}-{leaf}", _LONGEST)
    return f"_{name}" if name.startswith("-") else name


def page_name(*parts: str) -> str:
    """The file of a page about these artifacts."""
    return safe_segment("-".join(parts), _LONGEST).lstrip("-") + ".html"


def part_name(name: str, sha256: str) -> str:
    """Where an artifact grows until it is whole. Another content has another part, so the two are never mixed."""
    return f"{name}.{sha256[:12]}.part"
