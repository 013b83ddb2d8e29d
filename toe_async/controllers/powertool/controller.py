"""The PowerTool controller: what wakes it, and observe -> plan -> apply for one key.

Woken by: PowerTools themselves, the configurations they name, pods that are their targets or may become so, namespaces
(grants), the policy, the progress of a tool, room that another PowerTool leaves, and time.

What holds: a tool is started only from a status that was written with its claim; a claimed one is started again by
whoever leads, which changes nothing where it runs already; between observing and noting what is about to be claimed
nothing else runs, so no two decisions give one place away.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from toe_async.apis.core import NamespaceObject
from toe_async.apis.pods import Pod
from toe_async.apis.powertool import FINAL_STATES, PowerTool
from toe_async.apis.powertoolconfig import PowerToolConfig
from toe_async.apis.reasons import Reason
from toe_async.capture.toolrun import Progress, ToolCapture
from toe_async.controllers.powertool.accounts import Accounts
from toe_async.controllers.powertool.facts import FINALIZER, Observed, Plan, ToolKey
from toe_async.controllers.powertool.observe import BY_TOOL, Views
from toe_async.controllers.powertool.occupancy import Occupancy
from toe_async.controllers.powertool.plan import plan
from toe_async.controllers.powertool.podbook import PodBook
from toe_async.controllers.powertool.preparing import Preparations, Prepared
from toe_async.controllers.powertool.schedule import may_begin
from toe_async.controllers.powertool.writing import Writer
from toe_async.kube.errors import Conflict, KubeError, NotFound
from toe_async.lib.clock import Clock
from toe_async.runtime.controller import Controller, Result
from toe_async.runtime.informer import Informer
from toe_async.runtime.keys import Key
from toe_async.runtime.statuses import OwnWrites
from toe_async.runtime.workqueue import WorkQueue
from toe_async.telemetry import log

_log = log.get("powertool")

_AFTER_CONFLICT = 0.2  # seconds until the watch has most likely brought what we conflicted with
_SETTLE = 0.5  # several changes at once (a rollout, a kustomize apply) are looked at once
_BETWEEN_WRITES = 1.0  # for news that no decision waits for
_BETWEEN_SENTENCES = 60.0


class Runner(Protocol):
    """Runs claimed attempts apart from any reconcile; `capture.toolrunner.ToolRunner` is one."""

    @property
    def running(self) -> frozenset[str]:
        """Ids of the captures that this process works on."""

    def start(self, capture: ToolCapture, on_progress: Callable[[ToolCapture, Progress], None]) -> None:
        """Begin, or go on with what an earlier leader began; nothing when it runs already."""

    def cancel(self, capture_id: str, reason: Reason, message: str) -> None:
        """Have the tool stopped."""

    def progress(self, capture_id: str) -> Progress | None:
        """How far it has come; kept until `forget`."""

    def forget(self, capture_id: str) -> None:
        """The outcome is written."""

    async def drain(self, seconds: float) -> None:
        """End all tasks; the tools go on."""


class _Tentative(Struct, frozen=True):
    """A state is being written, or the answer was lost: it counts until a version other than this one is seen."""

    uid: str
    version: str


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
        self._runner, self._writer, self._accounts = runner, writer, accounts
        self._queue, self._fence, self._policy_known, self._clock = queue, fence, policy_known, clock
        self._own: OwnWrites[ToolKey, PowerTool] = OwnWrites()
        self._tentative: dict[ToolKey, _Tentative] = {}
        self._captures: dict[str, ToolCapture] = {}  # begun by this process, until the outcome is written
        self._written: dict[ToolKey, float] = {}
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
            await self._runner.drain(drain_seconds)
            self._captures.clear()

    # ---- what wakes it -------------------------------------------------------------------------------------------

    def wake_all(self) -> None:
        """Something that concerns every PowerTool changed."""
        for tool in self._tools.store.list():
            self._queue.add(key_of(tool))

    def _progressed(self, capture: ToolCapture, progress: Progress) -> None:
        key = ToolKey(capture.namespace, capture.name)
        self._queue.add_after(key, 0.0 if progress.state in FINAL_STATES else self._quiet(key, _BETWEEN_WRITES))

    def _tool_changed(self, old: PowerTool | None, new: PowerTool | None) -> None:
        tool = new or old
        assert tool is not None
        key = key_of(tool)
        freed = self._occupancy.drop(key) if new is None else self._noted(key, self._own.newest(key, new) or new)
        if freed:
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
        tool = self._own.newest(key, self._tools.store.get(Key(*key)))
        if tool is None:
            self._forget(key)
            return Result()
        self._release(key, tool.metadata.uid)
        self._tentative.pop(key, None)
        self._noted(key, tool)
        seen = self._observed(key, tool, prepared)
        return await self._apply(key, seen, plan(seen))

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

    def _observed(self, key: ToolKey, tool: PowerTool, prepared: Prepared) -> Observed:
        known = {id_: self._runner.progress(id_) for id_, one in self._captures.items() if _owner(one) == key}
        return self._views.observe(
            key,
            tool,
            prepared,
            progress={id_: progress for id_, progress in known.items() if progress is not None},
            running=frozenset(known) & self._runner.running,
        )

    async def _apply(self, key: ToolKey, seen: Observed, decided: Plan) -> Result:
        tool = seen.tool
        _note(self._undecided, key, held=not (decided.status.ledger or decided.status.finished_at))
        _note(self._waiting, key, held=decided.status.pending_pods > 0)
        if decided.resumes or decided.cancels:
            self._fence()
        for capture in decided.resumes:
            self._start(capture)
        for cancel in decided.cancels:
            self._runner.cancel(cancel.capture, cancel.reason, cancel.message)
        try:
            if decided.finalizer and FINALIZER not in tool.metadata.finalizers:
                await self._mark(key, tool, wanted=True)
                return Result(requeue_after=0.0)  # that was a write: what is decided now is decided on its result
            if (wait := self._put_off(key, tool, decided)) is not None:
                recheck = decided.recheck_seconds
                return Result(requeue_after=wait if recheck is None else min(wait, recheck))
            await self._write(key, tool, decided)
        except NotFound:
            return Result()
        except Conflict:
            return Result(requeue_after=_AFTER_CONFLICT)
        return Result(requeue_after=decided.recheck_seconds)

    def _put_off(self, key: ToolKey, tool: PowerTool, decided: Plan) -> float | None:
        """Seconds for which the write can wait, because nothing hangs on it and one was made a moment ago."""
        ends = decided.delete or (FINALIZER in tool.metadata.finalizers and not decided.finalizer)
        if decided.status == tool.status or decided.starts or decided.settled or ends:
            return None
        left = self._quiet(key, _BETWEEN_WRITES if decided.urgent else _BETWEEN_SENTENCES)
        return left if left > 0 else None

    async def _write(self, key: ToolKey, tool: PowerTool, decided: Plan) -> None:
        """All that is persisted, in the order in which it may be relied upon."""
        tool = await self._write_status(key, tool, decided)
        for capture in decided.starts:
            self._start(capture)
        for id_ in decided.settled:
            self._captures.pop(id_, None)
            self._runner.forget(id_)
        self._accounts.tell(tool, decided.events)
        if decided.used:
            await self._use(tool)
        if FINALIZER in tool.metadata.finalizers and not decided.finalizer:
            tool = await self._mark(key, tool, wanted=False)
        if decided.delete:
            self._fence()
            await self._writer.delete(tool)

    async def _write_status(self, key: ToolKey, tool: PowerTool, decided: Plan) -> PowerTool:
        if decided.status == tool.status:
            return tool
        self._fence()
        # From here to the answer other reconciles run: what is about to be claimed must look taken to them.
        self._tentative[key] = _Tentative(tool.metadata.uid, tool.metadata.resource_version)
        freed = self._occupancy.put(replace(tool, status=decided.status), self._clock.now())
        self._written[key] = self._clock.monotonic()
        try:
            written = await self._writer.status(tool, decided.status)
        except (Conflict, NotFound):
            self._tentative.pop(key, None)
            raise
        self._tentative.pop(key, None)
        self._own.wrote(key, written)
        self._noted(key, written)
        if freed:
            self._room(key)
        return written

    async def _mark(self, key: ToolKey, tool: PowerTool, *, wanted: bool) -> PowerTool:
        self._fence()
        marked = await self._writer.finalizer(tool, wanted=wanted)
        self._own.wrote(key, marked)
        return marked

    async def _use(self, tool: PowerTool) -> None:
        config = self._views.config(tool.spec.tool.name)
        if config is None:
            return
        try:
            await self._writer.used(config)
        except KubeError as error:  # the tool runs all the same
            _log.warning("lastUsed is not written", tool=tool.spec.tool.name, problem=str(error))

    # ---- captures ------------------------------------------------------------------------------------------------

    def _start(self, capture: ToolCapture) -> None:
        self._captures[capture.id] = capture
        self._runner.start(capture, self._progressed)

    def _release(self, key: ToolKey, uid: str) -> None:
        """Stop the captures of an object that is gone: all of `key` but those of the incarnation that is there."""
        for capture in [one for one in self._captures.values() if _owner(one) == key and one.uid != uid]:
            progress = self._runner.progress(capture.id)
            if progress is not None and progress.state in FINAL_STATES:
                del self._captures[capture.id]
                self._runner.forget(capture.id)
            else:
                self._runner.cancel(capture.id, Reason.CANCELLED, f"PowerTool {key} was deleted")

    # ---- what is known of an object ------------------------------------------------------------------------------

    def _noted(self, key: ToolKey, tool: PowerTool) -> bool:
        """Take over a state that was seen, unless it is being replaced; returns whether it leaves room."""
        being_written = self._tentative.get(key)
        if being_written == _Tentative(tool.metadata.uid, tool.metadata.resource_version):
            return False
        self._tentative.pop(key, None)
        return self._occupancy.put(tool, self._clock.now())

    def _quiet(self, key: ToolKey, seconds: float) -> float:
        """For how long nothing should be written that can wait."""
        last = self._written.get(key)
        return 0.0 if last is None else max(0.0, last + seconds - self._clock.monotonic())

    def _forget(self, key: ToolKey) -> None:
        self._release(key, "")
        self._own.forget(key)
        for held in (self._written, self._undecided, self._waiting, self._tentative):
            held.pop(key, None)


def key_of(tool: PowerTool) -> ToolKey:
    """Under which key a PowerTool is queued."""
    return ToolKey(tool.metadata.namespace, tool.metadata.name)


def _owner(capture: ToolCapture) -> ToolKey:
    return ToolKey(capture.namespace, capture.name)


def _note(keys: dict[ToolKey, None], key: ToolKey, *, held: bool) -> None:
    if held:
        keys.setdefault(key)
    else:
        keys.pop(key, None)


def _alike(old: Pod, new: Pod) -> bool:
    """Whether nothing changed that a decision looks at."""
    return (old.phase, old.terminating, old.labels, old.tools) == (new.phase, new.terminating, new.labels, new.tools)
