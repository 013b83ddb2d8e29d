"""What can go wrong between a received byte and a sink's receipt. The class says what to do next.

Foreign exceptions (OSError, botocore, aiohttp, kube) become one of these at the edge where they arise. A message is one
sentence of our own; text that a server sent is never part of it, because a server may echo what it was sent.
"""

from toe_async.apis.reasons import Reason
from toe_async.lib.quantities import format_bytes

LONGEST_MESSAGE = 512


class SinkError(Exception):
    """Anything that this folder raises on purpose."""


class BadSinksFile(SinkError, ValueError):  # noqa: N818 -- it names what is bad
    """The administrator's file cannot be used; the message says where and how to write it."""


class SpoolError(SinkError):
    """The spool cannot take this capture."""

    reason = Reason.SPOOL_DAMAGED


class SpoolFull(SpoolError):  # noqa: N818
    """No room: `needed` and `free` are bytes. Nothing of the capture is kept."""

    reason = Reason.STORE_FULL

    def __init__(self, needed: int, free: int, way_out: str) -> None:
        super().__init__(f"the spool has {format_bytes(free)} free and needs {format_bytes(needed)}; {way_out}")
        self.needed, self.free = needed, free


class AlreadySpooled(SpoolError):  # noqa: N818
    """This artifact of this capture is in the spool already: it must not be taken again."""

    reason = Reason.CONFLICTED


class SinkUnavailable(SinkError):  # noqa: N818
    """Not stored now; trying again may help, because the fault is passing or a person can mend it.

    `retry_after` is what the sink asked for, in seconds. `sink_wide` tells that other artifacts would fare alike.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: Reason = Reason.UPLOAD_RETRYING,
        retry_after: float | None = None,
        sink_wide: bool = True,
    ) -> None:
        super().__init__(message[:LONGEST_MESSAGE])
        self.reason, self.retry_after, self.sink_wide = reason, retry_after, sink_wide


class SinkRefused(SinkError):  # noqa: N818
    """Never to be stored: no waiting changes the answer."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message[:LONGEST_MESSAGE])
        self.reason = reason


class Passing(SinkUnavailable):
    """Likely to pass by itself within seconds: a lost connection, an overload."""


class Denied(SinkUnavailable):
    """403: a right is missing. `code` is the store's word for it, where it gave one."""

    def __init__(self, message: str, *, code: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.code = code


class Taken(SinkError):  # noqa: N818
    """A conditional write found an object of that name."""


class Absent(SinkError):  # noqa: N818
    """There is no object, or no upload, of that name."""
