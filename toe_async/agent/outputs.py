"""What a tool leaves, from its folder to where it belongs, in one pass and within stated bounds.

Leaves are the regular files below `out/` that the orders' globs match (all of them without globs), the tool's stdout as
`{tool}.out` and the tail of its stderr as `{tool}.log`, each unless it is empty. Of more than MOST_LEAVES the rest is
counted and reported as lost. With a rolling interval finished files, and spans of stdout as `{tool}-0001.out` and so
on, go their way while the tool runs.

A source is removed once it is packed, a leaf once it is delivered: beside the tool's own files the disk holds what
waits for its delivery. Nothing is stored that was not hashed on its way, and nothing counts as stored without a word
from the other side that covers the hash.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from toe_async.agent.courier import Courier, Delivery
from toe_async.agent.faults import Lost, Stopped
from toe_async.agent.folders import Found, is_being_written, open_below, open_file, open_folder, regular_files, unlink
from toe_async.agent.httpclient import Endpoint
from toe_async.agent.keeping import LEAVES, Keeping, Shelf
from toe_async.agent.leafnames import is_compressed, leaf_name
from toe_async.agent.packing import SUFFIXES, Packed, disk_fault, measure, pack, too_large, usable
from toe_async.agent.protocol import Leaf, Orders
from toe_async.agent.pvc import MOUNT, PvcCopy
from toe_async.agent.segments import Cutter, Rotation, punch
from toe_async.agent.serving import LeafServer
from toe_async.agent.supervisor import CollectingError
from toe_async.agent.upload import CollectorUpload, checked_token
from toe_async.lib.globs import any_match, check_glob

MOST_LEAVES = 200
OUT, STDOUT, LOG = "out", "stdout", "log"
"""In the state folder: the tool's `{output}`, the file that its stdout appends to, the tail of its stderr."""


@dataclass(frozen=True)
class _Source:
    """A file to be packed, seen from the state folder; `span` for a part of one that stays where it is."""

    path: str
    name: str
    method: str
    size: int
    span: tuple[int, int] | None = None


