"""The commands by which a kept result is taken from a tool's container, each a process of its own (`pods/exec`).

`list` says what is kept, `fetch` writes a leaf to stdout, `fetched` ends the keeping. They find the run by its state
folder: a container holds one run.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

from toe_async.agent.folders import open_below, open_file, open_folder
from toe_async.agent.keeping import FETCHED, KEPT, LEAVES
from toe_async.agent.leafnames import is_leaf

STATE_ROOT = "/tmp"  # noqa: S108 - the only folder that can be written to on a read-only root; made with mode 0700
STATE_PREFIX = "toe-"

_CHUNK = 256 << 10
_LARGEST_LIST = 1 << 20


class NotKept(Exception):  # noqa: N818 - read as what has happened
    """There is nothing like that to fetch; the message says what there is."""


def listing(root: str = STATE_ROOT) -> dict[str, Any]:
    """What is kept: `{"seconds": for how long, "leaves": [{name, size, sha256, ...}]}`; raises NotKept."""
    with _shelf(root) as (_, said):
        return said


def fetch(leaf: str, offset: int, to: BinaryIO, root: str = STATE_ROOT) -> None:
    """Write a kept leaf from byte `offset` on; while this lasts the leaf stays, within the keeper's own bounds.

    Raises:
        NotKept: no such leaf, or the offset is behind its end.
    """
    with _shelf(root) as (folder, said):
        names = [one["name"] for one in said["leaves"]]
        if leaf not in names or not is_leaf(leaf):
            raise NotKept(f"no leaf of that name is kept; there are: {', '.join(names) or 'none'}")
        leaves = open_below(folder, [LEAVES])
        try:
            source = open_file(leaves, leaf)
        finally:
            os.close(leaves)
        try:
            size = os.fstat(source).st_size
            if not 0 <= offset <= size:
                raise NotKept(f"the leaf has {size} bytes, so none at offset {offset}")
            while piece := os.pread(source, _CHUNK, offset):
                to.write(piece)
                offset += len(piece)
            to.flush()
        finally:
            os.close(source)


def fetched(root: str = STATE_ROOT) -> None:
    """Tell the supervisor that everything was fetched; raises NotKept."""
    with _shelf(root) as (folder, _):
        os.close(os.open(FETCHED, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder))


@contextmanager
def _shelf(root: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The state folder of the run that is kept here, and what is kept; locked against its removal."""
    for name in sorted(os.listdir(root)):
        if not name.startswith(STATE_PREFIX):
            continue
        with ExitStack() as opened:
            try:
                folder = open_folder(os.path.join(root, name))
                opened.callback(os.close, folder)
                kept = open_file(folder, KEPT)
                opened.callback(os.close, kept)
            except OSError:
                continue
            if os.fstat(kept).st_uid != os.geteuid():
                continue
            fcntl.flock(kept, fcntl.LOCK_SH)
            yield folder, json.loads(os.read(kept, _LARGEST_LIST))
            return
    raise NotKept("nothing is kept here: the tool still runs, or its result was fetched, or its time is over")
