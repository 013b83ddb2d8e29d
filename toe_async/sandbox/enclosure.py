"""A container's own view of the file system: a mount namespace in which some paths are its own and all others shared.

Its own are /tmp, its message file and its volumes; the machine's programs and files stay where they are, for there
are no images. It takes root (CAP_SYS_ADMIN and CAP_SYS_CHROOT); nothing is mounted outside of the namespace, which
ends with its last process, and with it the container's /tmp, which lies in memory.

All is made between fork and exec, where only plain system calls are safe: hence ctypes, and every path prepared
before. What lies in the machine's /tmp is seen as it was when the container was made.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from pathlib import Path

from msgspec import Struct

_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_NEEDED = (1 << 21) | (1 << 18)  # CAP_SYS_ADMIN, CAP_SYS_CHROOT
_DEVICES = frozenset({"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm",
                      "fd", "stdin", "stdout", "stderr"})  # fmt: skip
_TMP = "/tmp"  # noqa: S108 the machine's, which is not written to
_OURS = "toe-"
"""Runs of tools and sandboxes keep their things in /tmp under such names; a container sees its own only."""

_libc = ctypes.CDLL(None, use_errno=True)


def possible() -> bool:
    """Whether this process may enclose others. Blocking: reads one line of /proc."""
    status = Path("/proc/self/status").read_text()
    held = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return int(held, 16) & _NEEDED == _NEEDED


class _Step(Enum):
    FOLDER = auto()
    OPEN_FOLDER = auto()
    """One that everybody may write to."""
    LINK = auto()
    SHARED_FOLDER = auto()
    SHARED_FILE = auto()


class Enclosure(Struct, frozen=True):
    """An empty folder that becomes the root, and the steps that fill it: (what, source, place), outer ones first."""

    root: bytes
    steps: tuple[tuple[_Step, bytes, bytes], ...]

    def enter(self, directory: bytes) -> None:
        """Make the namespace and go into it; for a child before it becomes its program. Raises OSError."""
        _check(_libc.unshare(_CLONE_NEWNS), b"unshare")
        _mount(None, b"/", None, _MS_REC | _MS_PRIVATE)
        _mount(b"tmpfs", self.root, b"tmpfs", 0, b"mode=755")
        for step, source, place in self.steps:
            match step:
                case _Step.FOLDER:
                    _check(_libc.mkdir(place, 0o755), place)
                case _Step.OPEN_FOLDER:
                    _check(_libc.mkdir(place, 0o755), place)
                    _check(_libc.chmod(place, 0o1777), place)
                case _Step.LINK:
                    _check(_libc.symlink(source, place), place)
                case _Step.SHARED_FOLDER:
                    _check(_libc.mkdir(place, 0o755), place)
                    _share_mount(source, place, _MS_BIND | _MS_REC)
                case _Step.SHARED_FILE:
                    _check(_libc.close(_check(_libc.open(place, os.O_CREAT | os.O_WRONLY, 0o644), place)), place)
                    _share_mount(source, place, _MS_BIND)
        self._turn(directory)

    def join(self, pid: int, directory: bytes) -> None:
        """Go where process `pid` is enclosed; for a child as above. Raises OSError."""
        namespace = b"/proc/%d/ns/mnt" % pid
        descriptor = _check(_libc.open(namespace, os.O_RDONLY | os.O_CLOEXEC), namespace)
        _check(_libc.setns(descriptor, _CLONE_NEWNS), namespace)
        self._turn(directory)

    def _turn(self, directory: bytes) -> None:
        _check(_libc.chroot(self.root), self.root)
        _check(_libc.chdir(directory), directory)


def _mount(source: bytes | None, place: bytes, kind: bytes | None, flags: int, options: bytes | None = None) -> None:
    _check(_libc.mount(source, place, kind, ctypes.c_ulong(flags), options), place)


def _share_mount(source: bytes, place: bytes, flags: int) -> None:
    """What has gone from the machine's /tmp meanwhile leaves an empty place."""
    try:
        _mount(source, place, None, flags)
    except FileNotFoundError:
        return


def _check(result: int, what: bytes) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what.decode(errors="replace"))
    return result


def build(root: Path, own: Mapping[str, Path]) -> Enclosure:
    """Prepare for a root at `root`, an empty folder; `own` maps absolute paths inside to what is found there.

    Blocking: reads some folders. Raises OSError.
    """
    wanted = {tuple(Path(path).parts[1:]): str(source) for path, source in own.items()}
    steps = _fill("", wanted)
    here = str(root)
    return Enclosure(os.fsencode(here), tuple((step, os.fsencode(a), os.fsencode(here + b)) for step, a, b in steps))


_Steps = Iterator[tuple[_Step, str, str]]


def _fill(folder: str, own: Mapping[tuple[str, ...], str]) -> _Steps:
    """The steps that make a folder the machine's one of the same path, but for paths of its own below."""
    names = {path[0] for path in own} | ({"tmp"} if not folder else set())
    try:
        with os.scandir(folder or "/") as entries:
            shared = [one for one in entries if one.name not in names and _is_shared(folder, one.name)]
    except (FileNotFoundError, NotADirectoryError):
        shared = []
    for entry in shared:
        yield from _share(entry.path, f"{folder}/{entry.name}")
    for name in sorted(names):
        place = f"{folder}/{name}"
        if (source := own.get((name,))) is not None:
            yield from _share(source, place)
        else:
            yield (_Step.OPEN_FOLDER if place == _TMP else _Step.FOLDER), "", place
            yield from _fill(place, {path[1:]: source for path, source in own.items() if path[0] == name})


def _is_shared(folder: str, name: str) -> bool:
    if folder == "/dev":
        return name in _DEVICES
    return not (folder == _TMP and name.startswith(_OURS))


def _share(source: str, place: str) -> _Steps:
    if os.path.islink(source):
        yield _Step.LINK, os.readlink(source), place
    elif os.path.isdir(source):
        yield _Step.SHARED_FOLDER, source, place
    elif os.path.exists(source):
        yield _Step.SHARED_FILE, source, place
