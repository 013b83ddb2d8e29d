"""Names that are safe to use where somebody else's text would not be."""

import base64
import hashlib
import re
import unicodedata

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_KEPT_IN_SEGMENT = re.compile(r"[^A-Za-z0-9._=@+-]")
_HASH_LENGTH = 10
# Names that Windows keeps for devices: an artifact may be copied to a laptop.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def digest(*parts: str, length: int = 32) -> str:
    """Hash parts to ``length`` (<= 51) characters of a-z2-7; different lists of parts never collide by being joined."""
    state = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        state.update(len(encoded).to_bytes(8, "big") + encoded)
    return base64.b32encode(state.digest()).decode().lower()[:length]


def is_dns1123_label(text: str) -> bool:
    """Tell whether the text may be a Kubernetes label-like name: 1-63 of a-z0-9 and inner dashes."""
    return _LABEL.fullmatch(text) is not None


def safe_segment(text: str, limit: int = 120) -> str:
    """Turn any text into one path segment of at most ``limit`` ASCII characters.

    A segment that could be written as it stands is unchanged; every other one ends in a hash of the original, so two
    texts never share a segment. Never ``.``, ``..``, hidden, empty, or a name that some file system reserves.
    """
    plain = unicodedata.normalize("NFC", text)
    kept = _KEPT_IN_SEGMENT.sub("_", plain)
    unsafe = kept[:1] in (".", "") or kept[-1:] == "." or _RESERVED.fullmatch(kept) is not None
    if kept == text and not unsafe and len(kept) <= limit:
        return kept
    return f"{kept.strip('.')[: limit - _HASH_LENGTH - 1]}-{digest(text, length=_HASH_LENGTH)}"
