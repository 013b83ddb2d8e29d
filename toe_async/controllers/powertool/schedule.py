"""When a scheduled PowerTool begins its next run. Pure.

One run at a time: a status tells of one. Of slots that were missed, only the latest is made up for, unless it is
older than startingDeadlineSeconds. A slot that comes while a run goes on is, by concurrencyPolicy, passed over
(Forbid), begun right after that run (Allow), or the end of it (Replace).
"""

from datetime import datetime, timedelta, tzinfo

from toe_async.apis.powertool import PowerTool, PowerToolStatus
from toe_async.lib import cron


def going(status: PowerToolStatus) -> bool:
    """Whether a run has begun and is not over."""
    return status.started_at is not None and status.finished_at is None


def may_begin(tool: PowerTool, zone: tzinfo | None, now: datetime) -> bool:
    """Whether a plan made now would choose targets if nothing spoke against it: only then it needs the candidates."""
    status = tool.status
    if going(status) or tool.spec.suspend or tool.metadata.deletion_timestamp is not None:
        return False
    if tool.spec.schedule:
        return due(tool, zone, now) is not None
    return status.started_at is None


def due(tool: PowerTool, zone: tzinfo | None, now: datetime) -> datetime | None:
    """The slot for which a run should begin now, or None; none for a schedule or zone that cannot be read."""
    schedule = _read(tool)
    if schedule is None or zone is None:
        return None
    slot = schedule.latest(now, _since(tool, now), zone)
    deadline = tool.spec.starting_deadline_seconds
    if slot is None or (deadline is not None and now - slot > timedelta(seconds=deadline)):
        return None
    return slot


def following(tool: PowerTool, zone: tzinfo | None, now: datetime) -> datetime | None:
    """The next slot after now; None without a schedule or while it is suspended."""
    schedule = _read(tool)
    if schedule is None or zone is None or tool.spec.suspend:
        return None
    return schedule.next(now, zone)


def _read(tool: PowerTool) -> cron.Cron | None:
    try:
        return cron.parse(tool.spec.schedule) if tool.spec.schedule else None
    except ValueError:
        return None  # acceptance says so


def _since(tool: PowerTool, now: datetime) -> datetime:
    """No slot up to this instant is due any more."""
    status = tool.status
    instants = [one for one in (tool.metadata.creation_timestamp, status.scheduled_at) if one is not None]
    if tool.spec.concurrency_policy == "Forbid" and status.finished_at is not None:
        instants.append(status.finished_at)
    return max(instants, default=now)
