"""The tools that this process runs: one task an attempt, started again by whoever leads next.

What is promised: an attempt that is started twice, here or in two processes one after the other, has one container, one
registration and one set of artifacts. `cancel` ends a tool; ending the process does not.
"""

import asyncio
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import msgspec
from structlog.contextvars import bound_contextvars

from toe_async.apis.kinds import PODS, POWER_TOOLS
from toe_async.apis.meta import Decoder, Wire
from toe_async.apis.podspec import PodDetail
from toe_async.apis.powertool import FINAL_STATES, TargetState
from toe_async.apis.reasons import Reason
from toe_async.capture.placing import Placing, Vessel
from toe_async.capture.toolattempt import Attempt, Parts
from toe_async.capture.toolrun import Progress, ToolCapture
from toe_async.capture.vessels import CAPTURE_LABEL, MANAGED_LABELS
from toe_async.kube import requests
from toe_async.kube.errors import KubeError
from toe_async.lib.tasks import TaskOwner, cancel_and_wait
from toe_async.telemetry import log
from toe_async.telemetry.metrics import OperatorMetrics

TIDY_SECONDS: Final = 30.0
AGENT_LEFT: Final = timedelta(seconds=30)
"""How long an agent pod that has ended stays, so that whoever works on its capture can still read it."""
_log = log.get("capture.tools")

OnProgress = Callable[[ToolCapture, Progress], None]


class _Run:
    def __init__(self, attempt: Attempt, progress: Progress) -> None:
        self.attempt, self.progress = attempt, progress
        self.task: asyncio.Task[None]


class ToolRunner:
    """Owns the attempts of this process. `owner` outlives them."""

    def __init__(self, parts: Parts, metrics: OperatorMetrics, owner: TaskOwner) -> None:
        self._parts, self._metrics, self._owner = parts, metrics, owner
        self._runs: dict[str, _Run] = {}
        self._draining = False

    @property
    def running(self) -> frozenset[str]:
        """Ids of the captures that this process works on now."""
        return frozenset(id_ for id_, run in self._runs.items() if not run.task.done())

    def start(self, capture: ToolCapture, on_progress: OnProgress) -> None:
        """Begin a claimed attempt, or go on with it; nothing happens when it runs or has ended here."""
        if capture.id in self._runs or self._draining:
            return

        def tell(progress: Progress) -> None:
            if (run := self._runs.get(capture.id)) is not None:
                run.progress = progress
            on_progress(capture, progress)

        attempt = Attempt(capture, self._parts, tell)
        run = self._runs[capture.id] = _Run(attempt, Progress(state=TargetState.STARTING))
        run.task = self._owner.start(self._run(capture, attempt, tell), name=f"tool {capture.id}")

    def cancel(self, capture_id: str, reason: Reason, message: str, *, discard: bool = False) -> None:
        """Tell a tool to end. Its attempt ends as Cancelled with this reason, unless its outcome is there already.

        What it has collected is stored or kept all the same, unless `discard` says that nobody will ask for it.
        """
        if (run := self._runs.get(capture_id)) is not None:
            run.attempt.cancel(reason, message, discard=discard)

    def progress(self, capture_id: str) -> Progress | None:
        """How far an attempt has come; kept until `forget`."""
        run = self._runs.get(capture_id)
        return run.progress if run is not None else None

    def forget(self, capture_id: str) -> None:
        """The outcome of an attempt is written down; one that runs is not forgotten."""
        run = self._runs.get(capture_id)
        if run is None or not run.task.done():
            return
        del self._runs[capture_id]
        if not self._draining:
            self._owner.start(run.attempt.release(), name=f"release {capture_id}")

    async def drain(self, seconds: float) -> None:
        """End the tasks and leave the tools to the next leader; those that settle have `seconds` to do so.

        Nothing is known of them afterwards, and `start` begins anew.
        """
        self._draining = True
        settling = [run.task for run in self._runs.values() if run.progress.state is TargetState.STORING]
        others = [run.task for run in self._runs.values() if run.task not in settling]
        await cancel_and_wait(*others)
        if settling:
            await asyncio.wait(settling, timeout=seconds)
        await cancel_and_wait(*settling)
        self._runs.clear()
        self._draining = False

    async def keep_tidy(self) -> None:
        """Remove agent pods that have ended, every half minute, until cancelled."""
        while True:
            try:
                await self.tidy()
            except (KubeError, msgspec.MsgspecError) as error:
                _log.warning("agent pods that ended could not be removed", why=str(error)[:300])
            await asyncio.sleep(TIDY_SECONDS)

    async def tidy(self) -> None:
        """Remove agent pods that ended some time ago and that nobody here works on. Raises KubeError."""
        placing = Placing(self._parts.kube)
        namespace = self._parts.settings.agents_namespace
        selector = ",".join(f"{key}={value}" for key, value in MANAGED_LABELS.items())
        listed = await self._parts.kube.send(requests.list_(PODS, namespace, label_selector=selector))
        for pod in _decode_pods(listed).items:
            if pod.metadata.labels.get(CAPTURE_LABEL, "") not in self.running and self._is_over(pod):
                name = pod.metadata.name
                vessel = Vessel(namespace=namespace, pod=name, container=name, agent=True)
                await placing.delete(vessel, pod.metadata.uid)

    def _is_over(self, pod: PodDetail) -> bool:
        if pod.status.phase not in {"Succeeded", "Failed"} or pod.metadata.deletion_timestamp is not None:
            return False
        ends = [one.state.terminated.finished_at for one in pod.status.container_statuses if one.state.terminated]
        last = max((one for one in ends if one is not None), default=pod.metadata.creation_timestamp)
        return last is None or self._parts.clock.now() - last >= AGENT_LEFT

    async def _run(self, capture: ToolCapture, attempt: Attempt, tell: Callable[[Progress], None]) -> None:
        clock, target = self._parts.clock, capture.target
        began = clock.monotonic()
        with bound_contextvars(namespace=capture.namespace, name=capture.name, captureID=capture.id):
            try:
                progress = await attempt.run()
            except Exception as error:  # noqa: BLE001 -- a fault of ours must end this attempt alone, and be told
                frames = traceback.extract_tb(error.__traceback__)[-4:]
                where = " > ".join(f"{frame.name}:{frame.lineno}" for frame in frames)
                _log.error("an attempt met an error that it does not know", error=type(error).__name__, where=where)
                why = f"internal error {type(error).__name__}; see the operator's log"
                progress = Progress(state=TargetState.FAILED, reason=Reason.TOOL_FAILED, message=why, passing=True)
            assert progress.state in FINAL_STATES
            if attempt.found:
                self._metrics.duplicate_captures_prevented.inc()
            result = progress.state.value.lower()
            self._metrics.captures.labels(POWER_TOOLS.kind, capture.tool.name, result, progress.reason).inc()
            self._metrics.capture_duration.labels(POWER_TOOLS.kind).observe(clock.monotonic() - began)
            _log.info(
                "a tool's attempt ended", pod=target.pod, tool=capture.tool.name, result=result, reason=progress.reason
            )
            tell(progress)


class _Pods(Wire, frozen=True):
    items: tuple[PodDetail, ...] = ()


_decode_pods = Decoder(_Pods)
