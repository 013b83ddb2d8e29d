"""What the supervisor hears and says during a run: orders, token, heartbeats and cancels; states and the result."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from toe_async.agent.channel import Channel
from toe_async.agent.control import Cancel, Command, Heartbeat, OrdersCame, Refuse, TokenCame
from toe_async.agent.fetching import STATE_ROOT
from toe_async.agent.placeholders import seconds
from toe_async.agent.protocol import LONGEST_LINE, Orders, Result, digest
from toe_async.agent.result import Stop, encode_result
from toe_async.agent.storing import Storing

SAY_SECONDS = 2.0
"""How long the last words may take to be read."""
_LONGEST_EVENT = LONGEST_LINE - 32
"""Of a result's own JSON, so that its line with the type is one that is read."""


@dataclass(frozen=True)
class Terms:
    """What the container's arguments say. `first` is the target's first process, as we see it; `report` is the file of
    the termination message.
    """

    capture: str
    orders: str
    wait: float
    first: int = 1
    report: str = "/dev/termination-log"
    root: str = STATE_ROOT


class Conversation:
    """One run's side of the control channel. Main thread only."""

    def __init__(self, terms: Terms, channel: Channel) -> None:
        self._terms, self.channel = terms, channel
        self.orders: Orders | None = None
        self.discard = False
        """A cancel said that nothing is to be stored."""
        self.bytes, self.target = 0, ""
        """What `state` tells beside the phase."""
        self._storing: Storing | None = None
        self._cancel: Stop | None = None
        self._heard = time.monotonic()
        self._phase, self._since = "waiting", self._heard
        self._token = ""
        self._told = b""
        channel.say("ready", capture=terms.capture)

    def turn(self, until: float) -> None:
        """Wait until something happens, or until `until` (monotonic), and answer what was said."""
        for command in self.channel.turn(until):
            self._obey(command)
        if self._storing is not None and self._storing.token_wanted():
            self.channel.say("need-token")

    def enter(self, phase: str) -> None:
        """A phase begins."""
        self._phase, self._since = phase, time.monotonic()
        self._say_state()

    def serve(self, storing: Storing) -> None:
        """From now on tokens are for this one, the latest at once."""
        self._storing = storing
        if self._token:
            with contextlib.suppress(ValueError):  # the next one may be better; one is asked for when it is needed
                storing.token(self._token)

    def ending(self) -> Stop | None:
        """Why the whole run is to end."""
        if self._cancel is None and self.channel.signalled is not None:
            return Stop("Cancelled", "the tool's container was told to end")
        return self._cancel

    def forget_cancel(self) -> None:
        """What was cancelled has ended; what comes now would be another cancel."""
        self._cancel = None

    def silence(self, orders: Orders) -> Stop | None:
        """The operator has been silent for longer than this tool may run without him."""
        if any(time.monotonic() >= at for at in self.silent_at(orders)):
            return Stop("HeartbeatLost", f"the operator was silent for {seconds(orders.heartbeat_seconds)} s")
        return None

    def silent_at(self, orders: Orders) -> tuple[float, ...]:
        """When that would be, if ever."""
        return (self._heard + orders.heartbeat_seconds,) if orders.heartbeat_seconds else ()

    def write(self, result: Result) -> None:
        """Write the termination message; it may be written again."""
        text = encode_result(result)
        with contextlib.suppress(OSError), open(self._terms.report, "wb") as file:
            file.write(text)

    def report(self, result: Result) -> None:
        """Write the termination message and say it, with the leaves that a message has no room for."""
        self.write(result)
        self._told = b'{"type":"result",' + encode_result(result, _LONGEST_EVENT)[1:] + b"\n"
        self.channel.say_last(self._told)

    def drain(self) -> None:
        """Give whoever reads a little time for the rest."""
        self.channel.drain(time.monotonic() + SAY_SECONDS)

    def _obey(self, command: Command) -> None:
        if isinstance(command, Refuse):
            self.channel.say("refused", message=command.message)
            return
        self._heard = time.monotonic()
        if isinstance(command, OrdersCame):
            self._take(command)
        elif isinstance(command, TokenCame):
            self._token = command.token
            if self._storing is not None:
                try:
                    self._storing.token(command.token)
                except ValueError as error:
                    self.channel.say("refused", message=str(error))
        elif isinstance(command, Heartbeat):
            self._say_state()
        elif isinstance(command, Cancel):
            self.discard = self.discard or command.discard
            self._cancel = self._cancel or Stop("Cancelled", "the operator cancelled the run")

    def _take(self, command: OrdersCame) -> None:
        self.channel.say("accepted", digest=digest(command.orders))
        if not command.again:
            self.orders = command.orders
            return
        self._say_state()
        if self._told:
            self.channel.say_last(self._told)

    def _say_state(self) -> None:
        passed = round(time.monotonic() - self._since, 1)
        self.channel.say("state", phase=self._phase, seconds=passed, bytes=self.bytes, target=self.target)
