"""Signing in to the pages with a pasted token: whose it is, and when it ends."""

from datetime import datetime, timedelta

from toe_async.collector.auth import Gate, bearer, seconds_left
from toe_async.collector.pages.sessions import LONGEST, SignedIn
from toe_async.lib.clock import Clock


class SignIn:
    """Asks the API server, as every other call with a token does."""

    def __init__(self, gate: Gate, clock: Clock) -> None:
        self._gate, self._clock = gate, clock

    async def __call__(self, token: str) -> SignedIn:
        """Whose a token is.

        Raises:
            Refused: 401 nobody's, 503 it cannot be told now.
        """
        user = await self._gate.user(bearer([f"Bearer {token}"]))
        return SignedIn(user, self._end(token))

    def _end(self, token: str) -> datetime | None:
        now = self._clock.now()
        left = seconds_left(token, now.timestamp())
        return now + timedelta(seconds=left) if left < LONGEST.total_seconds() else None
