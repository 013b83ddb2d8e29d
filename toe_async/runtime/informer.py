"""A live copy of one collection of the API server, and the news of every change to it.

``kube.watch`` decides; this module carries the bytes. What it guarantees:

- The store is at every moment one that the server had, and never goes back in time, save before ``synced``.
- A handler hears of each change to the store exactly once, in order, with the state before and the state after. What
  disappeared while no watch was open is found by the next full sync and told as a deletion, with the last state known.
  States in between may be missed: handlers learn what is, not all that has been.
- ``synced`` is set when the first whole state is in the store and the handlers have been told of it.
- A watch that has gone silent is begun again within 90 s. Nothing that the server sends ends ``run``.
- No full object is kept: bytes are decoded one object at a time and dropped. The loop is let go every 1,000 events.

An object that cannot be decoded, or is of another kind, is skipped and counted. If an older state of it is in the
store that one stays, for a state that is known to be old is better than the lie that the object is gone.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Generic, Protocol, TypeVar

from prometheus_client import Counter, Gauge

from toe_async.apis.kinds import Kind
from toe_async.kube import watch, watchevents
from toe_async.kube.errors import ApiError, Forbidden, KubeError, NotFound, TransportError, UnexpectedAnswer, clip
from toe_async.kube.requests import Request
from toe_async.kube.splitting import LineSplitter, ListSplitter
from toe_async.kube.watch import Cause, End, Verdict
from toe_async.kube.watchevents import Bookmark
from toe_async.lib.clock import Clock
from toe_async.runtime.keys import Key
from toe_async.runtime.store import IndexFunction, Stage, Store, StoreWriter
from toe_async.telemetry import log as logs

log = logs.get("runtime.informer")

T = TypeVar("T")
Handler = Callable[[T | None, T | None], None]

_BATCH = 1000  # some 7 to 30 ms of decoding between two chances for everybody else
_STALLED_SECONDS = 180.0


class Streams(Protocol):
    """What an informer needs of a client."""

    def stream(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Send a request and yield the body's chunks; raises KubeError, also between chunks."""


class InformerMetrics(Protocol):
    """What an informer counts, by ``resource``."""

    watch_last_event_age: Gauge
    watch_restarts: Counter
    relists: Counter
    informer_objects: Gauge
    undecodable_objects: Counter


