"""A PowerTool controller over the sandbox's API server, with a runner whose tools are entries in a table.

Everything is in virtual time. `Rig.process()` is one life of the operator: leaving it is a kill. The world of the tools
stays, as containers do.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from directapi import DirectApi
from loopclock import LoopClock
from prometheus_client import CollectorRegistry

from toe_async.apis.captures import SinkRef
from toe_async.apis.kinds import POWER_TOOL_CONFIGS, POWER_TOOLS
from toe_async.apis.meta import ObjectRef
from toe_async.apis.powertool import (
    CLAIMED_STATES,
    FINAL_STATES,
    PowerTool,
    StoredArtifact,
    TargetState,
    decode_power_tool,
)
from toe_async.apis.reasons import Reason
from toe_async.capture.toolconfig import ToolPolicy
from toe_async.capture.toolrun import Progress, ToolCapture
from toe_async.cli.watches import watches
from toe_async.controllers.powertool import ledger
from toe_async.controllers.powertool.accounts import Accounts
from toe_async.controllers.powertool.controller import PowerToolController
from toe_async.controllers.powertool.facts import ToolKey
from toe_async.controllers.powertool.observe import Limits, Views
from toe_async.controllers.powertool.occupancy import Occupancy
from toe_async.controllers.powertool.podbook import PodBook
from toe_async.controllers.powertool.preparing import Preparations
from toe_async.controllers.powertool.writing import Writer
from toe_async.lib.tasks import TaskOwner
from toe_async.runtime.controller import Controller
from toe_async.runtime.errors import NotLeadingError
from toe_async.runtime.workqueue import WorkQueue
from toe_async.sinks.allow import AllowList, SinksPolicy
from toe_async.telemetry.metrics import OperatorMetrics

HOME = "toe-system"
COLLECTOR = "https://toe-collector.toe-system.svc:8443"
Events = list[str]


class RunningTool:
    """A container: it ends by itself at `ends`, in seconds of the loop, whoever looks."""

    def __init__(self, capture: ToolCapture, began: float, seconds: float, outcome: Progress) -> None:
        self.capture, self.began, self.ends, self.outcome = capture, began, began + seconds, outcome
        self.stopped = asyncio.Event()

    async def wait(self) -> Progress:
        try:
            async with asyncio.timeout(max(0.0, self.ends - asyncio.get_running_loop().time())):
                await self.stopped.wait()
        except TimeoutError:
            pass
        return self.outcome


class World:
    """All containers that were ever made, by capture id.

    `seconds` is how long a tool runs, `tells_every` after how many it tells of its bytes (0 is never), `pull_seconds`
    how long its image takes.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        self.seconds = seconds
        self.tells_every = 0.0
        self.pull_seconds: Callable[[ToolCapture], float] = lambda capture: 0.1
        self.tools: dict[str, RunningTool] = {}
        self.outcome_of: Callable[[ToolCapture], Progress] = completed
        self.taken_up: Counter[str] = Counter()

    def container(self, capture: ToolCapture) -> RunningTool:
        """The capture's container, made when it is not there: asking twice makes one."""
        self.taken_up[capture.id] += 1
        if capture.id not in self.tools:
            now = asyncio.get_running_loop().time()
            self.tools[capture.id] = RunningTool(capture, now, self.seconds, self.outcome_of(capture))
        return self.tools[capture.id]

    def most_at_once(self) -> int:
        """The largest number of tools that ran at one moment."""
        moments = [(tool.began, 1) for tool in self.tools.values()] + [(tool.ends, -1) for tool in self.tools.values()]
        most = running = 0
        for _, change in sorted(moments):
            running += change
            most = max(most, running)
        return most

    def attempts(self) -> Counter[tuple[str, int]]:
        """How many containers there are for each target's attempt."""
        return Counter((tool.capture.target.pod, tool.capture.attempt) for tool in self.tools.values())


def completed(capture: ToolCapture) -> Progress:
    stored = StoredArtifact(uri=f"artifacts://shop/{capture.id[:10]}-out", size=100, sha256="0" * 64)
    return Progress(state=TargetState.COMPLETED, exit_code=0, bytes=100, artifacts=(stored,))


def failed(*, passing: bool = False) -> Callable[[ToolCapture], Progress]:
    def outcome(capture: ToolCapture) -> Progress:
        return Progress(
            state=TargetState.FAILED, reason="ToolFailed", message="exit code 1", exit_code=1, passing=passing
        )

    return outcome


