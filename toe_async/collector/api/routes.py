"""The group's paths: what is called when, and how answers and errors look on the wire."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from toe_async.apis.core import UserInfo
from toe_async.apis.kinds import ARTIFACTS
from toe_async.collector import bodies
from toe_async.collector.api import discovery, negotiation, objects, status, tables
from toe_async.collector.api.content import send
from toe_async.collector.api.identity import Identity
from toe_async.collector.api.local import Holdings, LocalLibrary
from toe_async.collector.api.negotiation import Form
from toe_async.collector.api.openapi import Documents, etag
from toe_async.collector.api.options import delete_options, is_dry
from toe_async.collector.errors import Refused, StoreError
from toe_async.collector.replies import SAFE_HEADERS, json_reply
from toe_async.collector.settings import Limits
from toe_async.telemetry import log

_LARGEST_BODY = 64 << 10
_NOBODY = "system:anonymous"
_UNKNOWN = "system:unauthenticated"
_log = log.get("collector.api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """The calls of one listener, whose callers are known by `identity`."""

    def __init__(self, holdings: Holdings, identity: Identity, limits: Limits) -> None:
        self._held, self._identity, self._limits = holdings, identity, limits
        self._documents = Documents()

    def routes(self) -> list[web.RouteDef]:
        """The calls under /apis and /openapi; they answer every method and path there, if only by refusing."""
        version = f"apis/{ARTIFACTS.api_version}"
        many = f"/{version}/namespaces/{{namespace}}/{ARTIFACTS.plural}"
        one = f"{many}/{{name}}"
        documents: dict[str, Handler] = {
            "/apis": self._groups,
            f"/apis/{ARTIFACTS.group}": self._document(discovery.group),
            f"/{version}": self._document(discovery.resources),
            "/openapi/v2": self._openapi(self._documents.v2),
            "/openapi/v3": self._openapi(self._documents.index),
            f"/openapi/v3/{version}": self._openapi(self._documents.v3),
        }
        served: dict[str, dict[str, Handler]] = {path: {"GET": handler} for path, handler in documents.items()} | {
            ARTIFACTS.path(): {"GET": self._list},
            many: {"GET": self._list, "DELETE": self._delete_many},
            one: {"GET": self._get, "DELETE": self._delete, "PATCH": self._patch},
            f"{one}/content": {"GET": self._content, "HEAD": self._content},
            f"{one}/render": {"GET": self._render},
            "/apis/{rest:(?s:.*)}": {},
            "/openapi/{rest:(?s:.*)}": {},
        }
        return [
            web.route("*", path, _answered(handlers), expect_handler=bodies.postpone_continue)
            for path, handlers in served.items()
        ]

    # -- artifacts --------------------------------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> web.Response:
        form = negotiation.form(_accept(request), negotiation.MANY)
        library = await self._library(request)
        if request.query.get("watch", "").lower() in {"1", "true"}:
            raise Refused(
                405, "MethodNotAllowed", "artifacts cannot be watched: list them again, newest first, with ?since="
            )
        page = await library.list(request.match_info.get("namespace", ""), request.query)
        if form is Form.PARTIAL_LIST:
            page = objects.partial_list(page)
        elif form is Form.TABLE:
            page = self._table(request, page["items"], page["metadata"])
        return json_reply(200, page)

    async def _get(self, request: web.Request) -> web.Response:
        form = negotiation.form(_accept(request), negotiation.ONE)
        library = await self._library(request)
        return self._one(request, form, await library.get(*_named(request)))

    async def _patch(self, request: web.Request) -> web.Response:
        form = negotiation.form(_accept(request), negotiation.ONE)
        library = await self._library(request)
        dry = is_dry(request.query.getall("dryRun", []))
        body = await self._body(request)
        content_type = request.headers.get("Content-Type", "")
        return self._one(request, form, await library.patch(*_named(request), content_type, body, dry=dry))

    async def _delete(self, request: web.Request) -> web.Response:
        library = await self._library(request)
        options = delete_options(await self._body(request), request.query.getall("dryRun", []))
        return json_reply(200, await library.delete(*_named(request), options))

    async def _delete_many(self, request: web.Request) -> web.Response:
        library = await self._library(request)
        options = delete_options(await self._body(request), request.query.getall("dryRun", []))
        return json_reply(200, await library.delete_all(request.match_info["namespace"], request.query, options))

    async def _content(self, request: web.Request) -> web.StreamResponse:
        return await send(request, await self._library(request), *_named(request))

    async def _render(self, request: web.Request) -> web.Response:
        library = await self._library(request)
        content_type, body = await library.render(*_named(request), request.query)
        headers = SAFE_HEADERS | {"Content-Type": content_type, "Content-Disposition": "attachment"}
        return web.Response(body=body, headers=headers)

    def _one(self, request: web.Request, form: Form, obj: dict[str, Any]) -> web.Response:
        if form is Form.PARTIAL:
            obj = objects.partial(obj)
        elif form is Form.TABLE:
            obj = self._table(request, [obj], {"resourceVersion": obj["metadata"]["resourceVersion"]})
        return json_reply(200, obj)

    def _table(self, request: web.Request, items: list[dict[str, Any]], meta: dict[str, Any]) -> dict[str, Any]:
        return tables.table(items, meta, self._held.clock.now(), request.query.get("includeObject", ""))

    # -- what the group says of itself ------------------------------------------------------------------------------

    async def _groups(self, request: web.Request) -> web.Response:
        form = negotiation.form(_accept(request), negotiation.DISCOVERY)
        await self._known(request)
        if form is Form.AGGREGATED:
            reply = json_reply(200, discovery.aggregated())
            reply.headers["Content-Type"] = discovery.AGGREGATED_TYPE
        else:
            reply = json_reply(200, discovery.groups())
        reply.headers["Vary"] = "Accept"
        return reply

    def _document(self, made: Callable[[], dict[str, Any]]) -> Handler:
        async def answer(request: web.Request) -> web.Response:
            await self._known(request)
            return json_reply(200, made())

        return answer

    def _openapi(self, document: bytes) -> Handler:
        tag = f'"{etag(document)}"'

        async def answer(request: web.Request) -> web.Response:
            negotiation.form(_accept(request), negotiation.DOCUMENT)
            await self._known(request)
            headers = SAFE_HEADERS | {"ETag": tag, "Vary": "Accept"}
            if request.headers.get("If-None-Match") == tag:
                return web.Response(status=304, headers=headers)
            return web.Response(body=document, content_type="application/json", headers=headers)

        return answer

    # -- who and what -----------------------------------------------------------------------------------------------

    async def _library(self, request: web.Request) -> LocalLibrary:
        return LocalLibrary(await self._identity.viewer(request), self._held)

    async def _known(self, request: web.Request) -> UserInfo:
        """Let in whom an API server lets read discovery by its defaults: everybody but the unauthenticated."""
        viewer = await self._identity.viewer(request)
        if viewer.username == _NOBODY or _UNKNOWN in viewer.groups:
            raise Refused(403, "Forbidden", f'forbidden: User "{viewer.username}" cannot get path "{request.path}"')
        return viewer

    async def _body(self, request: web.Request) -> bytes:
        return await bodies.whole(request, _LARGEST_BODY, self._limits, self._held.clock)


def _named(request: web.Request) -> tuple[str, str]:
    return request.match_info["namespace"], request.match_info["name"]


def _accept(request: web.Request) -> str:
    return ",".join(request.headers.getall("Accept", []))


async def _not_allowed(request: web.Request) -> web.StreamResponse:
    raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


async def _nothing(request: web.Request) -> web.StreamResponse:
    raise Refused(404, "NotFound", "the server could not find the requested resource")


def _answered(handlers: dict[str, Handler]) -> Handler:
    """One path: its handlers by method, and every error as a Status. A path without any is not there."""
    otherwise = _not_allowed if handlers else _nothing

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handlers.get(request.method, otherwise)(request)
        except Refused as refused:
            why = refused
        except StoreError as failed:
            _log.error("the store failed", error=str(failed))
            why = failed.refusal()
        except (ConnectionError, web.HTTPException):
            raise
        except Exception:
            if request.writer.output_size:
                raise  # an answer has begun, and no second one can be given
            _log.exception("a request failed unexpectedly", method=request.method)
            why = Refused(500, "Internal", "the collector failed at this request; its log says why")
        _log.info("refused", status=why.status, reason=why.reason, method=request.method)
        reply = status.refusal(why, request.match_info.get("name", ""))
        if why.status == 405 and request.method not in handlers:
            reply.headers["Allow"] = ", ".join(handlers)
        if why.status in {401, 503}:
            # What the connection proves may be out of date: the next one proves it anew.
            reply.force_close()
        return reply

    return answer
