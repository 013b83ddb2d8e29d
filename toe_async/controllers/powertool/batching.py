"""Which targets begin now: within the batch, the administrator's slots, and without disturbing another tool. Pure.

A container is shared only by tools of which each is declared compatible with the other. Whoever else wants it queues,
and the oldest PowerTool in the queue goes first. Nobody waits for a younger one that only queues, so nobody waits in a
circle; whoever runs ends by a deadline.
"""

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from datetime import datetime

from msgspec import Struct

from toe_async.apis.meta import ConditionStatus, find_condition
from toe_async.apis.powertool import CLAIMED_STATES, PowerTool, TargetState
from toe_async.apis.powertoolconfig import PowerToolConfigSpec
from toe_async.controllers.powertool.facts import Observed, Occupant, Slots
from toe_async.controllers.powertool.ledger import Entry
from toe_async.controllers.powertool.members import Member, attempt_id, changed

_READY = frozenset({TargetState.PENDING, TargetState.QUEUED})
_SHORTEST_NAME = 16  # characters of a capture id by which a container is known to be that capture's


class Batch(Struct, frozen=True):
    """What becomes of the members. `started` are the claimed ones' positions.

    `waits` counts why others have not begun, by one of "batch", "cluster", "node", "occupied", "backoff", "first",
    "unseen";
    `occupant` is somebody who is waited for.
    """

    members: tuple[Member, ...]
    started: tuple[int, ...]
    waits: Mapping[str, int]
    occupant: Occupant | None


def batch(
    seen: Observed, run: str, members: tuple[Member, ...], config: PowerToolConfigSpec, there: Container[str]
) -> Batch:
    """Claim as many members as may begin now, in their order. `there` has the UIDs of pods that are seen."""
    limits = _Limits(seen.slots)
    room = (seen.tool.spec.budgets.max_concurrent_pods or len(members)) - sum(one.claimed for one in members)
    out, started, waits = list(members), [], Counter[str]()
    first: Occupant | None = None
    for at, one in enumerate(members):
        if one.claimed or one.final:
            continue
        if one.row.uid not in there:
            waits["unseen"] += 1
            continue
        if not due(one, seen.now):
            waits["backoff"] += 1
            continue
        if room <= 0:
            waits["batch"] += 1
            continue
        other = occupant(seen, run, one, config)
        if other is not None:
            first = first or other
            waits["occupied"] += 1
            out[at] = changed(one, TargetState.QUEUED)
            continue
        if (why := limits.why_not(one.row.node)) is not None:
            waits[why] += 1
            out[at] = changed(one, TargetState.PENDING)
            continue
        limits.take(one.row.node)
        room -= 1
        started.append(at)
        out[at] = claimed(one, seen.now)
    return Batch(tuple(out), tuple(started), waits, first)


def claimed(one: Member, now: datetime) -> Member:
    """The member with its next attempt begun; what the last one left behind goes."""
    moment = now.replace(microsecond=0)
    return changed(
        one,
        TargetState.STARTING,
        at=moment,
        attempt=one.row.attempt + 1,
        tool_container="",
        reason="",
        message="",
        exit_code=None,
        started_at=moment,
        finished_at=None,
    )


def due(one: Member, now: datetime) -> bool:
    """Whether a member could begin if there were room."""
    return one.state in _READY or (one.state is TargetState.WAITING and one.at is not None and one.at <= now)


def occupant(seen: Observed, run: str, one: Member, config: PowerToolConfigSpec) -> Occupant | None:
    """Who has to be waited for before the member may begin, or None."""
    own = attempt_id(seen.tool, run, one.row.uid, one.row.container, one.row.attempt + 1)
    for other in seen.busy.get((one.row.uid, one.row.container), ()):
        # Our own attempt may run already when the claim was lost with the status: it is taken up again.
        same = len(other.capture) >= _SHORTEST_NAME and own.startswith(other.capture)
        if not same and not compatible(config, other) and not (other.waiting and older(seen.tool, other)):
            return other
    return None


def compatible(config: PowerToolConfigSpec, other: Occupant) -> bool:
    """Whether both tools are declared to get along with the other one. Two runs of one tool need that too."""
    return other.tool in config.compatible_with and config.name in other.compatible_with


def older(tool: PowerTool, other: Occupant) -> bool:
    """Whether the PowerTool was created before the other's, equal instants told apart by UID."""
    mine, theirs = tool.metadata.creation_timestamp, other.created
    if mine is None or theirs is None:
        return theirs is None
    return (mine, tool.metadata.uid) < (theirs, other.uid)


def demand(tool: PowerTool, entries: Iterable[Entry], nodes: Mapping[str, str], now: datetime) -> Counter[str]:
    """By node, how many targets would begin now if slots were free; `Slots.ahead` adds it up over older PowerTools.

    `nodes` names the node of each pod UID; targets without one are gone. Those that queue for a container or wait for
    their batch ask for no slot.
    """
    status = tool.status
    accepted = find_condition(status.conditions, "Accepted")
    refused = accepted is not None and accepted.status is ConditionStatus.FALSE
    if refused or tool.spec.suspend or status.finished_at is not None or tool.metadata.deletion_timestamp is not None:
        return Counter()
    held = list(entries)
    room = (tool.spec.budgets.max_concurrent_pods or len(held)) - sum(one.state in CLAIMED_STATES for one in held)
    ready = [
        one
        for one in held
        if one.state is TargetState.PENDING
        or (one.state is TargetState.WAITING and one.at is not None and one.at <= now)
    ]
    return Counter(nodes[one.uid] for one in ready[: max(0, room)] if one.uid in nodes)


class _Limits:
    """The slots that are left, after those who were there first. Changes while a batch is chosen."""

    def __init__(self, slots: Slots) -> None:
        self._per_node = slots.per_node
        self._used = Counter(slots.used)
        self._ahead = slots.ahead
        # An older PowerTool that waits for a full node keeps no slot of the cluster from the others.
        usable = {node: min(count, self._free(node)) for node, count in slots.ahead.items()}
        self._cluster, self._reserved = slots.cluster, sum(usable.values())

    def _free(self, node: str) -> int:
        return max(0, self._per_node - self._used[node])

    def why_not(self, node: str) -> str | None:
        if self._cluster <= 0:
            return "cluster"
        if self._free(node) <= 0:
            return "node"
        if self._cluster <= self._reserved or self._free(node) <= self._ahead.get(node, 0):
            return "first"
        return None

    def take(self, node: str) -> None:
        self._cluster -= 1
        self._used[node] += 1
