"""A status that fits: below 32 KiB whatever the names are, with the ledger of all targets always whole. Pure."""

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from toe_async.apis.meta import Condition, encode
from toe_async.apis.powertool import MAX_ROWS, PowerToolStatus, RunStatus, StoredArtifact, TargetStatus

LARGEST: Final = 31 << 10
"""Bytes of the status as JSON; 1 KiB below the promise, for whatever an API server adds."""
MAX_ARTIFACTS: Final = 100
MAX_ACTIVE: Final = 50
MAX_RUNS: Final = 10


class _Room(Struct, frozen=True):
    """How much is shown: rows, the characters of each message in them, artifacts, active pods, other messages."""

    rows: int
    message: int
    artifacts: int
    active: int
    sentence: int


_ROOMS: Final = (
    _Room(MAX_ROWS, 300, MAX_ARTIFACTS, MAX_ACTIVE, 1024),
    _Room(MAX_ROWS, 120, MAX_ARTIFACTS, MAX_ACTIVE, 1024),
    _Room(MAX_ROWS, 120, 50, 25, 600),
    _Room(MAX_ROWS, 60, 25, 25, 600),
    _Room(75, 60, 25, 25, 600),
    _Room(50, 60, 25, 10, 600),
    _Room(50, 60, 10, 10, 400),
    _Room(25, 60, 10, 5, 400),
    _Room(10, 60, 5, 5, 300),
    _Room(5, 60, 2, 2, 200),
    _Room(1, 40, 1, 1, 120),
    _Room(0, 0, 0, 0, 120),
)
"""From everything to the least; the first that fits is taken."""


def fitted(status: PowerToolStatus) -> PowerToolStatus:
    """The same status with as many rows, artifacts and words as fit: the first rows, the newest artifacts."""
    for room in _ROOMS:
        cut = _within(status, room)
        if len(encode(cut)) <= LARGEST:
            return cut
    return cut


def _within(status: PowerToolStatus, room: _Room) -> PowerToolStatus:
    return replace(
        status,
        targets=tuple(_row(one, room.message) for one in status.targets[: room.rows]),
        artifacts=_newest(status.artifacts, room.artifacts),
        active_pods=dict(list(status.active_pods.items())[: room.active]),
        last_error=shortened(status.last_error, room.sentence),
        runs=tuple(_run(one, min(room.sentence, 200)) for one in status.runs[-MAX_RUNS:]),
        conditions=tuple(_condition(one, room.sentence) for one in status.conditions),
    )


def _newest(artifacts: tuple[StoredArtifact, ...], most: int) -> tuple[StoredArtifact, ...]:
    return artifacts[max(0, len(artifacts) - most) :]


def _row(one: TargetStatus, longest: int) -> TargetStatus:
    return replace(one, message=shortened(one.message, longest))


def _run(one: RunStatus, longest: int) -> RunStatus:
    return replace(one, message=shortened(one.message, longest))


def _condition(one: Condition, longest: int) -> Condition:
    return replace(one, message=shortened(one.message, longest))


def shortened(text: str, longest: int) -> str:
    """At most so many characters, the cut shown."""
    return text if len(text) <= longest else text[: max(0, longest - 1)] + "…" * (longest > 0)
