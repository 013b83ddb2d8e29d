"""Under which name a capture is known: every replica that sees the same facts derives the same one (D1)."""

from toe_async.lib.names import digest

__all__ = ["capture_id"]


def capture_id(cr_uid: str, pod_uid: str, container: str, instant: str) -> str:
    """32 characters of a-z2-7. `instant` is the sample's timestamp, or the slot of an interval."""
    return digest(cr_uid, pod_uid, container, instant)
