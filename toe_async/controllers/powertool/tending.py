"""Which attempts are begun, taken up again, ended and forgotten. Pure."""

from collections.abc import Iterator

from toe_async.apis.powertool import FINAL_STATES
from toe_async.apis.reasons import Reason
from toe_async.capture.toolrun import ToolCapture
from toe_async.controllers.powertool.facts import Cancel, Observed
from toe_async.controllers.powertool.members import Member, capture_of, current_id
from toe_async.controllers.powertool.work import Work, pods_of


def starts(seen: Observed, run: str, work: Work) -> tuple[ToolCapture, ...]:
    """The attempts that are claimed by this plan."""
    if seen.config is None:
        return ()
    pods = pods_of(seen)
    claimed = (work.members[at] for at in work.started)
    return tuple(capture_of(seen.tool, seen.config.spec, run, one, pods[one.row.uid]) for one in claimed)


def resumes(seen: Observed, run: str, work: Work) -> tuple[ToolCapture, ...]:
    """Attempts that were claimed before and that nobody works on: the process that did is gone (G1)."""
    if seen.config is None or not seen.known:
        return ()
    fresh = {work.members[at].row.uid for at in work.started}
    found = []
    for one in work.members:
        now = seen.pods.get(one.row.uid)
        if not one.claimed or one.row.uid in fresh or now is None or now.pod is None:
            continue
        if current_id(seen.tool, run, one) not in seen.running:
            found.append(capture_of(seen.tool, seen.config.spec, run, one, now.pod))
    return tuple(found)


def strays(seen: Observed, run: str, members: tuple[Member, ...]) -> Iterator[Cancel]:
    """Attempts that this process works on although no target claims them: the status was changed by somebody else."""
    claimed = {current_id(seen.tool, run, one) for one in members if one.claimed}
    for id_ in sorted(seen.running - claimed):
        progress = seen.progress.get(id_)
        if progress is not None and progress.state not in FINAL_STATES:
            yield Cancel(id_, Reason.CANCELLED, "the PowerTool's status no longer has this attempt")


def settled(seen: Observed) -> tuple[str, ...]:
    """Every outcome that is known: what it meant is in the status now, or it belongs to no target any more."""
    return tuple(sorted(id_ for id_, one in seen.progress.items() if one.state in FINAL_STATES))
