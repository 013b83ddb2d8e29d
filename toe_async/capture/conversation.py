"""Talking to a supervisor for as long as its container runs: orders, tokens, heartbeats and an end on demand.

The connection may break at any time and is made again; the tool does not mind (facts: an attach ends, the process goes
on). Nothing that is heard ends anything here: what it means is for the attempt to decide, which is told by `changed`.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from toe_async.agent.protocol import Orders, digest, message, orders_message
from toe_async.apis.captures import NotStored
from toe_async.capture import toolevents
from toe_async.capture.toolevents import Events, ToolResult
from toe_async.capture.toolports import Attached
from toe_async.kube.errors import KubeError
from toe_async.kube.remotechannels import STDOUT
from toe_async.lib.backoff import Backoff
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner
from toe_async.telemetry import log

HEARTBEAT_SECONDS: Final = 15.0
TOKEN_SECONDS: Final = 240.0
"""Between two tokens while something is stored; each lives for ten minutes."""
LEAST_WAIT_SECONDS: Final = 0.001
_TOKEN_AGAIN_SECONDS: Final = 5.0
_TOKEN_PAUSE_SECONDS: Final = 1.0
"""Between two tokens, however often a container asks."""
_REFUSED_SECONDS: Final = 10.0
"""No sooner is a token replaced: whatever a container asks, it costs the API server no more than this."""
_PHASE_SECONDS: Final = 5.0
"""How long a cancel waits for a supervisor's first word of where it stands."""
_BURST_BYTES: Final = 1 << 20
_PAUSE_SECONDS: Final = 0.5
"""After each burst: a container that floods us gets no more of our time than this."""
_BETWEEN_LOGS_SECONDS: Final = 60.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 10.0
_HEALTHY_SECONDS: Final = 60.0
_log = log.get("capture.conversation")


class Token(Protocol):
    """`toolports.Ticket.token`."""

    def __call__(self, *, anew: bool) -> Awaitable[str | NotStored]:
        """Give a token, or say why there is none now."""


