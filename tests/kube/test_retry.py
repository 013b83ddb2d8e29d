"""What is sent again, and when."""

import pytest

from toe_async.kube.errors import (
    ApiError,
    Conflict,
    CredentialsError,
    Forbidden,
    KubeError,
    ServerError,
    TooManyRequests,
    TransportError,
    UnexpectedAnswer,
    UntrustedServer,
)
from toe_async.kube.requests import Request
from toe_async.kube.retry import may_repeat, wait_for

BUSY, DOWN, BROKEN = TooManyRequests(429, "", ""), ServerError(503, "", ""), ServerError(500, "", "")
LOST, REFUSED = TransportError("reset"), TransportError("refused", sent=False)


@pytest.mark.parametrize(
    ("method", "error", "expected"),
    [
        ("GET", BUSY, True),
        ("PUT", BUSY, True),
        ("DELETE", BUSY, True),
        ("POST", BUSY, False),
        ("PATCH", BUSY, False),
        ("GET", DOWN, True),
        ("POST", DOWN, False),
        ("GET", BROKEN, False),
        ("GET", LOST, True),
        ("POST", LOST, False),
        ("PATCH", LOST, False),
        ("POST", REFUSED, True),
        ("PATCH", REFUSED, True),
        ("GET", UntrustedServer("x"), False),
        ("GET", Conflict(409, "", ""), False),
        ("GET", Forbidden(403, "", ""), False),
        ("GET", ApiError(400, "", ""), False),
        ("GET", UnexpectedAnswer("x"), False),
        ("GET", CredentialsError("x"), False),
    ],
)
def test_a_request_is_repeated_only_where_that_is_safe(method: str, error: KubeError, expected: bool) -> None:
    """One row for each kind of failure that matters."""
    assert may_repeat(Request(method, "/x"), error) is expected  # type: ignore[arg-type]


def test_the_wait_is_what_the_server_asks_and_our_spread_on_top() -> None:
    """Never earlier than asked."""
    assert wait_for(TooManyRequests(429, "", "", 3), 0.5) == 3.5
    assert wait_for(BUSY, 0.5) == 0.5
    assert wait_for(LOST, 0.5) == 0.5
    assert wait_for(TooManyRequests(429, "", "", -3), 0.5) == 0.5
