"""What a tool's run needs of the collector: register its capture, cancel it, and tickets for its tool to upload with.

The tool itself uploads, with a ticket that is worth one capture (D24); nothing of its bytes passes through here. What
goes wrong is a value, since none of it ends the run: the tool goes on, and so does asking.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Self

import msgspec
from msgspec import Struct

from toe_async.apis.captures import CaptureRecord, NotStored, Standing, StoredLeaf
from toe_async.apis.kinds import ARTIFACTS
from toe_async.apis.reasons import Reason
from toe_async.kube.sender import Sender
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner
from toe_async.sinks.collector import CollectorAccess, own_token, registration
from toe_async.sinks.collectorhttp import CollectorHTTP
from toe_async.sinks.errors import SinkError, SinkRefused, SinkUnavailable
from toe_async.sinks.tickets import Ticket, Tickets

_ANY_LEAF = "*"
"""A tool's leaves are named after its files. The collector takes safe names only, so many and no more a capture."""
_MISSING = frozenset({404})


class ToolTicket:
    """The right to upload one capture, from `ToolCaptures.hold`."""

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket

    async def token(self, *, anew: bool) -> str | NotStored:
        """Return a token that lives for five minutes at least, or why there is none now; `anew` after a refusal."""
        try:
            return await self._ticket.token(anew=anew)
        except SinkUnavailable as error:
            return _told(error)

    def leave(self) -> None:
        """Let the tokens live on when the block ends, for who goes on with the capture."""
        self._ticket.leave()


class ToolCaptures:
    """Captures of tools at one collector. Used as an async context manager."""

    def __init__(self, client: Sender, access: CollectorAccess, clock: Clock) -> None:
        self._access = access
        # Whoever starts one of these awaits its outcome, so nothing is left to say about an error.
        self._owner = TaskOwner(lambda name, error: None)
        self._tickets = Tickets(client, access.agents_namespace, access.uploader_account, clock, self._owner)
        self._http = CollectorHTTP(access.url, access.ca)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._owner.__aexit__(None, None, None)
        await self._http.__aexit__(*exc)

    async def register(
        self, record: CaptureRecord, *, expires: datetime, details: dict[str, str]
    ) -> Standing | NotStored:
        """Make the capture known, for the first time or again, and learn what is stored of it."""
        body = registration(record, expires=expires, max_bytes=self._access.max_bytes)
        body |= {"leafGlobs": [_ANY_LEAF], "details": details}
        try:
            token = await own_token(self._access.token_file)
            answer = await self._http.ask("POST", "/v1/captures", token, json=body)
            return _standing(answer.body, record.namespace)
        except (SinkRefused, SinkUnavailable) as error:
            return _told(error)

    async def cancel(self, capture_id: str) -> NotStored | None:
        """Let the collector refuse the capture's token from now on; None when it does. What is stored stays."""
        try:
            token = await own_token(self._access.token_file)
            await self._http.ask("DELETE", f"/v1/captures/{capture_id}", token, also=_MISSING)
        except (SinkRefused, SinkUnavailable) as error:
            return _told(error)
        return None

    @asynccontextmanager
    async def hold(self, capture_id: str) -> AsyncIterator[ToolTicket]:
        """Give the ticket for one capture; at the end of the block its tokens are taken back."""
        async with self._tickets.hold(capture_id) as ticket:
            yield ToolTicket(ticket)


class _Artifact(Struct, frozen=True):
    leaf: str
    name: str
    size: int
    sha256: str


class _Registered(Struct, frozen=True):
    state: str
    artifacts: tuple[_Artifact, ...] = ()


def _standing(body: bytes, namespace: str) -> Standing:
    try:
        told = msgspec.json.decode(body, type=_Registered)
        return msgspec.convert(
            {
                "state": told.state,
                "artifacts": [
                    StoredLeaf(leaf=one.leaf, uri=ARTIFACTS.path(namespace, one.name), size=one.size, sha256=one.sha256)
                    for one in told.artifacts
                ],
            },
            Standing,
        )
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SinkUnavailable("the collector's answer cannot be read; is it a collector?", sink_wide=False) from error


def _told(error: SinkError) -> NotStored:
    reason = error.reason if isinstance(error, SinkRefused | SinkUnavailable) else Reason.UPLOAD_FAILED
    return NotStored(reason=reason, message=str(error), final=isinstance(error, SinkRefused))
