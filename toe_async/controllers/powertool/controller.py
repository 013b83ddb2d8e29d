"""The PowerTool controller: what wakes it, and observe -> plan -> apply for one key.

Woken by: PowerTools themselves, the configurations they name, pods that are their targets or may become so, namespaces
(grants), the policy, the progress of a tool, room that another PowerTool leaves, and time.

Between observing and noting what is about to be claimed nothing else runs, so no two decisions give one place away.
"""

from collections.abc import Callable

from toe_async.apis.core import NamespaceObject
from toe_async.apis.pods import Pod
from toe_async.apis.powertool import FINAL_STATES, PowerTool
from toe_async.apis.powertoolconfig import PowerToolConfig
from toe_async.capture.toolrun import Progress, ToolCapture
from toe_async.controllers.powertool.accounts import Accounts
from toe_async.controllers.powertool.applying import BETWEEN_WRITES, Applier, Runner
from toe_async.controllers.powertool.facts import ToolKey
from toe_async.controllers.powertool.observe import BY_TOOL, Views
from toe_async.controllers.powertool.occupancy import Occupancy
from toe_async.controllers.powertool.plan import plan
from toe_async.controllers.powertool.podbook import PodBook
from toe_async.controllers.powertool.preparing import Preparations, Prepared
from toe_async.controllers.powertool.schedule import may_begin
from toe_async.controllers.powertool.writing import Writer
from toe_async.lib.clock import Clock
from toe_async.runtime.controller import Controller, Result
from toe_async.runtime.informer import Informer
from toe_async.runtime.keys import Key
from toe_async.runtime.workqueue import WorkQueue

_SETTLE = 0.5  # several changes at once (a rollout, a kustomize apply) are looked at once


