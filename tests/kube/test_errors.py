"""Error answers become exceptions that say what to do, whoever wrote them."""

import json

import pytest

from toe_async.apis.reasons import Reason
from toe_async.kube.errors import (
    LONGEST_MESSAGE,
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    NotFound,
    PortForwardBroken,
    PortRefused,
    ServerError,
    TooManyRequests,
    Unauthorized,
    parse_error,
)


def a_status(**fields: object) -> bytes:
    return json.dumps({"kind": "Status", "apiVersion": "v1", **fields}).encode()


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (400, "BadRequest", ApiError),
        (401, "Unauthorized", Unauthorized),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (410, "Expired", Gone),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", TooManyRequests),
        (500, "InternalError", ServerError),
        (503, "ServiceUnavailable", ServerError),
        (302, "Found", ApiError),
    ],
)
def test_each_refusal_has_its_class(status: int, reason: str, expected: type[ApiError]) -> None:
    """Class, status, reason and message are what the Status says."""
    error = parse_error(status, a_status(code=status, reason=reason, message="no"), request="GET /x")
    assert type(error) is expected
    assert (error.status, error.reason, error.message) == (status, reason, "no")
    assert str(error) == f"GET /x: {status} {reason}: no"


def test_an_existing_name_is_a_conflict_too() -> None:
    """Whoever handles Conflict handles AlreadyExists."""
    assert issubclass(AlreadyExists, Conflict)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>bad gateway</html>",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"Status"',
        b'{"kind":"Pod","message":"not yours"}',
        b'{"kind":"Status","code":"not a number"}',
        b'{"kind":"Status","reason":7}',
        b"[" * 100_000,
        b'{"kind":"Status"',
    ],
)
def test_a_body_that_is_no_status_is_not_repeated(body: bytes) -> None:
    """A proxy's page may hold anything; only its size is told, and the HTTP status decides."""
    error = parse_error(502, body)
    assert type(error) is ServerError
    assert error.message == (
        f"the answer is no Kubernetes Status ({len(body)} bytes); a proxy or another service may have answered"
    )


def test_an_api_group_that_is_not_installed_is_told_as_such() -> None:
    """The API server itself answers in plain text then; blaming a proxy would lead the search the wrong way."""
    error = parse_error(404, b"404 page not found\n")
    assert type(error) is NotFound
    assert "aggregated API installed?" in error.message


def test_a_status_inside_a_stream_brings_its_own_code() -> None:
    """A watch's ERROR event comes under HTTP 200."""
    assert type(parse_error(0, a_status(code=410, reason="Expired", message="too old"))) is Gone
    assert parse_error(0, a_status()).status == 500


def test_the_header_wins_over_the_details_for_when_to_return() -> None:
    """Both may name seconds; the header is the newer word."""
    body = a_status(code=429, details={"retryAfterSeconds": 7})
    assert parse_error(429, body).retry_after == 7
    assert parse_error(429, body, 2.0).retry_after == 2
    assert parse_error(429, a_status(code=429, details=None)).retry_after is None


def test_messages_are_one_printable_line_of_bounded_length() -> None:
    """Neither a newline nor a terminal sequence gets through, and a novel is cut."""
    error = parse_error(400, a_status(message="a\x1b[31m\nb " + "x" * 5000))
    assert error.message.startswith("a?[31m b xxx")
    assert len(error.message) == LONGEST_MESSAGE
    assert error.message.isprintable()


def test_port_forward_errors_name_a_reason() -> None:
    """The reason goes into status and metrics as it is."""
    assert PortRefused("x").reason is Reason.PORT_REFUSED
    assert PortForwardBroken("x").reason is Reason.PORT_FORWARD_FAILED
    assert PortForwardBroken("x", Reason.TRUNCATED).reason is Reason.TRUNCATED
    assert issubclass(PortRefused, KubeError)