class FakeRunner:
    """One process's tasks over the world."""

    def __init__(self, world: World, owner: TaskOwner, is_claimed: Callable[[ToolCapture], bool]) -> None:
        self._world, self._owner, self._is_claimed = world, owner, is_claimed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, Progress] = {}
        self.cancelled: dict[str, Reason] = {}
        self.discarded: set[str] = set()

    @property
    def running(self) -> frozenset[str]:
        return frozenset(self._tasks)

    def start(self, capture: ToolCapture, on_progress: Callable[[ToolCapture, Progress], None]) -> None:
        if capture.id in self._tasks:
            return
        assert self._is_claimed(capture), f"{capture.target.pod} was started without a claim that is written"
        task = self._owner.start(self._run(capture, on_progress), name=f"tool {capture.id[:10]}")
        self._tasks[capture.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(capture.id, None))

    def cancel(self, capture_id: str, reason: Reason, message: str, *, discard: bool) -> None:
        if discard:
            self.discarded.add(capture_id)
        if capture_id in self._tasks and capture_id not in self.cancelled:
            self.cancelled[capture_id] = reason
            tool = self._world.tools[capture_id]
            tool.outcome = Progress(state=TargetState.CANCELLED, reason=str(reason), message=message)
            tool.ends = asyncio.get_running_loop().time()
            tool.stopped.set()

    def progress(self, capture_id: str) -> Progress | None:
        return self._progress.get(capture_id)

    def forget(self, capture_id: str) -> None:
        self._progress.pop(capture_id, None)

    async def drain(self, seconds: float) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, capture: ToolCapture, tell: Callable[[ToolCapture, Progress], None]) -> None:
        def told(progress: Progress) -> None:
            self._progress[capture.id] = progress
            tell(capture, progress)

        tool = self._world.container(capture)
        await asyncio.sleep(self._world.pull_seconds(capture))
        told(Progress(state=TargetState.RUNNING))
        async with TaskOwner(lambda name, error: None) as owner:
            owner.start(self._chatter(told), name="chatter")
            outcome = await tool.wait()
        told(Progress(state=TargetState.STORING))
        await asyncio.sleep(0.01)
        self._tasks.pop(capture.id, None)
        told(outcome)

    async def _chatter(self, told: Callable[[Progress], None]) -> None:
        size = 0
        while self._world.tells_every:
            await asyncio.sleep(self._world.tells_every)
            size += 1000
            told(Progress(state=TargetState.RUNNING, bytes=size))


class Process:
    """One life of the operator."""

    def __init__(self, rig: "Rig", owner: TaskOwner) -> None:
        clock, metrics = LoopClock(), OperatorMetrics(CollectorRegistry())
        self.registry = metrics.registry
        self.watched = watches(rig.api, clock, metrics, HOME)
        self.queue: WorkQueue[ToolKey] = WorkQueue("powertool", clock=clock, metrics=metrics)
        self.runner = FakeRunner(rig.world, owner, rig.is_claimed)
        book = PodBook()
        occupancy = Occupancy(lambda name: self.views.compatible_with(name))
        self.views = Views(
            configs=self.watched.tool_configs,
            pods=self.watched.pods,
            namespaces=self.watched.namespaces,
            book=book,
            occupancy=occupancy,
            allow=AllowList(SinksPolicy(), COLLECTOR),
            clock=clock,
            policy=rig.policy,
            limits=rig.limits,
            policy_problem=lambda: rig.policy_problem,
        )
        self.controller = PowerToolController(
            views=self.views,
            tools=self.watched.tools,
            configs=self.watched.tool_configs,
            pods=self.watched.pods,
            namespaces=self.watched.namespaces,
            book=book,
            occupancy=occupancy,
            preparations=Preparations(rig.api, rig.probe, clock),
            runner=self.runner,
            writer=Writer(rig.api, clock),
            accounts=Accounts(rig, metrics),
            queue=self.queue,
            fence=rig.fence,
            policy_known=lambda: True,
            clock=clock,
        )
        self._workers = Controller("powertool", self.queue, self.controller.reconcile, clock=clock, metrics=metrics)

    async def run(self, owner: TaskOwner) -> None:
        informers = (self.watched.pods, self.watched.namespaces, self.watched.tools, self.watched.tool_configs)
        for informer in informers:
            owner.start(informer.run(), name=informer.resource)
        for informer in informers:
            await informer.synced.wait()
        self.leading = owner.start(self.lead(), name="controller")

    async def lead(self) -> None:
        await self.controller.lead(self._workers, 1.0)

    def look_again(self, name: str) -> None:
        self.queue.add(ToolKey("shop", name))


