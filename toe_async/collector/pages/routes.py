"""The pages put together: which address is which page, and what becomes of a request that cannot be served."""

import asyncio
import re
from collections.abc import Awaitable, Callable

from aiohttp import web

from toe_async.collector.errors import Refused, StoreError
from toe_async.collector.library import Library
from toe_async.collector.pages import addresses, assets, detail, downloads, filters, forms, listing, notices, tops
from toe_async.collector.pages.access import Access, NeedsSignIn, Viewer, check_csrf, check_origin
from toe_async.collector.pages.artifacts import Artifact, Listing, read, read_list
from toe_async.collector.pages.sessions import TokenSessions
from toe_async.collector.pages.shell import Shell
from toe_async.collector.pages.viewers import OneViewer, ProxyAccess
from toe_async.lib.clock import Clock
from toe_async.telemetry import log

_ONE = "/ui/artifacts/{namespace}/{name}"
_LIKE = 60
_SIBLINGS = 64
_MOST_PAGES = 10
_LONGEST_ADDRESS = 4096
_LOCAL = re.compile(r"/(?![/\\])[!-\[\]-~]*")
_GONE = "there is no such artifact, or there is none any more; old ones are removed unless somebody holds them"
_log = log.get("collector.pages")

Page = Callable[[web.Request, Viewer], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_pages(access: Access, *, title: str, clock: Clock) -> list[web.RouteDef]:
    """The routes of the pages: `/` and everything under `/ui/`, over whatever `access` lets people see.

    `title` names the whole on every page, such as the cluster. Answers are pages, errors too; they need no middleware.
    Reads the package's assets, so it is for the start of a process.
    """
    pages = _Pages(access, Shell(title, assets.load()), clock)
    return pages.routes()


class _Pages:
    def __init__(self, access: Access, shell: Shell, clock: Clock) -> None:
        self._access, self._shell, self._clock = access, shell, clock
        self._one = access if isinstance(access, OneViewer) else None
        self._sessions: TokenSessions | None = None
        if isinstance(access, TokenSessions):
            self._sessions = access
        elif isinstance(access, ProxyAccess):
            self._sessions = access.otherwise

    def routes(self) -> list[web.RouteDef]:
        found = [
            *self._shell.assets.routes(),
            web.get("/", self._page(self.list)),
            web.get("/ui", self._page(self.list)),
            web.get("/ui/compare", self._page(self.compare)),
            web.get(_ONE, self._page(self.artifact)),
            web.get(_ONE + "/content", self._page(self.content), allow_head=False),
            web.get(_ONE + "/flame", self._page(self.flame), allow_head=False),
            web.get(_ONE + "/diff", self._page(self.diff), allow_head=False),
            web.get(_ONE + "/top", self._page(self.top), allow_head=False),
            web.get(_ONE + "/delete", self._page(self.ask_delete)),
            web.post(_ONE + "/delete", self._page(self.delete)),
            web.post(_ONE + "/hold", self._page(self.hold)),
        ]
        if self._sessions is not None:
            found += [
                web.get("/ui/login", self._guarded(self.ask_token)),
                web.post("/ui/login", self._guarded(self.login)),
                web.post("/ui/logout", self._page(self.logout)),
            ]
        if self._one is not None:
            found.append(web.get("/ui/open", self._guarded(self.open), allow_head=False))
        return [*found, web.get("/ui/{rest:(?s:.*)}", self._page(self.nothing))]

    # Pages

    async def list(self, request: web.Request, viewer: Viewer) -> web.StreamResponse:
        """Captures of one namespace, or of all for who may see all."""
        wanted = filters.read(request.query)
        namespaces = await viewer.library.namespaces()
        if not wanted.namespace and "namespace" not in request.query and len(namespaces) == 1:
            wanted = filters.read({**request.query, "namespace": namespaces[0]})
        try:
            found = await self._collect(viewer.library, wanted.namespace, wanted.query(), wanted.limit)
        except Refused as refused:
            if wanted.namespace or refused.status != 403:
                raise
            # Who may not see all of them chooses one of their own.
            choice = listing.choose_namespace(wanted, namespaces)
            return self._shell.page("Captures", choice, viewer=viewer, kind="single")
        shown = listing.Shown(filters=wanted, namespaces=namespaces, listing=found, now=self._clock.now())
        heading = f"{wanted.namespace} captures" if wanted.namespace else "Captures"
        # Some thousand rows take a while to write, and others want to be answered meanwhile.
        return await asyncio.to_thread(self._write_list, heading, shown, viewer)

    async def artifact(self, request: web.Request, viewer: Viewer) -> web.StreamResponse:
        """One artifact."""
        one = await self._get(request, viewer)
        facts = one.facts
        capture = {"fieldSelector": f"artifact.capture={facts.capture}"}
        siblings = await self._near(viewer, one, capture, _SIBLINGS)
        like = await self._near(viewer, one, filters.series_query(facts.run_uid or facts.run, facts.leaf), _LIKE)
        known = detail.Known(one=one, siblings=siblings, like=like, now=self._clock.now())
        return self._shell.page(one.facts.leaf, detail.content(known, viewer), viewer=viewer)

    async def top(self, request: web.Request, viewer: Viewer) -> web.StreamResponse:
        """The functions of a profile by what they cost."""
        namespace, name = _named(request)
        by = "cumulative" if request.query.get("by") == "cumulative" else "flat"
        wanted = tops.Wanted(sample=request.query.get("sample", "")[:253], by=by, q=request.query.get("q", "")[:253])
        one = await self._get(request, viewer)
        asked = {"as": "top", **({"sample": wanted.sample} if wanted.sample else {})}
        _, body = await viewer.library.render(namespace, name, asked)
        table = await asyncio.to_thread(tops.read, body)
        return self._shell.page(f"Top of {one.facts.leaf}", tops.content(one, table, wanted), viewer=viewer)

    async def flame(self, request: web.Request, viewer: Viewer) -> web.StreamResponse:
        """A profile as a flame graph."""
        return await downloads.drawing(viewer.library, *_named(request), _asked(request, "flame"))

    async def diff(self, request: web.Request, viewer: Viewer) -> web.StreamResponse:
        """What changed in a profile since another."""
        return await downloads.drawing(viewer.library, *_named(request), _asked(request, "diff", "base"))

    async def compare(self, request: web.Request, viewer: Viewer) -> web.StreamResponse:
        """Show what changed between the two that were ticked, the earlier being the base."""
        picked = [one.partition("/")[::2] for one in dict.fromkeys(request.query.getall("pick", []))]
        if len(picked) != 2:
            said = f"a comparison takes two profiles and {len(picked)} are ticked; go back and tick two"
            raise Refused(400, "ChooseTwo", said)
        found = [read(await viewer.library.get(namespace, name)) for namespace, name in picked]
        earlier, later = sorted(found, key=lambda one: one.at)
        return _see_other(addresses.diff(later, earlier))

    async def content(self, request: web.Request, viewer: Viewer) -> web.StreamResponse:
        """The bytes."""
        return await downloads.content(viewer.library, request, *_named(request))

    async def ask_delete(self, request: web.Request, viewer: Viewer) -> web.StreamResponse:
        """Ask once more."""
        one = await self._get(request, viewer)
        return self._shell.page("Delete", detail.confirm_delete(one, viewer), viewer=viewer, kind="single")

    async def delete(self, request: web.Request, viewer: Viewer) -> web.StreamResponse:
        """Remove it."""
        namespace, name = _named(request)
        check_csrf(viewer, await forms.read(request))
        await viewer.library.delete(namespace, name)
        return _see_other(filters.Filters(namespace=namespace).address())

    async def hold(self, request: web.Request, viewer: Viewer) -> web.StreamResponse:
        """Hold it for a reason, or release it."""
        namespace, name = _named(request)
        form = await forms.read(request)
        check_csrf(viewer, form)
        changed = read(await viewer.library.hold(namespace, name, form.get("reason", "").strip()))
        return _see_other(addresses.artifact(changed))

    async def nothing(self, request: web.Request, viewer: Viewer) -> web.StreamResponse:
        """There is no such page."""
        raise Refused(404, "NotFound", "there is no page at this address")

    # Coming and going

    async def ask_token(self, request: web.Request) -> web.StreamResponse:
        """The sign-in page."""
        after = _local(request.query.get("next", "/"))
        return notices.sign_in(self._shell, after=after, said="Sign in with a token to see what is stored here")

    async def login(self, request: web.Request) -> web.StreamResponse:
        """Take a token for a session."""
        assert self._sessions is not None
        check_origin(request)
        form = await forms.read(request)
        after = _local(form.get("next", "/"))
        reply = _see_other(after)
        try:
            await self._sessions.enter(request, form.get("token", "").strip(), reply)
        except Refused as refused:
            if refused.status != 401:
                raise
            return notices.sign_in(self._shell, after=after, said=refused.message, status=401, wrong=True)
        return reply

    async def logout(self, request: web.Request, viewer: Viewer) -> web.StreamResponse:
        """End the session."""
        assert self._sessions is not None
        check_csrf(viewer, await forms.read(request))
        reply = _see_other("/ui/login")
        self._sessions.leave(request, reply)
        return reply

    async def open(self, request: web.Request) -> web.StreamResponse:
        """Let the one viewer in."""
        assert self._one is not None
        reply = _see_other(self._one.first_page)
        self._one.open(request, reply)
        return reply

    # What they share

    def _page(self, page: Page) -> Handler:
        """Find out who is looking before anything else, and answer every failure with a page."""

        async def handle(request: web.Request) -> web.StreamResponse:
            viewer: Viewer | None = None
            try:
                if request.method not in {"GET", "HEAD"}:
                    check_origin(request)
                viewer = await self._access.viewer(request)
                return await page(request, viewer)
            except NeedsSignIn as nobody:
                return self._turn_away(request, str(nobody))
            except (Refused, StoreError) as failed:
                return self._failure(request, failed, viewer)

        return self._answered(handle)

    def _guarded(self, handler: Handler) -> Handler:
        """Answer every failure with a page, for what is open to anybody."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except (Refused, StoreError) as failed:
                return self._failure(request, failed, None)

        return self._answered(handle)

    def _answered(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except ConnectionError:
                raise
            except Exception as failed:
                _log.exception("a page failed unexpectedly", method=request.method)
                if request.writer.output_size:
                    raise ConnectionError("an answer had begun, and no second one can be given") from failed
                broken = Refused(500, "Internal", "the collector failed at this page; its log says why")
                return self._failure(request, broken, None)

        return handle

    def _failure(self, request: web.Request, failed: Refused | StoreError, viewer: Viewer | None) -> web.StreamResponse:
        refused = failed.refusal() if isinstance(failed, StoreError) else failed
        _log.info("page refused", status=refused.status, reason=refused.reason, method=request.method)
        if refused.status == 401:
            return self._turn_away(request, refused.message)
        of_one = "name" in request.match_info
        if of_one and refused.status == 404:
            refused = Refused(404, refused.reason, _GONE)
        back = addresses.page(*_named(request)) if of_one and refused.status != 404 else "/"
        here = request.raw_path if request.method == "GET" and _LOCAL.fullmatch(request.raw_path) else ""
        return notices.failure(self._shell, refused, viewer, here=here, back=back)

    def _turn_away(self, request: web.Request, said: str) -> web.StreamResponse:
        local = _LOCAL.fullmatch(request.raw_path) is not None and len(request.raw_path) <= _LONGEST_ADDRESS
        here = request.raw_path if request.method == "GET" and local else "/"
        if request.method == "GET" and local and request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}:
            return notices.arrived(self._shell, here)
        if self._sessions is None:
            return notices.shut(self._shell, said)
        return notices.sign_in(self._shell, after=here, said=said, status=401)

    def _write_list(self, heading: str, shown: listing.Shown, viewer: Viewer) -> web.Response:
        return self._shell.page(heading, listing.content(shown), viewer=viewer, kind="list")

    async def _get(self, request: web.Request, viewer: Viewer) -> Artifact:
        return read(await viewer.library.get(*_named(request)))

    async def _near(self, viewer: Viewer, one: Artifact, query: dict[str, str], limit: int) -> tuple[Artifact, ...]:
        """Others beside one; none when the viewer may see it alone."""
        try:
            found = await viewer.library.list(one.namespace, {**query, "limit": str(limit)})
        except Refused as refused:
            if refused.status != 403:
                raise
            return ()
        return read_list(found).artifacts

    async def _collect(self, library: Library, namespace: str, query: dict[str, str], limit: int) -> Listing:
        """As many as are wanted, in some pages of the library; an empty one need not be the last."""
        artifacts: list[Artifact] = []
        unreadable, wanted = 0, limit
        for _ in range(_MOST_PAGES):
            found = read_list(await library.list(namespace, {**query, "limit": str(wanted)}))
            artifacts += found.artifacts
            unreadable += found.unreadable
            wanted -= len(found.artifacts) + found.unreadable
            if not found.continue_ or wanted <= 0:
                break
            query = {**query, "continue": found.continue_}
        return Listing(
            artifacts=tuple(artifacts), unreadable=unreadable, continue_=found.continue_, remaining=found.remaining
        )


def _named(request: web.Request) -> tuple[str, str]:
    return request.match_info["namespace"], request.match_info["name"]


def _asked(request: web.Request, view: str, *further: str) -> dict[str, str]:
    given = {key: request.query[key][:512] for key in ("sample", *further) if request.query.get(key)}
    return {"as": view, **given}


def _local(text: str) -> str:
    """The address when it is one of this server, else the list: nobody is sent elsewhere by a link to the sign-in."""
    return text if _LOCAL.fullmatch(text) and len(text) <= _LONGEST_ADDRESS else "/"


def _see_other(where: str) -> web.Response:
    headers = {"Location": where, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return web.Response(status=303, headers=headers)
