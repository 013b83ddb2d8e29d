"""The walls that a child builds around itself before it reads a byte that a stranger wrote.

After `confine` the process has the three pipes it was born with and can open nothing else: no file, no socket. It dies
by the kernel's hand when it uses too much memory or time, leaves no core, gains no rights, and does not outlive its
parent. As another user than root it cannot start a process or thread either; for root the kernel does not hold to
that, which is why its whole session is killed at the end.

Every module that is needed must be imported before: an import opens a file.
"""

import ctypes
import os
import resource
import signal

from toe_async.collector.rendering.limits import RenderLimits

_SET_PARENT_DEATH_SIGNAL, _SET_DUMPABLE, _SET_NO_NEW_PRIVILEGES = 1, 4, 38
_PIPES = 3
_FIRST_TO_DIE = b"1000"


def confine(limits: RenderLimits, parent: int) -> None:
    """Give up everything but reading, computing and writing to three pipes.

    Raises:
        OSError: a wall could not be built; nothing may be read then.
    """
    _prefer_to_be_killed()
    libc = ctypes.CDLL(None, use_errno=True)
    # Sent when the thread ends that started us: the collector starts children from its event loop's, which is its main.
    for option, value in (
        (_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL),
        (_SET_DUMPABLE, 0),
        (_SET_NO_NEW_PRIVILEGES, 1),
    ):
        if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
            raise OSError(ctypes.get_errno(), f"prctl {option} failed")
    if os.getppid() != parent:
        raise OSError("the collector ended before its child began")
    for name, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NPROC, 0, 0),
        # The first limit ends the process by SIGXCPU, which can be told apart; the second by SIGKILL.
        (resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1),
        (resource.RLIMIT_AS, limits.address_space, limits.address_space),
        (resource.RLIMIT_NOFILE, _PIPES, _PIPES),
    ):
        resource.setrlimit(name, (soft, hard))


def _prefer_to_be_killed() -> None:
    """Where memory runs out for all, it is the child that goes and not the collector with its uploads."""
    try:
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return  # no /proc, or one that cannot be written: a preference, not a wall
    try:
        os.write(score, _FIRST_TO_DIE)
    finally:
        os.close(score)
