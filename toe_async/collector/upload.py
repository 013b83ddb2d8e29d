"""Whether an upload is taken: pure decisions, made before a byte of the body is read.

`judge` runs an ordered list of checks; the first that objects is the answer. `Pace` judges a body while it comes.
"""

from datetime import datetime

from msgspec import Struct

from toe_async.collector.captures import Capture, State, is_sha256
from toe_async.collector.errors import Refused


class Facts(Struct, frozen=True, kw_only=True):
    """All that may decide about an upload. The uploader's identity was checked before any of it was looked up."""

    now: datetime
    leaf: str
    record: Capture | None
    length: int | None
    """Declared size; None for a chunked body."""
    declared_sha256: str
    """What the uploader says the digest will be; empty when it says nothing."""
    stored_sha256: str
    """Digest of the artifact that is already there; empty when there is none."""
    free_bytes: int
    """Space that is neither used, reserved nor kept back."""


class Accept(Struct, frozen=True):
    """Read the body, no more than `max_bytes` of it, having set `reserve` bytes aside."""

    record: Capture
    max_bytes: int
    reserve: int


class Already(Struct, frozen=True):
    """The very same artifact is stored: answer 200, read nothing."""

    record: Capture


Verdict = Accept | Already | Refused


def _digest_is_one(facts: Facts, record: Capture) -> Verdict | None:
    if facts.declared_sha256 and not is_sha256(facts.declared_sha256):
        return Refused(400, "BadDigest", "X-Toe-Sha256 is not a SHA-256 in 64 lower-case hex digits")
    return None


def _leaf_is_registered(facts: Facts, record: Capture) -> Verdict | None:
    if facts.leaf not in record.registration.leaves:
        return Refused(403, "LeafNotRegistered", "this capture was registered without an artifact of that name")
    return None


def _not_cancelled(facts: Facts, record: Capture) -> Verdict | None:
    if record.state is State.CANCELLED:
        return Refused(403, "Cancelled", "the operator cancelled this capture")
    return None


def _stored_before(facts: Facts, record: Capture) -> Verdict | None:
    if not facts.stored_sha256 or not facts.declared_sha256:
        return None  # only the whole body can tell
    if facts.stored_sha256 == facts.declared_sha256:
        return Already(record)
    return Refused(409, "Taken", "another content is stored under this name and is never replaced")


def _open(facts: Facts, record: Capture) -> Verdict | None:
    if record.state is not State.OPEN:
        return Refused(403, "Complete", "this capture is complete and takes no more artifacts")
    if record.registration.expires <= facts.now:
        return Refused(403, "Expired", "this capture's time is over; the operator may register it again")
    return None


def _not_empty(facts: Facts, record: Capture) -> Verdict | None:
    if facts.length == 0:
        return Refused(400, "Empty", "an artifact without a byte is no artifact")
    return None


def _small_enough(facts: Facts, record: Capture) -> Verdict | None:
    if facts.length is not None and facts.length > record.registration.max_bytes:
        return too_big(record.registration.max_bytes)
    return None


def _fits(facts: Facts, record: Capture) -> Verdict | None:
    if facts.free_bytes < max(facts.length or 0, 1):
        return Refused(507, "StoreFull", "the store has no room for this artifact", retry_after=60)
    return None


CHECKS = (
    _digest_is_one,
    _leaf_is_registered,
    _not_cancelled,
    _stored_before,
    _open,
    _not_empty,
    _small_enough,
    _fits,
)


def judge(facts: Facts) -> Verdict:
    """Decide about an upload whose sender is known."""
    if facts.record is None:
        return Refused(404, "NotRegistered", "no such capture is registered")
    for check in CHECKS:
        verdict = check(facts, facts.record)
        if verdict is not None:
            return verdict
    return Accept(facts.record, facts.record.registration.max_bytes, facts.length or 0)


def too_big(max_bytes: int) -> Refused:
    """The body is, or would become, longer than allowed."""
    return Refused(413, "TooBig", f"the body is longer than the {max_bytes} bytes allowed")


class Pace:
    """How long a sender may keep us waiting: a bucket of seconds that waiting drains and bytes fill.

    It starts with `grace` seconds, each byte adds 1/`rate` of a second, and it never holds more than `idle`. So a
    sender has `grace` to begin, must average `rate` bytes a second, and may fall silent for `idle` at most, however
    much it sent before. Time in which we do not read (a slow disk) is not the sender's and is not counted.
    """

    def __init__(self, rate: int, grace: float, idle: float) -> None:
        self._rate, self._idle = rate, idle
        self._patience = min(grace, idle)

    @property
    def patience(self) -> float:
        """Seconds to wait for the next byte before giving up."""
        return max(self._patience, 0.0)

    def received(self, size: int, waited: float) -> None:
        """Count a piece of the body that took `waited` seconds to come."""
        self._patience = min(self._patience - waited + size / self._rate, self._idle)
