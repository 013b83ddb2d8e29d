"""metrics.k8s.io from the processes' real CPU and memory.

A container's CPU is the difference of two readings, so a pod is absent until each of its containers has been read twice
in its present life: absent for the first resolution, and for another one after a restart. Absent is unknown, not zero.
"""

import asyncio
import os
from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from toe_async.lib.clock import Clock, rfc3339
from toe_async.sandbox.kubelet import Kubelet
from toe_async.sandbox.pod import Pod
from toe_async.sandbox.processes import SessionUsage, usage_by_session
from toe_async.sandbox.resources import NODES, PODS, Resource
from toe_async.sandbox.routes import Route
from toe_async.sandbox.status import JsonObject, not_found
from toe_async.sandbox.store import Key, Store


class _Reading(Struct, frozen=True):
    at: float
    usage: SessionUsage


class _Measured(Struct, frozen=True):
    window: float
    timestamp: datetime
    containers: dict[str, tuple[float, int]]


class Metrics:
    """Reads the processes every `resolution_seconds` and answers for metrics.k8s.io."""

    def __init__(self, store: Store, kubelet: Kubelet, clock: Clock, resolution_seconds: float) -> None:
        self._store = store
        self._kubelet = kubelet
        self._clock = clock
        self._resolution = resolution_seconds
        self._readings: dict[int, _Reading] = {}
        self._pods: dict[str, _Measured] = {}

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            await self._measure()
            await asyncio.sleep(self._resolution)

    async def _measure(self) -> None:
        pods = self._kubelet.pods()
        wanted = {process.pid for pod in pods for process in pod.running().values()}
        found = await asyncio.to_thread(usage_by_session, frozenset(wanted))
        at, now = self._clock.monotonic(), self._clock.now()
        readings = {pid: _Reading(at, usage) for pid, usage in found.items()}
        measured = {pod.uid: self._pod(pod, readings, now) for pod in pods}
        self._pods = {uid: one for uid, one in measured.items() if one is not None}
        self._readings = readings

    def _pod(self, pod: Pod, readings: dict[int, _Reading], now: datetime) -> _Measured | None:
        containers, window = {}, 0.0
        for name, process in pod.running().items():
            before, after = self._readings.get(process.pid), readings.get(process.pid)
            if before is None or after is None:
                return None
            window = after.at - before.at
            cpu = max(after.usage.cpu_seconds - before.usage.cpu_seconds, 0.0) / window
            containers[name] = (cpu, after.usage.memory_bytes)
        return _Measured(window, now, containers) if containers and pod.complete() else None

    def answer(self, resource: Resource, asked: Route, selected: Callable[[JsonObject], bool]) -> JsonObject:
        """One object or a list. Raises Refusal 404 for what was not measured."""
        items = self._node_metrics() if resource.plural == "nodes" else self._pod_metrics(asked.namespace)
        if asked.verb == "get":
            for item in items:
                if item["metadata"]["name"] == asked.name:
                    return {"kind": resource.kind, "apiVersion": resource.api_version, **item}
            stored = NODES if resource.plural == "nodes" else PODS
            if self._store.get(stored, Key(asked.namespace, asked.name)) is None:
                raise not_found("", resource.plural, asked.name)
            name = f"{asked.namespace}/{asked.name}" if asked.namespace else asked.name
            raise not_found(resource.group, resource.kind.lower(), name)
        listed = [item for item in items if selected(item)]
        head = {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": {}}
        return {**head, "items": listed}

    def _pod_metrics(self, namespace: str) -> list[JsonObject]:
        items = []
        for item in self._store.collection(PODS).items.values():
            measured = self._pods.get(item.obj["metadata"]["uid"])
            if measured is None or (namespace and item.key.namespace != namespace):
                continue
            containers = [{"name": name, "usage": _usage(*used)} for name, used in sorted(measured.containers.items())]
            items.append({**self._head(item.key, item.obj, measured), "containers": containers})
        return items

    def _node_metrics(self) -> list[JsonObject]:
        if not self._pods:
            return []
        used = [one for measured in self._pods.values() for one in measured.containers.values()]
        total = (min(sum(cpu for cpu, _ in used), float(os.cpu_count() or 1)), sum(memory for _, memory in used))
        newest = max(self._pods.values(), key=lambda one: one.timestamp)
        return [
            {**self._head(item.key, item.obj, newest), "usage": _usage(*total)}
            for item in self._store.collection(NODES).items.values()
        ]

    def _head(self, key: Key, obj: JsonObject, measured: _Measured) -> JsonObject:
        meta: JsonObject = {"name": key.name}
        if key.namespace:
            meta["namespace"] = key.namespace
        meta["creationTimestamp"] = rfc3339(self._clock.now())
        if obj["metadata"].get("labels"):
            meta["labels"] = obj["metadata"]["labels"]
        return {"metadata": meta, "timestamp": rfc3339(measured.timestamp), "window": f"{measured.window:.3f}s"}


def _usage(cpu: float, memory: int) -> JsonObject:
    return {"cpu": f"{round(cpu * 1e9)}n" if cpu else "0", "memory": f"{memory >> 10}Ki"}
