"""An attempt's record at the collector: made known before anything runs, asked for what is stored at the end."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Final

from toe_async.agent.protocol import Orders
from toe_async.apis.captures import NotStored, Standing
from toe_async.capture.tooldetails import details_of, record_of
from toe_async.capture.toolports import Captures
from toe_async.capture.toolrun import ToolCapture
from toe_async.capture.vessels import WAIT_SECONDS
from toe_async.lib.backoff import Backoff
from toe_async.lib.clock import Clock

_LAST_ASK_SECONDS: Final = 20.0
_SLACK_SECONDS: Final = 3600.0
_LONGEST_LIFE_SECONDS: Final = 6 * 86400.0


class ToolRecord:
    """One capture's record. `standing` is what the collector said last, None before it said anything."""

    def __init__(self, capture: ToolCapture, captures: Captures, clock: Clock) -> None:
        self._capture, self._captures, self._clock = capture, captures, clock
        self.standing: Standing | None = None

    async def ask(self, orders: Orders | None, level: str, image_id: str) -> Standing | NotStored:
        """Register, for the first time or again: both give where it stands. Without orders nothing is to run."""
        capture, life = self._capture, _SLACK_SECONDS
        if orders is not None:
            life += WAIT_SECONDS + orders.warmup + orders.duration + orders.grace + orders.upload_seconds
        told = await self._captures.register(
            record_of(capture),
            expires=self._clock.now() + timedelta(seconds=min(life, _LONGEST_LIFE_SECONDS)),
            details=details_of(capture, orders, level, image_id) if orders is not None else {},
        )
        if isinstance(told, Standing):
            self.standing = told
        return told

    async def ask_until(self, ends_at: float, orders: Orders | None, level: str, image_id: str) -> Standing | NotStored:
        """Ask with growing waits until there is an answer that stays, or the clock's `ends_at`."""
        backoff = Backoff(1.0, 20.0, jitter=0.5)
        while True:
            told = await self.ask(orders, level, image_id)
            wait = backoff.next()
            if isinstance(told, Standing) or told.final or self._clock.monotonic() + wait >= ends_at:
                return told
            await asyncio.sleep(wait)

    async def close(self) -> None:
        """Let nothing more be uploaded, if the record is open; bounded, and what fails here ends with its tokens."""
        if self.standing is None or self.standing.state != "Open":
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_ASK_SECONDS):
                await self._captures.cancel(self._capture.id)
