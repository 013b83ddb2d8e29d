"""The collector's artifacts over the aggregated API, as one user of the cluster sees them."""

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
from msgspec.structs import replace

from toe_async.apis.kinds import NAMESPACES, Kind
from toe_async.cli.plugin.ranges import Ranges
from toe_async.cli.plugin.refusals import refused, unexpected
from toe_async.collector.errors import Refused
from toe_async.collector.library import Body
from toe_async.kube import requests
from toe_async.kube.answers import LARGEST_ANSWER
from toe_async.kube.client import Client
from toe_async.kube.errors import KubeError
from toe_async.kube.requests import Query, Request
from toe_async.kube.retry import ATTEMPTS, FIRST_WAIT, LONGEST_WAIT, may_repeat, wait_for
from toe_async.lib.backoff import Backoff
from toe_async.lib.names import safe_segment

ARTIFACTS = Kind("artifacts.toe.run", "v1alpha1", "artifacts", "Artifact")
HOLD = "toe.run/hold"
RENDER_SECONDS = 58.0
"""A rendering that the API server lets through; it ends every request after 60 s."""
MOST_NAMESPACES = 200
NAMESPACES_KEPT_SECONDS = 30.0
"""Every page of the user interface asks for them, and each time costs a request a namespace."""
_NAMESPACES_LOOKED_AT = 500
_PAGES_LOOKED_THROUGH = 10
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_AT_ONCE = 8
_FILENAME = re.compile(r'filename="([^"\\]{1,255})"')


