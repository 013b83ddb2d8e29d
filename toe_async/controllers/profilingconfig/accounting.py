"""What a capture's progress does to the status that accounts for it. Pure: status in, status out.

Every step may be repeated, by a retry after a lost reply or by another process: the same step on its own result changes
nothing, and no step moves a capture or a profile backwards. The counters move only together with the row that they
count, in one write, so they survive conflicts and restarts.
"""

from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace

from toe_async.apis.profilingstatus import (
    ArtifactState,
    ArtifactStatus,
    CaptureState,
    CaptureStatus,
    Cooldown,
    ProfileType,
    ProfilingConfigStatus,
)
from toe_async.apis.reasons import Reason

KEPT_FINISHED = 20
_ORDER = {ArtifactState.CAPTURED: 0, ArtifactState.FAILED: 1, ArtifactState.STORED: 2}


def claim(status: ProfilingConfigStatus, row: CaptureStatus, cooldown: Cooldown | None) -> ProfilingConfigStatus:
    """Enter a capture before it begins (D2); a claim of the same id that is there already stands."""
    if any(held.id == row.id for held in status.recent):
        return status
    cooldowns = status.cooldowns
    if cooldown is not None:
        same = (cooldown.pod_uid, cooldown.reason)
        cooldowns = (*(one for one in cooldowns if (one.pod_uid, one.reason) != same), cooldown)
    return replace(
        status,
        recent=_trimmed((*status.recent, row)),
        cooldowns=cooldowns,
        last_profile_time=row.started_at,
    )


def received(
    status: ProfilingConfigStatus, id_: str, results: Iterable[ArtifactStatus], deadline: datetime, now: datetime
) -> ProfilingConfigStatus:
    """The capturing part is over: what came in is Captured, the rest Failed; until ``deadline`` it may be delivered."""
    row = find(status, id_)
    if row is None:
        return status
    merged = row.artifacts
    for result in results:
        merged = _merged(merged, result)
    state = row.state if row.state.final else _state_of(merged)
    return _put(status, replace(row, artifacts=merged, state=state, deadline=deadline), now)


def delivered(status: ProfilingConfigStatus, id_: str, result: ArtifactStatus, now: datetime) -> ProfilingConfigStatus:
    """One profile is Stored, or given up."""
    row = find(status, id_)
    if row is None:
        return status
    merged = _merged(row.artifacts, result)
    state = _state_of(merged)
    # While the capture still runs more than this one profile decides; what was final is left only for another end.
    if row.state is CaptureState.CAPTURING or (row.state.final and not state.final):
        state = row.state
    return _put(status, replace(row, artifacts=merged, state=state), now)


def lost(
    status: ProfilingConfigStatus, id_: str, types: Iterable[ProfileType], message: str, now: datetime
) -> ProfilingConfigStatus:
    """Nobody works on the capture any more: of its types, what is not stored is Failed with ReplicaGone."""
    row = find(status, id_)
    if row is None or row.state.final:
        return status
    artifacts = tuple(
        replace(one, state=ArtifactState.FAILED, reason=Reason.REPLICA_GONE, message=message)
        if one.state is ArtifactState.CAPTURED
        else one
        for one in row.artifacts
    )
    known = {one.type for one in artifacts}
    artifacts += tuple(
        ArtifactStatus(type=type_, state=ArtifactState.FAILED, reason=Reason.REPLICA_GONE, message=message)
        for type_ in types
        if type_ not in known
    )
    stored = any(one.state is ArtifactState.STORED for one in artifacts)
    state = CaptureState.PARTIALLY_STORED if stored else CaptureState.LOST
    return _put(status, replace(row, artifacts=artifacts, state=state), now)


def without_expired(status: ProfilingConfigStatus, now: datetime) -> ProfilingConfigStatus:
    """Drop the cooldowns that are over."""
    left = tuple(one for one in status.cooldowns if one.until > now)
    return status if len(left) == len(status.cooldowns) else replace(status, cooldowns=left)


def find(status: ProfilingConfigStatus, id_: str) -> CaptureStatus | None:
    """The row of a capture, if it is kept."""
    return next((row for row in status.recent if row.id == id_), None)


def _merged(artifacts: tuple[ArtifactStatus, ...], new: ArtifactStatus) -> tuple[ArtifactStatus, ...]:
    for at, old in enumerate(artifacts):
        if old.type == new.type:
            if _ORDER[new.state] <= _ORDER[old.state]:
                return artifacts
            # What was received stays known, also when all that can be said later is that it failed.
            kept = replace(new, size=new.size or old.size, sha256=new.sha256 or old.sha256)
            return (*artifacts[:at], kept, *artifacts[at + 1 :])
    return (*artifacts, new)


def _state_of(artifacts: tuple[ArtifactStatus, ...]) -> CaptureState:
    states = {one.state for one in artifacts}
    if ArtifactState.CAPTURED in states:
        return CaptureState.UPLOADING
    if ArtifactState.STORED not in states:
        return CaptureState.FAILED
    return CaptureState.STORED if states == {ArtifactState.STORED} else CaptureState.PARTIALLY_STORED


def _put(status: ProfilingConfigStatus, row: CaptureStatus, now: datetime) -> ProfilingConfigStatus:
    """Put a row in its place and move the counters by what it gained."""
    old = find(status, row.id)
    if row.state.final and row.finished_at is None:
        row = replace(row, finished_at=now.replace(microsecond=0))
    if old is None or row == old:
        return status
    gained = _counts(row)
    before = _counts(old)
    return replace(
        status,
        recent=_trimmed(tuple(row if held.id == row.id else held for held in status.recent)),
        total_profiles=status.total_profiles + gained[0] - before[0],
        total_uploads=status.total_uploads + gained[1] - before[1],
    )


def _counts(row: CaptureStatus) -> tuple[int, int]:
    """Profiles that were received whole (their size is known) and those that are stored."""
    received_whole = sum(one.size > 0 for one in row.artifacts)
    return received_whole, sum(one.state is ArtifactState.STORED for one in row.artifacts)


def _trimmed(rows: tuple[CaptureStatus, ...]) -> tuple[CaptureStatus, ...]:
    """All that is not finished, and the finished ones that ended last."""
    finished = sorted((row for row in rows if row.state.final), key=lambda row: row.finished_at or row.started_at)
    dropped = {row.id for row in finished[:-KEPT_FINISHED]}
    return tuple(row for row in rows if row.id not in dropped)
