"""Who sends a request, and what that somebody may do.

Who: the API server says it (TokenReview), asked at most once in ten seconds for one token and audience however many
requests carry it. A `yes` is never believed past the token's own end, which is read from the token without trusting it:
it can only shorten. When the API server cannot be asked, nobody is let in (503).

A token of the right audience proves little, since everybody who may make pods can get one: the username has to be one
of those that the administrator named, and the audience names the capture.
"""

import asyncio
import base64
import hashlib
import re
from collections import OrderedDict
from contextlib import AsyncExitStack
from typing import Self, TypeVar

import msgspec
from msgspec import Struct

from toe_async.apis.core import (
    ResourceAttributes,
    SubjectAccessReview,
    SubjectAccessReviewSpec,
    TokenReview,
    TokenReviewSpec,
    UserInfo,
    decode_subject_access_review,
    decode_token_review,
)
from toe_async.apis.kinds import ARTIFACTS, SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Kind
from toe_async.apis.meta import Decoder, encode
from toe_async.collector.errors import Refused
from toe_async.kube import requests
from toe_async.kube.errors import KubeError
from toe_async.kube.sender import Sender
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner
from toe_async.telemetry import log
from toe_async.telemetry.metrics import CollectorMetrics

T = TypeVar("T")

OPERATOR_AUDIENCE = "toe-collector"

_BEARER = re.compile(r"[Bb]earer +([A-Za-z0-9._~+/-]{8,}=*)")
_MOST_VERDICTS = 10_000
_MOST_REVIEWS_AT_ONCE = 32
_REVIEW_TIMEOUT = 5.0
_log = log.get("collector.auth")


def capture_audience(capture_id: str) -> str:
    """The audience of the one token that may upload to this capture."""
    return f"{OPERATOR_AUDIENCE}/{capture_id}"


def bearer(headers: list[str]) -> str:
    """The token of a request's Authorization headers.

    Raises:
        Refused: there is none, there are several, or it is no bearer token.
    """
    found = _BEARER.fullmatch(headers[0].strip()) if len(headers) == 1 else None
    if found is None:
        raise _unauthenticated()
    return found.group(1)


def _unauthenticated() -> Refused:
    return Refused(401, "Unauthenticated", "a valid bearer token for this call is required")


class _Verdict(Struct, frozen=True):
    user: UserInfo | None
    until: float