class Informer(Generic[T]):
    """See the module. Handlers are added before ``run``; ``run`` is called once.

    ``decode`` raises ValueError (msgspec.DecodeError is one) for an object that it cannot read, and may be given a
    buffer (msgspec.Raw) that must not be kept. ``reset_decoder`` is called before each full sync, so that what a
    decoder shares between objects does not outlive them. With ``uid_of``, an object made again under the same key is
    told as a deletion and then an addition; without it, as a change.

    ``split_items`` may be True for pods, nodes and namespaces only (see kube.splitting).
    """

    def __init__(
        self,
        client: Streams,
        kind: Kind,
        decode: Callable[[bytes], T],
        *,
        key_of: Callable[[T], Key],
        version_of: Callable[[T], str],
        clock: Clock,
        metrics: InformerMetrics,
        uid_of: Callable[[T], str] | None = None,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        indexes: Mapping[str, IndexFunction[T]] | None = None,
        split_items: bool = False,
        reset_decoder: Callable[[], None] | None = None,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._client, self._decode, self._clock, self._rng = client, decode, clock, rng
        self._key_of, self._version_of, self._uid_of = key_of, version_of, uid_of
        self._split, self._reset_decoder = split_items, reset_decoder
        self._scope = watch.Scope(kind, namespace, label_selector, field_selector)
        self._check = watchevents.KindCheck(kind)
        self._writer: StoreWriter[T] = StoreWriter(indexes)
        self._stage: Stage[T] = self._writer.stage()
        self._handlers: list[Handler[T]] = []
        self._state: watch.State = watch.Syncing()
        self._running = False
        self._undecodable = 0
        self._problem: tuple[str, bool] | None = None
        self._opened_at: float | None = None
        self._last_sign: float | None = None  # of the server
        self._touched = 0.0  # the same, or the begin of the present request
        self.synced = asyncio.Event()
        self.resource = f"{namespace}/{kind.crd_name}" if namespace else kind.crd_name
        self._metrics = metrics
        self._objects = metrics.informer_objects.labels(self.resource)
        self._undecodables = metrics.undecodable_objects.labels(self.resource)
        self._relists = metrics.relists.labels(self.resource)
        metrics.watch_last_event_age.labels(self.resource).set_function(self.stalled_for)

    @property
    def store(self) -> Store[T]:
        """The read view of what is known."""
        return self._writer.store

    @property
    def problem(self) -> str | None:
        """Why the server does not answer as it should, in one sentence; None while it does."""
        return self._problem[0] if self._problem else None

    @property
    def forbidden(self) -> str | None:
        """Which right is missing, in one sentence; None when none is known to be."""
        return self._problem[0] if self._problem and self._problem[1] else None

    def stalled_for(self) -> float:
        """Seconds since the server last sent anything; 0 before ``run``. Needs the running loop."""
        return 0.0 if self._last_sign is None else max(0.0, self._clock.monotonic() - self._last_sign)

    def check(self) -> str | None:
        """Return None while the copy is live, else why it is not: a health check's answer."""
        if not self.synced.is_set():
            return f"{self.resource} not synced: {self.problem or 'the first answer is still coming'}"
        if self.stalled_for() > _STALLED_SECONDS:
            return f"no sign of life of {self.resource} for {self.stalled_for():.0f} s: {self.problem or 'silence'}"
        return None

    def add_handler(self, handler: Handler[T]) -> None:
        """Have ``handler(old, new)`` called for each change: old None when added, new None when deleted.

        Handlers run on the loop between two events and must be quick; what they raise is logged and changes nothing.

        Raises:
            RuntimeError: the informer runs already, so the handler would miss what has happened.
        """
        if self._running:
            raise RuntimeError(f"add handlers of {self.resource} before run()")
        self._handlers.append(handler)

    async def run(self) -> None:
        """Keep the copy live until cancelled.

        Raises:
            RuntimeError: called a second time.
        """
        if self._running:
            raise RuntimeError(f"the informer of {self.resource} has been run already")
        self._running = True
        self._last_sign = self._clock.monotonic()
        while True:
            call = watch.next_call(self._state, self._scope, self._rng())
            self._opened_at = None
            end = await self._attempt(call)
            if end is None:
                continue
            was_watching = isinstance(self._state, watch.Watching)
            decision = watch.on_end(
                self._state, end, now=self._clock.monotonic(), opened_at=self._opened_at, chance=self._rng()
            )
            if was_watching:
                self._metrics.watch_restarts.labels(self.resource, end.label).inc()
            if end.cause is not Cause.CLOSED:
                log.warning(
                    "the request ended early",
                    resource=self.resource, verb=call.verb, reason=end.label, problem=self.problem,
                    full_sync=isinstance(decision.state, watch.Syncing), wait_seconds=round(decision.wait, 2),
                )  # fmt: skip
            self._state = decision.state
            await asyncio.sleep(decision.wait)

    async def _attempt(self, call: watch.Call) -> End | None:
        """Make one request and read its answer; None when it ended as a list should."""
        error: KubeError
        try:
            return await self._follow(call)
        except TimeoutError:
            silent = self._silence() >= watch.INACTIVITY_SECONDS - 1
            self._blame(call, "the server went silent" if silent else "the answer took too long")
            return End(Cause.SILENT if silent else Cause.OVERDUE)
        except ApiError as refusal:
            error, end = refusal, watch.end_of(refusal)
        except UnexpectedAnswer as strange:
            error, end = strange, End(Cause.GARBLED)
        except KubeError as broken:
            # The client has a read timeout of its own, which may see the silence a moment earlier.
            silent = isinstance(broken, TransportError) and self._silence() >= watch.INACTIVITY_SECONDS - 1
            error, end = broken, End(Cause.SILENT if silent else Cause.TRANSPORT)
        self._blame(call, _sentence(error, call, self._scope), forbidden=isinstance(error, Forbidden))
        return end

    async def _follow(self, call: watch.Call) -> End | None:
        loop = asyncio.get_running_loop()
        overdue = loop.time() + call.deadline
        self._touched = self._clock.monotonic()
        async with asyncio.timeout(min(watch.INACTIVITY_SECONDS, call.deadline)) as patience:
            async with self._client.stream(call.request) as chunks:
                self._opened()
                read = self._read_watch if call.verb == "watch" else self._read_list
                return await read(_Patient(chunks, patience, overdue))

    async def _read_watch(self, chunks: AsyncIterator[bytes]) -> End:
        lines, count = LineSplitter(), 0
        if isinstance(self._state, watch.Syncing):
            self._begin_stage()
        async for chunk in chunks:
            self._sign_of_life()
            for line in lines.feed(chunk):
                verdict = self._line(line)
                if verdict is Verdict.COMMIT:
                    await self._commit()
                elif verdict is Verdict.ABANDON:
                    return End(Cause.UNMARKED)
                count += 1
                if count % _BATCH == 0:
                    await asyncio.sleep(0)
            self._objects.set(len(self.store))
        lines.close()
        return End(Cause.CLOSED)

    async def _read_list(self, chunks: AsyncIterator[bytes]) -> None:
        splitter = ListSplitter(split=self._split)
        if isinstance(self._state, watch.Syncing) and not self._state.token:
            self._begin_stage()
        async for chunk in chunks:
            self._sign_of_life()
            await self._gather(splitter.feed(chunk))
        rest, meta = splitter.close()
        await self._gather(rest)
        self._state, verdict = watch.on_page(self._state, meta.resource_version, meta.continue_)
        if verdict is Verdict.COMMIT:
            await self._commit()

    async def _gather(self, items: list[bytes]) -> None:
        for count, item in enumerate(items, 1):
            self._gather_one(item, self._read_object(item))
            if count % _BATCH == 0:
                await asyncio.sleep(0)

    def _line(self, line: bytes) -> Verdict:
        event = watchevents.read_line(line)
        if isinstance(event, Bookmark):
            self._state, verdict = watch.on_bookmark(self._state, event)
            return verdict
        raw = event.object
        obj = self._read_object(raw, checked=False)
        version = self._version_of(obj) if obj is not None else watchevents.read_head(raw).metadata.resource_version
        self._state, verdict = watch.on_change(self._state, version)
        deleted = event.type == "DELETED"
        if verdict is Verdict.STAGE:
            if deleted:
                self._stage.remove(self._key(obj, raw))
            else:
                self._gather_one(raw, obj)
        elif verdict is Verdict.APPLY:
            if deleted:
                self._remove(self._key(obj, raw), obj)
            elif obj is not None:
                self._put(self._key_of(obj), obj)
        return verdict

    def _read_object(self, raw: bytes, *, checked: bool = True) -> T | None:
        """Decode one object; None when it was skipped."""
        why = "it is of another kind"
        if checked or self._check.accepts(raw):
            try:
                return self._decode(raw)
            except (ValueError, RecursionError) as error:
                why = clip(str(error), 200)
        self._undecodable += 1
        self._undecodables.inc()
        if self._undecodable.bit_count() == 1:  # the 1st, 2nd, 4th, 8th ...: a thousand bad objects are ten lines
            name = str(_raw_key(raw))
            log.warning("object skipped", resource=self.resource, name=name, why=why, skipped=self._undecodable)
        return None

    def _key(self, obj: T | None, raw: bytes) -> Key:
        return self._key_of(obj) if obj is not None else _raw_key(raw)

    def _gather_one(self, raw: bytes, obj: T | None) -> None:
        key = self._key(obj, raw)
        known = self.store.get(key)
        # Unchanged objects stay the same object: a full sync of a big collection then needs no memory for a second one.
        if obj is None or known == obj:
            obj = known
        if obj is not None:
            self._stage.put(key, obj)

    def _put(self, key: Key, obj: T) -> None:
        self._tell(self._writer.put(key, obj), obj)

    def _remove(self, key: Key, last: T | None) -> None:
        known = self._writer.remove(key)
        if known is not None:  # else its deletion has been told already
            self._tell(last if last is not None else known, None)

    def _begin_stage(self) -> None:
        self._stage = self._writer.stage()
        if self._reset_decoder is not None:
            self._reset_decoder()

    async def _commit(self) -> None:
        """Exchange the store's content, then tell the handlers the differences, in turns."""
        changes: Iterator[tuple[Key, T | None, T | None]] = self._writer.swap(self._stage)
        self._stage = self._writer.stage()
        self._relists.inc()
        self._objects.set(len(self.store))
        for count, (_, old, new) in enumerate(changes, 1):
            self._tell(old, new)
            if count % _BATCH == 0:
                await asyncio.sleep(0)
        if not self.synced.is_set():
            log.info("synced", resource=self.resource, objects=len(self.store))
            self.synced.set()

    def _tell(self, old: T | None, new: T | None) -> None:
        if old is not None and new is not None and self._uid_of and self._uid_of(old) != self._uid_of(new):
            self._tell(old, None)
            old = None
        for handler in self._handlers:
            try:
                handler(old, new)
            except Exception:
                log.exception("a handler failed", resource=self.resource)

    def _opened(self) -> None:
        self._opened_at = self._clock.monotonic()
        self._state = watch.on_open(self._state, self._opened_at)
        self._problem = None
        self._sign_of_life()

    def _sign_of_life(self) -> None:
        self._last_sign = self._touched = self._clock.monotonic()

    def _silence(self) -> float:
        return self._clock.monotonic() - self._touched

    def _blame(self, call: watch.Call, sentence: str, *, forbidden: bool = False) -> None:
        self._problem = (f"{call.verb} of {self.resource}: {sentence}", forbidden)


class _Patient:
    """Passes chunks on. The timeout runs only while one is waited for, so that it never cuts the work on it in two."""

    def __init__(self, chunks: AsyncIterator[bytes], patience: asyncio.Timeout, overdue: float) -> None:
        self._chunks, self._patience, self._overdue = chunks, patience, overdue
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> "_Patient":
        return self

    async def __anext__(self) -> bytes:
        self._patience.reschedule(min(self._loop.time() + watch.INACTIVITY_SECONDS, self._overdue))
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._patience.reschedule(None)
            raise
        self._patience.reschedule(None)
        return chunk


def _raw_key(raw: bytes) -> Key:
    meta = watchevents.read_head(raw).metadata
    return Key(meta.namespace, meta.name)


def _sentence(error: KubeError, call: watch.Call, scope: watch.Scope) -> str:
    kind = scope.kind
    if isinstance(error, Forbidden):
        where = f"in namespace {scope.namespace}" if scope.namespace else "in all namespaces" if kind.namespaced else ""
        rule = f'verb "{call.verb}" on resource "{kind.plural}" of API group "{kind.group}"'
        return f"forbidden; grant the {rule} {where}".rstrip()
    if isinstance(error, NotFound):
        return f"the server does not know {kind.crd_name} {kind.version}; install its CustomResourceDefinition"
    return str(error)
