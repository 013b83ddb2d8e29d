"""Time as the test's own loop counts it."""

import asyncio
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2026, 1, 24, 20, 0, 0, tzinfo=UTC)
"""The wall clock when the loop's own is at 0."""


class LoopClock:
    """Wall clock and monotonic clock move with the loop, virtual time included."""

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()
