"""Uploads under way: who may write what now, where the bytes go, and what is left when a request ends early.

A whole artifact is a part of its own that ends with its request; two of one name both write, and one wins. An artifact
in pieces is one part, and one request at a time writes to it: a newcomer ends the one before, whose client has usually
given up on it, and goes on from what that left on disk. Whatever ends a piece early, the bytes that came stay.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from aiohttp import web
from msgspec.structs import replace

from toe_async.collector import bodies, captures, paths, upload
from toe_async.collector.artifacts import Artifacts
from toe_async.collector.captures import Capture, Manifest, State
from toe_async.collector.disk import Directory, Disk
from toe_async.collector.errors import Refused, StoreError
from toe_async.collector.locks import KeyLocks
from toe_async.collector.parts import Part, Parts
from toe_async.collector.records import Records
from toe_async.collector.reservations import Claim, Reservations
from toe_async.collector.settings import CollectorSettings
from toe_async.collector.upload import Accept, Already, Bounds, Facts, Held, Span
from toe_async.lib.clock import Clock
from toe_async.telemetry import log

_WRITE_AT_ONCE = 128 << 10
_SILENT_AT_THE_END = 0.1
"""Seconds without a byte after which a request that is being ended has nothing more to give."""
_SPOILT = {"SizeMismatch", "DigestMismatch", "Taken", "Complete", "Cancelled", "NotRegistered"}
_log = log.get("collector.uploads")

Usage = Callable[[str], Awaitable[tuple[int, int]]]
"""Artifacts kept in a namespace, or with "" in the whole store, and their bytes."""
Told = Callable[[Manifest], Awaitable[None]]
"""Called for every artifact that is stored, before its uploader is told, each time that he is."""


class Asked(NamedTuple):
    """One request, its sender being known."""

    capture: str
    leaf: str
    sha256: str
    """Declared digest; empty when there is none."""
    size: int | None
    """Declared length of the whole artifact."""
    span: Span | None
    """Which piece the body is; None for a whole artifact."""


class Taken(NamedTuple):
    """How an upload went well: `status` 200 or 201 with the artifact, or 202 with the offset to go on from."""

    status: int
    stored: Manifest | None
    offset: int


class WrongOffset(Refused):
    """416: the piece does not begin where the part ends."""

    def __init__(self, offset: int) -> None:
        super().__init__(416, "WrongOffset", f"this upload goes on at byte {offset}; ask HEAD for it")
        self.offset = offset


class _Writer:
    """One upload request under way."""

    def __init__(self, request: web.Request, asked: Asked, ending: asyncio.Timeout) -> None:
        self.request, self.asked = request, asked
        self.why: Refused | None = None
        self.gone = asyncio.Event()
        self.committing = False
        self._ending, self._at_last = ending, 0.0

    def end(self, why: Refused, *, within: float = 0.0) -> None:
        """End it once its step on the disk is done; one that has everything is left to finish.

        With `within` seconds it may first take what has come already, as long as bytes keep coming.
        """
        if self.why is None and not self.committing:
            self.why, self._at_last = why, asyncio.get_running_loop().time() + within
            self.goes_on()

    def goes_on(self) -> None:
        """Note that bytes came."""
        if self.why is not None and not self._ending.expired():
            self._ending.reschedule(min(self._at_last, asyncio.get_running_loop().time() + _SILENT_AT_THE_END))

    async def commits(self) -> None:
        """From here on it is not ended any more."""
        if self._ending.expired():
            await asyncio.sleep(0)  # the cancellation is delivered here
        self.committing = True
        self._ending.reschedule(None)


class Uploads:
    """What is under way, and its bounds. One per application; `locks` serialises what a capture is told."""

    def __init__(
        self,
        *,
        settings: CollectorSettings,
        root: Directory,
        disk: Disk,
        records: Records,
        artifacts: Artifacts,
        locks: KeyLocks,
        usage: Usage,
        told: Told,
        clock: Clock,
    ) -> None:
        self._settings, self._limits, self._clock = settings, settings.limits, clock
        self._root, self._disk, self._records, self._artifacts, self._locks = root, disk, records, artifacts, locks
        self._usage, self._told = usage, told
        self.parts = Parts(root, disk)
        self._bounds = Bounds(
            capture_bytes=settings.max_capture_bytes,
            namespace_bytes=settings.max_namespace_bytes,
            namespace_artifacts=settings.max_namespace_artifacts,
            store_bytes=settings.max_store_bytes,
        )
        self._reservations = Reservations(settings.limits.reserved_seconds)
        self._writers: defaultdict[str, set[_Writer]] = defaultdict(set)
        self._resuming: dict[tuple[str, str], _Writer] = {}
        self._newest: dict[tuple[str, str], object] = {}
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False

    # -- calls ------------------------------------------------------------------------------------------------------

    async def take(self, request: web.Request, asked: Asked) -> Taken:
        """Take one body.

        Raises:
            Refused, StoreError: with a whole artifact nothing is left of it, with a piece what came of it is.
        """
        async with self._writer(request, asked) as writer:
            if asked.span is None:
                return await self._whole(writer)
            return await self._piece(writer, asked.span)

    async def look(self, asked: Asked) -> Taken:
        """What an upload would be answered, and where it would go on, before a byte of it is sent.

        Whoever writes to it is ended first, so that the offset stays true.
        """
        await self._end_former(asked)
        stored = await self.find(await self._records.get(asked.capture), asked.leaf)
        if stored is not None and not asked.sha256:
            asked = asked._replace(sha256=stored.sha256)
        offset = await self._offset(asked)
        claim = self._reservations.get(asked.capture, asked.leaf) or Claim("", asked.capture, asked.leaf)
        claim.written, set_aside = offset, claim.size
        try:
            verdict = await self._judge(asked, claim)
        finally:
            claim.size = set_aside
        if isinstance(verdict, Already):
            return await self._already(verdict, asked.leaf)
        return Taken(200, None, offset)

    async def close(self, record: Capture, why: Refused) -> None:
        """End the uploads of a capture that was just closed and remove what is half there."""
        capture = record.registration.id
        writers = list(self._writers.get(capture, ()))
        for writer in writers:
            writer.end(why)
        for writer in writers:
            await writer.gone.wait()  # bounded by one step of the disk, or a commit
        await self._remove(capture, record.leaves)

    async def sweep(self, now: datetime) -> None:
        """Remove the parts that nobody may go on with; count those that somebody may."""
        began = self._clock.monotonic()
        leaves, found = defaultdict(list), {}
        for one in await self.parts.resumable():
            leaves[one.capture].append(one)
        for capture, parts in leaves.items():
            with contextlib.suppress(StoreError):  # a record that cannot be read says nothing about its parts
                async with self._locks.hold(capture):
                    record = await self._records.get(capture)
                    if record is None or record.state is not State.OPEN or record.registration.expires <= now:
                        idle = [one.leaf for one in parts if (capture, one.leaf) not in self._resuming]
                        await self._remove(capture, idle)
                    else:
                        namespace = record.registration.namespace
                        found.update({(one.capture, one.leaf): (namespace, one.size) for one in parts})
        self._reservations.settle(found, began)

    async def drain(self, timeout: float) -> None:
        """Take no new bodies and wait for those under way, `timeout` seconds at most."""
        self._stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._idle.wait()

    def refuse_when_stopping(self) -> None:
        """Raise Refused once `drain` has begun."""
        if self._stopping:
            raise Refused(503, "Stopping", "this collector is stopping; try again", retry_after=5)

    async def find(self, record: Capture | None, leaf: str) -> Manifest | None:
        """What is stored of a capture under this leaf."""
        if record is None or leaf not in record.leaves:
            return None
        r = record.registration
        held = await self._artifacts.find(record.directory, paths.file_name(r.pod, r.container, r.id, leaf))
        return held if held is not None and held.capture == r.id else None

    # -- whole artifacts and pieces ---------------------------------------------------------------------------------

    async def _whole(self, writer: _Writer) -> Taken:
        asked = writer.asked
        claim = Claim("", asked.capture, asked.leaf)
        with self._reservations.whole(claim):
            verdict = await self._judge(asked, claim)
            if isinstance(verdict, Already):
                return await self._already(verdict, asked.leaf)
            await self._enter(asked)
            async with self.parts.fresh() as part:
                await self._receive(writer, part, claim, verdict)
                _check_whole(asked, part)
                taken = await self._commit(writer, part, verdict.record)
        key = (asked.capture, asked.leaf)
        if self._reservations.get(*key) is not None and key not in self._resuming:
            await self._remove(asked.capture, (asked.leaf,))  # it was begun in pieces, and is not needed any more
        return taken

    async def _piece(self, writer: _Writer, span: Span) -> Taken:
        asked, (capture, leaf) = writer.asked, writer.asked[:2]
        offset = await self._offset(asked)
        claim = self._reservations.resumable(capture, leaf)
        claim.written, claim.idle_since = offset, None
        try:
            verdict = await self._judge(asked, claim)
            if isinstance(verdict, Already):
                return await self._already(verdict, leaf)
            if span.first != offset:
                raise WrongOffset(offset)
            await self._enter(asked)
            async with self.parts.resumed(capture, leaf) as part:
                return await self._append(writer, span, part, claim, verdict)
        finally:
            claim.idle_since = self._clock.monotonic()
            if not claim.written:
                self._reservations.end(capture, leaf)

    async def _append(self, writer: _Writer, span: Span, part: Part, claim: Claim, verdict: Accept) -> Taken:
        if span.first != part.size:  # another process was here meanwhile
            raise WrongOffset(part.size)
        keep = False
        try:
            await self._receive(writer, part, claim, verdict)
            if not span.last:
                await self.parts.sync(part)
                keep = True
                return Taken(202, None, part.size)
            await self.parts.digest(part)
            _check_whole(writer.asked, part)
            return await self._commit(writer, part, verdict.record)
        except BaseException as failed:
            keep = part.size > 0 and not _is_spoilt(failed)
            raise
        finally:
            if not keep:
                await self.parts.discard(part)
                claim.written = 0

    async def _judge(self, asked: Asked, claim: Claim) -> Accept | Already:
        # Our claim is made before we look: whoever comes later sees it. And we are listed among the writers before the
        # record is read: a cancellation is either in the record or finds us in the list.
        record = await self._records.get(asked.capture)
        stored = await self.find(record, asked.leaf)
        if record is not None:
            claim.namespace = record.registration.namespace
        size = asked.span.end if asked.size is None and asked.span is not None else asked.size
        set_aside, claim.size = claim.size, max(claim.size, size or 0)
        verdict = upload.judge(await self._facts(asked, claim, record, size, stored))
        if isinstance(verdict, Refused):
            claim.size = set_aside
            raise verdict
        return verdict

    async def _enter(self, asked: Asked) -> None:
        """Write a leaf that only a glob allows into the record, so that everybody finds what becomes of it."""
        async with self._locks.hold(asked.capture):
            record = await self._records.get(asked.capture)
            if record is None or record.state is not State.OPEN or asked.leaf in record.leaves:
                return  # one that was closed just now is refused where it is committed
            if not captures.allows(record, asked.leaf):
                raise upload.not_registered()
            await self._records.update(replace(record, matched=(*record.matched, asked.leaf)))

    async def _set_aside(self, asked: Asked, claim: Claim, record: Capture, size: int) -> None:
        """Also for what was not declared: a chunked body has room for itself as it comes, or ends."""
        if size <= claim.size:
            return
        set_aside, claim.size = claim.size, size
        refused = upload.room(await self._facts(asked, claim, record, size, None), record)
        if refused is not None:
            claim.size = set_aside
            raise refused

    async def _facts(
        self, asked: Asked, claim: Claim, record: Capture | None, size: int | None, stored: Manifest | None
    ) -> Facts:
        return Facts(
            now=self._clock.now(),
            leaf=asked.leaf,
            record=record,
            size=size,
            written=claim.written,
            declared_sha256=asked.sha256,
            stored_sha256=stored.sha256 if stored else "",
            held=await self._held(record, claim),
            bounds=self._bounds,
        )

    async def _receive(self, writer: _Writer, part: Part, claim: Claim, verdict: Accept) -> None:
        asked = writer.asked
        waiting: list[bytes] = []
        held = 0

        async def flush() -> None:
            nonlocal waiting, held
            pieces, size, waiting, held = waiting, part.size + held, [], 0
            if pieces:
                await self._set_aside(asked, claim, verdict.record, size)
                await self.parts.write(part, pieces)
                claim.written = part.size

        body = bodies.pieces(writer.request, verdict.max_bytes - part.size, self._limits, self._clock)
        try:
            async with contextlib.aclosing(body):
                async for piece in body:
                    writer.goes_on()
                    waiting.append(piece)
                    held += len(piece)
                    if held >= _WRITE_AT_ONCE:
                        await flush()
        except BaseException:
            if asked.span is not None:
                waiting.append(bodies.left_over(writer.request))
                held += len(waiting[-1])
                await flush()
            raise
        await flush()
        if not part.size:
            raise Refused(400, "Empty", "an artifact without a byte is no artifact")

    async def _commit(self, writer: _Writer, part: Part, judged: Capture) -> Taken:
        await writer.commits()
        capture = judged.registration.id
        wanted = captures.manifest_of(judged, writer.asked.leaf, part.size, part.sha256, self._clock.now())
        async with self._locks.hold(capture):
            record = await self._records.get(capture)
            if record is None:
                raise Refused(404, "NotRegistered", "no such capture is registered")
            if record.state is not State.OPEN:
                raise Refused(403, record.state, "this capture was closed while the artifact came")
            stored = await self._artifacts.commit(part, wanted)
        if (stored.capture, stored.sha256) != (wanted.capture, wanted.sha256):
            raise Refused(409, "Taken", "another content is stored under this name and is never replaced")
        await self._told(stored)
        if stored is not wanted:
            return Taken(200, stored, stored.size)
        _log.info("artifact stored", captureID=capture, name=stored.name, size=stored.size, sha256=stored.sha256)
        return Taken(201, stored, stored.size)

    # -- steps ------------------------------------------------------------------------------------------------------

    async def _held(self, record: Capture | None, claim: Claim) -> Held:
        ahead, bounds = self._reservations.ahead(claim, self._clock.monotonic()), self._bounds
        capture = namespace = artifacts = store = 0
        if record is not None and bounds.capture_bytes is not None:
            capture = await self._kept_of(record, claim.leaf)
        if bounds.namespace_bytes is not None or bounds.namespace_artifacts is not None:
            artifacts, namespace = await self._usage(claim.namespace)
        if bounds.store_bytes is not None:
            _, store = await self._usage("")
        return Held(
            free_bytes=await self._free() - ahead.unwritten_bytes,
            capture_bytes=capture + ahead.capture_bytes,
            namespace_bytes=namespace + ahead.namespace_bytes,
            namespace_artifacts=artifacts + ahead.namespace_artifacts,
            store_bytes=store + ahead.store_bytes,
        )

    async def _offset(self, asked: Asked) -> int:
        # A leaf reaches the disk only when the record names it.
        record = await self._records.get(asked.capture)
        if record is None or asked.leaf not in record.leaves:
            return 0
        return await self.parts.offset(asked.capture, asked.leaf)

    async def _kept_of(self, record: Capture, but: str) -> int:
        found = [await self.find(record, leaf) for leaf in record.leaves if leaf != but]
        return sum(held.size for held in found if held is not None)

    async def _free(self) -> int:
        staging = await self._disk.run(self._root.free_bytes)
        return max(0, min(staging - self._limits.min_free_bytes, await self._artifacts.free_bytes()))

    async def _already(self, verdict: Already, leaf: str) -> Taken:
        held = await self.find(verdict.record, leaf)
        if held is None:
            raise Refused(409, "Taken", "the artifact was deleted just now")
        # Whoever stored it may have been told of a failure after that, or have died before he could tell.
        await self._told(held)
        return Taken(200, held, held.size)

    async def _remove(self, capture: str, leaves: Sequence[str]) -> None:
        await self.parts.remove(capture, leaves)
        for leaf in leaves:
            self._reservations.end(capture, leaf)

    async def _end_former(self, asked: Asked) -> None:
        key, mine = (asked.capture, asked.leaf), object()
        superseded = Refused(409, "Superseded", "another request goes on with this upload")
        self._newest[key] = mine
        try:
            while (former := self._resuming.get(key)) is not None:
                former.end(superseded, within=self._limits.linger_seconds)
                await former.gone.wait()
                if self._newest.get(key) is not mine:
                    raise superseded  # of many that come at once, one waits
        finally:
            if self._newest.get(key) is mine:
                del self._newest[key]

    @contextlib.asynccontextmanager
    async def _writer(self, request: web.Request, asked: Asked) -> AsyncIterator[_Writer]:
        if asked.span is not None:
            await self._end_former(asked)
        with self._slot(asked.capture):
            try:
                async with asyncio.timeout(None) as ending:
                    writer = _Writer(request, asked, ending)
                    with self._listed(writer):
                        yield writer
            except TimeoutError:
                if writer.why is not None:
                    raise writer.why from None
                raise

    @contextlib.contextmanager
    def _slot(self, capture: str) -> Iterator[None]:
        # Taken by known uploaders only, and never all of them by one: who has no token, or one, holds up nobody.
        self.refuse_when_stopping()
        of_this = len(self._writers.get(capture, ()))
        if self._count >= self._limits.uploads or of_this >= self._limits.uploads_per_capture:
            raise Refused(429, "TooManyUploads", "too many uploads are under way; try again", retry_after=5)
        self._count += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._idle.set()

    @contextlib.contextmanager
    def _listed(self, writer: _Writer) -> Iterator[None]:
        asked = writer.asked
        self._writers[asked.capture].add(writer)
        if asked.span is not None:
            self._resuming[asked.capture, asked.leaf] = writer
        try:
            yield
        finally:
            writer.gone.set()
            self._writers[asked.capture].discard(writer)
            if not self._writers[asked.capture]:
                del self._writers[asked.capture]
            if asked.span is not None:
                del self._resuming[asked.capture, asked.leaf]


def _check_whole(asked: Asked, part: Part) -> None:
    if asked.size is not None and asked.size != part.size:
        raise Refused(400, "SizeMismatch", f"the artifact has {part.size} bytes and {asked.size} were declared")
    if asked.sha256 and asked.sha256 != part.sha256:
        raise Refused(400, "DigestMismatch", "the artifact's SHA-256 is not the one in X-Toe-Sha256")


def _is_spoilt(failed: BaseException) -> bool:
    """Whether an upload in pieces has to begin again after this."""
    return isinstance(failed, Refused) and failed.reason in _SPOILT
