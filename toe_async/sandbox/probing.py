"""Asking a backend: where it listens, whether it answers, and what it says that it serves."""

import asyncio
import random
import ssl

import aiohttp
import msgspec

from toe_async.sandbox import apiservices, certificates, proxying
from toe_async.sandbox.apiservices import PASSED, Backend, Condition, Served
from toe_async.sandbox.certificates import KeyPair
from toe_async.sandbox.endpoints import slices_of
from toe_async.sandbox.proxying import Target
from toe_async.sandbox.rbac import MASTERS, User
from toe_async.sandbox.resources import SERVICES
from toe_async.sandbox.status import JsonObject
from toe_async.sandbox.store import Key
from toe_async.sandbox.verbs import Verbs
from toe_async.telemetry import log

_log = log.get(__name__)

_PROBER = User("system:kube-aggregator", groups=(MASTERS,))
_READER = User("system:aggregator")
DISCOVERY_SECONDS = 5.0
"""How long a backend may take to say what it serves."""
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
_LARGEST_DOCUMENT = 4 << 20
"""Bytes of a backend's discovery or OpenAPI index that are read."""
_LARGEST_CACHE = 64
"""TLS contexts kept; one for each bundle in use."""


class Prober:
    """Finds the endpoints of backends and asks them. What a backend gets wrong becomes a condition or a warning."""

    def __init__(self, verbs: Verbs, rng: random.Random, session: aiohttp.ClientSession, front_proxy: KeyPair) -> None:
        self._verbs = verbs
        self._store = verbs.store
        self._rng = rng
        self._session = session
        self._front_proxy = front_proxy
        self._contexts: dict[tuple[bytes, bool], ssl.SSLContext] = {}

    async def check(self, one: Backend) -> Condition:
        """What the condition Available ought to say."""
        return apiservices.obstacle(one, *self._held(one)) or await self._probe(one)

    def _held(self, one: Backend) -> tuple[JsonObject | None, list[JsonObject]]:
        at = Key(one.namespace, one.service)
        service = self._store.get(SERVICES, at)
        return (None if service is None else service.obj), [item.obj for item in slices_of(self._verbs, at)]

    async def target(self, one: Backend) -> Target | None:
        """A random endpoint; None without one or when the caBundle holds no certificate."""
        found = apiservices.addresses(one, *self._held(one))
        if not found:
            return None
        held = (one.authority if one.verified else b"", one.verified)
        if held not in self._contexts:
            try:
                context = await asyncio.to_thread(
                    certificates.proxy_context, self._front_proxy, held[0], verified=one.verified
                )
            except (OSError, ValueError):
                return None
            if len(self._contexts) >= _LARGEST_CACHE:
                self._contexts.clear()
            self._contexts[held] = context
        address, port = self._rng.choice(found)
        return Target(address, port, one.server_name, self._contexts[held])

    async def _probe(self, one: Backend) -> Condition:
        """Ask for the discovery document."""
        target = await self.target(one)
        if target is None:
            message = f'no endpoints available for service "{one.service}"'
            return Condition("False", "FailedDiscoveryCheck", message)
        url = target.url(f"/apis/{one.group}/{one.version}")
        said = f"failing or missing response from {url}: "
        try:
            status, _ = await self._get(target, url.raw_path, _PROBER, "application/json")
        except TimeoutError:
            return Condition("False", "FailedDiscoveryCheck", f"{said}context deadline exceeded")
        except aiohttp.ClientConnectorCertificateError as error:
            why = f"{said}tls: failed to verify certificate: {error.certificate_error}"
            return Condition("False", "FailedDiscoveryCheck", why)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Condition("False", "FailedDiscoveryCheck", f"{said}{error}")
        if not 200 <= status < 300:
            return Condition("False", "FailedDiscoveryCheck", f"{said}bad status from {url}: {status}")
        return PASSED

    async def discover(self, one: Backend) -> Served | None:
        """Ask what the backend serves; None when it does not say."""
        target = await self.target(one)
        if target is None:
            return None
        try:
            resources = await self._resources(target, one)
            status, raw = await self._get(target, "/openapi/v3", _READER, "application/json")
            paths = msgspec.json.decode(raw)["paths"] if status == 200 else {}
        except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("an aggregated API does not say what it serves", apiservice=one.name, error=repr(error))
            return None
        return Served(one, resources, True, f"apis/{one.group}/{one.version}" in paths)

    async def _resources(self, target: Target, one: Backend) -> list[JsonObject]:
        status, raw = await self._get(target, "/apis", _PROBER, _DISCOVERY)
        body = msgspec.json.decode(raw) if status == 200 else {}
        if body.get("kind") == "APIGroupDiscoveryList":
            for group in body["items"]:
                for version in group["versions"]:
                    if (group["metadata"]["name"], version["version"]) == (one.group, one.version):
                        found: list[JsonObject] = version.get("resources") or []
                        return found
        status, raw = await self._get(target, f"/apis/{one.group}/{one.version}", _PROBER, "application/json")
        if status != 200:
            raise ValueError(f"discovery answers {status}")
        body = msgspec.json.decode(raw)
        return apiservices.described(body.get("resources") or [], one.group, one.version)

    async def _get(self, target: Target, path: str, user: User, accept: str) -> tuple[int, bytes]:
        headers = proxying.identity(user)
        headers["Accept"] = accept
        async with (
            asyncio.timeout(DISCOVERY_SECONDS),
            self._session.get(
                target.url(path),
                headers=headers,
                allow_redirects=False,
                ssl=target.context,
                server_hostname=target.server_name,
            ) as answer,
        ):
            raw = bytearray()
            async for piece in answer.content.iter_any():
                raw += piece
                if len(raw) > _LARGEST_DOCUMENT:
                    raise ValueError(f"{path} has more than {_LARGEST_DOCUMENT} bytes")
            return answer.status, bytes(raw)
