"""The right to upload one capture: an empty Secret in the agents' namespace and a token that ends with it (D19, D24).

The token is the uploader account's, its audience names the capture, and it is bound to the Secret; the collector takes
it for that capture alone. Uploads of one capture that overlap share a ticket. The last one to leave deletes the Secret,
however things went, and a cancelled caller waits for that. A Secret that a killed process left is used as it is.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

import msgspec

from toe_async.apis.core import BoundObject, Secret, TokenRequest, TokenRequestSpec, decode_token_request
from toe_async.apis.kinds import SECRETS, SERVICE_ACCOUNTS
from toe_async.apis.meta import ObjectMeta, encode
from toe_async.apis.reasons import Reason
from toe_async.kube import requests
from toe_async.kube.errors import AlreadyExists, ApiError, Forbidden, KubeError, NotFound
from toe_async.kube.sender import Sender
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner
from toe_async.sinks.errors import SinkUnavailable
from toe_async.sinks.uninterrupted import to_the_end
from toe_async.telemetry import log

_log = log.get(__name__)

LIFE_SECONDS = 600  # the shortest that an API server grants
_OLD_SECONDS = LIFE_SECONDS / 2  # a token older than this is not used for another request
_REQUEST_SECONDS = 15.0
_GRACE_SECONDS = 5.0


class _Ticket:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.holders = 0
        self.token = ""
        self.made_at = 0.0


class Ticket:
    """The right to upload one capture, from `Tickets.hold`."""

    def __init__(self, fresh: Callable[[bool], Awaitable[str]]) -> None:
        self._fresh = fresh
        self.left = False

    def leave(self) -> None:
        """Let the Secret be when the block ends: another process goes on with this capture, on tokens given by us."""
        self.left = True

    async def token(self, *, anew: bool = False) -> str:
        """Return a token that lives for some minutes more; an upload of hours asks again for each piece.

        `anew` is for one that was refused: somebody may have deleted its Secret.

        Raises:
            SinkUnavailable: the API server does not give one; the message says what is missing.
        """
        return await self._fresh(anew)


class Tickets:
    """Makes and takes back tickets. `owner` outlives every upload."""

    def __init__(self, client: Sender, namespace: str, account: str, clock: Clock, owner: TaskOwner) -> None:
        self._client, self._namespace, self._account = client, namespace, account
        self._clock, self._owner = clock, owner
        self._tickets: dict[str, _Ticket] = {}

    @asynccontextmanager
    async def hold(self, capture_id: str) -> AsyncIterator[Ticket]:
        """Give the ticket for one capture, for as long as the block lasts."""
        ticket = self._tickets.setdefault(capture_id, _Ticket())
        ticket.holders += 1

        async def fresh(anew: bool) -> str:
            if anew:
                ticket.token = ""
            await self._to_the_end(self._fill(ticket, capture_id), f"ticket {capture_id}")
            return ticket.token

        given = Ticket(fresh)
        try:
            yield given
        finally:
            ticket.holders -= 1
            if ticket.holders == 0 and given.left:
                self._tickets.pop(capture_id, None)
            elif ticket.holders == 0:
                await self._to_the_end(self._take_back(ticket, capture_id), f"return ticket {capture_id}")

    async def _to_the_end(self, work: Coroutine[None, None, None], name: str) -> None:
        task = self._owner.start(work, name=name)
        await to_the_end(task, _GRACE_SECONDS)
        task.result()

    async def _fill(self, ticket: _Ticket, capture_id: str) -> None:
        async with ticket.lock:
            if ticket.token and self._clock.monotonic() - ticket.made_at < _OLD_SECONDS:
                return
            try:
                await self._make_secret(capture_id)
                ticket.token = await self._ask_token(capture_id)
            except Forbidden as error:
                raise SinkUnavailable(
                    f"the operator may not make capture tokens in namespace {self._namespace}; it needs create on "
                    f"secrets and on serviceaccounts/token of {self._account} there",
                    reason=Reason.NOT_AUTHORIZED,
                ) from error
            except NotFound as error:
                raise SinkUnavailable(
                    f"namespace {self._namespace} or its service account {self._account} does not exist; "
                    "the deploy manifests have both"
                ) from error
            except KubeError as error:
                status = f" ({error.status} {error.reason})" if isinstance(error, ApiError) else ""
                raise SinkUnavailable(f"the API server gave no capture token{status}") from error
            ticket.made_at = self._clock.monotonic()

    async def _take_back(self, ticket: _Ticket, capture_id: str) -> None:
        async with ticket.lock:
            if ticket.holders:
                return
            ticket.token = ""
            try:
                name = secret_name(capture_id)
                await self._client.send(requests.delete(SECRETS, self._namespace, name, timeout=_REQUEST_SECONDS))
            except NotFound:
                pass
            except KubeError as error:
                # Nothing is lost by it: the Secret is empty and the token ends within ten minutes.
                _log.warning("a capture's Secret is left behind", secret=name, why=str(error))
            if ticket.holders == 0:
                self._tickets.pop(capture_id, None)

    async def _make_secret(self, capture_id: str) -> None:
        secret = Secret(
            api_version="v1",
            kind="Secret",
            type="Opaque",
            metadata=ObjectMeta(
                name=secret_name(capture_id),
                namespace=self._namespace,
                labels={"app.kubernetes.io/managed-by": "toe-async"},
            ),
        )
        try:
            await self._client.send(requests.create(SECRETS, self._namespace, encode(secret), timeout=_REQUEST_SECONDS))
        except AlreadyExists:
            return

    async def _ask_token(self, capture_id: str) -> str:
        wanted = TokenRequest(
            spec=TokenRequestSpec(
                audiences=(f"toe-collector/{capture_id}",),
                expiration_seconds=LIFE_SECONDS,
                bound_object_ref=BoundObject(kind="Secret", name=secret_name(capture_id)),
            )
        )
        request = requests.create(
            SERVICE_ACCOUNTS,
            self._namespace,
            encode(wanted),
            name=self._account,
            subresource="token",
            timeout=_REQUEST_SECONDS,
        )
        try:
            answer = decode_token_request(await self._client.send(request))
        except msgspec.DecodeError:
            answer = wanted  # the decoder's error may quote the token
        if answer.status is None or not answer.status.token:
            raise SinkUnavailable("the API server answered the token request without a token")
        return answer.status.token


def secret_name(capture_id: str) -> str:
    """Return the name of a capture's Secret; an id is 32 characters of a-z2-7, so the name is a DNS label."""
    return f"toe-capture-{capture_id}"
