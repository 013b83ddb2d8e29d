"""Whether an upload is taken: pure decisions, made before a byte of the body is read.

`judge` runs an ordered list of checks; the first that objects is the answer. `read_span` reads which piece of an
artifact a request carries. `Pace` judges a body while it comes.
"""

import re
from datetime import datetime

from msgspec import Struct

from toe_async.collector.captures import Capture, State, allows, is_sha256
from toe_async.collector.errors import Refused

_SPAN = re.compile(r"bytes (?:([0-9]{1,15})-([0-9]{1,15})|\*)/([0-9]{1,15}|\*)")


class Span(Struct, frozen=True):
    """The bytes from `first` to before `end` of an artifact; `total` is its length as far as the sender tells."""

    first: int
    end: int
    total: int | None

    @property
    def last(self) -> bool:
        """Whether nothing comes after it."""
        return self.end == self.total


class Bounds(Struct, frozen=True, kw_only=True):
    """How much may be kept; None is no limit."""

    capture_bytes: int | None = None
    namespace_bytes: int | None = None
    namespace_artifacts: int | None = None
    store_bytes: int | None = None


class Held(Struct, frozen=True, kw_only=True):
    """What is kept already and what other uploads under way have set aside. Without a bound it need not be known."""

    free_bytes: int
    """Space that is neither used, reserved nor kept back."""
    capture_bytes: int = 0
    namespace_bytes: int = 0
    namespace_artifacts: int = 0
    store_bytes: int = 0


class Facts(Struct, frozen=True, kw_only=True):
    """All that may decide about an upload. The uploader's identity was checked before any of it was looked up."""

    now: datetime
    leaf: str
    record: Capture | None
    size: int | None
    """Length of the whole artifact, as far as it was declared; of a piece, at least its end."""
    written: int = 0
    """How much of the artifact is on disk already."""
    declared_sha256: str
    """What the uploader says the digest will be; empty when it says nothing."""
    stored_sha256: str
    """Digest of the artifact that is already there; empty when there is none."""
    held: Held
    bounds: Bounds = Bounds()


class Accept(Struct, frozen=True):
    """Read the body, until the artifact has no more than `max_bytes`."""

    record: Capture
    max_bytes: int


class Already(Struct, frozen=True):
    """The very same artifact is stored: answer 200, read nothing."""

    record: Capture


Verdict = Accept | Already | Refused


def not_registered() -> Refused:
    """403: the capture may not have this artifact."""
    return Refused(403, "LeafNotRegistered", "this capture was registered without an artifact of that name")


def _digest_is_one(facts: Facts, record: Capture) -> Verdict | None:
    if facts.declared_sha256 and not is_sha256(facts.declared_sha256):
        return Refused(400, "BadDigest", "X-Toe-Sha256 is not a SHA-256 in 64 lower-case hex digits")
    return None


def _leaf_is_registered(facts: Facts, record: Capture) -> Verdict | None:
    if not allows(record, facts.leaf):
        return not_registered()
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
    if facts.size == 0:
        return Refused(400, "Empty", "an artifact without a byte is no artifact")
    return None


def _small_enough(facts: Facts, record: Capture) -> Verdict | None:
    if facts.size is not None and facts.size > record.registration.max_bytes:
        return too_big(record.registration.max_bytes)
    return None


def _capture_is_small_enough(facts: Facts, record: Capture) -> Verdict | None:
    most = facts.bounds.capture_bytes
    if most is not None and facts.held.capture_bytes + _least(facts) > most:
        return Refused(413, "CaptureTooBig", f"the artifacts of one capture may have {most} bytes together, not more")
    return None


def _namespace_has_room(facts: Facts, record: Capture) -> Verdict | None:
    bounds, held, namespace = facts.bounds, facts.held, record.registration.namespace
    if bounds.namespace_artifacts is not None and held.namespace_artifacts >= bounds.namespace_artifacts:
        return _quota(f"namespace {namespace} may keep {bounds.namespace_artifacts} artifacts")
    if bounds.namespace_bytes is not None and held.namespace_bytes + _least(facts) > bounds.namespace_bytes:
        return _quota(f"namespace {namespace} may keep {bounds.namespace_bytes} bytes of artifacts")
    return None


def _store_has_room(facts: Facts, record: Capture) -> Verdict | None:
    most = facts.bounds.store_bytes
    if most is not None and facts.held.store_bytes + _least(facts) > most:
        return Refused(507, "StoreFull", f"the collector may keep {most} bytes and has them", retry_after=60)
    return None


def _fits(facts: Facts, record: Capture) -> Verdict | None:
    if facts.held.free_bytes < _least(facts) - facts.written:
        return Refused(507, "StoreFull", "the store has no room for this artifact", retry_after=60)
    return None


def _least(facts: Facts) -> int:
    return max(facts.size or 0, facts.written + 1)


def _quota(what: str) -> Refused:
    return Refused(
        507, "QuotaExceeded", f"{what} and has no room for this one: delete some, or raise the limit", retry_after=60
    )


CHECKS = (
    _digest_is_one,
    _leaf_is_registered,
    _not_cancelled,
    _stored_before,
    _open,
    _not_empty,
)
ROOM = (_small_enough, _capture_is_small_enough, _namespace_has_room, _store_has_room, _fits)


def judge(facts: Facts) -> Verdict:
    """Decide about an upload whose sender is known."""
    if facts.record is None:
        return Refused(404, "NotRegistered", "no such capture is registered")
    for check in (*CHECKS, *ROOM):
        verdict = check(facts, facts.record)
        if verdict is not None:
            return verdict
    return Accept(facts.record, facts.record.registration.max_bytes)


def room(facts: Facts, record: Capture) -> Refused | None:
    """Decide whether an upload that was taken may become as long as `facts.size`."""
    for check in ROOM:
        verdict = check(facts, record)
        if isinstance(verdict, Refused):
            return verdict
    return None


def read_span(headers: list[str], length: int | None, piece_bytes: int) -> Span | None:
    """Which piece the Content-Range headers name, or None for a whole artifact.

    `bytes a-b/*` is a piece, `bytes a-b/total` the last one if it ends there, and `bytes */total`, without a body, says
    that everything is there. `length` is that of the body, None when it is not declared.

    Raises:
        Refused: 400 it is none of these or not as long as the body, 411 no length, 413 too long for a piece.
    """
    if not headers:
        return None
    found = _SPAN.fullmatch(headers[0].strip()) if len(headers) == 1 else None
    if found is None:
        raise _bad_span("it is written like bytes 0-8388607/*, and with the total for the last piece")
    if length is None:
        raise Refused(411, "LengthRequired", "a piece of an artifact is sent with its Content-Length")
    total = None if found[3] == "*" else int(found[3])
    if found[1] is None:
        if not total or length:
            raise _bad_span("bytes */total comes without a body, after the last byte")
        return Span(total, total, total)
    span = Span(int(found[1]), int(found[2]) + 1, total)
    if span.end - span.first != length or (total is not None and span.end > total):
        raise _bad_span("it does not go with the length of the body, or with the total")
    if not span.last and length > piece_bytes:
        raise Refused(413, "TooBig", f"a piece that is not the last has at most {piece_bytes} bytes")
    return span


def _bad_span(why: str) -> Refused:
    return Refused(400, "BadRange", f"Content-Range cannot be used: {why}")


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
