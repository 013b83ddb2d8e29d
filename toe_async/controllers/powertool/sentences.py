"""What is said of a run: one sentence that tells how it stands, what it waits for and the way out (D12). Pure.

The words depend on counts and names only, never on how long something has lasted, so that equal facts give equal words
and nothing has to be written (D40).
"""

from collections.abc import Mapping
from datetime import datetime

from toe_async.apis.powertool import Phase, PowerToolSpec
from toe_async.controllers.powertool.counting import Totals
from toe_async.controllers.powertool.facts import Occupant, Slots
from toe_async.lib.clock import rfc3339


def progress(
    count: Totals, waits: Mapping[str, int], occupant: Occupant | None, spec: PowerToolSpec, slots: Slots
) -> str:
    """How a run that has begun and is not over stands."""
    parts = [f"{count.running} of {targets(count.selected)} run"]
    parts += [
        f"{number} {word}"
        for number, word in (
            (count.completed, "completed"),
            (count.failed, "failed"),
            (count.cancelled, "cancelled"),
        )
        if number
    ]
    told = ", ".join(parts)
    if not count.pending:
        return told
    reasons = [words(kind, number, occupant, spec, slots) for kind, number in sorted(waits.items()) if number]
    return f"{told}; {count.pending} wait" + (f": {'; '.join(reasons)}" if reasons else "")


def words(kind: str, number: int, occupant: Occupant | None, spec: PowerToolSpec, slots: Slots) -> str:
    """What so many targets wait for."""
    match kind:
        case "batch":
            return f"{number} for their batch (spec.budgets.maxConcurrentPods is {spec.budgets.max_concurrent_pods})"
        case "backoff":
            return f"{number} for their next attempt"
        case "cluster":
            return f"{number} for other tools in the cluster to end (--max-concurrent-tools)"
        case "node":
            return (
                f"{number} for other tools on their node to end (--max-concurrent-tools-per-node is {slots.per_node})"
            )
        case "first":
            return f"{number} for older PowerTools to begin first"
        case "unseen":
            return f"{number} for their pods to be seen"
        case _:
            return f"{number} for containers that {who(occupant)}"


def who(occupant: Occupant | None) -> str:
    """Who has a container, or queues for it before us."""
    if occupant is None:
        return "another tool has"
    if not occupant.name:
        return f"a tool has of which no PowerTool knows (container toe-{occupant.capture[:20]})"
    does = "queues for" if occupant.waiting else "has"
    return f"PowerTool {occupant.namespace}/{occupant.name} (tool {occupant.tool}) {does}"


def outcome(phase: Phase, count: Totals, first_failure: str) -> str:
    """How a run ended."""
    if phase is Phase.COMPLETED:
        return f"{targets(count.selected)} completed"
    parts = [
        f"{number} {word}"
        for number, word in (
            (count.completed, "completed"),
            (count.failed, "failed"),
            (count.cancelled, "were cancelled"),
        )
        if number
    ]
    told = f"of {targets(count.selected)} {', '.join(parts)}"
    return f"{told}; {first_failure}" if first_failure else told


def waiting(spec: PowerToolSpec, next_run: datetime | None) -> str:
    """Why nothing has begun although nothing speaks against it."""
    if spec.suspend:
        return "spec.suspend is true: nothing begins; set it to false to go on"
    if next_run is not None:
        return f"the next run is due at {rfc3339(next_run)}"
    return "the run has not begun yet"


def targets(number: int) -> str:
    return "1 target" if number == 1 else f"{number} targets"