class PowerToolController:
    """Wires the watches to the queue and applies plans. Handlers are added at construction, before informers run."""

    def __init__(
        self,
        *,
        views: Views,
        tools: Informer[PowerTool],
        configs: Informer[PowerToolConfig],
        pods: Informer[Pod],
        namespaces: Informer[NamespaceObject],
        book: PodBook,
        occupancy: Occupancy,
        preparations: Preparations,
        runner: Runner,
        writer: Writer,
        accounts: Accounts,
        queue: WorkQueue[ToolKey],
        fence: Callable[[], None],
        policy_known: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._views, self._tools, self._configs = views, tools, configs
        self._book, self._occupancy, self._preparations = book, occupancy, preparations
        self._queue, self._policy_known, self._clock = queue, policy_known, clock
        self._applier = Applier(
            runner=runner,
            writer=writer,
            accounts=accounts,
            occupancy=occupancy,
            config_of=views.config,
            fence=fence,
            on_progress=self._progressed,
            on_room=self._room,
            clock=clock,
        )
        self._undecided: dict[ToolKey, None] = {}  # those that have not chosen their targets yet
        self._waiting: dict[ToolKey, None] = {}  # those with targets that have not begun
        tools.add_handler(self._tool_changed)
        configs.add_handler(self._config_changed)
        pods.add_handler(self._pod_changed)
        namespaces.add_handler(self._namespace_changed)

    async def lead(self, workers: Controller[ToolKey], drain_seconds: float) -> None:
        """Work until cancelled. Then our tasks end and the tools go on: whoever leads next takes them up."""
        self.wake_all()
        try:
            await workers.run()
        finally:
            await self._applier.drain(drain_seconds)

    # ---- what wakes it -------------------------------------------------------------------------------------------

    def wake_all(self) -> None:
        """Something that concerns every PowerTool changed."""
        for tool in self._tools.store.list():
            self._queue.add(key_of(tool))

    def _progressed(self, capture: ToolCapture, progress: Progress) -> None:
        key = ToolKey(capture.namespace, capture.name)
        self._queue.add_after(key, 0.0 if progress.state in FINAL_STATES else self._applier.quiet(key, BETWEEN_WRITES))

    def _tool_changed(self, old: PowerTool | None, new: PowerTool | None) -> None:
        tool = new or old
        assert tool is not None
        key = key_of(tool)
        applier = self._applier
        if self._occupancy.drop(key) if new is None else applier.saw(key, applier.newest(key, new) or new):
            self._room(key)
        self._queue.add(key)

    def _config_changed(self, old: PowerToolConfig | None, new: PowerToolConfig | None) -> None:
        if old is not None and new is not None and old.spec == new.spec:
            return
        for name in {one.spec.name for one in (old, new) if one is not None}:
            for tool in self._tools.store.by_index(BY_TOOL, name):
                self._queue.add(key_of(tool))

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        self._book.handle(old, new)
        pod = new or old
        assert pod is not None
        if old is not None and new is not None and _alike(old, new):
            return
        for key in self._occupancy.with_target(pod.uid):
            self._queue.add(key)
        for key in self._undecided:
            tool = self._tools.store.get(Key(*key))
            if tool is not None and self._views.may_match(tool, pod):
                self._queue.add_after(key, _SETTLE)

    def _namespace_changed(self, old: NamespaceObject | None, new: NamespaceObject | None) -> None:
        namespace = new or old
        assert namespace is not None
        if old is not None and new is not None and (old.annotations, old.labels) == (new.annotations, new.labels):
            return
        for tool in self._tools.store.list():
            key = key_of(tool)
            if tool.spec.targets.namespace_selector is not None or key in self._undecided:
                self._queue.add(key)

    def _room(self, left_by: ToolKey) -> None:
        """A place is free: whoever waits for one is looked at again."""
        for key in self._waiting:
            if key != left_by:
                self._queue.add(key)

    # ---- one reconcile -------------------------------------------------------------------------------------------

    async def reconcile(self, key: ToolKey) -> Result:
        """Observe, plan, apply."""
        cached = self._tools.store.get(Key(*key))
        if cached is None:
            self._forget(key)
            return Result()
        if not (self._policy_known() and self._configs.synced.is_set()):
            # A new leader that judged by what it has not read yet would refuse, and cancel, everything.
            return Result(requeue_after=_SETTLE)
        prepared = await self._prepared(cached)
        tool = self._applier.newest(key, self._tools.store.get(Key(*key)))
        if tool is None:
            self._forget(key)
            return Result()
        self._applier.look_at(key, tool)
        progress, running = self._applier.progress(key)
        seen = self._views.observe(key, tool, prepared, progress=progress, running=running)
        decided = plan(seen)
        _note(self._undecided, key, held=not (decided.status.ledger or decided.status.finished_at))
        _note(self._waiting, key, held=decided.status.pending_pods > 0)
        return await self._applier.apply(key, seen, decided)

    def _forget(self, key: ToolKey) -> None:
        self._applier.forget(key)
        self._undecided.pop(key, None)
        self._waiting.pop(key, None)

    async def _prepared(self, tool: PowerTool) -> Prepared:
        zone = await self._preparations.zone(tool.spec.time_zone)
        begins = may_begin(tool, zone, self._clock.now())
        ref = self._views.sink_of(tool.spec) if begins or key_of(tool) in self._waiting else None
        problem = None
        if ref is not None and self._views.sink_allowed(ref, tool.metadata.namespace):
            problem = await self._preparations.sink(ref, tool.metadata.namespace)
        hottest = begins and tool.spec.targets.pick == "Hottest"
        usage = await self._preparations.usage(self._views.namespaces_of(tool)) if hottest else {}
        return Prepared(zone=zone, sink_problem=problem, usage=usage)


def key_of(tool: PowerTool) -> ToolKey:
    """Under which key a PowerTool is queued."""
    return ToolKey(tool.metadata.namespace, tool.metadata.name)


def _note(keys: dict[ToolKey, None], key: ToolKey, *, held: bool) -> None:
    if held:
        keys.setdefault(key)
    else:
        keys.pop(key, None)


def _alike(old: Pod, new: Pod) -> bool:
    """Whether nothing changed that a decision looks at."""
    return (old.phase, old.terminating, old.labels, old.tools) == (new.phase, new.terminating, new.labels, new.tools)
