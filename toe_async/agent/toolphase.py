"""The tool of a run, from its start to its end: the phase in which the target is touched."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from dataclasses import dataclass

from toe_async.agent.channel import Tail
from toe_async.agent.conversation import Conversation
from toe_async.agent.folders import open_folder, regular_files
from toe_async.agent.gathering import LOG, OUT, STDOUT
from toe_async.agent.keeping import LEAVES
from toe_async.agent.metering import SELDOM, Meter
from toe_async.agent.placeholders import fill, needs, seconds
from toe_async.agent.process import Ended, ToolProcess, environment
from toe_async.agent.protocol import Orders
from toe_async.agent.result import TIME_IS_OVER, TRUNCATED, Course, Stop, last_words
from toe_async.agent.storing import Storing
from toe_async.agent.target import Target, TargetMissingError, find_target

QUICK_GRACE = 5.0
"""Between SIGTERM and SIGKILL when our own pod ends."""
_KILLED_SECONDS = 10.0
_STRAYS_SECONDS = 1.0


@dataclass(frozen=True)
class Figures:
    """What the result tells of a tool beside how it ended."""

    seconds: float = 0.0
    cpu: float = 0.0
    overhead: float | None = None
    rss: int = 0
    throttled: float = 0.0


class ToolPhase:
    """Runs one tool in a state folder that it makes anew. `storing` is started with the tool and left to the caller.

    `first` is the target's first process. `figures` tell what the tool used once `run` has returned.
    """

    def __init__(self, orders: Orders, folder: str, talk: Conversation, storing: Storing, first: int) -> None:
        self._wanted, self._folder, self._talk, self._storing, self._first = orders, folder, talk, storing, first
        self.figures = Figures()
        self.started = False
        """The tool ran, so there may be output."""

    def run(self) -> Course:
        """Until the tool and all that it started are gone, whatever happens."""
        return self._prepare() or self._run()

    def _prepare(self) -> Course | None:
        """Make the state folder anew; a course when that fails."""
        folder = self._folder
        try:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)
            for path in (folder, os.path.join(folder, OUT), os.path.join(folder, LEAVES)):
                os.mkdir(path, 0o700)
        except OSError as error:
            message = f"the tool's container has no folder to write to ({os.strerror(error.errno or 0)})"
            return Course(self._wanted.tool, fault=Stop("ContainerFailed", message))
        return None

    def _run(self) -> Course:
        orders, folder = self._wanted, self._folder
        target: Target | None = None
        try:
            target = find_target(orders.target_pod_uid, orders.target_container_id, self._first)
            self._talk.target = target.evidence
        except TargetMissingError as error:
            if needs(orders.argv, "target_pid", "target_root"):
                return Course(orders.tool, fault=Stop("TargetContainerMissing", str(error)))
        tail = self._talk.channel.tail = Tail()
        try:
            tool = self._start(orders, folder, target, tail)
        except (OSError, ValueError) as error:
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            return Course(orders.tool, fault=Stop("ToolFailed", f"{orders.tool} cannot be started: {why}"))
        finally:
            os.close(tail.write_end)
        began = time.monotonic()
        self._talk.serve(self._storing)
        self._storing.start()
        self.started = True
        self._talk.enter("running")
        meter = Meter(tool, orders, target.pid if target is not None else None, began)
        stop = self._watch(orders, folder, tool, meter, began)
        self._talk.enter("stopping")
        killed = tool.ended() is None and self._end(tool, orders)
        ended = tool.ended()
        took = round(time.monotonic() - began, 3)
        self._sweep(tool)
        meter.finish()
        tool.reap()
        tail.finish(time.monotonic())
        self.figures = Figures(
            seconds=took,
            cpu=meter.cpu_seconds,
            overhead=meter.overhead,
            rss=meter.most_rss,
            throttled=meter.throttled_seconds,
        )
        words = tail.kept
        with contextlib.suppress(OSError), open(os.path.join(folder, LOG), "wb") as log:
            log.write(words)
        if stop is None and ended is not None and ended.signal == signal.SIGXFSZ:
            stop, killed = _too_large(orders), True
        unkillable = None if ended is not None else Stop("CaptureTimedOut", f"{orders.tool} could not even be killed")
        return Course(orders.tool, ended, stop, killed, last_words(words), fault=unkillable)

    def _start(self, orders: Orders, folder: str, target: Target | None, tail: Tail) -> ToolProcess:
        out = os.path.join(folder, OUT)
        values = {"output": out, "duration": seconds(orders.duration)}
        if target is not None:
            values |= {"target_pid": str(target.pid), "target_root": f"/proc/{target.pid}/root"}
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        stdout = os.open(os.path.join(folder, STDOUT), flags, 0o600)
        try:
            return ToolProcess(
                fill(orders.argv, values),
                env=environment(os.environ, out),
                folder=out,
                stdout=stdout,
                stderr=tail.write_end,
                nice=orders.nice,
                largest=orders.max_output_bytes,
            )
        finally:
            os.close(stdout)

    def _watch(self, orders: Orders, folder: str, tool: ToolProcess, meter: Meter, began: float) -> Stop | None:
        """Until the tool ends by itself (None), or why it must end."""
        until = began + orders.duration + (orders.grace if needs(orders.argv, "duration") else 0.0)
        look_at = size_at = began
        while tool.ended() is None:
            now = time.monotonic()
            if (stop := self._talk.ending() or self._talk.silence(orders)) is not None:
                return stop
            if self._storing.fault is not None:
                return self._storing.fault
            if now >= until:
                return TIME_IS_OVER
            if now >= size_at:
                size_at = self._measure(folder, now)
                if orders.max_output_bytes and self._talk.bytes > orders.max_output_bytes:
                    return _too_large(orders)
            if now >= look_at:
                look_at = meter.look(now)
                if meter.harm:
                    return Stop("HarmGuard", meter.harm)
            self._talk.turn(min(until, look_at, size_at, *self._talk.silent_at(orders)))
        return None

    def _measure(self, folder: str, now: float) -> float:
        """Add up what lies in the output folder; when to do so again: a folder of many files is looked at seldom."""
        total = 0
        with contextlib.suppress(OSError):
            total = os.stat(os.path.join(folder, STDOUT)).st_size
            out = open_folder(os.path.join(folder, OUT))
            try:
                total += sum(one.size for one in regular_files(out))
            finally:
                os.close(out)
        self._talk.bytes = total
        return now + max(SELDOM, 200 * (time.monotonic() - now))

    def _end(self, tool: ToolProcess, orders: Orders) -> bool:
        """Ask the tool to end, then make it; whether it had to be killed."""
        grace = min(orders.grace, QUICK_GRACE) if self._talk.channel.signalled is not None else orders.grace
        steps = [(signal.SIGTERM, grace)]
        if orders.throttle == "abort":  # it holds its target by ptrace, and lets go on SIGINT
            steps = [(signal.SIGINT, grace / 2), (signal.SIGTERM, grace / 2)]
        for number, patience in steps:
            tool.signal(number, strays=False)
            tool.signal(signal.SIGCONT, strays=True)
            if self._ended_within(tool, patience):
                return False
        tool.signal(signal.SIGKILL, strays=True)
        self._ended_within(tool, _KILLED_SECONDS)
        return True

    def _ended_within(self, tool: ToolProcess, patience: float) -> Ended | None:
        until = time.monotonic() + patience
        while tool.ended() is None and time.monotonic() < until:
            self._talk.turn(until)
        return tool.ended()

    def _sweep(self, tool: ToolProcess) -> None:
        """End all that the tool left behind."""
        for number, patience in ((signal.SIGTERM, _STRAYS_SECONDS), (signal.SIGKILL, _KILLED_SECONDS)):
            until = time.monotonic() + patience
            while tool.survivors() and (now := time.monotonic()) < until:
                tool.signal(number, strays=True)
                tool.signal(signal.SIGCONT, strays=True)
                self._talk.turn(min(until, now + 0.05))


def _too_large(orders: Orders) -> Stop:
    return Stop(TRUNCATED, f"{orders.tool} was ended when its output exceeded {orders.max_output_bytes} bytes")