class Gate:
    """Lets requests in, or raises Refused. Used as a context manager, which owns the reviews under way."""

    def __init__(self, api: Sender, clock: Clock, metrics: CollectorMetrics, believe_seconds: float) -> None:
        self._api, self._clock, self._metrics, self._believe = api, clock, metrics, believe_seconds
        self._verdicts: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[_Verdict]] = {}
        self._at_once = asyncio.Semaphore(_MOST_REVIEWS_AT_ONCE)
        self._stack = AsyncExitStack()
        self.trouble: str | None = None
        """Why the API server could not be asked the last time; None when it could."""

    async def __aenter__(self) -> Self:
        self._tasks = await self._stack.enter_async_context(TaskOwner(_asked_in_vain))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def service(self, token: str, audience: str, usernames: frozenset[str]) -> None:
        """Let one of these service accounts in, with a token made for exactly this audience.

        Raises:
            Refused: 401 the token is not good here, 403 it is somebody else's, 503 nobody can tell.
        """
        user = await self._who(token, audience)
        if user.username not in usernames:
            raise Refused(403, "Forbidden", "this account may not make this call")

    async def user(self, token: str) -> UserInfo:
        """Who sends this token, of any kind that the API server knows; raises Refused (401, 503)."""
        return await self._who(token, "")

    async def may(self, user: UserInfo, verb: str, namespace: str, *, name: str = "", subresource: str = "") -> None:
        """Let a user read or delete artifacts of a namespace if RBAC grants it there; raises Refused (403, 503)."""
        attributes = ResourceAttributes(
            verb=verb,
            group=ARTIFACTS.group,
            version=ARTIFACTS.version,
            resource=ARTIFACTS.plural,
            subresource=subresource,
            namespace=namespace,
            name=name,
        )
        asked = SubjectAccessReview(
            spec=SubjectAccessReviewSpec(
                resource_attributes=attributes, user=user.username, uid=user.uid, groups=user.groups, extra=user.extra
            )
        )
        status = (await self._ask(SUBJECT_ACCESS_REVIEWS, encode(asked), decode_subject_access_review)).status
        if status is None or not status.allowed or status.denied:
            what = f"{ARTIFACTS.plural}/{subresource}" if subresource else ARTIFACTS.plural
            raise Refused(403, "Forbidden", f"you may not {verb} {what} of group {ARTIFACTS.group} in this namespace")

    async def _who(self, token: str, audience: str) -> UserInfo:
        key = hashlib.sha256(f"{audience}\0{token}".encode()).digest()
        verdict = self._verdicts.get(key)
        if verdict is None or verdict.until <= self._clock.monotonic():
            # Nobody's cancellation ends a review that others wait for.
            verdict = await asyncio.shield(self._asking.get(key) or self._start(key, token, audience))
        if verdict.user is None:
            raise _unauthenticated()
        return verdict.user

    def _start(self, key: bytes, token: str, audience: str) -> "asyncio.Task[_Verdict]":
        task = self._tasks.start(self._review(key, token, audience), name="token review")
        self._asking[key] = task
        task.add_done_callback(lambda _: self._asking.pop(key, None))
        return task

    async def _review(self, key: bytes, token: str, audience: str) -> _Verdict:
        left = seconds_left(token, self._clock.now().timestamp())
        user = await self._reviewed(token, audience) if left > 0 else None
        until = self._clock.monotonic() + min(self._believe, left if user else self._believe)
        verdict = self._verdicts[key] = _Verdict(user, until)
        self._verdicts.move_to_end(key)
        if len(self._verdicts) > _MOST_VERDICTS:
            self._verdicts.popitem(last=False)
        return verdict

    async def _reviewed(self, token: str, audience: str) -> UserInfo | None:
        audiences = (audience,) if audience else ()
        review = TokenReview(spec=TokenReviewSpec(token=token, audiences=audiences))
        try:
            async with self._at_once:
                status = (await self._ask(TOKEN_REVIEWS, encode(review), decode_token_review)).status
        except Refused:
            self._metrics.token_reviews.labels("error").inc()
            raise
        good = (
            status is not None
            and status.authenticated
            and bool(status.user.username)
            and (not audience or audience in status.audiences)
        )
        self._metrics.token_reviews.labels("accepted" if good else "refused").inc()
        return status.user if status is not None and good else None

    async def _ask(self, kind: Kind, body: bytes, decode: Decoder[T]) -> T:
        try:
            answer = decode(await self._api.send(requests.create(kind, None, body, timeout=_REVIEW_TIMEOUT)))
        except (KubeError, msgspec.DecodeError) as failed:
            self.trouble = f"the last {kind.kind} failed ({type(failed).__name__})"
            _log.warning("the API server cannot be asked; the request is refused", kind=kind.kind, error=str(failed))
            raise Refused(
                503, "ReviewUnavailable", "the API server cannot be asked who you are; try again", retry_after=5
            ) from failed
        self.trouble = None
        return answer


def seconds_left(token: str, now: float) -> float:
    """Seconds until a JWT's own end; infinite for a token that tells none. Nothing in it is verified here."""
    try:
        payload = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Claims)
    except (IndexError, ValueError, RecursionError, msgspec.DecodeError):
        return float("inf")
    return float("inf") if claims.exp is None else claims.exp - now


class _Claims(Struct):
    exp: float | None = None


def _asked_in_vain(name: str, error: BaseException) -> None:
    # Every waiter got the same error; whether anybody still waited does not matter.
    if not isinstance(error, Refused):
        _log.error("a review ended unexpectedly", task=name, error=repr(error)[:500])
