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
import time
from collections.abc import Callable
from dataclasses import replace

from toe_async.agent import kernel
from toe_async.agent.channel import Channel
from toe_async.agent.control import Desk
from toe_async.agent.conversation import SAY_SECONDS, Conversation, Terms
from toe_async.agent.fetching import STATE_PREFIX
from toe_async.agent.placeholders import seconds
from toe_async.agent.protocol import COMPLETED, FAILED, NO_ORDERS, WAS_CANCELLED, Orders, Result
from toe_async.agent.result import Course, Stop, judge
from toe_async.agent.storing import Storing
from toe_async.agent.supervisor import Collecting
from toe_async.agent.toolphase import Figures, ToolPhase

QUICK_STORING = 15.0
"""For storing when our own pod ends: with the tool's grace less than the 30 seconds that a pod usually has."""
CANCELLED_STORING = 60.0
"""For storing after a cancel message."""
_HUNG_SECONDS = 10.0
_ENDED_SECONDS = 3.0
_NOT_STORED = Stop("UploadFailed", "the supervisor was killed before the output was stored")


class Supervisor:
    """Create it in the main thread; `run` once."""

    def __init__(self, terms: Terms, channel: Channel, collecting: Callable[[], Collecting]) -> None:
        self._terms, self._talk, self._collecting = terms, Conversation(terms, channel), collecting
        self._figures = Figures()

    def run(self) -> int:
        """The exit code. The result has been written and, if somebody reads, sent."""
        orders = self._wait_for_orders()
        if orders is None:
            return self._without_orders()
        folder = os.path.join(self._terms.root, STATE_PREFIX + self._terms.capture[:20])
        course = self._warm_up(orders)
        storing: Storing | None = None
        if course is None:
            storing = Storing(self._collecting(), orders, folder, self._talk.channel.wake)
            phase = ToolPhase(orders, folder, self._talk, storing, self._terms.first)
            course, self._figures = phase.run(), phase.figures
            storing = storing if phase.started else None
        code = self._finish(orders, course, storing)
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
        self._talk.enter("done")
        self._talk.drain()
        return code

    def _wait_for_orders(self) -> Orders | None:
        until = time.monotonic() + self._terms.wait
        while self._talk.orders is None and self._talk.ending() is None and time.monotonic() < until:
            self._talk.turn(until)
        return self._talk.orders if self._talk.ending() is None else None

    def _without_orders(self) -> int:
        ending = self._talk.ending()
        result = Result(
            capture=self._terms.capture,
            outcome="failed" if ending is None else "cancelled",
            reason="NotStarted" if ending is None else ending.reason,
            message=f"no orders came within {seconds(self._terms.wait)} s" if ending is None else ending.message,
        )
        self._talk.report(result)
        self._talk.drain()
        return NO_ORDERS if ending is None else WAS_CANCELLED

    def _warm_up(self, orders: Orders) -> Course | None:
        """Wait; a course when the run ends in it."""
        if orders.warmup:
            self._talk.enter("warmup")
        until = time.monotonic() + orders.warmup
        while time.monotonic() < until and (stop := self._talk.ending() or self._talk.silence(orders)) is None:
            self._talk.turn(until)
        stop = self._talk.ending() or self._talk.silence(orders)
        return Course(orders.tool, stop=stop, fault=stop) if stop is not None else None

    def _finish(self, orders: Orders, course: Course, storing: Storing | None) -> int:
        """Have the output stored, tell the result, and stay while it is fetched; the exit code."""
        if storing is not None:
            course = self._store(orders, course, storing)
        outcome, reason, message = judge(course)
        port = storing.port if storing is not None else 0
        self._talk.report(self._result(course, outcome, reason, message, port))
        if storing is not None:
            self._talk.forget_cancel()  # what was collected before a cancel is kept like any other
            self._keep(orders, storing)
        return {"completed": COMPLETED, "failed": FAILED, "cancelled": WAS_CANCELLED}[outcome]

    def _store(self, orders: Orders, course: Course, storing: Storing) -> Course:
        self._talk.enter("storing")
        self._talk.write(self._result(course, *judge(replace(course, fault=course.fault or _NOT_STORED)), 0))
        allowed = orders.upload_seconds
        if course.stop is not None and course.stop.reason == "Cancelled":
            allowed = min(allowed, CANCELLED_STORING)
        until = time.monotonic() + allowed
        storing.finish(until)
        until += _HUNG_SECONDS
        hurried = False
        while not storing.finished.is_set() and (now := time.monotonic()) < until:
            if self._talk.discard:
                storing.discard()
            elif self._talk.ending() is not None and not hurried:
                hurried, until = True, min(until, now + QUICK_STORING)
            self._talk.turn(until)
        if not storing.finished.is_set():
            storing.end()
            self._storing_within(storing, _ENDED_SECONDS)
        fault = storing.fault
        if not storing.finished.is_set():
            fault = Stop("UploadFailed", "the output could not be stored in time")
        if fault is not None and (ending := self._talk.ending()) is not None and course.well:
            course = replace(course, stop=ending)
        return replace(course, leaves=storing.leaves, fault=course.fault or fault, note=storing.note)

    def _storing_within(self, storing: Storing, patience: float) -> None:
        until = time.monotonic() + patience
        while not storing.finished.is_set() and time.monotonic() < until:
            self._talk.turn(until)

    def _keep(self, orders: Orders, storing: Storing) -> None:
        """Stay while somebody may fetch; a further cancel or a signal ends it."""
        if any(leaf.state == "kept" for leaf in storing.leaves) and self._talk.ending() is None:
            self._talk.enter("keeping")
        until = time.monotonic() + orders.keep_seconds + orders.upload_seconds
        while not storing.over.is_set() and time.monotonic() < until and self._talk.ending() is None:
            self._talk.turn(until)
        storing.end()
        until = time.monotonic() + SAY_SECONDS
        while not storing.over.is_set() and time.monotonic() < until:
            self._talk.turn(until)

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


def serve(terms: Terms, collecting: Callable[[], Collecting]) -> int:
    """Run with this process's own standard streams and signals."""
    os.umask(0o077)
    kernel.offer_to_the_oom_killer()  # before our memory is hidden, which takes the right to write there
    kernel.hide_memory()
    kernel.become_subreaper()
    channel = Channel(0, 1, Desk(terms.capture, terms.orders))
    channel.take_signals()
    code = Supervisor(terms, channel, collecting).run()
    channel.drop_signals()
    return code
