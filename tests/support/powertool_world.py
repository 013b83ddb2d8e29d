"""A small world for plans: PowerTools, pods and tools that run in them, and an operator that may be killed anywhere.

Everything is well unless a test says otherwise. Statuses go through JSON, as on their way to an API server; what holds
for every written status and every started tool is checked on the spot (`World.check`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from toe_async.apis.meta import Condition, encode
from toe_async.apis.pods import Container, Pod
from toe_async.apis.powertool import (
    CLAIMED_STATES,
    FINAL_STATES,
    Phase,
    PowerTool,
    PowerToolStatus,
    StoredArtifact,
    TargetState,
    decode_power_tool,
)
from toe_async.apis.powertoolconfig import PowerToolConfig, decode_power_tool_config
from toe_async.apis.reasons import Reason
from toe_async.capture.refusals import Refused
from toe_async.capture.toolrun import Progress, ToolCapture
from toe_async.capture.vessels import container_name
from toe_async.controllers.powertool import ledger
from toe_async.controllers.powertool.batching import demand
from toe_async.controllers.powertool.counting import TERMINAL
from toe_async.controllers.powertool.facts import (
    NamespaceFacts,
    Observed,
    Occupant,
    Plan,
    PodNow,
    Slots,
    TargetFacts,
)
from toe_async.controllers.powertool.members import attempt_id
from toe_async.controllers.powertool.plan import plan

NOW = datetime(2026, 1, 24, 20, 44, 8, tzinfo=UTC)
BORN = NOW - timedelta(minutes=1)
SPEC: dict[str, Any] = {
    "targets": {"labelSelector": {"matchLabels": {"app": "web"}}},
    "tool": {"name": "tcpdump", "duration": "30s"},
    "output": {"mode": "collector"},
}


def uid(number: int) -> str:
    """The UID of pod number so and so."""
    return str(UUID(int=number + 1))


def tool(spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **meta: Any) -> PowerTool:
    """A PowerTool as the API server would send it; keys of `spec` are merged one level deep."""
    merged = {key: {**value} for key, value in SPEC.items()}
    for key, value in (spec or {}).items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    metadata = {
        "name": "traffic",
        "namespace": "shop",
        "uid": "pt-1",
        "generation": 1,
        "resourceVersion": "1",
        "creationTimestamp": BORN.isoformat(),
        **meta,
    }
    return decode_power_tool(msgspec.json.encode({"metadata": metadata, "spec": merged, "status": status or {}}))


def config(name: str = "tcpdump", **spec: Any) -> PowerToolConfig:
    """A tool that is ready."""
    wire = {"name": name, "image": "registry.example/t:1", "securityContext": {}, **spec}
    metadata = {"name": f"{name}-config", "namespace": "toe-system"}
    return decode_power_tool_config(msgspec.json.encode({"metadata": metadata, "spec": wire}))


def pod(number: int = 0, **changes: Any) -> Pod:
    """A running pod with the containers app and side; nodes take turns."""
    made = Pod(
        namespace="shop",
        name=f"web-{number}",
        uid=uid(number),
        resource_version="1",
        phase="Running",
        node=f"node-{number % 2}",
        ip="10.0.0.1",
        labels={"app": "web"},
        annotations={},
        terminating=False,
        host_network=False,
        ready=True,
        owner_kind="",
        owner_name="",
        start_time=BORN,
        containers=tuple(Container(one, one == "side", (), None, None, None, None) for one in ("app", "side")),
        created=BORN,
    )
    return replace(made, **changes)


def observe(pods: Iterable[Pod] = (), tool_: PowerTool | None = None, /, **changes: Any) -> Observed:
    """What is seen of a PowerTool while nothing runs and everything is allowed."""
    one, held = tool_ or tool(), list(pods)
    seen = Observed(
        now=NOW,
        tool=one,
        zone=UTC,
        known=True,
        config=config(),
        config_problem=None,
        switched_off=None,
        policy_problem=None,
        refusal=None,
        sink_problem=None,
        pods_problem=None,
        namespaces=(NamespaceFacts("shop", granted=True, named=True),),
        candidates=tuple(TargetFacts(one) for one in held),
        pods={one.uid: PodNow("running", one) for one in held},
        busy={},
        progress={},
        running=frozenset(),
        slots=Slots(50, 50, {}, {}),
    )
    return replace(seen, **changes)


def after(seen: Observed, decided: Plan, seconds: float = 0.0, **changes: Any) -> Observed:
    """The world once a plan's status is written and what it starts is running."""
    wire = replace(seen.tool, status=decided.status)
    return replace(
        seen,
        now=seen.now + timedelta(seconds=seconds),
        tool=decode_power_tool(encode(wire)),
        running=seen.running | {one.id for one in (*decided.starts, *decided.resumes)},
        progress={key: one for key, one in seen.progress.items() if key not in decided.settled},
        **changes,
    )


