"""Effects on the target's process: held still by turns, or ended."""

import os
import signal
import time

from toe_async.agent.chaos.effect import ChaosError, Effect, tell
from toe_async.agent.chaos.tracing import Hold, kill_with_us

_WAIT_SECONDS = 30.0


def family(root: int) -> list[int]:
    """A process and its descendants, without ourselves and what we started."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
    ours = _below(os.getpid(), parents)
    return [pid for pid in _below(root, parents) if pid not in ours]


def _below(root: int, parents: dict[int, int]) -> list[int]:
    found, at = [root], 0
    while at < len(found):
        found += [pid for pid, parent in parents.items() if parent == found[at]]
        at += 1
    return found


def exists(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except (OSError, IndexError):
        return False


class Suspend(Effect):
    """The process and its children stand still for `stopped` seconds, run for `running` seconds, and so on."""

    def __init__(self, target: int, stopped: float = 5.0, running: float = 5.0) -> None:
        self._target, self._stopped, self._running = target, stopped, running
        self._hold = Hold()
        self._still = False

    def begin(self) -> None:
        self._turn(0.0)

    def tick(self, elapsed: float) -> bool:
        if not exists(self._target):
            raise ChaosError(f"process {self._target} of the target ended by itself")
        self._turn(elapsed)
        return True

    def end(self) -> None:
        self._hold.release()

    def _turn(self, elapsed: float) -> None:
        still = elapsed % (self._stopped + self._running) < self._stopped
        if still and not self._still:
            try:
                tell("suspended", threads=self._hold.stop(family(self._target)))
            except PermissionError as error:
                raise ChaosError(
                    f"the kernel does not let us trace process {self._target} ({error.strerror}): the tool needs the "
                    "capability SYS_PTRACE, or the target's own user where kernel.yama.ptrace_scope is 0"
                ) from error
        elif self._still and not still:
            self._hold.release()
            tell("resumed")
        self._still = still


class Terminate(Effect):
    """The process gets SIGTERM, and has to follow it, or is killed. Nothing undoes that; the kubelet starts it anew."""

    def __init__(self, target: int, *, force: bool) -> None:
        self._target, self._force = target, force

    def begin(self) -> None:
        if self._target == os.getpid() or not exists(self._target):
            raise ChaosError(f"process {self._target} of the target is not there")
        try:
            if not self._force:
                self._ask()
            elif self._target == 1:
                self._kill_first()
            else:
                os.kill(self._target, signal.SIGKILL)
        except PermissionError as error:
            raise ChaosError(
                f"we may not end process {self._target} ({error.strerror}): the tool needs the target's user or KILL, "
                "and SYS_PTRACE for the first process of a container"
            ) from error
        deadline = time.monotonic() + _WAIT_SECONDS
        while exists(self._target):
            if time.monotonic() >= deadline:
                raise ChaosError(f"process {self._target} is still there {_WAIT_SECONDS:g} s after its signal")
            time.sleep(0.02)
        tell("terminated", pid=self._target, force=self._force)

    def tick(self, elapsed: float) -> bool:
        return False

    def end(self) -> None:
        """Nothing can be taken back."""

    def _ask(self) -> None:
        with open(f"/proc/{self._target}/status") as file:
            caught = next((int(line.split()[1], 16) for line in file if line.startswith("SigCgt")), 0)
        if self._target == 1 and not caught >> (signal.SIGTERM - 1) & 1:
            raise ChaosError(
                "the target is the first process of its container and has no handler for SIGTERM, so the kernel drops "
                "the signal; use terminate-force"
            )
        os.kill(self._target, signal.SIGTERM)

    def _kill_first(self) -> None:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                kill_with_us(self._target)
                code = 0
            except OSError as error:
                code = 2 if isinstance(error, PermissionError) else 1
            finally:
                os._exit(code)
        if os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 2:
            raise PermissionError(1, "Operation not permitted")
