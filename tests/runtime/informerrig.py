"""An API server that answers by a script, and an informer that is told everything by it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
from prometheus_client import CollectorRegistry

from toe_async.apis.kinds import PODS, Kind
from toe_async.kube.errors import KubeError, error_type
from toe_async.kube.requests import Request
from toe_async.lib.clock import SystemClock
from toe_async.runtime.informer import Informer
from toe_async.runtime.keys import Key
from toe_async.telemetry.metrics import OperatorMetrics

Script = Sequence[object]  # of bytes (a chunk), float (seconds to wait) and KubeError (at the begin: a refusal)
HANG = 1e7


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""


class _Spec(msgspec.Struct, frozen=True):
    value: int = 0


class Thing(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _Spec = _Spec()

    @property
    def short(self) -> tuple[str, int]:
        return self.metadata.name, self.spec.value


def raw(name: str, version: int, value: object = 0, *, uid: str = "u", kind: str = "Pod") -> bytes:
    meta = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version)}
    return msgspec.json.encode({"kind": kind, "apiVersion": "v1", "metadata": meta, "spec": {"value": value}})


def line(type_: str, obj: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (type_.encode(), obj)


def added(name: str, version: int, value: object = 0, *, uid: str = "u", kind: str = "Pod") -> bytes:
    return line("ADDED", raw(name, version, value, uid=uid, kind=kind))


def modified(name: str, version: int, value: object = 0) -> bytes:
    return line("MODIFIED", raw(name, version, value))


def deleted(name: str, version: int, value: object = 0) -> bytes:
    return line("DELETED", raw(name, version, value))


def bookmark(version: int, *, ends: bool = False) -> bytes:
    notes = b'"annotations":{"k8s.io/initial-events-end":"true"},' if ends else b""
    return line("BOOKMARK", b'{"kind":"Pod","metadata":{%b"resourceVersion":"%d"}}' % (notes, version))


def error_event(code: int, reason: str = "", retry_after: int | None = None) -> bytes:
    details = {"retryAfterSeconds": retry_after} if retry_after is not None else {}
    status = {"kind": "Status", "code": code, "reason": reason, "message": "m", "details": details}
    return line("ERROR", msgspec.json.encode(status))


def listed(version: int, *items: bytes, token: str = "") -> bytes:
    plain = [msgspec.json.decode(item) for item in items]
    for item in plain:
        del item["kind"], item["apiVersion"]
    meta = {"resourceVersion": str(version)} | ({"continue": token} if token else {})
    return msgspec.json.encode({"kind": "PodList", "apiVersion": "v1", "metadata": meta, "items": plain})


def refusal(status: int, reason: str = "", retry_after: float | None = None) -> KubeError:
    return error_type(status, reason)(status, reason, "m", retry_after)


class Asked(NamedTuple):
    at: float
    query: dict[str, str]

    @property
    def verb(self) -> str:
        if "watch" not in self.query:
            return "list"
        return "watchlist" if "sendInitialEvents" in self.query else "watch"


class Server:
    """Answers by a script; after its end, with watches that only send bookmarks."""

    def __init__(self, *script: Script) -> None:
        self.script: list[Script] = list(script)
        self.asked: list[Asked] = []
        self.open = 0

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[bytes]]:
        self.asked.append(Asked(asyncio.get_running_loop().time(), dict(request.query)))
        quiet: Script = [bookmark(0), *[60.0, bookmark(0)] * 4, 60.0]
        steps = self.script.pop(0) if self.script else quiet
        if steps and isinstance(steps[0], KubeError):
            raise steps[0]
        self.open += 1
        chunks = _play(steps)
        try:
            yield chunks
        finally:
            self.open -= 1
            await chunks.aclose()  # type: ignore[attr-defined]

    @property
    def verbs(self) -> list[str]:
        return [asked.verb for asked in self.asked]

    @property
    def gaps(self) -> list[float]:
        return [round(after.at - before.at, 3) for before, after in zip(self.asked, self.asked[1:], strict=False)]


async def _play(steps: Script) -> AsyncIterator[bytes]:
    for step in steps:
        if isinstance(step, KubeError):
            raise step
        if isinstance(step, bytes):
            yield step
        else:
            assert isinstance(step, float)
            await asyncio.sleep(step)


class Watched(NamedTuple):
    """An informer, what its handler heard, and its metrics."""

    informer: Informer[Thing]
    heard: list[tuple[tuple[str, int] | None, tuple[str, int] | None]]
    registry: CollectorRegistry

    @property
    def things(self) -> dict[str, int]:
        return dict(thing.short for thing in self.informer.store.list())

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"resource": "pods", **labels})


def informer_of(server: Server, *, chance: float = 0.0, kind: Kind = PODS, split: bool = True) -> Watched:
    registry = CollectorRegistry()
    informer = Informer(
        server,
        kind,
        msgspec.json.Decoder(Thing).decode,
        key_of=lambda thing: Key(thing.metadata.namespace, thing.metadata.name),
        version_of=lambda thing: thing.metadata.resource_version,
        uid_of=lambda thing: thing.metadata.uid,
        clock=SystemClock(),
        metrics=OperatorMetrics(registry),
        split_items=split,
        rng=lambda: chance,
    )
    watched = Watched(informer, [], registry)
    informer.add_handler(
        lambda old, new: watched.heard.append((old.short if old else None, new.short if new else None))
    )
    return watched


@asynccontextmanager
async def under_way(watched: Watched) -> AsyncIterator[Watched]:
    """Run the informer; it must still run at the end."""
    task = asyncio.create_task(watched.informer.run())
    try:
        async with asyncio.timeout(100_000):  # virtual seconds: a test that waits in vain fails at once
            yield watched
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def running(
    server: Server, *, chance: float = 0.0, kind: Kind = PODS, split: bool = True
) -> AsyncIterator[Watched]:
    async with under_way(informer_of(server, chance=chance, kind=kind, split=split)) as watched:
        yield watched
    assert server.open == 0, "a stream was left open"


async def after(seconds: float) -> None:
    """Let virtual time pass."""
    await asyncio.sleep(seconds)


SYNC = [added("a", 3, 1), added("b", 2, 2), bookmark(10, ends=True)]
BOTH = {"a": 1, "b": 2}
