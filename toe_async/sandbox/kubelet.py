"""The sandbox's only node: binds pods to itself and keeps each one running as local processes.

Pods that name another node are nobody's: they stay as they were written, so thousands of them cost memory only.
"""

import asyncio
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner
from toe_async.sandbox import enclosure, reaper
from toe_async.sandbox.images import Image
from toe_async.sandbox.launching import Machine
from toe_async.sandbox.pod import Pod
from toe_async.sandbox.podstatus import pod_status
from toe_async.sandbox.processes import Process
from toe_async.sandbox.resources import CLAIMS, CONFIG_MAPS, NODES, PODS, SECRETS, Resource
from toe_async.sandbox.status import JsonObject, Refusal
from toe_async.sandbox.store import Change, Item, Key
from toe_async.sandbox.verbs import DeleteOptions, Verbs
from toe_async.telemetry import log

_log = log.get(__name__)
_FINAL = frozenset({"Succeeded", "Failed"})


class Kubelet:
    """Runs pods while its context is open; leaving it ends every process of every pod."""

    def __init__(
        self, verbs: Verbs, node: str, clock: Clock, rng: random.Random, images: tuple[Image, ...] = ()
    ) -> None:
        self._verbs = verbs
        self._node = node
        self._clock = clock
        self._marker = f"{rng.getrandbits(64):016x}"
        self._network = (rng.randrange(2, 255), rng.randrange(256))
        self._addresses = 0
        self._images = images
        self.machine: Machine  # what its containers have in common, once it runs
        self._pods: dict[str, Pod] = {}
        self._stack = AsyncExitStack()
        self._tasks = TaskOwner(self._failed)

    async def __aenter__(self) -> Self:
        self._verbs.create(NODES, "", _node(self._node, self._verbs.now()))
        await self._stack.enter_async_context(self._undertaker())
        await self._stack.enter_async_context(self._tasks)
        self._verbs.store.listeners.append(self._note)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._verbs.store.listeners.remove(self._note)
        await self._stack.aclose()

    @asynccontextmanager
    async def _undertaker(self) -> AsyncIterator[None]:
        root = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="toe-sandbox-"))
        self.machine = Machine(
            root,
            self._marker,
            self._lookup,
            self._process_of,
            self._images,
            await asyncio.to_thread(enclosure.possible),
        )
        argv = (sys.executable, "-I", "-S", reaper.__file__, self._marker, str(root))
        process = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.PIPE, start_new_session=True)
        try:
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()  # its cue
            await process.wait()

    def pod(self, key: Key) -> Pod | None:
        """A pod that runs or has run here."""
        item = self._verbs.store.get(PODS, key)
        return self._pods.get(item.obj["metadata"]["uid"]) if item is not None else None

    def pods(self) -> list[Pod]:
        """All pods that run or have run here and still exist."""
        return list(self._pods.values())

    def first_addresses(self, count: int) -> list[str]:
        """The addresses that the first pods get, in the order in which they start."""
        return [self._address(number) for number in range(1, count + 1)]

    def _address(self, number: int) -> str:
        high, low = divmod(number, 254)
        return f"127.{self._network[0]}.{(self._network[1] + high) % 256}.{low + 1}"

    def _note(self, resource: Resource, change: Change) -> None:
        if resource is not PODS:
            return
        meta, spec = change.item.obj["metadata"], change.item.obj["spec"]
        held = self._pods.get(meta["uid"])
        if change.type == "DELETED":
            if held is not None:
                held.stop(0)
                self._pods.pop(meta["uid"])
        elif held is not None:
            held.update(change.item.obj)
            if "deletionTimestamp" in meta:
                held.stop(meta["deletionGracePeriodSeconds"])
        elif self._is_ours(spec) and change.item.obj["status"].get("phase") not in _FINAL:
            self._pods[meta["uid"]] = pod = self._accept(change.item)
            self._tasks.start(self._run(change.item.key, pod), name=f"pod {change.item.key.name}")

    def _is_ours(self, spec: JsonObject) -> bool:
        """Every pod that no node has comes here, but for one that waits for somebody to open its gates."""
        return bool(spec.get("nodeName", self._node) == self._node and not spec.get("schedulingGates"))

    def _accept(self, item: Item) -> Pod:
        self._addresses += 1
        return Pod(
            item.obj,
            self._address(self._addresses),
            machine=self.machine,
            clock=self._clock,
            report=lambda pod: self._report(item.key, pod),
        )

    def _lookup(self, plural: str, namespace: str, name: str) -> JsonObject | None:
        resource = {one.plural: one for one in (SECRETS, CONFIG_MAPS, CLAIMS)}[plural]
        found = self._verbs.store.get(resource, Key(namespace, name))
        return found.obj if found is not None else None

    def _process_of(self, uid: str) -> int | None:
        held = self._pods.get(uid)
        return held.first_process() if held is not None else None

    def accompany(self, container: Process, command: Process) -> asyncio.Future[int]:
        """See to a command that runs beside a container and ends with it at the latest; the future is its exit code."""
        code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            async with asyncio.TaskGroup() as group:
                ending = group.create_task(_end_with(container, command), name=f"end of {command.pid}")
                result = await command.wait()
                ending.cancel()
            if not code.cancelled():
                code.set_result(result)

        self._tasks.start(wait(), name=f"command {command.pid}")
        return code

    async def _run(self, key: Key, pod: Pod) -> None:
        self._bind(key, pod)
        await pod.run()
        self._report(key, pod)
        held = self._verbs.store.get(PODS, key)
        if held is None or held.obj["metadata"]["uid"] != pod.uid:
            return
        if "deletionTimestamp" in held.obj["metadata"]:
            options = DeleteOptions(grace_period_seconds=0, preconditions={"uid": pod.uid})
            self._verbs.delete(PODS, key, options)

    def _bind(self, key: Key, pod: Pod) -> None:
        if "nodeName" not in pod.obj["spec"]:
            self._write(key, pod, lambda obj: {**obj, "spec": {**obj["spec"], "nodeName": self._node}}, "")
            pod.obj = {**pod.obj, "spec": {**pod.obj["spec"], "nodeName": self._node}}
        self._report(key, pod)

    def _report(self, key: Key, pod: Pod) -> None:
        now = self._verbs.now()

        def change(obj: JsonObject) -> JsonObject:
            status = pod_status(obj, pod.state(), now)
            return {**obj, "status": status}

        self._write(key, pod, change, "status")

    def _write(self, key: Key, pod: Pod, change: Callable[[JsonObject], JsonObject], subresource: str) -> None:
        held = self._verbs.store.get(PODS, key)
        if held is None or held.obj["metadata"]["uid"] != pod.uid:
            return
        try:
            self._verbs.update(PODS, key, change, subresource=subresource)
        except Refusal as refusal:
            _log.warning("pod status was refused", pod=key.name, why=refusal.message)

    def _failed(self, name: str, error: BaseException) -> None:
        _log.error("a pod of the sandbox failed", task=name, error=repr(error))


async def _end_with(container: Process, command: Process) -> None:
    await container.ended.wait()
    command.kill()


def _node(name: str, now: str) -> JsonObject:
    cores, memory = os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    room = {"cpu": str(cores), "memory": f"{memory >> 10}Ki", "pods": "250"}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "the sandbox is posting ready status",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {
            "capacity": room,
            "allocatable": room,
            "conditions": [ready],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
            "nodeInfo": {"kubeletVersion": "v1.36.0+toe-sandbox", "operatingSystem": "linux"},
        },
    }
