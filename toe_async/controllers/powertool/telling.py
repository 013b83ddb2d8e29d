"""Which Events a plan is worth: what began, went wrong, and ended; each once, since only changes are told. Pure."""

from collections.abc import Iterable, Iterator

from toe_async.apis.meta import ConditionStatus, find_condition
from toe_async.apis.powertool import Phase, PowerTool, PowerToolStatus, TargetState
from toe_async.apis.reasons import Reason
from toe_async.controllers.powertool.counting import TERMINAL
from toe_async.controllers.powertool.facts import Told
from toe_async.controllers.powertool.members import Member


def events(
    tool: PowerTool, new: PowerToolStatus, before: Iterable[Member], after: Iterable[Member]
) -> tuple[Told, ...]:
    """What is told once the new status is written. Members of both lists that are the same have the same UID."""
    return (*_of_the_run(tool.status, new), *_of_targets(tool, before, after))


def _of_the_run(old: PowerToolStatus, new: PowerToolStatus) -> Iterator[Told]:
    was, now = find_condition(old.conditions, "Accepted"), find_condition(new.conditions, "Accepted")
    refused = now is not None and now.status is ConditionStatus.FALSE
    if now is not None and refused and (was is None or (was.status, was.reason) != (now.status, now.reason)):
        yield Told(Reason(now.reason), now.message, warning=True)
    if new.phase is Phase.CONFLICTED and old.phase is not Phase.CONFLICTED:
        running = find_condition(new.conditions, "Running")
        yield Told(Reason.CONFLICTED, running.message if running else "")
    if new.phase in TERMINAL and (new.finished_at, new.run) != (old.finished_at, old.run):
        complete = find_condition(new.conditions, "Complete")
        if complete is not None:
            bad = new.phase is not Phase.COMPLETED
            yield Told(Reason(complete.reason), complete.message, warning=bad)


def _of_targets(tool: PowerTool, before: Iterable[Member], after: Iterable[Member]) -> Iterator[Told]:
    stood = {(one.row.uid, one.row.container): (one.state, one.row.attempt) for one in before}
    what = f"tool {tool.spec.tool.name} of PowerTool {tool.metadata.namespace}/{tool.metadata.name}"
    for one in after:
        row = one.row
        if stood.get((row.uid, row.container)) == (one.state, row.attempt) or not row.pod:
            continue
        if one.state is TargetState.STARTING:
            yield _told(
                one, Reason.CAPTURE_STARTED, f"{what} begins in container {row.container}, attempt {row.attempt}"
            )
        elif one.state is TargetState.COMPLETED:
            yield _told(one, Reason.CAPTURE_STORED, f"{what} has ended in container {row.container}: {row.bytes} bytes")
        elif one.state is TargetState.FAILED or (one.state is TargetState.WAITING and row.attempt):
            again = "; it is tried again" if one.state is TargetState.WAITING else ""
            yield _told(one, _reason(row.reason), f"{what} failed: {row.message}{again}", warning=True)
        elif one.state is TargetState.CANCELLED and row.attempt:
            yield _told(one, _reason(row.reason), f"{what} was stopped: {row.message}")


def _told(one: Member, reason: Reason, message: str, *, warning: bool = False) -> Told:
    return Told(reason, message, warning, one.row.namespace, one.row.pod, one.row.uid)


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        return Reason.CAPTURE_FAILED
