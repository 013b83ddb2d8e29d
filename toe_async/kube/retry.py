"""Which failures of a request may be answered by sending it again, and after how long."""

from toe_async.kube.errors import ApiError, KubeError, TransportError, UntrustedServer
from toe_async.kube.requests import Request

ATTEMPTS = 4
FIRST_WAIT, LONGEST_WAIT = 0.2, 5.0


def may_repeat(request: Request, error: KubeError) -> bool:
    """Whether the same request may go out again.

    A verb that is not idempotent goes out a second time only when the server certainly saw nothing of the first: a lost
    answer to a create must not make two. 429 and 503 are the answers that ask for patience; other refusals stand.
    """
    match error:
        case UntrustedServer():
            return False
        case TransportError():
            return request.idempotent or not error.sent
        case ApiError(status=429 | 503):
            return request.idempotent
    return False


def wait_for(error: KubeError, backoff: float) -> float:
    """Seconds until the next attempt: the server's wish, stretched by our backoff so that clients return apart."""
    asked = error.retry_after if isinstance(error, ApiError) else None
    return max(asked or 0.0, 0.0) + backoff
