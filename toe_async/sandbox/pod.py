"""One pod's life on this machine: its containers' processes, their restarts and its end within the grace period."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from toe_async.lib.clock import Clock, rfc3339
from toe_async.sandbox.environment import ConfigError, Lookup, command, environment
from toe_async.sandbox.podstatus import ContainerState, backoff_seconds, restarts
from toe_async.sandbox.probes import ready
from toe_async.sandbox.processes import Command, Output, Process
from toe_async.sandbox.status import JsonObject

_FORGIVEN_AFTER = 600.0
"""A container that ran this long starts over with its restart backoff."""


class _Container:
    def __init__(self, spec: JsonObject) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.state = ContainerState(self.name)
        self.output = Output()
        self.process: Process | None = None


class Pod:
    """Runs one pod. `report` is called after each change of a container's state; `run` returns when the pod is over."""

    def __init__(
        self,
        obj: JsonObject,
        address: str,
        *,
        root: Path,
        marker: str,
        clock: Clock,
        lookup: Lookup,
        report: Callable[["Pod"], None],
    ) -> None:
        self.obj = obj
        self.address = address
        self.uid: str = obj["metadata"]["uid"]
        self._root = root
        self._marker = marker
        self._clock = clock
        self._lookup = lookup
        self._report = report
        self._policy: str = obj["spec"]["restartPolicy"]
        self._init = [_Container(one) for one in obj["spec"].get("initContainers") or ()]
        self._main = [_Container(one) for one in obj["spec"]["containers"]]
        self._stopping = asyncio.Event()
        self._kill = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def init_states(self) -> list[ContainerState]:
        """The states of the init containers, sidecars among them."""
        return [one.state for one in self._init]

    @property
    def states(self) -> list[ContainerState]:
        """The states of the ordinary containers."""
        return [one.state for one in self._main]

    def output(self, name: str) -> Output | None:
        """What a container writes; None for a name that the pod does not have."""
        return next((one.output for one in (*self._main, *self._init) if one.name == name), None)

    def running(self) -> dict[str, Process]:
        """The processes of the containers that run now, sidecars included."""
        return {one.name: one.process for one in (*self._init, *self._main) if one.process is not None}

    def complete(self) -> bool:
        """Whether every container that should run does."""
        sidecars = [one for one in self._init if one.spec.get("restartPolicy") == "Always"]
        return all(one.process is not None for one in (*sidecars, *self._main))

    def stop(self, grace_seconds: float) -> None:
        """Ask the pod to end: SIGTERM now, SIGKILL after the grace. Called again it can only shorten the wait."""
        if grace_seconds <= 0:
            self._kill.set()
        else:
            asyncio.get_running_loop().call_later(grace_seconds, self._kill.set)
        self._stopping.set()

    async def run(self) -> None:
        """Run until all containers are over for good, or `stop`. Cancelled, it kills what runs."""
        directory = self._root / self.uid
        await asyncio.to_thread(directory.mkdir)
        try:
            async with asyncio.TaskGroup() as group:
                for one in self._init:
                    life = group.create_task(self._live(one, directory), name=f"container {one.name}")
                    if one.spec.get("restartPolicy") != "Always":
                        await life
                        if one.state.exit_code:
                            self.stop(0)
                            return
                for one in self._main:
                    group.create_task(self._live(one, directory), name=f"container {one.name}")
        finally:
            for one in (*self._init, *self._main):
                if one.process is not None:
                    one.process.kill()
                one.output.end()

    def _policy_of(self, one: _Container) -> str:
        if one in self._init:
            if one.spec.get("restartPolicy") == "Always":
                return "Always"
            return "Never" if self._policy == "Never" else "OnFailure"
        return self._policy

    async def _live(self, one: _Container, directory: Path) -> None:
        while not self._stopping.is_set():
            code = await self._once(one, directory)
            if code is None:
                delay = 10.0
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

    async def _once(self, one: _Container, directory: Path) -> int | None:
        """Run a container once; None when it could not be started."""
        try:
            env = environment(self.obj, one.spec, self.address, self._marker, self._lookup)
            wanted = Command(command(one.spec, env), env, Path(one.spec.get("workingDir") or directory))
            process = await Process.start(wanted, one.output, self._clock)
        except ConfigError as error:
            self._set(one, phase="waiting", reason="CreateContainerConfigError", message=str(error))
            return None
        except OSError as error:
            self._set(one, phase="waiting", reason="CreateContainerError", message=str(error))
            return None
        one.process = process
        started = rfc3339(process.started_at)
        identity = f"process://{process.pid}"
        probe = one.spec.get("readinessProbe")
        self._set(
            one, phase="running", reason="", message="", started_at=started, ready=probe is None, container_id=identity
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
        self._set(one, phase="terminated", reason=reason, exit_code=code, finished_at=finished, ready=False)
        self._set(one, last=one.state.body(), restarts=0 if ran > _FORGIVEN_AFTER else one.state.restarts)
        return code

    async def _end(self, process: Process) -> None:
        await self._stopping.wait()
        process.terminate()
        await self._kill.wait()
        process.kill()

    async def _probe(self, one: _Container, probe: JsonObject) -> None:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        while True:
            held = await ready(probe, self.address, one.spec)
            if held is not one.state.ready:
                self._set(one, ready=held)
            await asyncio.sleep(probe.get("periodSeconds", 10))

    def _set(self, one: _Container, **changes: object) -> None:
        one.state = structs.replace(one.state, **changes)
        self._report(self)
