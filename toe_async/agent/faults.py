"""How the delivery of a leaf fails: for now, or for good. Messages never hold a token."""

from __future__ import annotations


class Again(Exception):  # noqa: N818 - read as what has happened
    """It may go well later. `retry_after` is the least number of seconds to wait, as the other side asked.

    `token` tells that nothing will go on without a fresh token, `progressed` that part of the leaf arrived.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "UploadFailed",
        retry_after: float = 0.0,
        token: bool = False,
        progressed: bool = False,
    ) -> None:
        super().__init__(message)
        self.reason, self.retry_after, self.token, self.progressed = reason, retry_after, token, progressed


class Broken(Again):
    """A connection that gave no answer."""


class Lost(Exception):  # noqa: N818 - read as what has happened
    """It will never go well; `reason` is a word of apis.reasons."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Stopped(Exception):  # noqa: N818 - read as what has happened
    """Whoever waits for this wants no more of it."""
