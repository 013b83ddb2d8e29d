"""Leaves into a mounted claim: created, never replaced, and never anywhere but below the mount.

The claim belongs to the target: it may hold links and folders of anybody's making, and none of them is followed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress

from toe_async.agent.faults import Lost, Stopped
from toe_async.agent.folders import open_below, open_file, open_folder
from toe_async.agent.packing import Packed, measure, write_all
from toe_async.agent.protocol import Leaf

MOUNT = "/toe/pvc"

_SHORT_ID = 10
_CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LINKS = {errno.ELOOP, errno.ENOTDIR}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def parts_below(path: str, mount: str = MOUNT) -> list[str]:
    """The folders of a path in the claim; an absolute one may name the mount itself or begin at the claim's root.

    Raises:
        ValueError: it holds `..` or what no folder can be called.
    """
    inside = path[len(mount) :] if path == mount or path.startswith(mount + "/") else path
    parts = [part for part in inside.split("/") if part not in {"", "."}]
    if ".." in parts or any("\0" in part or len(part.encode()) > 255 for part in parts):
        raise ValueError("the path in the claim is none")
    return parts


class PvcCopy:
    """Copies leaves of one capture into a folder of the claim, as `{capture id, 10}-{leaf}`."""

    def __init__(self, capture: str, leaves: int, path: str, mount: str = MOUNT) -> None:
        self._prefix, self._leaves, self._mount = capture[:_SHORT_ID] + "-", leaves, mount
        self._parts = parts_below(path, mount)
        self._aborted = False

    def put(self, leaf: Packed) -> Leaf:
        """Copy one leaf, write it to the disk, and read it again.

        Raises:
            Lost: StoreFull, Conflicted (something else has its name), UploadFailed. Nothing of it is left.
            Stopped.
        """
        name = self._prefix + leaf.name
        try:
            folder = self._folder()
            try:
                self._copy(leaf, name, folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise _fault(error) from error
        uri = "/" + "/".join([*self._parts, name])
        return Leaf(name=leaf.name, size=leaf.size, sha256=leaf.sha256, state="stored", uri=uri)

    def complete(self, stored: Sequence[Leaf]) -> None:
        """Write the folder's entries to the disk, when there are any."""
        if stored:
            try:
                folder = self._folder()
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
            except OSError as error:
                raise _fault(error) from error

    def abort(self) -> None:
        """End the copy under way; nothing of it is left."""
        self._aborted = True

    def close(self) -> None:
        """Nothing is left open."""

    def _stopped(self) -> bool:
        return self._aborted

    def _folder(self) -> int:
        mount = open_folder(self._mount)
        try:
            return open_below(mount, self._parts, make=True)
        finally:
            os.close(mount)

    def _copy(self, leaf: Packed, name: str, folder: int) -> None:
        if self._is_there(leaf, name, folder):
            return
        part = f".{name}.part"
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=folder)  # of an attempt of this capture that was killed
        try:
            self._write(leaf, part, folder)
            try:
                os.link(part, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                if not self._is_there(leaf, name, folder):
                    raise
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._write_in_place(leaf, name, folder)  # some network file systems have no links
        finally:
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=folder)
        os.fsync(folder)

    def _write_in_place(self, leaf: Packed, name: str, folder: int) -> None:
        try:
            self._write(leaf, name, folder)
        except FileExistsError:
            raise
        except BaseException:
            os.unlink(name, dir_fd=folder)
            raise

    def _write(self, leaf: Packed, name: str, folder: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        source = open_file(self._leaves, leaf.name)
        try:
            target = os.open(name, flags, 0o640, dir_fd=folder)
            try:
                while piece := os.read(source, _CHUNK):
                    if self._aborted:
                        raise Stopped
                    write_all(target, piece)
                os.fsync(target)
                if measure(target, self._stopped) != (leaf.size, leaf.sha256):
                    raise Lost("UploadFailed", "the claim gives other bytes back than were written to it")
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _is_there(self, leaf: Packed, name: str, folder: int) -> bool:
        """Whether this very leaf is stored; Lost when its name is taken by anything else."""
        try:
            held = open_file(folder, name)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _taken() from error
        try:
            if measure(held, self._stopped) != (leaf.size, leaf.sha256):
                raise _taken()
        finally:
            os.close(held)
        return True


def _taken() -> Lost:
    return Lost("Conflicted", "another file in the claim has the artifact's name, and is never replaced")


def _fault(error: OSError) -> Lost:
    if error.errno in _FULL:
        return Lost("StoreFull", "the claim is full, or its quota is used up")
    if error.errno in _LINKS:
        return Lost("UploadFailed", "a link, or something that is no folder, lies on the path in the claim")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return Lost("UploadFailed", "the tool's user may not write to that folder of the claim")
    word = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return Lost("UploadFailed", f"the claim cannot be written to ({word})")
