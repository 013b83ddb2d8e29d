"""What one failed attempt means: for its target another attempt, for the others that they begin or not. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from toe_async.apis.powertool import FailurePolicy, TargetState
from toe_async.capture.toolrun import Progress
from toe_async.controllers.powertool.acceptance import multiplier
from toe_async.controllers.powertool.members import Member
from toe_async.lib.durations import parse_duration


def retry_at(policy: FailurePolicy, attempt: int, progress: Progress, now: datetime) -> datetime | None:
    """When the attempt after number `attempt` may begin, or None when there is none.

    Only a failure that a second attempt may mend is tried again, `attempts` times in all; the wait after attempt n is
    initial * multiplier^(n-1), no longer than max.
    """
    if policy.on_error != "retry" or progress.state is not TargetState.FAILED or not progress.passing:
        return None
    if attempt >= policy.backoff.attempts:
        return None
    at = now + wait(policy, attempt)
    return at.replace(microsecond=0) + timedelta(seconds=1 if at.microsecond else 0)


def wait(policy: FailurePolicy, attempt: int) -> timedelta:
    """The wait after attempt number `attempt`, counted from 1."""
    backoff = policy.backoff
    longest = parse_duration(backoff.max)
    factor = float(multiplier(backoff.multiplier)) ** min(attempt - 1, 64)
    seconds = parse_duration(backoff.initial).total_seconds() * factor
    return timedelta(seconds=min(seconds, longest.total_seconds()))


def stopped(policy: FailurePolicy, members: Iterable[Member]) -> Member | None:
    """The failed target because of which no other may begin, or None."""
    if policy.on_error != "stop":
        return None
    return next((one for one in members if one.state is TargetState.FAILED), None)
