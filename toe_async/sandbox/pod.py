"""One pod's life on this machine: its containers' processes, their restarts and its end within the grace period.

Ephemeral containers come while it runs, are started once and end with the pod; they do not decide its phase.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress

from msgspec import structs

from toe_async.lib.clock import Clock, rfc3339
from toe_async.sandbox import launching
from toe_async.sandbox.environment import ConfigError
from toe_async.sandbox.images import PullError
from toe_async.sandbox.launching import Launch, Machine
from toe_async.sandbox.podstatus import ContainerState, PodState, backoff_seconds, restarts
from toe_async.sandbox.probes import ready
from toe_async.sandbox.processes import Output, Process
from toe_async.sandbox.status import JsonObject

_FORGIVEN_AFTER = 600.0
"""A container that ran this long starts over with its restart backoff."""
_TRIED_AGAIN_AFTER = 10.0
_PULL_SECONDS = 0.5
_LAST_LINES, _LAST_BYTES = 80, 2048


class Container:
    """One container of a pod: how it is, what it writes, and its process while it runs."""

    def __init__(self, spec: JsonObject) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.state = ContainerState(self.name)
        self.output = Output()
        self.process: Process | None = None
        self.launch: Launch | None = None
        self.starts = 0


class Pod:
    """Runs one pod. `report` is called after each change of a container's state; `run` returns when the pod is over."""

    def __init__(
        self,
        obj: JsonObject,
        address: str,
        *,
        machine: Machine,
        clock: Clock,
        report: Callable[["Pod"], None],
    ) -> None:
        self.obj = obj
        self.address = address
        self.uid: str = obj["metadata"]["uid"]
        self.machine = machine
        self._failure: tuple[str, str] | None = None
        self._clock = clock
        self._report = report
        self._policy: str = obj["spec"]["restartPolicy"]
        self._init = [Container(one) for one in obj["spec"].get("initContainers") or ()]
        self._main = [Container(one) for one in obj["spec"]["containers"]]
        self._ephemeral: list[Container] = []
        self._extras: asyncio.TaskGroup | None = None
        self._stopping = asyncio.Event()
        self._kill = asyncio.Event()

    def state(self) -> PodState:
        """Where it is in its life; ephemeral containers by name, and only those that it lived to see."""
        return PodState(
            [one.state for one in self._main],
            [one.state for one in self._init],
            sorted((one.state for one in self._ephemeral), key=lambda one: one.name),
            self.address,
            self._failure,
        )

    def _all(self) -> Iterator[Container]:
        yield from (*self._main, *self._init, *self._ephemeral)

    def container(self, name: str) -> Container | None:
        """A container; None for a name that the pod does not have, or not yet."""
        return next((one for one in self._all() if one.name == name), None)

    def running(self) -> dict[str, Process]:
        """The processes of the containers that run now, sidecars and ephemeral ones included."""
        return {one.name: one.process for one in self._all() if one.process is not None}

    def first_process(self) -> int | None:
        """The PID of the first ordinary container that runs."""
        return next((one.process.pid for one in self._main if one.process is not None), None)

    def complete(self) -> bool:
        """Whether every container that should run does."""
        sidecars = [one for one in self._init if one.spec.get("restartPolicy") == "Always"]
        return all(one.process is not None for one in (*sidecars, *self._main))

    def update(self, obj: JsonObject) -> None:
        """Take a newer state of the object; ephemeral containers that are new in it are started."""
        self.obj = obj
        if self._extras is None or self._stopping.is_set():
            return
        known = {one.name for one in self._ephemeral}
        for spec in obj["spec"].get("ephemeralContainers") or ():
            if spec["name"] not in known:
                added = Container(spec)
                self._ephemeral.append(added)
                self._extras.create_task(self._live_once(added), name=f"container {added.name}")

    def stop(self, grace_seconds: float) -> None:
        """Ask the pod to end: SIGTERM now, SIGKILL after the grace. Called again it can only shorten the wait."""
        if grace_seconds <= 0:
            self._kill.set()
        else:
            asyncio.get_running_loop().call_later(grace_seconds, self._kill.set)
        self._stopping.set()

    async def run(self) -> None:
        """Run until all containers are over for good, or `stop`. Cancelled, it kills what runs."""
        await asyncio.to_thread((self.machine.root / self.uid).mkdir)
        try:
            async with asyncio.TaskGroup() as extras:
                self._extras = extras
                self.update(self.obj)
                deadline = extras.create_task(self._expire(), name="deadline of the pod")
                try:
                    await self._workload()
                finally:
                    deadline.cancel()
                    self._extras = None
                    self.stop(self.obj["spec"].get("terminationGracePeriodSeconds", 30))
        finally:
            for one in self._all():
                if one.process is not None:
                    one.process.kill()
                one.output.end()

    async def _workload(self) -> None:
        async with asyncio.TaskGroup() as group:
            for one in self._init:
                life = group.create_task(self._live(one), name=f"container {one.name}")
                if one.spec.get("restartPolicy") != "Always":
                    await life
                    if one.state.exit_code:
                        self.stop(0)
                        return
            for one in self._main:
                group.create_task(self._live(one), name=f"container {one.name}")

    async def _expire(self) -> None:
        seconds = self.obj["spec"].get("activeDeadlineSeconds")
        if seconds is not None:
            await asyncio.sleep(seconds)
            self._failure = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            self.stop(self.obj["spec"].get("terminationGracePeriodSeconds", 30))

    def _policy_of(self, one: Container) -> str:
        if one in self._init:
            if one.spec.get("restartPolicy") == "Always":
                return "Always"
            return "Never" if self._policy == "Never" else "OnFailure"
        return self._policy

    async def _live_once(self, one: Container) -> None:
        """An ephemeral container's life: what cannot be started yet is tried again, what was started is not."""
        while not self._stopping.is_set() and await self._once(one) is None and not one.starts:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TRIED_AGAIN_AFTER):
                    await self._stopping.wait()
        one.output.end()

    async def _live(self, one: Container) -> None:
        while not self._stopping.is_set():
            code = await self._once(one)
            if code is None:
                delay = _TRIED_AGAIN_AFTER
            elif not restarts(self._policy_of(one), code):
                return
            else:
                delay = backoff_seconds(one.state.restarts)
            if self._stopping.is_set():
                return
            if delay and code is not None:
                message = (
                    f"back-off {delay:.0f}s restarting failed container={one.name} pod={self.obj['metadata']['name']}"
                )
                self._set(one, phase="waiting", reason="CrashLoopBackOff", message=message, ready=False)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            if code is not None:
                self._set(one, restarts=one.state.restarts + 1)

    async def _once(self, one: Container) -> int | None:
        """Run a container once; None when it could not be started."""
        process = await self._start(one)
        if process is None:
            return one.state.exit_code if one.state.phase == "terminated" else None
        one.process = process
        started = rfc3339(process.started_at)
        identity = f"process://{process.pid}"
        probe = one.spec.get("readinessProbe")
        self._set(
            one,
            phase="running",
            reason="",
            message="",
            started_at=started,
            ready=probe is None and one not in self._ephemeral,
            container_id=identity,
            image_id=_image_id(one.spec.get("image") or ""),
        )
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(self._end(process), name=f"end of {one.name}")]
            if probe is not None:
                helpers.append(group.create_task(self._probe(one, probe), name=f"readiness of {one.name}"))
            try:
                code = await process.wait()
            finally:
                process.kill()
                one.process = None
                for helper in helpers:
                    helper.cancel()
        ran = (self._clock.now() - process.started_at).total_seconds()
        finished = rfc3339(self._clock.now())
        reason = "Completed" if code == 0 else "Error"
        said = await self._last_words(one, code)
        self._set(
            one, phase="terminated", reason=reason, message=said, exit_code=code, finished_at=finished, ready=False
        )
        if one not in self._ephemeral:
            self._set(one, last=one.state.body(), restarts=0 if ran > _FORGIVEN_AFTER else one.state.restarts)
        return code

    async def _start(self, one: Container) -> Process | None:
        """Start a container, or say in its state why it waits."""
        try:
            target = self._target_of(one)
            made = await launching.launch(
                self.machine, self.obj, one.spec, self.address, target=target, attempt=one.starts
            )
        except ConfigError as error:
            self._set(one, phase="waiting", reason="CreateContainerConfigError", message=str(error))
            return None
        except PullError as error:
            await self._back_off(one, error)
            return None
        except OSError as error:
            self._set(one, phase="waiting", reason="CreateContainerError", message=str(error))
            return None
        one.starts += 1
        try:
            process = await Process.start(made.command, one.output, self._clock)
        except OSError as error:
            self._not_started(one, error, made.command.argv[0])
            return None
        one.launch = made
        return process

    def _target_of(self, one: Container) -> int | None:
        target = one.spec.get("targetContainerName")
        if not target:
            return self.first_process() if one in self._ephemeral else None
        process = next((held.process for held in self._all() if held.name == target), None)
        if process is None:
            raise ConfigError(f"unable to find target container {target}")
        return process.pid

    def _not_started(self, one: Container, error: OSError, program: str) -> None:
        """What the runtime says when a program cannot be run."""
        told = (
            "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create "
            f'failed: unable to start container process: error during container init: exec: "{program}": {error}'
        )
        ended = {
            "exitCode": 128,
            "reason": "StartError",
            "message": told,
            "startedAt": "1970-01-01T00:00:00Z",
            "finishedAt": rfc3339(self._clock.now()),
        }
        if one in self._ephemeral:  # which nobody starts again
            self._set(one, phase="waiting", reason="RunContainerError", message=told, last={"terminated": ended})
            return
        self._set(
            one,
            phase="terminated",
            reason="StartError",
            message=told,
            exit_code=128,
            started_at=ended["startedAt"],
            finished_at=ended["finishedAt"],
            ready=False,
        )
        self._set(one, last=one.state.body())

    async def _back_off(self, one: Container, error: PullError) -> None:
        self._set(one, phase="waiting", reason="ErrImagePull", message=str(error))
        await asyncio.sleep(_PULL_SECONDS)
        message = f'Back-off pulling image "{one.spec["image"]}": ErrImagePull: {error}'
        self._set(one, phase="waiting", reason="ImagePullBackOff", message=message)

    async def _last_words(self, one: Container, code: int) -> str:
        path = one.launch.message_file if one.launch is not None else ""
        said = await asyncio.to_thread(launching.message, path) if path else ""
        if not said and code and one.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            said = one.output.text(_LAST_LINES)[-_LAST_BYTES:].decode(errors="replace")
        return said

    async def _end(self, process: Process) -> None:
        await self._stopping.wait()
        process.terminate()
        await self._kill.wait()
        process.kill()

    async def _probe(self, one: Container, probe: JsonObject) -> None:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        while True:
            held = await ready(probe, self.address, one.spec)
            if held is not one.state.ready:
                self._set(one, ready=held)
            await asyncio.sleep(probe.get("periodSeconds", 10))

    def _set(self, one: Container, **changes: object) -> None:
        one.state = structs.replace(one.state, **changes)
        self._report(self)


def _image_id(image: str) -> str:
    """An id for an image that is none: its digest if its name has one, else one made of the name."""
    _, pinned, digest = image.partition("@")
    return digest if pinned else f"sha256:{hashlib.sha256(image.encode()).hexdigest()}"
