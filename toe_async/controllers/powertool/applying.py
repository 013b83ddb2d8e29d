"""Doing what was decided for a PowerTool: what is written, what is begun and stopped, and in which order.

What holds: a tool is started only from a status that was written with its claim; a claimed one is started again by
whoever leads, which changes nothing where it runs already; what is about to be claimed looks taken to everybody from
the moment it is decided.
"""

from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from toe_async.apis.powertool import FINAL_STATES, PowerTool
from toe_async.apis.powertoolconfig import PowerToolConfig
from toe_async.apis.reasons import Reason
from toe_async.capture.toolrun import Progress, ToolCapture
from toe_async.controllers.powertool.accounts import Accounts
from toe_async.controllers.powertool.facts import FINALIZER, Observed, Plan, ToolKey
from toe_async.controllers.powertool.occupancy import Occupancy
from toe_async.controllers.powertool.writing import Writer
from toe_async.kube.errors import Conflict, KubeError, NotFound
from toe_async.lib.clock import Clock
from toe_async.runtime.controller import Result
from toe_async.runtime.statuses import OwnWrites
from toe_async.telemetry import log

_log = log.get("powertool.applying")

AFTER_CONFLICT: Final = 0.2  # seconds until the watch has most likely brought what we conflicted with
BETWEEN_WRITES: Final = 1.0  # for news that no decision waits for
BETWEEN_SENTENCES: Final = 60.0


class Runner(Protocol):
    """Runs claimed attempts apart from any reconcile; `capture.toolrunner.ToolRunner` is one."""

    @property
    def running(self) -> frozenset[str]:
        """Ids of the captures that this process works on."""

    def start(self, capture: ToolCapture, on_progress: Callable[[ToolCapture, Progress], None]) -> None:
        """Begin, or go on with what an earlier leader began; nothing when it runs already."""

    def cancel(self, capture_id: str, reason: Reason, message: str, *, discard: bool) -> None:
        """Have the tool stopped; with `discard` nothing of what it has collected is stored or kept."""

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


class Applier:
    """See the module. `on_progress` hears of every tool's progress, `on_room` of a PowerTool that left a place."""

    def __init__(
        self,
        *,
        runner: Runner,
        writer: Writer,
        accounts: Accounts,
        occupancy: Occupancy,
        config_of: Callable[[str], PowerToolConfig | None],
        fence: Callable[[], None],
        on_progress: Callable[[ToolCapture, Progress], None],
        on_room: Callable[[ToolKey], None],
        clock: Clock,
    ) -> None:
        self._runner, self._writer, self._accounts, self._occupancy = runner, writer, accounts, occupancy
        self._config_of, self._fence, self._clock = config_of, fence, clock
        self._on_progress, self._on_room = on_progress, on_room
        self._own: OwnWrites[ToolKey, PowerTool] = OwnWrites()
        self._tentative: dict[ToolKey, _Tentative] = {}
        self._captures: dict[str, ToolCapture] = {}  # begun by this process, until the outcome is written
        self._written: dict[ToolKey, float] = {}

    async def drain(self, seconds: float) -> None:
        """End our tasks and leave the tools to whoever leads next."""
        await self._runner.drain(seconds)
        self._captures.clear()

    async def apply(self, key: ToolKey, seen: Observed, decided: Plan) -> Result:
        """Do what was decided, as far as it goes; the result says when to look again."""
        tool = seen.tool
        if decided.resumes or decided.cancels:
            self._fence()
        for capture in decided.resumes:
            self._start(capture)
        for cancel in decided.cancels:
            self._runner.cancel(cancel.capture, cancel.reason, cancel.message, discard=cancel.discard)
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
            return Result(requeue_after=AFTER_CONFLICT)
        return Result(requeue_after=decided.recheck_seconds)

    def _put_off(self, key: ToolKey, tool: PowerTool, decided: Plan) -> float | None:
        """Seconds for which the write can wait, because nothing hangs on it and one was made a moment ago."""
        ends = decided.delete or (FINALIZER in tool.metadata.finalizers and not decided.finalizer)
        if decided.status == tool.status or decided.starts or decided.settled or ends:
            return None
        left = self.quiet(key, BETWEEN_WRITES if decided.urgent else BETWEEN_SENTENCES)
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
        self.saw(key, written)
        if freed:
            self._on_room(key)
        return written

    async def _mark(self, key: ToolKey, tool: PowerTool, *, wanted: bool) -> PowerTool:
        self._fence()
        marked = await self._writer.finalizer(tool, wanted=wanted)
        self._own.wrote(key, marked)
        return marked

    async def _use(self, tool: PowerTool) -> None:
        config = self._config_of(tool.spec.tool.name)
        if config is None:
            return
        try:
            await self._writer.used(config)
        except KubeError as error:  # the tool runs all the same
            _log.warning("lastUsed is not written", tool=tool.spec.tool.name, problem=str(error))

    # ---- captures ------------------------------------------------------------------------------------------------

    def _start(self, capture: ToolCapture) -> None:
        self._captures[capture.id] = capture
        self._runner.start(capture, self._on_progress)

    def _release(self, key: ToolKey, uid: str) -> None:
        """Stop the captures of an object that is gone: all of `key` but those of the incarnation that is there."""
        for capture in [one for one in self._captures.values() if _owner(one) == key and one.uid != uid]:
            progress = self._runner.progress(capture.id)
            if progress is not None and progress.state in FINAL_STATES:
                del self._captures[capture.id]
                self._runner.forget(capture.id)
            else:
                discard = capture.spec.output.mode == "ephemeral"
                self._runner.cancel(capture.id, Reason.CANCELLED, f"PowerTool {key} was deleted", discard=discard)

    # ---- what is known of an object ------------------------------------------------------------------------------

    def newest(self, key: ToolKey, cached: PowerTool | None) -> PowerTool | None:
        """The newer one of what the watch has and what we wrote."""
        return self._own.newest(key, cached)

    def look_at(self, key: ToolKey, tool: PowerTool) -> None:
        """A decision on this state follows at once: no other one is on its way any more."""
        self._release(key, tool.metadata.uid)
        self._tentative.pop(key, None)
        self.saw(key, tool)

    def progress(self, key: ToolKey) -> tuple[dict[str, Progress], frozenset[str]]:
        """What the captures of an object have come to, and those that this process works on."""
        mine = {id_ for id_, one in self._captures.items() if _owner(one) == key}
        known = {id_: self._runner.progress(id_) for id_ in mine}
        return {id_: one for id_, one in known.items() if one is not None}, self._runner.running & mine

    def saw(self, key: ToolKey, tool: PowerTool) -> bool:
        """Take over a state that was seen, unless it is being replaced; returns whether it leaves room."""
        being_written = self._tentative.get(key)
        if being_written == _Tentative(tool.metadata.uid, tool.metadata.resource_version):
            return False
        self._tentative.pop(key, None)
        return self._occupancy.put(tool, self._clock.now())

    def quiet(self, key: ToolKey, seconds: float) -> float:
        """For how long nothing should be written that can wait."""
        last = self._written.get(key)
        return 0.0 if last is None else max(0.0, last + seconds - self._clock.monotonic())

    def forget(self, key: ToolKey) -> None:
        """The object is gone: its tools are stopped, and nothing more is known of it."""
        self._release(key, "")
        self._own.forget(key)
        self._written.pop(key, None)
        self._tentative.pop(key, None)


def _owner(capture: ToolCapture) -> ToolKey:
    return ToolKey(capture.namespace, capture.name)