def done(capture: ToolCapture, state: TargetState = TargetState.COMPLETED, **changes: Any) -> dict[str, Progress]:
    """An attempt that is over."""
    artifact = StoredArtifact(uri=f"artifacts://shop/{capture.id[:10]}", size=7, sha256="0" * 64)
    stored = (artifact,) if state is TargetState.COMPLETED else ()
    made = Progress(state=state, bytes=7 * len(stored), artifacts=stored, finished_at=NOW, **changes)
    return {capture.id: made}


def failed(capture: ToolCapture, *, passing: bool = False) -> dict[str, Progress]:
    """An attempt that failed with exit code 1."""
    return done(capture, TargetState.FAILED, reason="ToolFailed", message="exit code 1", exit_code=1, passing=passing)


def condition(status: PowerToolStatus, type_: str) -> Condition:
    """The condition of that type."""
    return next(one for one in status.conditions if one.type == type_)


def states(status: PowerToolStatus) -> Counter[TargetState]:
    """How many targets of the ledger are in each state."""
    return Counter(one.state for one in ledger.decode(status.ledger))


class Attempt(Struct):
    """A tool in the cluster: it outlives the operator. `result` is None while it runs."""

    capture: ToolCapture
    result: Progress | None = None
    cancelled: Reason | None = None


