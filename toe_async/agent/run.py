"""One run of one tool, from orders to result: `supervisor run`.

The main thread waits for messages, signals, the tool and the clock; a worker thread stores. The tool ends at its own
deadline by the monotonic clock whatever becomes of the operator. A result is written whatever happens but SIGKILL
before the tool has ended; after that even SIGKILL leaves one, which says that the output was not stored.
A cancel ends the tool and stores what it has collected, unless the message says `discard`; SIGTERM (the pod is
deleted) does the same within the seconds that a pod has left. A cancel while the result is kept ends the keeping.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from toe_async.agent import kernel
from toe_async.agent.channel import Channel, Tail
from toe_async.agent.control import Cancel, Command, Desk, Heartbeat, OrdersCame, Refuse, TokenCame
from toe_async.agent.fetching import STATE_PREFIX, STATE_ROOT
from toe_async.agent.folders import open_folder, regular_files
from toe_async.agent.gathering import LOG, OUT, STDOUT
from toe_async.agent.keeping import LEAVES
from toe_async.agent.metering import SELDOM, Meter
from toe_async.agent.placeholders import fill, needs, seconds
from toe_async.agent.process import Ended, ToolProcess, environment
from toe_async.agent.protocol import (
    COMPLETED,
    FAILED,
    NO_ORDERS,
    WAS_CANCELLED,
    Orders,
    Result,
    digest,
)
from toe_async.agent.result import TIME_IS_OVER, TRUNCATED, Course, Stop, encode_result, judge, last_words
from toe_async.agent.storing import Storing
from toe_async.agent.supervisor import Collecting
from toe_async.agent.target import Target, TargetMissingError, find_target

QUICK_GRACE = 5.0
"""Between SIGTERM and SIGKILL when our own pod ends."""
QUICK_STORING = 15.0
"""For storing when our own pod ends: with the grace less than the 30 seconds that a pod usually has."""
CANCELLED_STORING = 60.0
"""For storing after a cancel message."""
_KILLED_SECONDS = 10.0
_STRAYS_SECONDS = 1.0
_HUNG_SECONDS = 10.0
_ENDED_SECONDS = 3.0
_SAY_SECONDS = 2.0


@dataclass(frozen=True)
class Terms:
    """What the container's arguments say. `report` is the file of the termination message."""

    capture: str
    orders: str
    wait: float
    report: str = "/dev/termination-log"
    root: str = STATE_ROOT


@dataclass
class _Figures:
    """What the result tells beside outcome and leaves."""

    seconds: float = 0.0
    cpu: float = 0.0
    overhead: float | None = None
    rss: int = 0
    throttled: float = 0.0


