"""When a scheduled PowerTool begins its next run. Pure.

One run at a time: a status tells of one. Of slots that were missed, only the latest is made up for, unless it is
older than startingDeadlineSeconds. A slot that comes while a run goes on is, by concurrencyPolicy, passed over
(Forbid), begun right after that run (Allow), or the end of it (Replace).
"""

from datetime import datetime, timedelta

from toe_async.controllers.powertool.facts import Observed
from toe_async.lib import cron


def due(seen: Observed) -> datetime | None:
    """The slot for which a run should begin now, or None. The spec's schedule and zone must be good."""
    tool = seen.tool
    if not tool.spec.schedule or seen.zone is None:
        return None
    slot = cron.parse(tool.spec.schedule).latest(seen.now, _since(seen), seen.zone)
    if slot is None:
        return None
    deadline = tool.spec.starting_deadline_seconds
    if deadline is not None and seen.now - slot > timedelta(seconds=deadline):
        return None
    return slot


def following(seen: Observed) -> datetime | None:
    """The next slot after now; None without a schedule or while it is suspended."""
    spec = seen.tool.spec
    if not spec.schedule or spec.suspend or seen.zone is None:
        return None
    return cron.parse(spec.schedule).next(seen.now, seen.zone)


def _since(seen: Observed) -> datetime:
    """No slot up to this instant is due any more."""
    tool, status = seen.tool, seen.tool.status
    instants = [one for one in (tool.metadata.creation_timestamp, status.scheduled_at) if one is not None]
    if tool.spec.concurrency_policy == "Forbid" and status.finished_at is not None:
        instants.append(status.finished_at)
    return max(instants, default=seen.now)
