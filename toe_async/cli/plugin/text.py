"""Text from the cluster before it meets a terminal.

A name or a reason may hold escape sequences that set the title, write the clipboard (OSC 52), hide a link (OSC 8), or
turn the reading order around. JSON and YAML escape by themselves; everything else goes through `clean`.
"""

import re
import unicodedata

# Whole sequences first, so that no `52;c;...` is left of one: OSC, DCS, SOS, PM and APC up to their end; then CSI;
# then the two-character ones, and introducers of what never ends. Each begins with ESC and a letter, or with one C1.
_STRING = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\x90\x98\x9d-\x9f]*(?:\x07|\x1b\\|\x9c)"
_CSI = r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
_SEQUENCES = re.compile(rf"{_STRING}|{_CSI}|\x1b[ -/]*[0-~]?")


def clean(text: str) -> str:
    """One printable line: no escape sequence, C0, C1, bidi or other format control, surrogate or private character."""
    parts = _SEQUENCES.sub("", text)
    return "".join(char for char in " ".join(parts.split()) if char.isprintable())


def width(text: str) -> int:
    """Terminal columns of cleaned text: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def size(count: int) -> str:
    """Bytes for people: `0 B`, `1.5 KiB`, `32.0 MiB`."""
    if count < 1024:
        return f"{count} B"
    value, unit = float(count), "B"
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):  # noqa: B007 -- read after the loop
        value /= 1024
        if value < 1023.95:
            break
    return f"{value:.1f} {unit}"


def age(seconds: float) -> str:
    """An age as kubectl writes it: `45s`, `12m`, `3h`, `5d`, `2y`. What lies ahead is `0s`."""
    whole = max(0, int(seconds))
    for limit, unit, letter in ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h"), (63_072_000, 86_400, "d")):
        if whole < limit:
            return f"{whole // unit}{letter}"
    return f"{whole // 31_536_000}y"
