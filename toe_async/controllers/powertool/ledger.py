"""The ledger of a run's targets, `status.ledger`: all of them, in about 25 characters each.

A header `1;CONTAINER,CONTAINER...;` is followed by one entry a target, in the order in which they are begun, separated
by commas: the pod's UID (a UUID in 22 characters, any other between ~ and !), a letter for the state, the number of the
latest attempt, `.N` for the container when it is not the first named, and `@SECONDS` (since 1970, base 36) for the
instant that the state hangs on. Whoever leads next goes on from here, so what cannot be read is never guessed at.
"""

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from toe_async.apis.powertool import CLAIMED_STATES, MAX_TARGETS, TargetState

_VERSION: Final = "1"
_LETTERS: Final = {
    TargetState.PENDING: "p",
    TargetState.QUEUED: "q",
    TargetState.WAITING: "w",
    TargetState.STARTING: "s",
    TargetState.RUNNING: "r",
    TargetState.STORING: "u",
    TargetState.COMPLETED: "C",
    TargetState.FAILED: "F",
    TargetState.CANCELLED: "X",
}
_STATES: Final = {letter: state for state, letter in _LETTERS.items()}
_TIMED: Final = CLAIMED_STATES | {TargetState.WAITING}
_ENTRY: Final = re.compile(
    r"(?P<uid>[A-Za-z0-9_-]{22}|~[A-Za-z0-9_-]{1,344}!)(?P<state>[pqwsruCFX])(?P<attempt>[0-9]{1,3})"
    r"(?:\.(?P<container>[0-9]{1,3}))?(?:@(?P<at>[0-9a-z]{1,7}))?"
)
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class Entry(Struct, frozen=True):
    """One target. `attempt` is the number of the latest one, 0 before the first.

    `at` is when a claimed attempt was claimed and when a waiting one may begin, in whole seconds; None in other states.
    """

    uid: str
    container: str
    state: TargetState
    attempt: int = 0
    at: datetime | None = None


def encode(entries: tuple[Entry, ...]) -> str:
    """The text of at most MAX_TARGETS entries; empty for none."""
    if not entries:
        return ""
    names = list(dict.fromkeys(one.container for one in entries))
    index = {name: at for at, name in enumerate(names)}
    return f"{_VERSION};{','.join(names)};{','.join(_encoded(one, index[one.container]) for one in entries)}"


def decode(text: str) -> tuple[Entry, ...]:
    """Read it back. Raises ValueError for a text that `encode` did not write."""
    if not text:
        return ()
    version, names, body = [*text.split(";", 2), "", ""][:3]
    if version != _VERSION:
        raise ValueError(f"the ledger begins with {version[:20]!r}, not with version {_VERSION}")
    containers = names.split(",")
    parts = body.split(",", MAX_TARGETS)
    if len(parts) > MAX_TARGETS:
        raise ValueError(f"the ledger has more than {MAX_TARGETS} entries")
    found = tuple(_decoded(part, containers) for part in parts)
    if len({(one.uid, one.container) for one in found}) < len(found):
        raise ValueError("the ledger names a target twice")
    return found


def _encoded(one: Entry, container: int) -> str:
    where = f".{container}" if container else ""
    at = f"@{_base36(int(one.at.timestamp()))}" if one.at is not None and one.state in _TIMED else ""
    return f"{_short(one.uid)}{_LETTERS[one.state]}{one.attempt}{where}{at}"


def _decoded(part: str, containers: list[str]) -> Entry:
    match = _ENTRY.fullmatch(part)
    if match is None:
        raise ValueError(f"the ledger's entry {part[:60]!r} is not understood")
    state, at, number = _STATES[match["state"]], match["at"], int(match["container"] or 0)
    if (state in _TIMED) != (at is not None) or number >= len(containers):
        raise ValueError(f"the ledger's entry {part[:60]!r} contradicts itself")
    instant = datetime.fromtimestamp(int(at, 36), UTC) if at is not None else None
    return Entry(_long(match["uid"]), containers[number], state, int(match["attempt"]), instant)


def _short(uid: str) -> str:
    try:
        if str(UUID(uid)) == uid:
            return _text(UUID(uid).bytes)
    except ValueError:
        pass  # a UID is opaque by contract; only its usual form is worth shortening
    return f"~{_text(uid.encode())}!"


def _long(text: str) -> str:
    try:
        if text.startswith("~"):
            return _bytes(text[1:-1]).decode()
        return str(UUID(bytes=_bytes(text)))
    except (binascii.Error, ValueError) as bad:
        raise ValueError(f"the ledger's UID {text[:60]!r} is not understood") from bad


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _base36(number: int) -> str:
    out = ""
    while number:
        number, digit = divmod(number, 36)
        out = _DIGITS[digit] + out
    return out or "0"