class Rig:
    """The cluster, the tools' world and what was told."""

    def __init__(self, *, seconds: float = 5.0, limits: Limits | None = None) -> None:
        self.api = DirectApi(LoopClock())
        self.api.install(HOME, "shop", "other")
        self.world = World(seconds)
        self.limits = limits or Limits(cluster=50, per_node=50)
        self.policy = ToolPolicy()
        self.policy_problem: str | None = None
        self.sink_answer: str | None = None
        self.leading = True
        self.events: Events = []
        self.errors: list[str] = []

    def event(self, ref: ObjectRef, type_: str, reason: str, message: str, action: str = "") -> None:
        self.events.append(f"{ref.kind} {type_} {reason}")

    async def probe(self, ref: SinkRef, namespace: str) -> str | None:
        return self.sink_answer

    def fence(self) -> None:
        if not self.leading:
            raise NotLeadingError("somebody else leads")

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Process]:
        """Run the operator; leaving the block kills it."""
        async with TaskOwner(lambda name, error: self.errors.append(f"{name}: {error!r}")) as owner:
            process = Process(self, owner)
            await process.run(owner)
            yield process
        assert self.errors == []
        panics = process.registry.get_sample_value(
            "controller_runtime_reconcile_panics_total", {"controller": "powertool"}
        )
        assert panics == 0, "a reconcile raised what nobody expected; the log has it"

    # ---- objects -------------------------------------------------------------------------------------------------

    def pod(self, name: str, *, namespace: str = "shop", node: str = "node-1", app: str = "web") -> str:
        """A running pod; returns its UID."""
        made = self.api.create(
            "pods",
            namespace,
            {
                "metadata": {"name": name, "labels": {"app": app}},
                "spec": {"nodeName": node, "containers": [{"name": "app", "image": "none"}]},
            },
        )
        self.api.change("pods", namespace, name, {"status": {"phase": "Running"}}, subresource="status")
        uid: str = made["metadata"]["uid"]
        return uid

    def tool_config(self, name: str = "dump", **spec: Any) -> None:
        self.api.create(
            "powertoolconfigs",
            HOME,
            {
                "apiVersion": POWER_TOOL_CONFIGS.api_version,
                "kind": "PowerToolConfig",
                "metadata": {"name": name},
                "spec": {"name": name, "image": "registry.example/dump:1", "securityContext": {}, **spec},
            },
        )

    def tool(self, name: str = "run", **spec: Any) -> None:
        """A PowerTool over the pods with app=web, output to the collector."""
        body: dict[str, Any] = {
            "targets": {"labelSelector": {"matchLabels": {"app": "web"}}},
            "tool": {"name": "dump", "duration": "5s"},
            "output": {"mode": "collector", "collector": {"endpoint": COLLECTOR}},
        }
        self.api.create(
            "powertools",
            "shop",
            {
                "apiVersion": POWER_TOOLS.api_version,
                "kind": "PowerTool",
                "metadata": {"name": name},
                "spec": {**body, **spec},
            },
        )

    def read(self, name: str = "run") -> PowerTool:
        held = self.api.get("powertools", "shop", name)
        assert held is not None, f"PowerTool {name} is gone"
        return decode_power_tool(msgspec.json.encode(held))

    def is_claimed(self, capture: ToolCapture) -> bool:
        """Whether the API server holds the claim of just this attempt: one that has ended has none."""
        entries = ledger.decode(self.read(capture.name).status.ledger)
        return any(
            (one.uid, one.container, one.attempt) == (capture.target.pod_uid, capture.target.container, capture.attempt)
            and one.state in CLAIMED_STATES
            for one in entries
        )

    def versions(self, name: str = "run") -> list[PowerTool]:
        """Every version of a PowerTool that was ever written."""
        return [
            decode_power_tool(msgspec.json.encode(change.item.obj))
            for change in self.api.changes
            if change.item.obj.get("kind") == "PowerTool" and change.item.key.name == name
        ]

    def check_every_version(self, name: str = "run") -> None:
        """Totals add up, nothing final is ever left, and claims never exceed what was asked: at each write."""
        ended: dict[tuple[str, str], TargetState] = {}
        for one in self.versions(name):
            status = one.status
            entries = ledger.decode(status.ledger)
            assert status.selected_pods == len(entries) or not entries, status
            total = (
                status.pending_pods
                + status.running_pods
                + status.completed_pods
                + status.failed_pods
                + status.cancelled_pods
            )
            assert total == status.selected_pods, status
            claimed = sum(entry.state in CLAIMED_STATES for entry in entries)
            assert claimed == status.running_pods, status
            assert claimed <= (one.spec.budgets.max_concurrent_pods or len(entries)), status
            for entry in entries:
                at = (entry.uid, entry.container)
                if at in ended and not one.spec.schedule:
                    assert entry.state is ended[at], f"{at} left {ended[at]}"
                if entry.state in FINAL_STATES:
                    ended[at] = entry.state


async def until(condition: Callable[[], bool], seconds: float = 600.0) -> None:
    """Let virtual time pass until something holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)
