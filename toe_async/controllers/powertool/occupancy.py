"""Which containers are taken, by whom: what every PowerTool's ledger claims, as the newest known state has it.

Fed with an object whenever one is seen, written, or about to be written: a claim on its way to the API server counts
already, and one whose answer was lost counts until the watch shows what became of it. So decisions that are made while
another one's write is under way never give the same container, or the same place on a node, away twice.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from msgspec import Struct

from toe_async.apis.pods import Pod
from toe_async.apis.powertool import CLAIMED_STATES, FINAL_STATES, PowerTool, TargetState
from toe_async.capture.vessels import container_name
from toe_async.controllers.powertool import ledger
from toe_async.controllers.powertool.facts import Occupant, ToolKey
from toe_async.controllers.powertool.ledger import Entry
from toe_async.controllers.powertool.members import attempt_id

REMEMBERED = timedelta(hours=1)
"""How long after its end a run's targets are known: a supervisor that still keeps its output is nobody else's."""


_HOLDING = CLAIMED_STATES | {TargetState.QUEUED}


class Claimed(Struct, frozen=True):
    """One PowerTool in its newest known state, and the targets of its ledger."""

    key: ToolKey
    tool: PowerTool
    entries: tuple[Entry, ...]

    def capture(self, entry: Entry, attempt: int) -> str:
        """The id of one attempt on a target."""
        return attempt_id(self.tool, self.tool.status.run, entry.uid, entry.container, attempt)


class Occupancy:
    """See the module. `compatible_with` answers what a tool's configuration says of other tools."""

    def __init__(self, compatible_with: Callable[[str], tuple[str, ...]]) -> None:
        self._compatible_with = compatible_with
        self._held: dict[ToolKey, Claimed] = {}
        self._by_pod: dict[str, dict[ToolKey, list[Entry]]] = {}

    def put(self, tool: PowerTool, now: datetime) -> bool:
        """Take over the newest state of an object; returns whether somebody else may have got room by it."""
        key = ToolKey(tool.metadata.namespace, tool.metadata.name)
        before = self._open(key)
        self.drop(key)
        status = tool.status
        over = status.finished_at is not None and now - status.finished_at > REMEMBERED
        try:
            entries = () if over else ledger.decode(status.ledger)
        except ValueError:  # its own plan says so; containers that run are seen in their pods
            entries = ()
        if entries:
            self._held[key] = Claimed(key, tool, entries)
        for entry in entries:
            self._by_pod.setdefault(entry.uid, {}).setdefault(key, []).append(entry)
        return bool(before - self._open(key))

    def drop(self, key: ToolKey) -> bool:
        """Forget an object; returns whether it was known."""
        held = self._held.pop(key, None)
        for uid in {entry.uid for entry in held.entries} if held is not None else ():
            sharing = self._by_pod[uid]
            del sharing[key]
            if not sharing:
                del self._by_pod[uid]
        return held is not None

    def of(self, key: ToolKey) -> Claimed | None:
        """One object's targets."""
        return self._held.get(key)

    def with_target(self, uid: str) -> tuple[ToolKey, ...]:
        """The objects that have a pod among their targets and are not done with it."""
        sharing = self._by_pod.get(uid, {})
        return tuple(
            key for key, entries in sharing.items() if any(entry.state not in FINAL_STATES for entry in entries)
        )

    def all(self) -> Iterator[Claimed]:
        """Every PowerTool that has targets."""
        return iter(self._held.values())

    def claimed(self) -> Iterator[tuple[Claimed, Entry]]:
        """Every target whose tool runs now, or is about to."""
        for held in self._held.values():
            for entry in held.entries:
                if entry.state in CLAIMED_STATES:
                    yield held, entry

    def occupants(self, key: ToolKey, pod: Pod, container: str) -> tuple[Occupant, ...]:
        """Who else has a container or queues for it: by the other ledgers, and what runs in the pod unknown to any."""
        sharing = self._by_pod.get(pod.uid, {})
        found = [
            self._occupant(self._held[other], entry)
            for other, entries in sharing.items()
            for entry in entries
            if other != key and entry.container == container and entry.state in _HOLDING
        ]
        running = {one.name for one in pod.tools if one.state != "terminated" and one.target in {container, ""}}
        if running:
            running -= self._known(pod.uid)
        return (*found, *(_stranger(name) for name in sorted(running)))

    def _occupant(self, held: Claimed, entry: Entry) -> Occupant:
        return Occupant(
            namespace=held.key.namespace,
            name=held.key.name,
            uid=held.tool.metadata.uid,
            created=held.tool.metadata.creation_timestamp,
            tool=held.tool.spec.tool.name,
            compatible_with=self._compatible_with(held.tool.spec.tool.name),
            capture=held.capture(entry, entry.attempt),
            waiting=entry.state is TargetState.QUEUED,
        )

    def _known(self, uid: str) -> set[str]:
        """The names of the containers that some ledger accounts for in a pod, ended attempts included."""
        return {
            container_name(self._held[key].capture(entry, attempt))
            for key, entries in self._by_pod.get(uid, {}).items()
            for entry in entries
            for attempt in range(1, entry.attempt + 1)
        }

    def _open(self, key: ToolKey) -> set[tuple[str, str]]:
        held = self._held.get(key)
        if held is None:
            return set()
        return {(one.uid, one.container) for one in held.entries if one.state in _HOLDING}


def _stranger(name: str) -> Occupant:
    return Occupant(
        namespace="",
        name="",
        uid="",
        created=None,
        tool="",
        compatible_with=(),
        capture=name.removeprefix("toe-"),
    )
