"""The ways a call can end badly. One status has one meaning; the text never holds a token, a path or foreign words."""


class CollectorError(Exception):
    """Base of what the collector raises itself."""


class SettingsError(CollectorError):
    """The collector cannot start like this; the message is one sentence with the way out."""


class Refused(CollectorError):  # noqa: N818 -- what happened to the request
    """A request is answered with an error.

    Statuses: 400 malformed, 401 no or bad token, 403 not yours or no longer open, 404 nothing there, 408 too slow,
    409 taken by something else, 413 too big, 416 no such range, 417 unknown expectation, 429 too many at once, 500 the
    store failed, 503 not able to tell right now, 507 the store is full.
    """

    def __init__(
        self, status: int, reason: str, message: str, *, retry_after: int | None = None, size: int | None = None
    ) -> None:
        """`retry_after` in seconds; `size` of what the range was asked of, with 416."""
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message
        self.retry_after, self.size = retry_after, size


class StoreError(CollectorError):
    """The disk did not do what was asked; nothing of it is visible."""

    def refusal(self) -> Refused:
        """Say it to a client, without the disk's own words."""
        return Refused(500, "StoreFailed", "the store failed to write or read; nothing was kept of this request")


class StoreFull(StoreError):  # noqa: N818 -- it names the state of the store
    """No space or quota left."""

    def refusal(self) -> Refused:
        return Refused(507, "StoreFull", "the store is full; nothing was kept of this request", retry_after=60)
