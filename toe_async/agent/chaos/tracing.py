"""ptrace(2) as far as stopping a process needs it. All calls must come from one thread, which is the tracer."""

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterable

PTRACE_DETACH = 17
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_O_EXITKILL = 0x00100000
_WALL = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def _ptrace(request: int, tid: int, data: int = 0) -> None:
    if _libc.ptrace(request, tid, None, ctypes.c_void_p(data)) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def threads(pid: int) -> list[int]:
    """The threads of a process; empty when it is gone."""
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return []


class Hold:
    """Processes that are stopped for as long as this is held: the kernel lets them go when this process dies."""

    def __init__(self) -> None:
        self._held: dict[int, int] = {}  # thread -> process

    def stop(self, pids: Iterable[int]) -> int:
        """Stop every thread of these processes; returns how many. Threads that they make meanwhile are found too.

        Raises:
            PermissionError: the kernel does not let us trace one of them; nothing stays stopped then.
        """
        pids = list(pids)
        try:
            while fresh := [(tid, pid) for pid in pids for tid in threads(pid) if tid not in self._held]:
                for tid, pid in fresh:
                    self._stop_one(tid, pid)
        except BaseException:
            self.release()
            raise
        return len(self._held)

    def _stop_one(self, tid: int, pid: int) -> None:
        try:
            _ptrace(PTRACE_SEIZE, tid)
            self._held[tid] = pid
            _ptrace(PTRACE_INTERRUPT, tid)
            os.waitpid(tid, _WALL)
        except OSError as error:
            if error.errno not in {errno.ESRCH, errno.ECHILD}:
                raise
            self._held.setdefault(tid, pid)  # it ended by itself

    def release(self) -> None:
        """Let them run on."""
        for tid in self._held:
            with contextlib.suppress(OSError):  # gone, or killed while it was stopped
                _ptrace(PTRACE_DETACH, tid)
        self._held.clear()


def kill_with_us(pid: int) -> None:
    """Have the kernel kill a process when the calling process ends.

    That is the only way to kill the first process of our own PID namespace: it is deaf to SIGKILL from inside, but not
    to the one that PTRACE_O_EXITKILL makes the kernel send.
    """
    _ptrace(PTRACE_SEIZE, pid, PTRACE_O_EXITKILL)