class Supervisor:
    """Create it in the main thread; `run` once."""

    def __init__(self, terms: Terms, channel: Channel, collecting: Callable[[], Collecting]) -> None:
        self._terms, self._channel, self._collecting = terms, channel, collecting
        self._orders: Orders | None = None
        self._cancel: Stop | None = None
        self._discard = False
        self._heard = time.monotonic()
        self._phase = "waiting"
        self._since = self._heard
        self._bytes = 0
        self._target = ""
        self._token = ""
        self._told = b""
        self._storing: Storing | None = None
        self._figures = _Figures()

    def run(self) -> int:
        """The exit code. The result has been written and, if somebody reads, sent."""
        self._channel.say("ready", capture=self._terms.capture)
        orders = self._wait_for_orders()
        if orders is None:
            return self._without_orders()
        folder = os.path.join(self._terms.root, STATE_PREFIX + self._terms.capture[:20])
        course = self._warm_up(orders) or self._prepare(orders, folder) or self._run_tool(orders, folder)
        code = self._store(orders, course)
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
        self._enter("done")
        self._channel.drain(time.monotonic() + _SAY_SECONDS)
        return code

    def _wait_for_orders(self) -> Orders | None:
        until = time.monotonic() + self._terms.wait
        while self._orders is None and self._ending() is None and time.monotonic() < until:
            self._turn(until)
        return self._orders if self._ending() is None else None

    def _without_orders(self) -> int:
        ending = self._ending()
        result = Result(
            capture=self._terms.capture,
            outcome="failed" if ending is None else "cancelled",
            reason="NotStarted" if ending is None else ending.reason,
            message=f"no orders came within {seconds(self._terms.wait)} s" if ending is None else ending.message,
        )
        self._report(result)
        self._channel.drain(time.monotonic() + _SAY_SECONDS)
        return NO_ORDERS if ending is None else WAS_CANCELLED

    def _warm_up(self, orders: Orders) -> Course | None:
        """Wait; a course when the run ends in it."""
        if orders.warmup:
            self._enter("warmup")
        until = time.monotonic() + orders.warmup
        while time.monotonic() < until and (stop := self._ending() or self._silence(orders)) is None:
            self._turn(until)
        stop = self._ending() or self._silence(orders)
        return Course(orders.tool, stop=stop, fault=stop) if stop is not None else None

    def _prepare(self, orders: Orders, folder: str) -> Course | None:
        """Make the state folder anew; a course when that fails."""
        try:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)
            for path in (folder, os.path.join(folder, OUT), os.path.join(folder, LEAVES)):
                os.mkdir(path, 0o700)
        except OSError as error:
            message = f"the tool's container has no folder to write to ({os.strerror(error.errno or 0)})"
            return Course(orders.tool, fault=Stop("ContainerFailed", message))
        return None

    def _run_tool(self, orders: Orders, folder: str) -> Course:
        target: Target | None = None
        try:
            target = find_target(orders.target_pod_uid, orders.target_container_id)
            self._target = target.evidence
        except TargetMissingError as error:
            if needs(orders.argv, "target_pid", "target_root"):
                return Course(orders.tool, fault=Stop("TargetContainerMissing", str(error)))
        tail = self._channel.tail = Tail()
        try:
            tool = self._start(orders, folder, target, tail)
        except (OSError, ValueError) as error:
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            return Course(orders.tool, fault=Stop("ToolFailed", f"{orders.tool} cannot be started: {why}"))
        finally:
            os.close(tail.write_end)
        began = time.monotonic()
        self._storing = Storing(self._collecting(), orders, folder, self._channel.wake)
        if self._token:
            with contextlib.suppress(ValueError):  # the next one may be better; one is asked for when it is needed
                self._storing.token(self._token)
        self._storing.start()
        self._enter("running")
        meter = Meter(tool, orders, target.pid if target is not None else None, began)
        stop = self._watch(orders, folder, tool, meter, began)
        self._enter("stopping")
        killed = tool.ended() is None and self._end(tool, orders)
        ended = tool.ended()
        self._figures.seconds = round(time.monotonic() - began, 3)
        self._sweep(tool)
        meter.finish()
        tool.reap()
        tail.finish(time.monotonic())
        self._figures = replace(
            self._figures,
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
            if (stop := self._ending() or self._silence(orders)) is not None:
                return stop
            if self._storing is not None and self._storing.fault is not None:
                return self._storing.fault
            if now >= until:
                return TIME_IS_OVER
            if now >= size_at:
                size_at = self._measure(folder, now)
                if orders.max_output_bytes and self._bytes > orders.max_output_bytes:
                    return _too_large(orders)
            if now >= look_at:
                look_at = meter.look(now)
                if meter.harm:
                    return Stop("HarmGuard", meter.harm)
            self._turn(min(until, look_at, size_at, *self._silent_at(orders)))
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
        self._bytes = total
        return now + max(SELDOM, 200 * (time.monotonic() - now))

    def _end(self, tool: ToolProcess, orders: Orders) -> bool:
        """Ask the tool to end, then make it; whether it had to be killed."""
        grace = min(orders.grace, QUICK_GRACE) if self._channel.signalled is not None else orders.grace
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
            self._turn(until)
        return tool.ended()

    def _sweep(self, tool: ToolProcess) -> None:
        """End all that the tool left behind."""
        for number, patience in ((signal.SIGTERM, _STRAYS_SECONDS), (signal.SIGKILL, _KILLED_SECONDS)):
            until = time.monotonic() + patience
            while tool.survivors() and (now := time.monotonic()) < until:
                tool.signal(number, strays=True)
                tool.signal(signal.SIGCONT, strays=True)
                self._turn(min(until, now + 0.05))

    def _store(self, orders: Orders, course: Course) -> int:
        """Have the output stored, tell the result, and stay while it is fetched; the exit code."""
        storing = self._storing
        if storing is not None:
            self._enter("storing")
            self._write(self._result(course, *judge(replace(course, fault=course.fault or _NOT_STORED)), 0))
            allowed = orders.upload_seconds
            if course.stop is not None and course.stop.reason == "Cancelled":
                allowed = min(allowed, CANCELLED_STORING)
            until = time.monotonic() + allowed
            storing.finish(until)
            until += _HUNG_SECONDS
            hurried = False
            while not storing.finished.is_set() and (now := time.monotonic()) < until:
                if self._discard:
                    storing.discard()
                elif self._ending() is not None and not hurried:
                    hurried, until = True, min(until, now + QUICK_STORING)
                self._turn(until)
            if not storing.finished.is_set():
                storing.end()
                self._storing_within(storing, _ENDED_SECONDS)
            fault = storing.fault
            if not storing.finished.is_set():
                fault = Stop("UploadFailed", "the output could not be stored in time")
            if fault is not None and self._ending() is not None and course.well:
                course = replace(course, stop=self._ending())
            course = replace(course, leaves=storing.leaves, fault=course.fault or fault, note=storing.note)
        outcome, reason, message = judge(course)
        port = storing.port if storing is not None else 0
        self._report(self._result(course, outcome, reason, message, port))
        if storing is not None:
            self._cancel = None  # what was collected before a cancel is kept like any other; another one ends that
            self._keep(orders, storing)
        return {"completed": COMPLETED, "failed": FAILED, "cancelled": WAS_CANCELLED}[outcome]

    def _storing_within(self, storing: Storing, patience: float) -> None:
        until = time.monotonic() + patience
        while not storing.finished.is_set() and time.monotonic() < until:
            self._turn(until)

    def _keep(self, orders: Orders, storing: Storing) -> None:
        """Stay while somebody may fetch; a further cancel or a signal ends it."""
        if any(leaf.state == "kept" for leaf in storing.leaves) and self._ending() is None:
            self._enter("keeping")
        until = time.monotonic() + orders.keep_seconds + orders.upload_seconds
        while not storing.over.is_set() and time.monotonic() < until and self._ending() is None:
            self._turn(until)
        storing.end()
        until = time.monotonic() + _SAY_SECONDS
        while not storing.over.is_set() and time.monotonic() < until:
            self._turn(until)

    def _result(self, course: Course, outcome: str, reason: str, message: str, port: int) -> Result:
        figures = self._figures
        return Result(
            capture=self._terms.capture,
            outcome=outcome,
            reason=reason,
            message=message,
            exit_code=course.ended.code if course.ended is not None else None,
            signal=course.ended.signal if course.ended is not None else None,
            seconds=figures.seconds,
            cpu_seconds=figures.cpu,
            overhead_percent=figures.overhead,
            max_rss_bytes=figures.rss,
            throttled_seconds=figures.throttled,
            size=sum(leaf.size for leaf in course.leaves if leaf.state != "lost"),
            leaves=course.leaves,
            port=port,
        )

    def _write(self, result: Result) -> bytes:
        text = encode_result(result)
        with contextlib.suppress(OSError), open(self._terms.report, "wb") as file:
            file.write(text)
        return text

    def _report(self, result: Result) -> None:
        text = self._write(result)
        self._told = b'{"type":"result",' + text[1:] + b"\n"
        self._channel.say_last(self._told)

    def _turn(self, until: float) -> None:
        for command in self._channel.turn(until):
            self._obey(command)
        if self._storing is not None and self._storing.token_wanted():
            self._channel.say("need-token")

    def _obey(self, command: Command) -> None:
        if isinstance(command, Refuse):
            self._channel.say("refused", message=command.message)
            return
        self._heard = time.monotonic()
        if isinstance(command, OrdersCame):
            self._channel.say("accepted", digest=digest(command.orders))
            if command.again:
                self._say_state()
                if self._told:
                    self._channel.say_last(self._told)
            else:
                self._orders = command.orders
        elif isinstance(command, TokenCame):
            self._token = command.token
            if self._storing is not None:
                try:
                    self._storing.token(command.token)
                except ValueError as error:
                    self._channel.say("refused", message=str(error))
        elif isinstance(command, Heartbeat):
            self._say_state()
        elif isinstance(command, Cancel):
            self._discard = self._discard or command.discard
            self._cancel = self._cancel or Stop("Cancelled", "the operator cancelled the run")

    def _ending(self) -> Stop | None:
        """Why the whole run is to end."""
        if self._cancel is None and self._channel.signalled is not None:
            return Stop("Cancelled", "the tool's container was told to end")
        return self._cancel

    def _silence(self, orders: Orders) -> Stop | None:
        if any(time.monotonic() >= at for at in self._silent_at(orders)):
            return Stop("HeartbeatLost", f"the operator was silent for {seconds(orders.heartbeat_seconds)} s")
        return None

    def _silent_at(self, orders: Orders) -> tuple[float, ...]:
        return (self._heard + orders.heartbeat_seconds,) if orders.heartbeat_seconds else ()

    def _enter(self, phase: str) -> None:
        self._phase, self._since = phase, time.monotonic()
        self._say_state()

    def _say_state(self) -> None:
        passed = round(time.monotonic() - self._since, 1)
        self._channel.say("state", phase=self._phase, seconds=passed, bytes=self._bytes, target=self._target)


_NOT_STORED = Stop("UploadFailed", "the supervisor was killed before the output was stored")


def _too_large(orders: Orders) -> Stop:
    return Stop(TRUNCATED, f"{orders.tool} was ended when its output exceeded {orders.max_output_bytes} bytes")


def serve(terms: Terms, collecting: Callable[[], Collecting]) -> int:
    """Run with this process's own standard streams and signals."""
    os.umask(0o077)
    kernel.offer_to_the_oom_killer()  # before our memory is hidden, which takes the right to write there
    kernel.hide_memory()
    kernel.become_subreaper()
    channel = Channel(0, 1, Desk(terms.capture, terms.orders))
    channel.take_signals()
    return Supervisor(terms, channel, collecting).run()
