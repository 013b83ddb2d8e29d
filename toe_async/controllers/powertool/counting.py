"""How a run stands: its phase and its totals, which always add up. Pure."""

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from toe_async.apis.powertool import CLAIMED_STATES, Phase, TargetState
from toe_async.controllers.powertool.members import Member

TERMINAL = frozenset({Phase.COMPLETED, Phase.PARTIALLY_FAILED, Phase.FAILED, Phase.CANCELLED})


class Totals(Struct, frozen=True):
    """Targets by what they are doing. `selected` is the sum of the five, `queued` a part of `pending`."""

    pending: int
    running: int
    completed: int
    failed: int
    cancelled: int
    queued: int

    @property
    def selected(self) -> int:
        return self.pending + self.running + self.completed + self.failed + self.cancelled

    @property
    def over(self) -> bool:
        """Nothing will happen any more."""
        return self.pending == self.running == 0


def totals(members: Iterable[Member]) -> Totals:
    """Count each member once."""
    states = Counter(one.state for one in members)
    running = sum(states[one] for one in CLAIMED_STATES)
    completed, failed = states[TargetState.COMPLETED], states[TargetState.FAILED]
    cancelled = states[TargetState.CANCELLED]
    pending = states.total() - running - completed - failed - cancelled
    return Totals(pending, running, completed, failed, cancelled, states[TargetState.QUEUED])


def phase_of(count: Totals) -> Phase:
    """The phase of a run that has begun.

    Over, it is Failed when nothing was completed, PartiallyFailed when something was; Cancelled tells that nothing
    failed and something was stopped. Conflicted means that nothing of it runs and something waits for another tool.
    """
    if not count.over:
        return Phase.CONFLICTED if count.queued and not count.running else Phase.RUNNING
    if count.failed or not count.selected:
        return Phase.PARTIALLY_FAILED if count.completed else Phase.FAILED
    return Phase.CANCELLED if count.cancelled else Phase.COMPLETED
