"""What can go wrong between us and an API server, one class for each thing a caller may do about it.

Foreign exceptions (aiohttp, ssl, h11, TimeoutError) become one of these at the edges of this folder and nowhere else.
Callers decide by class, status and reason; a message is for people and may change.
"""

import msgspec

from toe_async.apis.reasons import Reason

LONGEST_MESSAGE = 512


class KubeError(Exception):
    """Anything that this folder raises on purpose."""


class ConfigurationError(KubeError):
    """The connection cannot be set up as described (kubeconfig, certificates). Trying again is useless."""


class CredentialsError(KubeError):
    """No usable credentials right now: the plugin failed or a file is missing. The next request tries again."""


class TransportError(KubeError):
    """No whole answer: refused, reset, timed out or not trusted.

    ``sent`` is False only when it is certain that the server saw nothing of the request.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(clip(message))
        self.sent = sent


class UntrustedServer(TransportError):  # noqa: N818 -- it names who was met, as the rest of the tree does
    """The server's certificate does not verify; nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class UnexpectedAnswer(KubeError):  # noqa: N818
    """What answered does not speak the Kubernetes API (a login page, a proxy), or said more than is allowed."""

    def __init__(self, message: str) -> None:
        super().__init__(clip(message))


class ApiError(KubeError):
    """The server's refusal. ``reason`` is the word of the Status, ``message`` its sentence, cut to a bound.

    ``retry_after`` is in seconds; None when the server did not say.
    """

    def __init__(
        self, status: int, reason: str, message: str, retry_after: float | None = None, *, request: str = ""
    ) -> None:
        self.status, self.reason, self.retry_after, self.request = status, reason, retry_after, clip(request)
        self.message = clip(message)
        where = f"{self.request}: " if request else ""
        super().__init__(f"{where}{status} {reason}: {self.message}")


class NotFound(ApiError):  # noqa: N818
    """404: no such object, or no such resource: its CRD or aggregated API is not installed."""


class Conflict(ApiError):  # noqa: N818
    """409: somebody else changed it; read it again."""


class AlreadyExists(Conflict):
    """409 on create: the name is taken."""


class Gone(ApiError):  # noqa: N818
    """410: the resourceVersion or continue token is too old; list again."""


class Forbidden(ApiError):  # noqa: N818
    """403: RBAC or an admission rule refuses; a person has to grant it."""


class Unauthorized(ApiError):  # noqa: N818
    """401 even with fresh credentials."""


class Invalid(ApiError):  # noqa: N818
    """422: the object breaks its schema or a rule; sending it again is useless."""


class TooManyRequests(ApiError):  # noqa: N818
    """429: wait ``retry_after`` seconds."""


class ServerError(ApiError):
    """500 and above: the server or a proxy before it cannot answer now."""


class PortForwardError(KubeError):
    """A request into a pod failed on the way; ``reason`` is the word for status and metrics."""

    reason = Reason.PORT_FORWARD_FAILED

    def __init__(self, message: str, reason: Reason | None = None) -> None:
        super().__init__(clip(message))
        self.reason = reason or type(self).reason


class PortRefused(PortForwardError):  # noqa: N818
    """The kubelet could not reach the port in the pod: nothing listens there."""

    reason = Reason.PORT_REFUSED


class PortForwardBroken(PortForwardError):  # noqa: N818
    """It ended before the answer was whole: Truncated, DeadlineExceeded or PortForwardFailed."""


class RemoteCommandError(KubeError):
    """An attach or exec failed after the API server had agreed to it."""

    def __init__(self, message: str) -> None:
        super().__init__(clip(message))


class RemoteCommandBroken(RemoteCommandError):  # noqa: N818
    """The connection broke or the peer left the protocol; what runs there may well go on."""


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


class _Details(msgspec.Struct, rename="camel", frozen=True):
    retry_after_seconds: float | None = None


class Status(msgspec.Struct, frozen=True):
    """The slice of metav1.Status that we read. Every field has a default: proxies and old servers leave some out."""

    kind: str | None = None
    code: int | None = None
    reason: str | None = None
    message: str | None = None
    details: _Details | None = None


def clip(text: str, limit: int = LONGEST_MESSAGE) -> str:
    """One printable line of at most ``limit`` characters."""
    line = " ".join(text.split())
    if not line.isprintable():
        line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def parse_error(http_status: int, body: bytes, retry_after: float | None = None, *, request: str = "") -> ApiError:
    """Turn an error answer into an exception: a Status where the body is one, else what little can be said.

    ``http_status`` 0: the Status came inside a stream, as in a watch's ERROR event, and its own code counts.
    Never raises, whatever the body.
    """
    try:
        status = msgspec.json.decode(body, type=Status)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        status = Status()
    if status.kind == "Status":
        code = http_status or status.code or 500
        if retry_after is None and status.details is not None:
            retry_after = status.details.retry_after_seconds
        reason, message = status.reason or "Unknown", status.message or "the server gave no reason"
        return error_type(code, reason)(code, reason, message, retry_after, request=request)
    code = http_status or 500
    if code == 404:  # an API server says it in plain text when the whole API group is unknown to it
        message = "nothing is served there; is its CRD or its aggregated API installed?"
    else:  # the body may be a proxy's and hold anything, so only its size is told
        message = (
            f"the answer is no Kubernetes Status ({len(body)} bytes); a proxy or another service may have answered"
        )
    return error_type(code, "")(code, "Unknown", message, retry_after, request=request)


def error_type(status: int, reason: str) -> type[ApiError]:
    """The exception class for an HTTP status and a Status reason."""
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists
    return _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