class Conversation:
    """One supervisor. `run` goes on until it is cancelled; the fields say what was heard so far.

    Orders are None when the container was made for others than we would give; it is only listened to then.
    """

    def __init__(
        self,
        capture_id: str,
        orders: Orders | None,
        *,
        attach: Callable[[], AbstractAsyncContextManager[Attached]],
        token: Token | None,
        changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._id, self._orders, self._attach, self._token = capture_id, orders, attach, token
        self._told, self._clock = changed, clock
        self._digest = digest(orders) if orders is not None else ""
        self._wake = asyncio.Event()
        self._cancel = self._discard = self._refused = self._repeat_orders = False
        self._token_at = self._made_at = float("inf")
        self._repeat_at, self._sent_at = 0.0, float("-inf")
        self._log_at = float("-inf")
        self.waits_for_orders = False
        """Whether it said that it has none."""
        self.phase = ""
        self.bytes = 0
        self.result: ToolResult | None = None
        self.trouble = ""
        """Why the connection, or a token, failed last."""

    def cancel(self, *, discard: bool = False) -> None:
        """Tell the tool to end, on this connection and on each that follows; from now on it is given no orders.

        Once there is a result only `discard` is told: any cancel would end the keeping of what is to be fetched.
        """
        self._cancel = True
        self._discard |= discard
        self._wake.set()

    async def run(self) -> None:
        """Attach again and again, until cancelled."""
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT, jitter=0.5)
        while True:
            began = self._clock.monotonic()
            try:
                async with self._attach() as stream:
                    await self._talk(stream)
            except KubeError as error:
                self.trouble = str(error)
                _log.info("the connection to a tool is lost", captureID=self._id, why=self.trouble)
            except Exception as error:  # noqa: BLE001 -- a fault of ours must not leave the tool without its heartbeat
                self.trouble = f"internal error {type(error).__name__}"
                _log.error("talking to a tool met an error that it does not know", captureID=self._id, why=self.trouble)
            if self._clock.monotonic() - began > _HEALTHY_SECONDS:
                backoff.reset()
            self._told()
            await asyncio.sleep(backoff.next())

    async def _talk(self, stream: Attached) -> None:
        """Read and write until one of both ends."""
        async with TaskOwner(lambda name, error: None) as owner:
            hearing = owner.start(self._read(stream), name=f"hear {self._id}")
            telling = owner.start(self._write(stream), name=f"tell {self._id}")
            ended, _ = await asyncio.wait({hearing, telling}, return_when=asyncio.FIRST_COMPLETED)
            for one in ended:
                one.result()

    # -- out ----------------------------------------------------------------------------------------------------------

    async def _write(self, stream: Attached) -> None:
        said: set[bool] = set()
        self._repeat_orders = self._orders is not None
        beat_at = self._clock.monotonic()
        unsure_until = beat_at + _PHASE_SECONDS
        while True:
            self._wake.clear()
            if self._repeat_orders and self._orders is not None and (not self._cancel or self.phase == "keeping"):
                self._repeat_orders = False
                self._repeat_at = self._clock.monotonic() + HEARTBEAT_SECONDS
                await stream.send(orders_message(self._orders))
            if self._cancel and self._discard not in said and self._may_cancel(unsure_until):
                said.add(self._discard)
                await stream.send(message("cancel", capture=self._id, discard=self._discard))
            if self._clock.monotonic() >= self._token_at:
                await self._send_token(stream)
            if self._clock.monotonic() >= beat_at:
                beat_at = self._clock.monotonic() + HEARTBEAT_SECONDS
                await stream.send(message("heartbeat", capture=self._id))
            with contextlib.suppress(TimeoutError):
                # Rounding may leave a wait too short for the clock to show that it passed.
                at = min(beat_at, self._token_at, *([unsure_until] if self._unsure(unsure_until) else []))
                wait = at - self._clock.monotonic()
                async with asyncio.timeout(max(wait, LEAST_WAIT_SECONDS)):
                    await self._wake.wait()

    def _may_cancel(self, unsure_until: float) -> bool:
        """Whether a cancel would end the tool and not the keeping of what another operator's cancel has left."""
        return self._discard or not (self.result is not None or self.phase == "keeping" or self._unsure(unsure_until))

    def _unsure(self, until: float) -> bool:
        return self._cancel and not self.phase and self._clock.monotonic() < until

    async def _send_token(self, stream: Attached) -> None:
        if self._token is None:
            self._token_at = float("inf")
            return
        token = await self._token(anew=self._refused)
        if isinstance(token, NotStored):
            self._token_at = self._clock.monotonic() + _TOKEN_AGAIN_SECONDS
            self.trouble = token.message
            self._told()
            return
        await stream.send(message("token", token=token, capture=self._id))
        if self._refused or self._made_at == float("inf"):
            self._made_at = self._clock.monotonic()
        self._refused, self._sent_at = False, self._clock.monotonic()
        self._token_at = self._sent_at + TOKEN_SECONDS

    # -- in -----------------------------------------------------------------------------------------------------------

    async def _read(self, stream: Attached) -> None:
        events, since_pause = Events(self._id), 0
        async for channel, chunk in stream:
            since_pause += len(chunk)
            if since_pause > _BURST_BYTES:
                since_pause = 0
                await asyncio.sleep(_PAUSE_SECONDS)
            if channel != STDOUT:
                continue
            for event in events.feed(chunk):
                self._heard(event)

    def _heard(self, event: toolevents.Event) -> None:
        match event:
            case toolevents.Ready():
                self.waits_for_orders = True
            case toolevents.Accepted():
                self.waits_for_orders &= event.digest != self._digest
            case toolevents.State():
                self.phase, self.bytes = event.phase, event.bytes
                if self._cancel:
                    self._wake.set()
                self.waits_for_orders = event.phase == "waiting"
                if event.phase == "keeping" and self.result is None and self._clock.monotonic() >= self._repeat_at:
                    self._repeat_orders = True  # the result came while nobody listened, and comes again
                    self._wake.set()
            case toolevents.NeedToken():
                # One that was made some time ago and does not do was taken back, by a former leader's end perhaps.
                self._refused |= self._clock.monotonic() - self._made_at > _REFUSED_SECONDS
                self._token_at = min(self._token_at, max(self._clock.monotonic(), self._sent_at + _TOKEN_PAUSE_SECONDS))
                self._wake.set()
            case toolevents.Refused():
                if (now := self._clock.monotonic()) >= self._log_at:
                    self._log_at = now + _BETWEEN_LOGS_SECONDS
                    _log.info("a tool refuses a message", captureID=self._id, why=event.message[:200])
            case ToolResult():
                self.result = event
        self._told()
