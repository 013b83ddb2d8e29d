"""A botocore client with our limits: no redirects, no forbidden addresses, one attempt per call, checksums as told.

Imported on first use only: botocore costs 0.2 s and 12 MB.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import AF_UNSPEC, AddressFamily
from typing import Any, Literal

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from toe_async.sinks.allow import Allowed
from toe_async.sinks.credentials import Keys
from toe_async.sinks.endpoints import never_allowed

Addressing = Literal["auto", "path", "virtual"]

CONNECT_SECONDS = 5
READ_SECONDS = 60
_DEFAULT_REGION = "us-east-1"  # what S3-compatible stores expect when nobody says


class Redirected(aiohttp.ClientError):
    """The endpoint sent us elsewhere. Following would show the key's session token and the profile to another host."""


class ForbiddenAddress(OSError):  # noqa: N818
    """The endpoint's name leads to an address that no sink has."""


async def _stay(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    response = await handler(request)
    if 300 <= response.status < 400 and ("Location" in response.headers or "URI" in response.headers):
        response.close()
        raise Redirected(f"the endpoint answered {response.status} with a redirect")
    return response


class _StayingSession(AIOHTTPSession):  # type: ignore[misc]  # botocore has no types
    """aiobotocore's session follows redirects (aiohttp's default) and offers no switch for it."""

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        async with self._sessions_lock:
            session: aiohttp.ClientSession | None = self._sessions.get(proxy_url)
            if session is None:
                session = aiohttp.ClientSession(
                    connector=await self._create_connector(proxy_url),
                    timeout=self._timeout,
                    skip_auto_headers={"Content-Type"},
                    auto_decompress=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    middlewares=(_stay,),
                )
                self._sessions[proxy_url] = await self._exit_stack.enter_async_context(session)
        return session


class _GuardedResolver(AbstractResolver):
    """Resolves once and hands out only addresses that may be connected to, so a name cannot lead elsewhere later."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: AddressFamily = AF_UNSPEC) -> list[ResolveResult]:
        """Resolve a name.

        Raises:
            OSError: no such name, or all its addresses are forbidden.
        """
        found = await self._inner.resolve(host, port, family)
        good = [result for result in found if not never_allowed(result["host"])]
        if found and not good:
            raise ForbiddenAddress(f"{host} is link-local or a metadata service")
        return good

    async def close(self) -> None:
        """Nothing is held."""


@asynccontextmanager
async def connect(
    session: AioSession, keys: Keys, allowed: Allowed, *, addressing: Addressing = "auto", connections: int = 10
) -> AsyncIterator[Any]:
    """Open a client for one endpoint and one key.

    `addressing` says where the bucket's name goes; auto is the host at AWS and the path elsewhere. Requests above
    `connections` wait for each other.
    """
    aws = allowed.endpoint is None or allowed.endpoint.is_aws
    checksum = "when_supported" if aws and allowed.checksum == "auto" else "when_required"
    config = AioConfig(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 1},  # delivery retries; two layers would multiply
        request_checksum_calculation=checksum,
        response_checksum_validation=checksum,
        s3={"addressing_style": "path" if addressing == "auto" and not aws else addressing},
        max_pool_connections=connections,
        signature_version="s3v4",
        ignore_configured_endpoint_urls=True,  # the endpoint was checked; the environment has no say in it
        http_session_cls=_StayingSession,
        connector_args={"resolver": _GuardedResolver()},
        warm_up_loader_caches=True,
    )
    async with session.create_client(
        "s3",
        region_name=allowed.region or _DEFAULT_REGION,
        endpoint_url=allowed.endpoint.url if allowed.endpoint else None,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=keys.token,
        config=config,
    ) as client:
        yield client
