"""The worker thread of the supervisor: all that is done with output, beside the main thread that never blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from toe_async.agent.protocol import Leaf, Orders
from toe_async.agent.result import Stop
from toe_async.agent.supervisor import Collecting, CollectingError

_TICK = 1.0


class Storing:
    """Runs one `Collecting` through its life. Start it after the tool: a fork wants a process with one thread.

    `wake` is called whenever one of the events below is set, from the worker thread.
    """

    def __init__(self, collecting: Collecting, orders: Orders, folder: str, wake: Callable[[], None]) -> None:
        self._collecting, self._orders, self._folder, self._wake = collecting, orders, folder, wake
        self._finish = threading.Event()
        self._discarded = False
        self._deadline = 0.0
        self._token_wanted = threading.Event()
        self.leaves: tuple[Leaf, ...] = ()
        self.fault: Stop | None = None
        self.port, self.note = 0, ""
        self.finished = threading.Event()
        """`leaves`, `fault`, `port` and `note` say what has become of the output."""
        self.over = threading.Event()
        """Nothing is kept any more."""
        self._thread = threading.Thread(target=self._work, name="storing", daemon=True)

    def start(self) -> None:
        """Begin; the tool runs."""
        self._thread.start()

    def finish(self, deadline: float) -> None:
        """The tool has ended: everything is to be stored until then."""
        self._deadline = deadline
        self._finish.set()

    def discard(self) -> None:
        """Store nothing more, and end soon."""
        self._discarded = True
        self._collecting.cancel()
        self._finish.set()

    def end(self) -> None:
        """Make whatever goes on end soon; what is stored stays stored."""
        self._collecting.cancel()

    def token(self, token: str) -> None:
        """Hand a token on; ValueError when it is none."""
        self._collecting.token(token)

    def token_wanted(self) -> bool:
        """Whether a token was asked for since the last time."""
        wanted = self._token_wanted.is_set()
        self._token_wanted.clear()
        return wanted

    def _need_token(self) -> None:
        self._token_wanted.set()
        self._wake()

    def _work(self) -> None:
        try:
            self._guarded(self._while_running)
            if not self._discarded:
                self._guarded(self._when_ended)
            self.port, self.note = self._collecting.port, self._collecting.note
            self.finished.set()
            self._wake()
            if not self._discarded:
                self._guarded(lambda: self._collecting.keep(time.monotonic() + self._orders.keep_seconds))
        finally:
            self.finished.set()
            self.over.set()
            self._wake()

    def _while_running(self) -> None:
        self._collecting.start(self._orders, self._folder, self._need_token)
        while not self._finish.wait(_TICK):
            self._collecting.tick(time.monotonic())

    def _when_ended(self) -> None:
        self._finish.wait()
        self.leaves = self._collecting.finish(self._deadline, self._need_token)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except CollectingError as error:
            self.leaves = error.leaves or self.leaves
            self._failed(error.reason, str(error))
        except Exception as error:  # noqa: BLE001 - a fault here must cost the output, never the result
            self._failed("UploadFailed", f"the output could not be stored ({type(error).__name__})")

    def _failed(self, reason: str, message: str) -> None:
        if self.fault is None and not self.finished.is_set():
            self.fault = Stop(reason, message)