class Outputs:
    """The output of one run; `toe_async.agent.supervisor.Collecting` says who calls what when."""

    def __init__(self, mount: str = MOUNT) -> None:
        """`mount` is where a claim is mounted."""
        self._mount = mount
        self._wake = threading.Event()
        self._cancelled = self._late = self._fresh = False
        self._token = ""
        self._need_token: Callable[[], None] = _nobody
        self._place: Delivery | None = None
        self._server: LeafServer | None = None
        self._unpacked: deque[_Source] = deque()
        self._names: set[str] = set()
        self._seen: set[tuple[int, int]] = set()
        self._lost: list[Leaf] = []
        self._faults: list[Lost] = []
        self._rotation, self._segment = Rotation(), 0
        self._cutter: Cutter | None = None
        self._beyond = 0
        self.note = ""
        """What is to be told about the output though nothing is lost."""

    @property
    def port(self) -> int:
        """Where leaves are served in mode s3; 0 before they are and in other modes."""
        return self._server.port if self._server is not None else 0

    def start(self, orders: Orders, folder: str) -> None:
        """Prepare for one run, whose `out/` and `leaves/` exist in `folder`.

        Raises:
            ValueError: the orders cannot be followed: a broken glob, method, endpoint, CA, path or mode.
        """
        for glob in orders.outputs:
            check_glob(glob)
        self._method, self.note = usable(orders.compress)
        self._orders = orders
        self._root = open_folder(folder)
        self._leaves = open_folder(LEAVES, at=self._root)
        place = self._make_place(orders)
        self._place, self._shelf = place, Shelf(self._root)
        self._courier = Courier(place, lambda: self._need_token())

    def tick(self, now: float) -> None:
        """With a rolling interval: cut what is due and bring finished segments where they belong. May block.

        `now` is time.monotonic().
        """
        if not self._orders.rolling or self._stopped():
            return
        with suppress(OSError):
            self._cut(now)
        with suppress(OSError):
            self._rotated(now)
        with suppress(Stopped):
            while self._unpacked:
                self._pack(self._unpacked.popleft())
            while self._step(now) == 0 and not self._courier.idle:
                pass

    def finish(self, deadline: float, need_token: Callable[[], None]) -> tuple[Leaf, ...]:
        """Bring everything where it belongs, until `deadline` (time.monotonic()) or `cancel`.

        Raises:
            CollectingError: there is nothing, or something is lost; it holds the leaves all the same.
        """
        self._need_token = need_token
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._end, kwargs={"late": True})
        timer.daemon = True
        timer.start()
        try:
            self._gather()
            self._drain(deadline)
        except Stopped:
            pass
        finally:
            timer.cancel()
        return self._settle()

    def keep(self, deadline: float) -> None:
        """Keep what waits to be fetched until it was, `deadline` (time.monotonic()) or `cancel`; then remove it."""
        try:
            if any(leaf.state == "kept" for leaf in self._courier.leaves):
                self._shelf.wait(self._over, deadline - time.monotonic())
        finally:
            if self._server is not None:
                self._server.close()
            self._shelf.clear()

    def token(self, token: str) -> None:
        """Take a token for the collector; ValueError when it is none."""
        self._token, self._fresh = checked_token(token), True
        self._wake.set()

    def cancel(self) -> None:
        """Make whatever blocks above return within a second; what is stored stays stored."""
        self._end(late=False)

    def stored_bytes(self) -> int:
        """Bytes of all leaves that are stored or kept."""
        courier = getattr(self, "_courier", None)
        return sum(leaf.size for leaf in list(courier.leaves) if leaf.state != "lost") if courier is not None else 0

    # -- gathering --------------------------------------------------------------------------------------------------

    def _cut(self, now: float) -> None:
        stdout = open_file(self._root, STDOUT)
        try:
            if self._cutter is None:
                self._cutter = Cutter(self._orders.rolling, now)
            if (span := self._cutter.cut(stdout, now)) is not None:
                self._add_segment(span)
        finally:
            os.close(stdout)

    def _rotated(self, now: float) -> None:
        found = [one for one in self._found() if one.identity not in self._seen]
        for one in self._rotation.closed(found, now, self._is_being_written):
            self._add(f"{OUT}/{one.path}", one.path, one.size)
            self._seen.add(one.identity)

    def _gather(self) -> None:
        with suppress(OSError):
            stdout = open_file(self._root, STDOUT)
            try:
                size = os.fstat(stdout).st_size
                if self._orders.rolling:
                    cutter = self._cutter or Cutter(self._orders.rolling, 0.0)
                    if (span := cutter.rest(stdout)) is not None:
                        self._add_segment(span)
                elif size:
                    self._add(STDOUT, f"{self._orders.tool}.out", size)
            finally:
                os.close(stdout)
        for one in self._found():
            if one.identity not in self._seen:
                self._add(f"{OUT}/{one.path}", one.path, one.size)
        self._nothing = not self._names
        with suppress(OSError):
            log = open_file(self._root, LOG)
            size = os.fstat(log).st_size
            os.close(log)
            if size:
                name = leaf_name(f"{self._orders.tool}.log", "", self._names)
                self._enqueue(_Source(LOG, name, "none", size, (0, size)))

    def _found(self) -> list[Found]:
        out = open_folder(OUT, at=self._root)
        try:
            globs = self._orders.outputs
            return sorted(one for one in regular_files(out) if one.size and (not globs or any_match(globs, one.path)))
        finally:
            os.close(out)

    def _is_being_written(self, one: Found) -> bool | None:
        opened = open_file(self._root, f"{OUT}/{one.path}")
        try:
            return is_being_written(opened)
        finally:
            os.close(opened)

    def _add_segment(self, span: tuple[int, int]) -> None:
        self._segment += 1
        self._add(STDOUT, f"{self._orders.tool}-{self._segment:04d}.out", span[1] - span[0], span)

    def _add(self, path: str, called: str, size: int, span: tuple[int, int] | None = None) -> None:
        if len(self._names) >= MOST_LEAVES - 1:  # one is for the log
            self._beyond += 1
            return
        method = "none" if is_compressed(called) else self._method
        name = leaf_name(called, SUFFIXES[method], self._names)
        self._enqueue(_Source(path, name, method, size, span))

    def _enqueue(self, source: _Source) -> None:
        self._names.add(source.name)
        self._unpacked.append(source)

    # -- packing ----------------------------------------------------------------------------------------------------

    def _pack(self, source: _Source) -> None:
        try:
            size, sha256 = (
                self._moved(source) if source.span is None and source.method == "none" else self._packed(source)
            )
        except OSError as error:
            self._lose(source, disk_fault(error))
        except Lost as lost:
            self._lose(source, lost)
        except Stopped:
            self._unpacked.appendleft(source)
            raise
        else:
            self._courier.add(Packed(source.name, size, sha256))

    def _moved(self, source: _Source) -> tuple[int, str]:
        folder, _, name = source.path.rpartition("/")
        parent = open_below(self._root, folder.split("/")) if folder else os.dup(self._root)
        try:
            os.rename(name, source.name, src_dir_fd=parent, dst_dir_fd=self._leaves)
        finally:
            os.close(parent)
        opened = open_file(self._leaves, source.name)
        try:
            size, sha256 = measure(opened, self._stopped)
        finally:
            os.close(opened)
        if self._orders.max_bytes and size > self._orders.max_bytes:
            raise too_large(self._orders.max_bytes)
        return size, sha256

    def _packed(self, source: _Source) -> tuple[int, str]:
        opened = open_file(self._root, source.path)
        try:
            target = os.open(
                source.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=self._leaves
            )
            try:
                span = source.span or (0, os.fstat(opened).st_size)
                done = pack(
                    opened, span, target, source.method, max_bytes=self._orders.max_bytes, stopped=self._stopped
                )
            finally:
                os.close(target)
        finally:
            os.close(opened)
        self._free(source)
        return done

    def _free(self, source: _Source) -> None:
        """Give the disk space of a source back."""
        if source.span is None:
            unlink(self._root, source.path)
        elif source.path == STDOUT:
            with suppress(OSError):
                opened = os.open(STDOUT, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root)
                try:
                    punch(opened, source.span)
                finally:
                    os.close(opened)

    def _lose(self, source: _Source, lost: Lost) -> None:
        self._faults.append(lost)
        self._lost.append(Leaf(name=source.name, size=source.size, sha256="", state="lost"))
        for path in (source.path if source.span is None else "", f"{LEAVES}/{source.name}"):
            if path:
                with suppress(OSError):
                    unlink(self._root, path)

    # -- delivering -------------------------------------------------------------------------------------------------

    def _make_place(self, orders: Orders) -> Delivery:
        if orders.mode == "collector":
            return CollectorUpload(Endpoint(orders.endpoint, orders.ca), orders.capture, self._leaves)
        if orders.mode == "pvc":
            return PvcCopy(orders.capture, self._leaves, orders.pvc_path, self._mount)
        if orders.mode in {"ephemeral", "s3"}:
            if orders.mode == "s3" and not orders.fetch_key:
                raise ValueError("mode s3 needs a fetch key")
            return Keeping(orders.max_bytes)
        raise ValueError("the mode is none of collector, pvc, ephemeral and s3")

    def _step(self, now: float) -> float:
        """One attempt of the courier; a leaf that has come to its end elsewhere needs no place here any more."""
        if self._fresh and isinstance(self._place, CollectorUpload):
            self._fresh = False
            self._place.token(self._token)
            self._courier.token_came()
        wait = self._courier.step(now)
        if wait == 0 and (leaf := self._courier.leaves[-1]).state != "kept":
            with suppress(OSError):
                unlink(self._leaves, leaf.name)
        return wait

    def _drain(self, deadline: float) -> None:
        while not self._stopped():
            self._wake.clear()
            now = time.monotonic()
            if (wait := self._step(now)) == 0:
                continue
            if self._unpacked:
                self._pack(self._unpacked.popleft())
                continue
            if self._courier.idle and (wait := self._courier.complete(now)) == 0:
                return
            self._wake.wait(max(0.0, min(wait, deadline - now)))

    def _settle(self) -> tuple[Leaf, ...]:
        self._courier.give_up()
        faults = [*self._faults, *self._courier.faults]
        for source in self._unpacked:
            faults.append(Lost("UploadFailed", "there was no time left to pack it"))
            self._lose(source, faults[-1])
        self._unpacked.clear()
        leaves = (*self._courier.leaves, *self._lost)
        self._serve(leaves)
        if faults or self._beyond or self._nothing:
            raise CollectingError(*self._words(faults, len(leaves)), leaves)
        return leaves

    def _serve(self, leaves: tuple[Leaf, ...]) -> None:
        kept = {leaf.name: leaf for leaf in leaves if leaf.state == "kept"}
        if kept and not self._cancelled:
            self._shelf.open(leaves, self._orders.keep_seconds)
            if self._orders.mode == "s3":
                self._server = LeafServer(self._leaves, self._orders.fetch_key, kept)

    def _words(self, faults: list[Lost], leaves: int) -> tuple[str, str]:
        if self._cancelled and faults:
            return "Cancelled", f"{len(faults)} of {leaves} artifacts were not stored when the run was cancelled"
        if faults:
            first = faults[0]
            return first.reason, f"{len(faults)} of {leaves} artifacts are lost: {first}"
        if self._beyond:
            most = MOST_LEAVES
            return "TooLarge", f"{self._beyond} files more than the {most} that one run may leave; narrow its outputs"
        globs = ", ".join(self._orders.outputs)
        return (
            "NoOutput",
            f"the tool left no file{f' that matches {globs}' if globs else ''} and wrote nothing to stdout",
        )

    # -- ending -----------------------------------------------------------------------------------------------------

    def _stopped(self) -> bool:
        return self._cancelled or self._late

    def _end(self, *, late: bool) -> None:
        if late:
            self._late = True
        else:
            self._cancelled = True
        if self._place is not None:
            self._place.abort()
        self._wake.set()

    def _over(self, seconds: float) -> bool:
        self._wake.clear()
        if not self._cancelled:
            self._wake.wait(seconds)
        return self._cancelled or (self._server is not None and self._server.fetched.is_set())


def _nobody() -> None:
    """Before the tool has ended nobody waits for a token; the operator brings one every few minutes."""
