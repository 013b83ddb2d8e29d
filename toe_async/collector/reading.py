"""The reading side, in the shape of an API group `artifacts.toe.run`: list, get, bytes, delete.

Rights are asked for before anything is looked up, so a user without them learns nothing of a namespace, not even
whether something is there. Bytes are always an attachment that no browser will interpret.
"""

from datetime import datetime, timedelta
from typing import Any

from aiohttp import web

from toe_async.apis.core import UserInfo
from toe_async.collector import bodies
from toe_async.collector.artifacts import Artifacts
from toe_async.collector.auth import ARTIFACTS_GROUP, Gate, bearer
from toe_async.collector.captures import Manifest
from toe_async.collector.errors import Refused
from toe_async.collector.index import LARGEST_PAGE, Index, Row
from toe_async.collector.replies import SAFE_HEADERS, json_reply
from toe_async.lib.clock import Clock, parse_rfc3339
from toe_async.lib.durations import parse_duration
from toe_async.lib.names import is_dns1123_label
from toe_async.telemetry import log

API_VERSION = f"{ARTIFACTS_GROUP}/v1alpha1"
_READ_AT_ONCE = 256 << 10
_log = log.get("collector.reading")


class Reading:
    """The handlers. One per application."""

    def __init__(self, gate: Gate, storage: Artifacts, index: Index, clock: Clock) -> None:
        self._gate, self._storage, self._index, self._clock = gate, storage, index, clock
        self.complete = False
        """Whether the index holds everything; until then a list would lie and is answered 503."""

    def routes(self) -> list[web.RouteDef]:
        """The calls under /apis/artifacts.toe.run."""
        many = f"/apis/{API_VERSION}/namespaces/{{namespace}}/artifacts"
        one = many + "/{name}"
        return [
            web.get(many, self.list, expect_handler=bodies.postpone_continue),
            web.get(one, self.get, allow_head=False, expect_handler=bodies.postpone_continue),
            web.delete(one, self.delete, expect_handler=bodies.postpone_continue),
            web.get(one + "/content", self.content, expect_handler=bodies.postpone_continue),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """A page of the namespace's artifacts, newest first."""
        namespace = await self._allow(request, "list")
        query = request.query
        self._wait_for_index()
        try:
            page = self._index.page(
                namespace,
                run=query.get("run", ""),
                since=self._since(query.get("since", "")),
                limit=max(1, min(int(query.get("limit", LARGEST_PAGE)), LARGEST_PAGE)),
                after=query.get("continue", ""),
            )
        except (ValueError, OverflowError) as bad:
            raise Refused(400, "BadQuery", "limit, since or continue cannot be read") from bad
        items = [shown(held) for held in [await self._load(row) for row in page.rows] if held is not None]
        meta = {"continue": page.continue_} if page.continue_ else {}
        return json_reply(200, {"apiVersion": API_VERSION, "kind": "ArtifactList", "metadata": meta, "items": items})

    async def get(self, request: web.Request) -> web.Response:
        """One artifact's metadata."""
        return json_reply(200, shown(await self._found(request, await self._allow(request, "get"))))

    async def delete(self, request: web.Request) -> web.Response:
        """Remove one artifact for good; answers with what it was."""
        namespace = await self._allow(request, "delete")
        held = await self._found(request, namespace)
        await self._storage.delete(held)
        self._index.remove(namespace, held.name)
        _log.info("artifact deleted", namespace=namespace, name=held.name, captureID=held.capture)
        return json_reply(200, shown(held))

    async def content(self, request: web.Request) -> web.StreamResponse:
        """One artifact's bytes, whole or a range of them."""
        held = await self._found(request, await self._allow(request, "get", "content"))
        start, end, partial = byte_range(request, held)
        reply = web.StreamResponse(status=206 if partial else 200, headers=SAFE_HEADERS)
        reply.headers.update(
            {
                "Content-Type": "application/octet-stream",
                "Content-Disposition": f'attachment; filename="{held.leaf}"',
                "Accept-Ranges": "bytes",
                "ETag": f'"{held.sha256}"',
                "X-Toe-Sha256": held.sha256,
            }
        )
        if partial:
            reply.headers["Content-Range"] = f"bytes {start}-{end - 1}/{held.size}"
        reply.content_length = end - start
        try:
            async with self._storage.open(held) as reader:
                await reply.prepare(request)
                while start < end and request.method != "HEAD":
                    piece = await reader.read(start, min(_READ_AT_ONCE, end - start))
                    if not piece:
                        raise ConnectionError("the artifact became shorter while it was read")
                    start += len(piece)
                    await reply.write(piece)
                await reply.write_eof()
        except FileNotFoundError:
            raise _nothing() from None
        return reply

    async def _allow(self, request: web.Request, verb: str, subresource: str = "") -> str:
        namespace, name = request.match_info["namespace"], request.match_info.get("name", "")
        user: UserInfo = await self._gate.user(bearer(request.headers.getall("Authorization", [])))
        if not is_dns1123_label(namespace) or len(name) > 253:
            raise Refused(400, "BadName", "that is no namespace or no name of an artifact")
        # One record for each decision, so that "who took this?" has an answer.
        decision = _log.bind(user=user.username, verb=verb, namespace=namespace, name=name, subresource=subresource)
        try:
            await self._gate.may(user, verb, namespace, name=name, subresource=subresource)
        except Refused as refused:
            decision.info("reading refused", status=refused.status)
            raise
        decision.info("reading allowed")
        return namespace

    async def _found(self, request: web.Request, namespace: str) -> Manifest:
        row = self._index.get(namespace, request.match_info["name"])
        if row is None:
            self._wait_for_index()
        held = await self._load(row) if row is not None else None
        if held is None:
            raise _nothing()
        return held

    async def _load(self, row: Row) -> Manifest | None:
        return await self._storage.find(row.directory, row.file)

    def _wait_for_index(self) -> None:
        if not self.complete:
            raise Refused(503, "IndexIncomplete", "the collector is still reading its store; try again", retry_after=5)

    def _since(self, text: str) -> datetime | None:
        if not text:
            return None
        try:
            return parse_rfc3339(text)
        except ValueError:
            return self._clock.now() - min(parse_duration(text), timedelta(days=36_500))


def shown(held: Manifest) -> dict[str, Any]:
    """An artifact in the shape of a Kubernetes object."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Artifact",
        "metadata": {
            "name": held.name,
            "namespace": held.namespace,
            "creationTimestamp": held.stored_at,
            "labels": held.labels,
        },
        "artifact": held,
    }


def byte_range(request: web.Request, held: Manifest) -> tuple[int, int, bool]:
    """The bytes asked for as (first, end, partial); raises Refused (416) for what is not there.

    A range whose If-Range names another content is ignored, as HTTP wants it.
    """
    if "Range" not in request.headers or request.headers.get("If-Range", f'"{held.sha256}"') != f'"{held.sha256}"':
        return 0, held.size, False
    try:
        asked = request.http_range
    except ValueError:
        raise _no_range(held) from None
    start, end, _ = asked.indices(held.size)
    # aiohttp reads `bytes=-0`, the last nothing, as everything.
    if start >= end or (asked.start == 0 and request.headers["Range"].partition("=")[2].startswith("-")):
        raise _no_range(held)
    return start, end, True


def _no_range(held: Manifest) -> Refused:
    return Refused(416, "NoSuchRange", f"the artifact has {held.size} bytes; ask for one range of them", size=held.size)


def _nothing() -> Refused:
    return Refused(404, "NotFound", "there is no such artifact")
