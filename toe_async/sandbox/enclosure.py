"""A container's own view of the file system: a mount namespace in which some paths are its own and all others shared.

Its own are /tmp, its message file and its volumes; the machine's programs and files stay where they are, for there
are no images. It takes root (CAP_SYS_ADMIN and CAP_SYS_CHROOT); nothing is mounted outside of the namespace, which
ends with its last process.

The mounts are made between fork and exec, where only plain system calls are safe: hence ctypes, and all paths and
mount points prepared before. What lies in the machine's /tmp is seen as it was when the container was made.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_NEEDED = (1 << 21) | (1 << 18)  # CAP_SYS_ADMIN, CAP_SYS_CHROOT
_DEVICES = frozenset({"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm",
                      "fd", "stdin", "stdout", "stderr"})  # fmt: skip
_OURS = "toe-"
"""Runs of tools and sandboxes keep their things in /tmp under such names; a container sees its own only."""

_libc = ctypes.CDLL(None, use_errno=True)


def possible() -> bool:
    """Whether this process may enclose others. Blocking: reads one line of /proc."""
    status = Path("/proc/self/status").read_text()
    held = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return int(held, 16) & _NEEDED == _NEEDED


class Enclosure(Struct, frozen=True):
    """A prepared root with the mounts that fill it: (source, mount point), outer ones first."""

    root: bytes
    mounts: tuple[tuple[bytes, bytes], ...]

    def enter(self, directory: bytes) -> None:
        """Make the namespace and go into it; for a child before it becomes its program. Raises OSError."""
        _check(_libc.unshare(_CLONE_NEWNS), b"unshare")
        _check(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), b"/")
        for source, target in self.mounts:
            _check(_libc.mount(source, target, None, ctypes.c_ulong(_MS_BIND | _MS_REC), None), source)
        self._turn(directory)

    def join(self, pid: int, directory: bytes) -> None:
        """Go where process `pid` is enclosed; for a child as above. Raises OSError."""
        namespace = b"/proc/%d/ns/mnt" % pid
        descriptor = _libc.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        _check(descriptor, namespace)
        _check(_libc.setns(descriptor, _CLONE_NEWNS), namespace)
        self._turn(directory)

    def _turn(self, directory: bytes) -> None:
        _check(_libc.chroot(self.root), self.root)
        _check(_libc.chdir(directory), directory)


def _check(result: int, what: bytes) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what.decode(errors="replace"))


def build(root: Path, own: Mapping[str, Path]) -> Enclosure:
    """Prepare a new root at `root`, which must not exist; `own` maps absolute paths inside to what is found there.

    Blocking. Raises OSError.
    """
    wanted = {tuple(Path(path).parts[1:]): source for path, source in own.items()}
    mounts = tuple((os.fsencode(source), os.fsencode(target)) for source, target in _fill(Path("/"), root, wanted))
    (root / "tmp").chmod(0o1777)
    return Enclosure(os.fsencode(root), mounts)


def _fill(machine: Path, inside: Path, own: Mapping[tuple[str, ...], Path]) -> Iterator[tuple[Path, Path]]:
    """The mounts that make the folder `inside` the machine's folder with paths of its own below."""
    inside.mkdir()
    names = {path[0] for path in own}
    if machine == Path("/"):
        names.add("tmp")
    for entry in sorted(machine.iterdir()) if machine.is_dir() else ():
        if entry.name not in names and _is_shared(machine, entry.name):
            yield from _share(entry, inside / entry.name)
    for name in sorted(names):
        if (source := own.get((name,))) is not None:
            yield from _share(source, inside / name)
        else:
            below = {path[1:]: source for path, source in own.items() if path[0] == name}
            yield from _fill(machine / name, inside / name, below)


def _is_shared(folder: Path, name: str) -> bool:
    if folder == Path("/dev"):
        return name in _DEVICES
    return not (folder == Path("/tmp") and name.startswith(_OURS))  # noqa: S108 the machine's own, not a file of ours


def _share(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_dir():
        target.mkdir()
        yield source, target
    elif source.exists():
        target.touch()
        yield source, target
