"""A tool as a process group of its own: started without a shell, and gone with all it started when it ends."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from toe_async.agent import kernel
from toe_async.agent.procfs import TICKS, Process, descendants, read_process

_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "JAVA_HOME", "LANG", "LC_ALL", "TZ")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DESCRIPTORS = 65536


@dataclass(frozen=True)
class Ended:
    """How a process ended: by a code or by a signal."""

    code: int | None
    signal: int | None


@dataclass(frozen=True)
class Usage:
    """Of a tool with all its processes: CPU seconds since its start, bytes of memory now."""

    cpu: float
    rss: int


def environment(ours: Mapping[str, str], home: str) -> dict[str, str]:
    """What a tool gets of our environment: where programs are, language and zone; nothing that could be secret."""
    kept = {name: ours[name] for name in _ENVIRONMENT if name in ours}
    return {"PATH": _PATH, "LANG": "C.UTF-8", **kept, "HOME": home}


class ToolProcess:
    """The tool and every process that descends from it. Create it in the main thread, before any other thread runs.

    The supervisor must be a child subreaper: then whoever leaves the group, double-forks or starts a session is still
    found below us. The leader is not reaped before `reap`, so its number cannot be anybody else's while we signal it.
    """

    def __init__(
        self,
        argv: tuple[str, ...],
        *,
        env: dict[str, str],
        folder: str,
        stdout: int,
        stderr: int,
        nice: int,
        largest: int,
    ) -> None:
        """Start it, with stdin from nowhere. `largest` bounds each of its files in bytes, 0 is no bound.

        Raises:
            OSError: the program cannot be started, ValueError: an argument that no program can be given.
        """
        for one in argv:
            if "\0" in one:
                raise ValueError("an argument holds a NUL character")
            os.fsencode(one)  # UnicodeEncodeError is a ValueError
        self._before = _reaped_cpu()
        self._most_cpu = 0.0
        self.pid = _spawn(_Start(argv, env, folder, stdout, stderr, nice, largest))
        self._waiting = True

    def ended(self) -> Ended | None:
        """How the leader ended, or None while it runs. Reaps every other child that has ended."""
        while self._waiting:
            try:
                seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return None
            if seen is None:
                return None
            if seen.si_pid == self.pid:
                self._waiting = False
                by_signal = seen.si_code != os.CLD_EXITED
                self._end = Ended(None if by_signal else seen.si_status, seen.si_status if by_signal else None)
                break
            _reap(seen.si_pid)
        return self._end

    def signal(self, number: int, *, strays: bool) -> None:
        """Send it to the group, with `strays` also to all that left the group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        if not strays:
            return
        for process in descendants(os.getpid()).values():
            if process.group != self.pid and not process.dead:
                _signal(process, number)

    def survivors(self) -> int:
        """How many of its processes still run once the leader has ended; reaps those that do not."""
        alive = 0
        for process in descendants(os.getpid()).values():
            if not process.dead:
                alive += 1
            elif process.parent == os.getpid() and process.pid != self.pid:
                _reap(process.pid)
        return alive

    def reap(self) -> None:
        """Take the leader away, last of all."""
        _reap(self.pid)

    def usage(self) -> Usage:
        """CPU never goes down, though a process may slip between two lists while it ends."""
        found = list(descendants(os.getpid()).values())
        cpu = sum(one.cpu for one in found) / TICKS + _reaped_cpu() - self._before
        self._most_cpu = max(self._most_cpu, cpu)
        return Usage(self._most_cpu, sum(one.rss for one in found))


@dataclass(frozen=True)
class _Start:
    argv: tuple[str, ...]
    env: dict[str, str]
    folder: str
    stdout: int
    stderr: int
    nice: int
    largest: int


def _spawn(start: _Start) -> int:
    told, tell = os.pipe()  # closes by itself when the program starts
    parent = os.getpid()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _become(start, parent, tell)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        failed = pipe.read(16)
    if failed:
        os.waitpid(pid, 0)
        raise OSError(int(failed), os.strerror(int(failed)))
    return pid


def _become(start: _Start, parent: int, tell: int) -> None:
    """In the child: never returns."""
    try:
        os.setsid()
        kernel.die_with_parent()
        if os.getppid() != parent:
            os._exit(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for wanted, stream in enumerate((nothing, start.stdout, start.stderr)):
            os.dup2(stream, wanted)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)  # Python ignores SIGPIPE and SIGXFSZ, which exec would pass on
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _bound(resource.RLIMIT_NOFILE, _DESCRIPTORS)
        if start.largest:
            _bound(resource.RLIMIT_FSIZE, start.largest)
        with contextlib.suppress(OSError):
            os.nice(min(start.nice, 19))
        os.chdir(start.folder)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(start.argv[0], start.argv, start.env)  # noqa: S606 - an argument vector, never a shell
    except OSError as error:
        os.write(tell, str(error.errno or 0).encode())
    finally:
        os._exit(127)


def _bound(which: int, most: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = most if hard == resource.RLIM_INFINITY else min(hard, most)
    resource.setrlimit(which, (value, value))


def _signal(process: Process, number: int) -> None:
    """Signal exactly this process: its number may be another's by now."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # before Linux 5.3, or forbidden by a seccomp profile
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, number)
        return
    try:
        now = read_process(process.pid)
        if now is not None and now.started == process.started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _reaped_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