class RemoteLibrary:
    """`collector.library.Library` over a client. Safe for concurrent calls; every failure is a `Refused`."""

    def __init__(self, client: Client, default_namespace: str) -> None:
        self.client, self._default = client, default_namespace
        self._looking = asyncio.Lock()
        self._known: tuple[float, list[str]] = (float("-inf"), [])

    async def namespaces(self) -> list[str]:
        """Namespaces with artifacts that the user may list, at most 200; half a minute old at most.

        Who may list all artifacts gets those that they are in, also of namespaces that are gone, as far as the newest
        5000 artifacts tell. What else there is comes from the first 500 namespaces of the cluster; a user who may not
        list namespaces gets the context's own, if its artifacts may be listed.
        """
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if now - self._known[0] >= NAMESPACES_KEPT_SECONDS:
                self._known = (now, await self._look_around())
            return self._known[1]

    async def _look_around(self) -> list[str]:
        seen, everything = await self._look_through()
        return sorted(seen if everything else seen | set(await self._look_into(seen)))[:MOST_NAMESPACES]

    async def _look_through(self) -> tuple[set[str], bool]:
        """The namespaces of the newest artifacts, and whether those are all there are."""
        found, token = set[str](), ""
        for _ in range(_PAGES_LOOKED_THROUGH):
            query = (("limit", str(_NAMESPACES_LOOKED_AT)), *((("continue", token),) if token else ()))
            try:
                page = await self._json(replace(_request("GET", None, query=query), accept=_METADATA))
            except Refused as no:
                if no.status in {403, 410}:  # not for this user; or the list was begun anew meanwhile
                    return found, False
                raise
            found |= {name for item in items_of(page) if (name := _text(item, "namespace"))}
            token = _text(page, "continue")
            if not token:
                return found, True
        return found, False

    async def _look_into(self, seen: Collection[str]) -> list[str]:
        """The cluster's namespaces, one by one; those that were `seen` need no look."""
        try:
            answer = await self._json(requests.list_(NAMESPACES, limit=_NAMESPACES_LOOKED_AT))
            known = sorted(_text(item, "name") for item in items_of(answer))
        except Refused as no:
            if no.status != 403:
                raise
            known = [self._default]
        places = asyncio.Semaphore(_AT_ONCE)

        async def holds_any(namespace: str) -> bool | Refused:
            async with places:
                try:
                    return bool(items_of(await self.list(namespace, {"limit": "1"})))
                except Refused as no:
                    return False if no.status == 403 else no

        async with asyncio.TaskGroup() as group:
            asked = {
                name: group.create_task(holds_any(name), name=f"look into {name}")
                for name in known
                if name and name not in seen
            }
        found = {name: task.result() for name, task in asked.items()}
        for outcome in found.values():
            if isinstance(outcome, Refused):
                raise outcome
        return [name for name, held in found.items() if held]

    async def list(self, namespace: str, query: Mapping[str, str]) -> dict[str, Any]:
        """A page of artifacts; an empty namespace is all of them."""
        given = tuple((key, value) for key, value in query.items() if value)
        found = await self._json(_request("GET", namespace or None, query=given))
        items_of(found)
        return found

    async def get(self, namespace: str, name: str) -> dict[str, Any]:
        """One artifact."""
        return await self._json(_request("GET", namespace, name))

    @asynccontextmanager
    async def content(self, namespace: str, name: str, first: int = 0, end: int | None = None) -> AsyncIterator[Body]:
        """Its bytes, in as many requests as that takes; broken ones are gone on with (see ranges)."""
        ranges = Ranges(self.client, _request("GET", namespace, name, "content").path, first, end)
        try:
            await ranges.start()
            assert ranges.end is not None
            headers = {"ETag": f'"{ranges.sha256}"', "X-Toe-Sha256": ranges.sha256} if ranges.sha256 else {}
            if ranges.end - first < ranges.total:
                headers["Content-Range"] = f"bytes {first}-{ranges.end - 1}/{ranges.total}"
            async with aclosing(ranges.pieces()) as pieces:
                yield Body(
                    content_type="application/octet-stream",
                    size=max(0, ranges.end - first),
                    filename=plain_name(ranges.disposition) or safe_segment(name),
                    headers=headers,
                    pieces=pieces,
                )
        finally:
            await ranges.close()

    async def render(self, namespace: str, name: str, query: Mapping[str, str]) -> tuple[str, bytes]:
        """A view of it; a renderer that is busy is asked again for a while."""
        asked = _request("GET", namespace, name, "render", query=tuple(query.items()))
        request = replace(asked, accept="*/*", timeout=RENDER_SECONDS)
        backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        while True:
            try:
                async with self.client.open(request) as answer:
                    body = bytearray()
                    async for piece in answer.pieces:
                        body += piece
                        if len(body) > LARGEST_ANSWER:
                            raise unexpected(f"the view is larger than {LARGEST_ANSWER >> 20} MiB")
                    return answer.headers.get("Content-Type", ""), bytes(body)
            except KubeError as error:
                wait = wait_for(error, backoff.next())
                if backoff.failures >= ATTEMPTS or wait > RENDER_SECONDS or not may_repeat(request, error):
                    raise refused(error) from error
            await asyncio.sleep(wait)

    async def delete(self, namespace: str, name: str) -> dict[str, Any]:
        """Remove it for good."""
        return await self._json(_request("DELETE", namespace, name))

    async def hold(self, namespace: str, name: str, reason: str) -> dict[str, Any]:
        """Keep it from retention and deletion; an empty reason releases it."""
        patch = msgspec.json.encode({"metadata": {"annotations": {HOLD: reason or None}}})
        request = _request("PATCH", namespace, name)
        return await self._json(replace(request, body=patch, content_type=requests.MERGE_PATCH))

    async def _json(self, request: Request) -> dict[str, Any]:
        try:
            answer = msgspec.json.decode(await self.client.send(request))
        except KubeError as error:
            raise refused(error) from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise unexpected("the answer is no JSON") from error
        if not isinstance(answer, dict):
            raise unexpected("the answer is no object")
        return answer


def _request(
    method: requests.Method, namespace: str | None, name: str | None = None, subresource: str = "", query: Query = ()
) -> Request:
    try:
        return Request(method, ARTIFACTS.path(namespace, name, subresource), query)
    except ValueError:  # empty, or a dot segment: no object is called so, and a proxy would read another path
        raise Refused(400, "BadName", "that is no name of a namespace or of an artifact") from None


def items_of(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of a list. Raises Refused when it is none."""
    items = answer.get("items") or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise unexpected("the answer is no list")
    return items


def plain_name(disposition: str) -> str:
    """The file name that a Content-Disposition proposes, as one safe segment; empty when it proposes none."""
    found = _FILENAME.search(disposition)
    return safe_segment(found[1]) if found else ""


def _text(item: Mapping[str, Any], key: str) -> str:
    """A text of an object's or a list's metadata; empty when there is none."""
    metadata = item.get("metadata")
    text = metadata.get(key) if isinstance(metadata, dict) else None
    return text if isinstance(text, str) else ""
