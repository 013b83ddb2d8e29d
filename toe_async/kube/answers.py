"""Reading answers: foreign exceptions mapped, refusals raised, bodies bounded."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp import ClientResponse

from toe_async.kube.errors import ApiError, TransportError, UnexpectedAnswer, UntrustedServer, parse_error
from toe_async.kube.requests import JSON, Request

LARGEST_ANSWER = 64 << 20
_LARGEST_ERROR = 64 << 10


@contextmanager
def mapped(request: object) -> Iterator[None]:
    """Turn what aiohttp and ssl raise into a TransportError; ``request`` names it in the message."""
    try:
        yield
    except (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError) as error:
        raise UntrustedServer(
            f"{request}: the server's certificate is not trusted: {_words(error)}; check the CA in the kubeconfig"
        ) from error
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise TransportError(f"{request}: no connection: {_words(error)}", sent=False) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise TransportError(f"{request}: no whole answer: {_words(error)}") from error


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def check(request: Request, response: ClientResponse) -> None:
    """Raise what the answer refuses with; return when it is a good one of the type that was asked for."""
    if not 200 <= response.status < 300:
        raise await refusal(str(request), response)
    if request.accept == JSON and not response.content_type.endswith("json"):
        raise UnexpectedAnswer(
            f"{request}: answered with {response.content_type} where {JSON} was asked; "
            "is that the API server, or a proxy or login page before it?"
        )


async def refusal(request: str, response: ClientResponse) -> ApiError:
    """The error that a response stands for. Its body is read up to a bound; one that does not come is no body."""
    body = b""
    try:
        async with asyncio.timeout(5):
            body = await _up_to(response, _LARGEST_ERROR)
    except (aiohttp.ClientError, TimeoutError, OSError):
        pass  # the status line says enough
    return parse_error(response.status, body, _retry_after(response), request=request)


async def read(request: Request, response: ClientResponse, limit: int) -> bytes:
    """The whole body. Raises UnexpectedAnswer when it is larger than ``limit`` bytes, without reading the rest."""
    body = await _up_to(response, limit)
    if len(body) > limit:
        raise UnexpectedAnswer(f"{request}: the answer is larger than {limit} bytes; ask for less, or for a stream")
    return body


async def _up_to(response: ClientResponse, limit: int) -> bytes:
    """The body, or its beginning of a little more than ``limit`` bytes."""
    parts, size = [], 0
    while size <= limit and (chunk := await response.content.readany()):
        parts.append(chunk)
        size += len(chunk)
    return b"".join(parts)


def _retry_after(response: ClientResponse) -> float | None:
    # The other legal form, a date, is not used by API servers and would need their clock.
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


class Chunks(AsyncIterator[bytes]):
    """The pieces of a body as they come; ``deadline`` is on the loop's clock."""

    def __init__(self, request: Request, response: ClientResponse, deadline: float | None) -> None:
        self._request, self._response, self._deadline = request, response, deadline

    async def __anext__(self) -> bytes:
        with mapped(self._request):
            async with asyncio.timeout_at(self._deadline):
                chunk = await self._response.content.readany()
        if not chunk:
            raise StopAsyncIteration
        return chunk
