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

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from toe_async.agent.courier import Courier, Delivery
from toe_async.agent.faults import Lost, Stopped
from toe_async.agent.finishing import Finisher
from toe_async.agent.folders import open_folder
from toe_async.agent.gathering import MOST_LEAVES, Gathering, Source
from toe_async.agent.httpclient import Endpoint
from toe_async.agent.keeping import LEAVES, Keeping, Shelf
from toe_async.agent.packing import disk_fault, usable
from toe_async.agent.protocol import Leaf, Orders
from toe_async.agent.pvc import MOUNT, PvcCopy
from toe_async.agent.serving import LeafServer
from toe_async.agent.supervisor import CollectingError
from toe_async.agent.upload import CollectorUpload, is_token


def _nobody() -> None:
    """Ask nobody for a token."""


class Outputs:
    """The output of one run; `toe_async.agent.supervisor.Collecting` says who calls what when."""

    def __init__(self, mount: str = MOUNT) -> None:
        """`mount` is where a claim is mounted."""
        self._mount = mount
        self._wake = threading.Event()
        self._cancelled = threading.Event()
        self._token = ""
        self._run: _Run | None = None
        self._server: LeafServer | None = None

    @property
    def port(self) -> int:
        """Where leaves are served in mode s3; 0 before they are and in other modes."""
        return self._server.port if self._server is not None else 0

    @property
    def note(self) -> str:
        """What is to be told about the output though nothing is lost."""
        return "; ".join(self._run.notes) if self._run is not None else ""

    def start(self, orders: Orders, folder: str, need_token: Callable[[], None] = _nobody) -> None:
        """Prepare for one run, whose `out/` and `leaves/` exist in `folder`.

        `need_token` is called when a segment waits for a token while the tool runs; without it segments wait for one
        that comes unasked, or for the end.

        Raises:
            CollectingError: the orders cannot be followed: a broken glob, method, endpoint, CA, path or mode.
        """
        try:
            self._run = _Run(orders, folder, self._mount, self._wake, self._cancelled)
        except ValueError as error:
            raise CollectingError("InvalidSpec", str(error)) from error
        self._run.token, self._run.need_token = self._token, need_token
        if self._cancelled.is_set():
            self._run.place.abort()

    def tick(self, now: float) -> None:
        """With a rolling interval: cut what is due and bring finished segments where they belong. May block.

        `now` is time.monotonic().
        """
        if self._run is not None and self._run.orders.rolling and not self._cancelled.is_set():
            with suppress(Stopped):
                self._run.roll(now)

    def finish(self, deadline: float, need_token: Callable[[], None]) -> tuple[Leaf, ...]:
        """Bring everything where it belongs, until `deadline` (time.monotonic()) or `cancel`.

        Raises:
            CollectingError: there is nothing, or something is lost; it holds the leaves all the same.
        """
        run = self._run
        if run is None:
            return ()
        run.need_token = need_token
        late = threading.Timer(max(0.0, deadline - time.monotonic()), run.end)
        late.daemon = True
        late.start()
        try:
            with suppress(Stopped):
                run.drain(deadline)
        finally:
            late.cancel()
            run.place.close()
        leaves = run.give_up()
        if run.keeps and not self._cancelled.is_set():
            try:
                self._offer(run, leaves)
            except OSError as error:
                lost = disk_fault(error)
                gone = tuple(replace(leaf, state="lost") for leaf in leaves)
                raise CollectingError(lost.reason, str(lost), gone) from error
        if (fault := run.fault(self._cancelled.is_set(), leaves)) is not None:
            raise fault
        return leaves

    def keep(self, deadline: float) -> None:
        """Keep what waits to be fetched until it was, `deadline` (time.monotonic()) or `cancel`; then remove it."""
        if self._run is None:
            return
        try:
            if self._run.keeps:
                self._run.shelf.wait(self._over, deadline - time.monotonic())
        finally:
            if self._server is not None:
                self._server.close()
            self._run.shelf.clear()

    def token(self, token: str) -> None:
        """Take a token for the collector. One that no header could carry is left alone: another is asked for."""
        if is_token(token):
            self._token = token
            if self._run is not None:
                self._run.token = token
            self._wake.set()

    def cancel(self) -> None:
        """Make whatever blocks above return within a second; what is stored stays stored."""
        self._cancelled.set()
        if self._run is not None:
            self._run.end()

    def _offer(self, run: _Run, leaves: tuple[Leaf, ...]) -> None:
        run.shelf.open(leaves, run.orders.keep_seconds)
        if run.orders.mode == "s3":
            kept = {leaf.name: leaf for leaf in leaves if leaf.state == "kept"}
            self._server = LeafServer(run.leaves, run.orders.fetch_key, kept)

    def _over(self, seconds: float) -> bool:
        self._cancelled.wait(seconds)
        return self._cancelled.is_set() or (self._server is not None and self._server.fetched.is_set())


