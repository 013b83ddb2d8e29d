"""What a viewer may do, as the API server's RBAC says, and a record of each decision.

Every call asks anew, so a right that is taken away is gone with the next call. Only the list of namespaces, which asks
for many at once, believes an answer for some seconds.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from msgspec import Struct

from toe_async.apis.core import UserInfo
from toe_async.apis.meta import encode
from toe_async.collector.api.status import forbidden
from toe_async.collector.auth import Gate
from toe_async.collector.errors import Refused
from toe_async.lib.clock import Clock
from toe_async.telemetry import log

_ASKED_AT_ONCE = 16
_MOST_ASKED = 500
_MOST_KEPT = 10_000
_log = log.get("collector.api")


class _Answer(Struct, frozen=True):
    allowed: bool
    until: float


class Rights:
    """Decisions about artifacts. One per collector. `believe_seconds` is for `listable` alone."""

    def __init__(self, gate: Gate, clock: Clock, believe_seconds: float) -> None:
        self._gate, self._clock, self._believe = gate, clock, believe_seconds
        self._kept: OrderedDict[tuple[bytes, str], _Answer] = OrderedDict()

    async def check(self, user: UserInfo, verb: str, namespace: str, name: str = "", subresource: str = "") -> None:
        """Let somebody do something, or raise Refused (403, 503). An empty namespace means all of them."""
        # One record for each decision, so that "who took this?" has an answer.
        decision = _log.bind(user=user.username, verb=verb, namespace=namespace, name=name, subresource=subresource)
        try:
            await self._gate.may(user, verb, namespace, name=name, subresource=subresource)
        except Refused as refused:
            decision.info("reading refused", status=refused.status)
            if refused.status != 403:
                raise
            raise forbidden(user.username, verb, namespace, name, subresource) from None
        decision.info("reading allowed")

    async def listable(self, user: UserInfo, namespaces: Sequence[str], most: int) -> list[str]:
        """The first `most` of these namespaces whose artifacts somebody may list; no more than 500 are asked for.

        Raises:
            Refused: 503, the API server cannot be asked.
        """
        if await self._may_list(user, ""):
            found = list(namespaces[:most])
        else:
            found = await self._asked(user, namespaces[:_MOST_ASKED], most)
        _log.info("namespaces shown", user=user.username, held=len(namespaces), shown=len(found))
        return found

    async def _asked(self, user: UserInfo, namespaces: Sequence[str], most: int) -> list[str]:
        found: list[str] = []
        for at in range(0, len(namespaces), _ASKED_AT_ONCE):
            batch = namespaces[at : at + _ASKED_AT_ONCE]
            try:
                async with asyncio.TaskGroup() as group:
                    answers = [group.create_task(self._may_list(user, one)) for one in batch]
            except* Refused as failed:
                raise failed.exceptions[0] from None
            found += [one for one, answer in zip(batch, answers, strict=True) if answer.result()]
            if len(found) >= most:
                break
        return found[:most]

    async def _may_list(self, user: UserInfo, namespace: str) -> bool:
        key = encode(user), namespace
        kept = self._kept.get(key)
        if kept is not None and kept.until > self._clock.monotonic():
            return kept.allowed
        try:
            await self._gate.may(user, "list", namespace)
            allowed = True
        except Refused as refused:
            if refused.status != 403:
                raise
            allowed = False
        self._kept[key] = _Answer(allowed, self._clock.monotonic() + self._believe)
        self._kept.move_to_end(key)
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return allowed