class World:
    """See the module. One operator process, which plans one PowerTool at a time; `crash` forgets what it knew."""

    def __init__(
        self, tools: Iterable[PowerTool], pods: Iterable[Pod], *, cluster: int = 50, per_node: int = 50
    ) -> None:
        self.now = NOW
        self.tools = {one.metadata.name: one for one in tools}
        self.pods = {one.uid: one for one in pods}
        self.configs: dict[str, PowerToolConfig] = {}
        self.cluster, self.per_node = cluster, per_node
        self.attempts: dict[str, Attempt] = {}
        self.watched: set[str] = set()
        self.suspended: set[str] = set()
        self.deleted: set[str] = set()
        self.frozen: dict[tuple[str, str], frozenset[tuple[str, str]]] = {}

    # ---- what happens --------------------------------------------------------------------------------------------

    def step(self, name: str, *, cut: int | None = None) -> Plan | None:
        """Plan one PowerTool and carry the plan out, up to a cut: 0 before the write, 1 before the starts."""
        if name not in self.tools:
            return None
        seen = self.observe(name)
        decided = plan(seen)
        assert decided == plan(seen), "the same facts gave another plan"
        if cut == 0:
            return decided
        self.write(name, decided)
        if cut == 1:
            return decided
        for capture in (*decided.resumes, *decided.starts):
            self.begin(capture)
        for one in decided.cancels:
            if one.capture in self.watched and self.attempts[one.capture].result is None:
                self.attempts[one.capture].cancelled = one.reason
        for id_ in decided.settled:
            self.watched.discard(id_)
        if (decided.delete or name in self.deleted) and not decided.finalizer:
            del self.tools[name]
        return decided

    def write(self, name: str, decided: Plan) -> None:
        """What the API server keeps of the plan."""
        old = self.tools[name]
        body = encode(replace(old, status=decided.status))
        new = decode_power_tool(body)
        self.check(old, new)
        held = ("codriverlabs.ai.toe.run/cancel",) if decided.finalizer else ()
        self.tools[name] = replace(new, metadata=replace(new.metadata, finalizers=held))
        self.check_limits()

    def begin(self, capture: ToolCapture) -> None:
        """The runner: the same capture is the same container, whoever asks for it."""
        holder = self.tools[capture.name]
        claims = {
            attempt_id(holder, holder.status.run, one.uid, one.container, one.attempt)
            for one in ledger.decode(holder.status.ledger)
            if one.state in CLAIMED_STATES
        }
        assert capture.id in claims, "a tool was started without its claim"
        self.watched.add(capture.id)
        known = self.attempts.setdefault(capture.id, Attempt(capture))
        assert known.capture == capture, "the same attempt was asked for differently"

    def end(self, id_: str, state: TargetState, *, passing: bool = True) -> None:
        """A tool ends by itself, or as it was told."""
        attempt = self.attempts[id_]
        if attempt.result is not None:
            return
        if attempt.cancelled is not None:
            why = str(attempt.cancelled)
            attempt.result = Progress(state=TargetState.CANCELLED, reason=why, message="it was told to stop")
        elif attempt.capture.target.pod_uid not in self.pods:
            attempt.result = Progress(state=TargetState.FAILED, reason="PodGone", message="the pod is gone")
        else:
            made = (
                done(attempt.capture, state)
                if state is TargetState.COMPLETED
                else failed(attempt.capture, passing=passing)
            )
            attempt.result = made[id_]

    def end_all(self) -> None:
        """Every tool that runs ends well."""
        for id_ in list(self.attempts):
            self.end(id_, TargetState.COMPLETED)

    def crash(self) -> None:
        """The operator is killed: what it had in memory is gone."""
        self.watched.clear()

    def settle(self, rounds: int = 200) -> None:
        """Let tools end and time pass until no plan changes anything any more."""
        for _ in range(rounds):
            self.end_all()
            before = (dict(self.tools), len(self.attempts), set(self.watched))
            for name in list(self.tools):
                self.step(name)
            if before == (self.tools, len(self.attempts), self.watched):
                return
            self.now += timedelta(seconds=30)
        raise AssertionError("it does not settle")

    # ---- what is seen --------------------------------------------------------------------------------------------

    def observe(self, name: str) -> Observed:
        """What the operator sees for one PowerTool."""
        one = self.tools[name]
        entries = ledger.decode(one.status.ledger)
        now_in = {entry.uid: self.pod_now(entry.uid) for entry in entries}
        mine = {id_: attempt for id_, attempt in self.attempts.items() if attempt.capture.name == name}
        spec = replace(one.spec, suspend=name in self.suspended or one.spec.suspend)
        meta = one.metadata
        if name in self.deleted and meta.deletion_timestamp is None:
            meta = replace(meta, deletion_timestamp=self.now)
            self.tools[name] = replace(one, metadata=meta)
        pods = [held for held in self.pods.values() if held.labels == {"app": "web"}]
        return observe(
            pods,
            replace(one, spec=spec, metadata=meta),
            now=self.now,
            config=self.configs.get(one.spec.tool.name) or config(one.spec.tool.name),
            pods=now_in,
            busy=self.occupants(name),
            progress={
                id_: attempt.result or Progress(state=TargetState.RUNNING)
                for id_, attempt in mine.items()
                if id_ in self.watched
            },
            running=frozenset(id_ for id_, held in mine.items() if id_ in self.watched and held.result is None),
            slots=self.slots(name),
        )

    def pod_now(self, uid_: str) -> PodNow:
        """The pod of a frozen target."""
        held = self.pods.get(uid_)
        if held is None:
            return PodNow("gone", None)
        return PodNow("terminating" if held.terminating else "running", held)

    def known(self, one: PowerTool) -> set[str]:
        """The captures that a ledger accounts for."""
        return {
            attempt_id(one, one.status.run, entry.uid, entry.container, attempt)
            for entry in ledger.decode(one.status.ledger)
            for attempt in range(1, entry.attempt + 1)
        }

    def occupants(self, name: str) -> dict[tuple[str, str], tuple[Occupant, ...]]:
        """By the other ledgers, and by what runs in the pods."""
        found: dict[tuple[str, str], tuple[Occupant, ...]] = {}
        accounted: set[str] = set()
        for other in self.tools.values():
            accounted |= self.known(other)
            for entry in ledger.decode(other.status.ledger) if other.metadata.name != name else ():
                if entry.state in CLAIMED_STATES | {TargetState.QUEUED}:
                    at = (entry.uid, entry.container)
                    found[at] = (*found.get(at, ()), self.occupant(other, entry))
        for id_, attempt in self.attempts.items():
            if attempt.result is None and id_ not in accounted:
                at = (attempt.capture.target.pod_uid, attempt.capture.target.container)
                stranger = Occupant("", "", "", None, "", (), container_name(id_).removeprefix("toe-"))
                found[at] = (*found.get(at, ()), stranger)
        return found

    def occupant(self, other: PowerTool, entry: ledger.Entry) -> Occupant:
        """What another PowerTool's ledger says of a container."""
        name = other.spec.tool.name
        held = self.configs.get(name) or config(name)
        return Occupant(
            namespace=other.metadata.namespace,
            name=other.metadata.name,
            uid=other.metadata.uid,
            created=other.metadata.creation_timestamp,
            tool=name,
            compatible_with=held.spec.compatible_with,
            capture=attempt_id(other, other.status.run, entry.uid, entry.container, entry.attempt),
            waiting=entry.state is TargetState.QUEUED,
        )

    def slots(self, name: str) -> Slots:
        """What the administrator's limits leave."""
        used: Counter[str] = Counter()
        ahead: Counter[str] = Counter()
        nodes = {held.uid: held.node for held in self.pods.values()}
        mine = self.tools[name].metadata
        for other in self.tools.values():
            entries = ledger.decode(other.status.ledger)
            used.update(nodes.get(one.uid, "") for one in entries if one.state in CLAIMED_STATES)
            theirs = other.metadata
            if (str(theirs.creation_timestamp), theirs.uid) < (str(mine.creation_timestamp), mine.uid):
                ahead.update(demand(other, entries, nodes, self.now))
        return Slots(self.cluster - used.total(), self.per_node, used, ahead)

    # ---- what always holds ---------------------------------------------------------------------------------------

    def check(self, old: PowerTool, new: PowerTool) -> None:
        """One written status against the one before."""
        was, now = old.status, new.status
        sums = now.pending_pods + now.running_pods + now.completed_pods + now.failed_pods + now.cancelled_pods
        assert now.selected_pods == sums, "the totals do not add up"
        assert min(now.pending_pods, now.running_pods, now.completed_pods, now.failed_pods, now.cancelled_pods) >= 0
        assert len(encode(now)) < 32 << 10, "the status is too large"
        entries = ledger.decode(now.ledger)
        if entries:
            assert len(entries) == now.selected_pods, "the ledger and the totals differ"
            key = (new.metadata.name, now.run)
            chosen = frozenset((one.uid, one.container) for one in entries)
            assert self.frozen.setdefault(key, chosen) == chosen, "the targets of a run changed"
        if was.phase in TERMINAL and was.run == now.run:
            assert now.phase == was.phase, "a terminal phase was left"
            assert now.finished_at == was.finished_at, "finishedAt was written twice"
        before = {(one.uid, one.container): one for one in ledger.decode(was.ledger)} if was.run == now.run else {}
        for one in entries:
            held = before.get((one.uid, one.container))
            assert held is None or held.state not in FINAL_STATES or held == one, "a final state was left"
            assert held is None or held.attempt <= one.attempt <= held.attempt + 1, "an attempt was skipped"
        if now.phase in TERMINAL:
            assert now.finished_at is not None
            assert not now.running_pods, "over, yet something runs"
            assert not now.pending_pods, "over, yet something waits"
        if now.phase is Phase.COMPLETED:
            assert now.completed_pods == now.selected_pods > 0
        running = sum(one.state in CLAIMED_STATES for one in entries)
        assert running <= (new.spec.budgets.max_concurrent_pods or len(entries)), "more at a time than allowed"

    def check_limits(self) -> None:
        """All ledgers together: the administrator's limits, and who shares a container."""
        nodes = {held.uid: held.node for held in self.pods.values()}
        used: Counter[str] = Counter()
        held: dict[tuple[str, str], list[str]] = {}
        for one in self.tools.values():
            for entry in ledger.decode(one.status.ledger):
                if entry.state in CLAIMED_STATES:
                    used[nodes.get(entry.uid, "gone")] += 1
                    held.setdefault((entry.uid, entry.container), []).append(one.spec.tool.name)
        assert used.total() <= self.cluster, "more tools than the cluster allows"
        assert all(count <= self.per_node for node, count in used.items() if node != "gone"), "a node has too many"
        for names in held.values():
            assert len(names) == 1 or self.friends(names), f"{names} share a container"

    def friends(self, names: list[str]) -> bool:
        """Whether all of these tools are declared compatible with all others."""
        declared: Mapping[str, tuple[str, ...]] = {
            name: (self.configs.get(name) or config(name)).spec.compatible_with for name in names
        }
        return all(
            theirs in declared[mine]
            for at, mine in enumerate(names)
            for other, theirs in enumerate(names)
            if at != other
        )


def refused(reason: Reason = Reason.INVALID_SPEC, message: str = "because") -> Refused:
    """A refusal of somebody else's."""
    return Refused(reason, message)
