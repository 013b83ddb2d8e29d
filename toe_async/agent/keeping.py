"""Leaves that stay in the tool's container for a while, to be fetched from there.

Beside them lies `kept.json`, what there is and until when, and `fetched` appears when whoever came has it all: both
are how the fetching commands, processes of their own in the same container, and the supervisor speak to each other.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict

from toe_async.agent.faults import Lost
from toe_async.agent.folders import open_below
from toe_async.agent.packing import Packed, write_all
from toe_async.agent.protocol import Leaf

LEAVES, KEPT, FETCHED = "leaves", "kept.json", "fetched"
LOOK_SECONDS = 0.5
GRACE_SECONDS = 300.0
"""How much longer a fetch under way holds the leaves than they are kept for."""


class Keeping:
    """The delivery that moves nothing: a leaf is kept where it lies, all of them within `max_bytes` (0: no limit)."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0

    def put(self, leaf: Packed) -> Leaf:
        """Keep one leaf; raises Lost (TooLarge)."""
        if self._max_bytes and self._bytes + leaf.size > self._max_bytes:
            raise Lost("TooLarge", f"all that is kept may have {self._max_bytes} bytes")
        self._bytes += leaf.size
        return Leaf(name=leaf.name, size=leaf.size, sha256=leaf.sha256, state="kept")

    def complete(self, stored: Sequence[Leaf]) -> None:
        """Nobody has to be told."""

    def abort(self) -> None:
        """Nothing here takes time."""

    def close(self) -> None:
        """What is kept is the shelf's to remove."""


class Shelf:
    """The kept leaves of a run, seen by the supervisor. `folder` is the open state folder."""

    def __init__(self, folder: int) -> None:
        self._folder = folder

    def open(self, leaves: Sequence[Leaf], seconds: float) -> None:
        """Write down what is kept, all at once: from now on it can be listed and fetched."""
        said = {"seconds": seconds, "leaves": [asdict(leaf) for leaf in leaves if leaf.state == "kept"]}
        part = f".{KEPT}"
        written = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=self._folder)
        try:
            write_all(written, json.dumps(said).encode())
        finally:
            os.close(written)
        os.rename(part, KEPT, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def wait(self, over: Callable[[float], bool], seconds: float) -> None:
        """Wait until all was fetched, or `seconds` have passed and nobody fetches, or longer by GRACE_SECONDS.

        `over` waits so many seconds, and tells whether it is all over.
        """
        waited = 0.0
        while not self._fetched():
            if waited >= seconds + GRACE_SECONDS or (waited >= seconds and not self._is_being_fetched()):
                return
            pause = min(LOOK_SECONDS, max(seconds - waited, 0.01)) if waited < seconds else LOOK_SECONDS
            if over(pause):
                return
            waited += pause

    def clear(self) -> None:
        """Remove everything that was kept; a fetch under way keeps what it has open."""
        with suppress(FileNotFoundError):
            os.unlink(KEPT, dir_fd=self._folder)
        with suppress(OSError):
            leaves = open_below(self._folder, [LEAVES])
            try:
                for name in os.listdir(leaves):
                    with suppress(OSError):
                        os.unlink(name, dir_fd=leaves)
            finally:
                os.close(leaves)

    def _fetched(self) -> bool:
        try:
            os.stat(FETCHED, dir_fd=self._folder, follow_symlinks=False)
        except OSError:
            return False
        return True

    def _is_being_fetched(self) -> bool:
        """Whoever fetches holds a shared lock on `kept.json`."""
        try:
            opened = os.open(KEPT, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError:
            return False
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(opened)
        return False
