"""Any churn, any faults: in the end the store is what the server has, and the handlers were told the way there."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from toe_async.apis.kinds import PODS
from toe_async.kube.errors import TransportError, error_type
from toe_async.kube.requests import Request
from toe_async.lib.clock import SystemClock
from toe_async.runtime.informer import Informer
from toe_async.runtime.keys import Key
from toe_async.telemetry.metrics import OperatorMetrics

pytestmark = pytest.mark.looptime


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    uid: str
    resource_version: str


class Thing(msgspec.Struct, frozen=True):
    metadata: _Meta
    status: str = ""


def _encode(name: str, uid: int, version: int) -> bytes:
    return b'{"metadata":{"name":"%b","uid":"u%d","resourceVersion":"%d"},"status":"x"}' % (name.encode(), uid, version)


class Change(NamedTuple):
    """Write the object of that name, or delete it if it is there."""

    name: str
    delete: bool


class Refuse(NamedTuple):
    """The next request is refused with that status."""

    status: int


class Send(NamedTuple):
    """Every open watch gets an ERROR event of that code."""

    code: int


class Break(NamedTuple):
    """Every open stream breaks after so many more bytes."""

    after: int


class Compact(NamedTuple):
    """The history up to now is forgotten."""


class Pause(NamedTuple):
    """Nothing happens for that many seconds."""

    seconds: float


Act = Change | Refuse | Send | Break | Compact | Pause
NAMES = st.sampled_from("abcdefgh")
ACTS = st.one_of(
    st.builds(Change, NAMES, st.booleans()),
    st.builds(Change, NAMES, st.booleans()),
    st.builds(Change, NAMES, st.booleans()),
    st.builds(Pause, st.sampled_from([0.0, 0.1, 1.0, 5.0, 40.0])),
    st.builds(Break, st.integers(0, 150)),
    st.builds(Refuse, st.sampled_from([401, 403, 404, 410, 422, 429, 500, 503])),
    st.builds(Send, st.sampled_from([410, 429, 500])),
    st.just(Compact()),
)


class Server:
    """One collection with a history, as an API server keeps it, and the faults that it is told to make."""

    def __init__(self, chunk: int) -> None:
        self.chunk = chunk
        self.version = 1
        self.objects: dict[str, bytes] = {}
        self.history: list[tuple[int, bytes]] = []
        self.compacted = 0
        self.refuse: list[int] = []
        self.deleted: Counter[str] = Counter()
        self.syncs = 0
        self._budget: list[int] = []
        self._streams: list[asyncio.Queue[bytes | None]] = []

    def act(self, act: Act) -> None:
        match act:
            case Change(name, delete):
                self._change(name, delete=delete)
            case Refuse(status):
                self.refuse.append(status)
            case Send(code):
                self._send(b'{"type":"ERROR","object":{"kind":"Status","code":%d}}\n' % code)
            case Break(after):
                for stream in self._streams:
                    stream.put_nowait(b"-%d" % after)
            case Compact():
                self.compacted = self.version

    def _change(self, name: str, *, delete: bool) -> None:
        known = self.objects.get(name)
        if delete and known is None:
            return
        self.version += 1
        uid = msgspec.json.decode(known, type=Thing).metadata.uid if known else f"u{self.version}"
        obj = _encode(name, int(uid[1:]), self.version)
        if delete:
            del self.objects[name]
            self.deleted[uid] += 1
        else:
            self.objects[name] = obj
        type_ = b"DELETED" if delete else b"MODIFIED" if known else b"ADDED"
        event = b'{"type":"%b","object":%b}\n' % (type_, obj)
        self.history.append((self.version, event))
        self._send(event)

    def _send(self, event: bytes) -> None:
        for stream in self._streams:
            stream.put_nowait(event)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[bytes]]:
        if self.refuse:
            status = self.refuse.pop(0)
            raise error_type(status, "")(status, "", "refused")
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        query = dict(request.query)
        if "watch" not in query:
            self.syncs += 1
            items = b",".join(self.objects.values())
            queue.put_nowait(b'{"metadata":{"resourceVersion":"%d"},"items":[%b]}' % (self.version, items))
            queue.put_nowait(None)
        elif "sendInitialEvents" in query:
            self.syncs += 1
            for obj in self.objects.values():
                queue.put_nowait(b'{"type":"ADDED","object":%b}\n' % obj)
            queue.put_nowait(self._bookmark(b'"annotations":{"k8s.io/initial-events-end":"true"},'))
        elif int(query["resourceVersion"]) < self.compacted:
            queue.put_nowait(b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}\n')
            queue.put_nowait(None)
        else:
            for version, event in self.history:
                if version > int(query["resourceVersion"]):
                    queue.put_nowait(event)
        self._streams.append(queue)
        chunks = self._play(queue)
        try:
            yield chunks
        finally:
            self._streams.remove(queue)
            await chunks.aclose()  # type: ignore[attr-defined]

    def _bookmark(self, notes: bytes = b"") -> bytes:
        return b'{"type":"BOOKMARK","object":{"metadata":{%b"resourceVersion":"%d"}}}\n' % (notes, self.version)

    async def _play(self, queue: "asyncio.Queue[bytes | None]") -> AsyncIterator[bytes]:
        left = 1 << 60
        while True:
            try:
                event = await asyncio.wait_for(queue.get(), 60)
            except TimeoutError:
                event = self._bookmark()
            if event is None:
                return
            if event.startswith(b"-"):
                left = int(event[1:])
                continue
            for chunk in self._cut(event):
                left -= len(chunk)
                if left < 0:
                    raise TransportError("reset")
                yield chunk

    def _cut(self, event: bytes) -> Iterator[bytes]:
        bounds = [*range(0, len(event), self.chunk), len(event)]
        return (event[start:end] for start, end in pairwise(bounds))


class Heard:
    """A handler that builds its own copy, and checks that each news fits to the one before."""

    def __init__(self) -> None:
        self.things: dict[str, Thing] = {}
        self.deleted: Counter[str] = Counter()

    def __call__(self, old: Thing | None, new: Thing | None) -> None:
        name = (old or new or pytest.fail("news of nothing")).metadata.name
        known = self.things.get(name)
        if old is None:
            assert known is None
        else:
            assert known is not None
            assert known.metadata.uid == old.metadata.uid
        if new is None:
            assert old is not None
            self.deleted[old.metadata.uid] += 1
            del self.things[name]
        else:
            assert known is None or int(new.metadata.resource_version) > int(known.metadata.resource_version)
            self.things[name] = new


@given(st.lists(ACTS, max_size=60), st.sampled_from([7, 64, 1 << 20]), st.sampled_from(["split", "whole"]))
@settings(max_examples=150, deadline=None)
async def test_any_churn_under_any_faults_ends_in_what_the_server_has(acts: list[Act], chunk: int, items: str) -> None:
    """Each object ever told is told deleted once if it is gone and never else; full syncs only where they must be."""
    server, heard, failures = Server(chunk), Heard(), []
    informer = Informer(
        server,
        PODS,
        msgspec.json.Decoder(Thing).decode,
        key_of=lambda thing: Key("", thing.metadata.name),
        version_of=lambda thing: thing.metadata.resource_version,
        uid_of=lambda thing: thing.metadata.uid,
        clock=SystemClock(),
        metrics=OperatorMetrics(CollectorRegistry()),
        indexes={"uid": lambda thing: (thing.metadata.uid,)},
        split_items=items == "split",
        rng=lambda: 0.5,
    )

    def checked(old: Thing | None, new: Thing | None) -> None:
        try:
            heard(old, new)
        except (AssertionError, pytest.fail.Exception) as error:  # the informer logs what a handler raises and goes on
            failures.append(error)

    informer.add_handler(checked)
    task = asyncio.create_task(informer.run())
    for act in acts:
        server.act(act)
        await asyncio.sleep(act.seconds if isinstance(act, Pause) else 0)
    async with asyncio.timeout(3000):
        while not (informer.synced.is_set() and versions(informer.store.list()) == wanted(server)):
            await asyncio.sleep(1)
    await asyncio.sleep(200)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert failures == []
    assert versions(informer.store.list()) == wanted(server) == versions(heard.things.values())
    for thing in informer.store.list():
        assert informer.store.by_index("uid", thing.metadata.uid) == (thing,)
    assert not any(informer.store.by_index("uid", uid) for uid in server.deleted)
    assert set(heard.deleted.values()) <= {1}
    assert set(heard.deleted) <= set(server.deleted)
    why = [act for act in acts if isinstance(act, Compact | Break | Refuse) or act == Send(410)]
    assert server.syncs <= 1 + len(why)


def versions(things: Iterable[Thing]) -> dict[str, str]:
    return {thing.metadata.name: thing.metadata.resource_version for thing in things}


def wanted(server: Server) -> dict[str, str]:
    return versions(msgspec.json.decode(obj, type=Thing) for obj in server.objects.values())