class _Run:
    """One run's sources on their way. All but `end` and `token` belong to one thread."""

    def __init__(
        self, orders: Orders, folder: str, mount: str, wake: threading.Event, cancelled: threading.Event
    ) -> None:
        self.orders, self._wake, self._cancelled = orders, wake, cancelled
        root = open_folder(folder)
        self.leaves, self.shelf = open_folder(LEAVES, at=root), Shelf(root)
        method, note = usable(orders.compress)
        self.notes = [note] if note else []
        self.place: Delivery = _place(orders, self.leaves, mount)
        self.token = ""
        self.need_token = _nobody
        self._used = ""
        self._late = threading.Event()
        self._gathering = Gathering(root, orders, method)
        self._finisher = Finisher(root, self.leaves, orders.max_bytes, self._stopped)
        self._courier = Courier(self.place, lambda: self.need_token())
        self._unpacked: deque[Source] = deque()
        self._taken = 0
        self._lost: list[Leaf] = []
        self._faults: list[Lost] = []

    @property
    def keeps(self) -> bool:
        """Whether leaves wait here to be fetched."""
        return any(leaf.state == "kept" for leaf in self._courier.leaves)

    def roll(self, now: float) -> None:
        """Pack and send what is finished while the tool runs; raises Stopped."""
        self._unpacked += self._gathering.closed(now)
        while self._unpacked:
            self._pack()
        while self._step(now) == 0:
            pass

    def drain(self, deadline: float) -> None:
        """Gather the rest, pack and send until there is nothing left; raises Stopped.

        A leaf is packed when there is none to be sent now, so that leaves do not pile up on the disk.
        """
        known = {source.path for source in self._unpacked}
        self._unpacked += [*self._gathering.rest(known), *self._gathering.log()]
        while not self._stopped():
            self._wake.clear()
            now = time.monotonic()
            wait = self._step(now)
            if wait == 0:
                continue
            if self._unpacked:
                self._pack()
                continue
            if self._courier.idle and (wait := self._courier.complete(now)) == 0:
                return
            self._wake.wait(max(0.0, min(wait, deadline - now)))

    def end(self) -> None:
        """From any thread: everything above returns soon."""
        self._late.set()
        self.place.abort()
        self._wake.set()

    def give_up(self) -> tuple[Leaf, ...]:
        """What became of everything; what still waits is lost."""
        if self._courier.idle and self._courier.trouble is not None:
            self.notes.append("everything is stored, but the collector could not be told that this is all")
        self._courier.give_up()
        while self._unpacked:
            self._lose(self._unpacked.popleft(), Lost("UploadFailed", "there was no time left to pack it"))
        return (*self._courier.leaves, *self._lost)

    def fault(self, cancelled: bool, leaves: tuple[Leaf, ...]) -> CollectingError | None:
        """What is wrong with the output as a whole, in words."""
        faults, beyond = [*self._faults, *self._courier.faults], self._gathering.beyond
        if faults and cancelled:
            what = f"{len(faults)} of {len(leaves)} artifacts were not stored when the run was cancelled"
            return CollectingError("Cancelled", what, leaves)
        if faults:
            return CollectingError(
                faults[0].reason, f"{len(faults)} of {len(leaves)} artifacts are lost: {faults[0]}", leaves
            )
        if beyond:
            what = f"{beyond} files more than the {MOST_LEAVES} that one run may leave; narrow the tool's outputs"
            return CollectingError("TooLarge", what, leaves)
        if self._gathering.empty:
            globs = ", ".join(self.orders.outputs)
            what = f"no file that matches {globs}" if globs else "no file"
            return CollectingError("NoOutput", f"the tool left {what} and wrote nothing to its stdout", leaves)
        return None

    def _stopped(self) -> bool:
        return self._late.is_set() or self._cancelled.is_set()

    def _pack(self) -> None:
        source, most = self._unpacked[0], self.orders.max_output_bytes
        self._taken += source.size
        try:
            if (
                self.orders.rolling and most and self._taken > most
            ):  # whoever watches the folder sees no sum of segments
                raise Lost("TooLarge", f"beyond the {most} bytes that one run may leave")
            self._courier.add(self._finisher.leaf(source))
        except Lost as lost:
            self._lose(source, lost)
        self._unpacked.popleft()

    def _lose(self, source: Source, lost: Lost) -> None:
        self._faults.append(lost)
        self._lost.append(Leaf(name=source.name, size=source.size, sha256="", state="lost"))
        self._finisher.remove(source)

    def _step(self, now: float) -> float:
        """One attempt of the courier. What was brought elsewhere, or is lost, needs no place here any more."""
        if self.token != self._used and isinstance(self.place, CollectorUpload):
            self._used = self.token
            self.place.token = self._used
            self._courier.token_came()
        wait = self._courier.step(now)
        if wait == 0 and (leaf := self._courier.leaves[-1]).state != "kept":
            self._finisher.forget(leaf.name)
        return wait


def _place(orders: Orders, leaves: int, mount: str) -> Delivery:
    if orders.mode == "collector":
        return CollectorUpload(Endpoint(orders.endpoint, orders.ca), orders.capture, leaves)
    if orders.mode == "pvc":
        return PvcCopy(orders.capture, leaves, orders.pvc_path, mount)
    if orders.mode == "s3" and not orders.fetch_key:
        raise ValueError("mode s3 needs a fetch key")
    if orders.mode in {"ephemeral", "s3"}:
        return Keeping(orders.max_bytes)
    raise ValueError("the mode is none of collector, pvc, ephemeral and s3")
