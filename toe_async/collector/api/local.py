"""The library of the collector itself: what one viewer may see and do, checked with every call.

Rights are asked for before anything is looked up, so a user without them learns nothing of a namespace: not how much
is there, not whether a name is taken.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from toe_async.apis.core import UserInfo
from toe_async.collector.api import objects
from toe_async.collector.api.options import DeleteOptions
from toe_async.collector.api.patching import checked_reason, hold_after
from toe_async.collector.api.rights import Rights
from toe_async.collector.api.selection import Selection, selection
from toe_async.collector.api.status import conflict, not_found, success
from toe_async.collector.artifacts import Artifacts, Reader
from toe_async.collector.captures import Manifest
from toe_async.collector.catalog import Catalog, Entry
from toe_async.collector.catalog.query import matcher
from toe_async.collector.errors import Refused
from toe_async.collector.library import Body
from toe_async.collector.rendering.renderer import Renderer, RenderOrder
from toe_async.lib.clock import Clock
from toe_async.lib.names import is_dns1123_label
from toe_async.telemetry import log

_READ_AT_ONCE = 256 << 10
_MOST_NAMESPACES = 200
_LONGEST_NAME = 253
_DELETING_SECONDS = 30.0
_log = log.get("collector.api")


class Holdings(Struct, frozen=True, kw_only=True):
    """What every viewer's library stands on. One per collector."""

    catalog: Catalog
    artifacts: Artifacts
    renderer: Renderer
    rights: Rights
    clock: Clock


class LocalLibrary:
    """A `Library` over the collector's own store. Making one costs nothing: make one for each request."""

    def __init__(self, viewer: UserInfo, holdings: Holdings) -> None:
        self._viewer, self._held = viewer, holdings
        self._catalog, self._artifacts = holdings.catalog, holdings.artifacts

    # -- looking ----------------------------------------------------------------------------------------------------

    async def namespaces(self) -> list[str]:
        self._wait_for_catalog()
        return await self._held.rights.listable(self._viewer, await self._catalog.namespaces(), _MOST_NAMESPACES)

    async def list(self, namespace: str, query: Mapping[str, str]) -> dict[str, Any]:
        wanted = selection(namespace, query, self._held.clock.now())
        await self._check("list", namespace, wanted.name)
        entries, meta = await self._page(wanted)
        return objects.listed([objects.artifact(one.manifest, one.version) for one in entries], *meta)

    async def get(self, namespace: str, name: str) -> dict[str, Any]:
        await self._check("get", namespace, name)
        return _shown(await self._found(namespace, name))

    def content(
        self, namespace: str, name: str, first: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[Body]:
        return self._content(namespace, name, first, end)

    async def described(self, namespace: str, name: str) -> Manifest:
        """The manifest of an artifact whose bytes the viewer may have."""
        await self._check("get", namespace, name, "content")
        return (await self._found(namespace, name)).manifest

    @contextlib.asynccontextmanager
    async def _content(self, namespace: str, name: str, first: int, end: int | None) -> AsyncIterator[Body]:
        manifest = await self.described(namespace, name)
        async with self.body(manifest, first, manifest.size if end is None else end) as body:
            yield body

    @contextlib.asynccontextmanager
    async def body(self, manifest: Manifest, first: int, end: int) -> AsyncIterator[Body]:
        """Bytes of an artifact that `described` gave.

        Raises:
            Refused: 404 it is gone meanwhile, 416 it has no such bytes.
        """
        if not 0 <= first <= end <= manifest.size:
            raise no_range(manifest)
        headers = {"ETag": f'"{manifest.sha256}"', "X-Toe-Sha256": manifest.sha256, "Accept-Ranges": "bytes"}
        if 0 < end - first < manifest.size:
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{manifest.size}"
        async with (
            self._opened(manifest) as reader,
            contextlib.aclosing(self._pieces(manifest, reader, first, end)) as pieces,
        ):
            yield Body(
                content_type="application/octet-stream",
                size=end - first,
                filename=manifest.leaf,
                headers=headers,
                pieces=pieces,
            )

    async def render(self, namespace: str, name: str, query: Mapping[str, str]) -> tuple[str, bytes]:
        wanted = [(namespace, name)]
        if base := query.get("base", ""):
            other, slash, rest = base.partition("/")
            wanted.append((other, rest) if slash else (namespace, base))
        # Both before either is looked up.
        for one in wanted:
            await self._check("get", *one, "render")
        held = [(await self._found(*one)).manifest for one in wanted]
        async with contextlib.AsyncExitStack() as stack:
            readers = [await stack.enter_async_context(self._opened(one)) for one in held]
            rendered = await self._held.renderer.render(
                RenderOrder(
                    query.get("as", ""),
                    _title(held),
                    query.get("sample") or None,
                    tuple(readers),
                    subtitle=held[0].trigger,
                    digests=tuple(one.sha256 for one in held),
                    viewer=self._viewer.username,
                )
            )
        return rendered.content_type, rendered.body

    # -- changing ---------------------------------------------------------------------------------------------------

    async def delete(self, namespace: str, name: str, options: DeleteOptions | None = None) -> dict[str, Any]:
        await self._check("delete", namespace, name)
        async with self._catalog.changing(namespace, name):
            entry = await self._current(await self._found(namespace, name))
            (options or DeleteOptions()).check(name, objects.uid(entry.manifest), str(entry.version))
            if entry.manifest.hold:
                raise conflict(
                    name,
                    f"it is held ({entry.manifest.hold}); release it first: kubectl annotate artifacts {name} "
                    f"{objects.HOLD}-",
                )
            if options is None or not options.dry:
                await self._remove(entry)
        return success(name, objects.uid(entry.manifest))

    async def delete_all(self, namespace: str, query: Mapping[str, str], options: DeleteOptions) -> dict[str, Any]:
        """Delete all that the query selects; a Status, which is no success unless nothing of it is left.

        Held ones stay and make it a 409. It takes at most half of the time that an API server waits; what is left then
        is a 504 that clients repeat by themselves.
        """
        wanted = selection(namespace, query, self._held.clock.now())
        await self._check("deletecollection", namespace, wanted.name)
        until, gone = self._held.clock.monotonic() + _DELETING_SECONDS, 0
        kept: list[Manifest] = []
        while True:
            entries, (_, go_on, _) = await self._page(wanted)
            for one in entries:
                left = one if one.manifest.hold else await self._delete_listed(one, options)
                gone += left is None
                if left is not None and left.manifest.hold:
                    kept = kept or [left.manifest]
                if self._held.clock.monotonic() > until:
                    raise Refused(504, "Timeout", f"{gone} are deleted and more are left: send it again", retry_after=1)
            if not go_on:
                break
            wanted = replace(wanted, after=go_on)
        if kept:
            raise conflict(
                kept[0].name, f"it is held ({kept[0].hold}), maybe others too; {gone} that are not held are deleted"
            )
        return success("", "")

    async def _delete_listed(self, listed: Entry, options: DeleteOptions) -> Entry | None:
        """Delete it as it was listed; what it has become when that is not the same any more."""
        manifest = listed.manifest
        async with self._catalog.changing(manifest.namespace, manifest.name):
            now = await self._catalog.get(manifest.namespace, manifest.name)
            if now is None:
                return listed  # somebody else was faster
            now = await self._current(now)
            if now.version != listed.version:
                return now
            options.check(manifest.name, objects.uid(manifest), str(now.version))
            if not options.dry:
                await self._remove(now)
            return None

    async def patch(self, namespace: str, name: str, content_type: str, body: bytes, *, dry: bool) -> dict[str, Any]:
        """Patch an artifact as the API allows: its hold and nothing else. The Artifact afterwards."""
        await self._check("patch", namespace, name)
        async with self._catalog.changing(namespace, name):
            entry = await self._current(await self._found(namespace, name))
            reason = hold_after(_shown(entry), content_type, body)
            return _shown(await self._hold(entry, reason, dry=dry))

    async def hold(self, namespace: str, name: str, reason: str) -> dict[str, Any]:
        await self._check("patch", namespace, name)
        async with self._catalog.changing(namespace, name):
            entry = await self._current(await self._found(namespace, name))
            return _shown(await self._hold(entry, checked_reason(reason, name), dry=False))

    async def _hold(self, entry: Entry, reason: str, *, dry: bool) -> Entry:
        if reason == entry.manifest.hold:
            return entry
        changed = replace(entry.manifest, hold=reason)
        if dry:
            return Entry(changed, entry.version)
        try:
            await self._artifacts.rewrite(changed)
        except FileNotFoundError:
            raise not_found(changed.name) from None
        await self._catalog.add([changed])
        _log.info("artifact held" if reason else "artifact released", **self._told(changed), reason=reason)
        return await self._catalog.get(changed.namespace, changed.name) or Entry(changed, entry.version)

    async def _current(self, entry: Entry) -> Entry:
        """As the store has it: the catalog learns of a hold last, and of another process's late."""
        known = entry.manifest
        held = await self._artifacts.find(known.directory, known.file)
        if held is None or held == known:
            return entry
        await self._catalog.add([held])
        return await self._catalog.get(known.namespace, known.name) or entry

    async def _remove(self, entry: Entry) -> None:
        manifest = entry.manifest
        await self._artifacts.delete(manifest)
        # Not by name: the upload may have come again already.
        await self._catalog.forget(entry)
        _log.info("artifact deleted", **self._told(manifest))

    # -- finding ----------------------------------------------------------------------------------------------------

    async def _check(self, verb: str, namespace: str, name: str = "", subresource: str = "") -> None:
        everywhere = verb == "list" and not namespace
        if not (everywhere or is_dns1123_label(namespace)) or len(name) > _LONGEST_NAME or "/" in name:
            raise Refused(400, "BadName", "that is no namespace or no name of an artifact")
        await self._held.rights.check(self._viewer, verb, namespace, name, subresource)

    async def _found(self, namespace: str, name: str) -> Entry:
        entry = await self._catalog.get(namespace, name) if name else None
        if entry is None:
            # What is not known yet may still be there.
            self._wait_for_catalog()
            raise not_found(name)
        return entry

    async def _page(self, wanted: Selection) -> tuple[tuple[Entry, ...], tuple[int, str, int | None]]:
        self._wait_for_catalog()
        query = wanted.query
        if wanted.name and query.namespace:
            # One name is looked up, not searched for.
            entry = await self._catalog.get(query.namespace, wanted.name)
            version = (await self._catalog.page(query, 1, "")).version if entry is None else entry.version
            found = (
                entry is not None and wanted.holds_instant(entry.manifest.stored_at) and matcher(query)(entry.manifest)
            )
            return ((entry,) if entry is not None and found else ()), (version, "", None)
        try:
            page = await self._catalog.page(query, wanted.limit, wanted.after)
        except ValueError as foreign:
            raise Refused(410, "Expired", str(foreign)) from foreign
        return page.entries, (page.version, page.continue_, page.remaining)

    def _wait_for_catalog(self) -> None:
        if not self._catalog.complete:
            raise Refused(503, "IndexIncomplete", "the collector is still reading its store; try again", retry_after=5)

    @contextlib.asynccontextmanager
    async def _opened(self, manifest: Manifest) -> AsyncIterator[Reader]:
        async with contextlib.AsyncExitStack() as stack:
            try:
                reader = await stack.enter_async_context(self._artifacts.open(manifest))
            except FileNotFoundError:
                raise not_found(manifest.name) from None
            yield reader

    async def _pieces(self, manifest: Manifest, reader: Reader, at: int, end: int) -> AsyncGenerator[bytes, None]:
        first = at
        try:
            while at < end:
                piece = await reader.read(at, min(_READ_AT_ONCE, end - at))
                if not piece:
                    raise ConnectionError("the artifact became shorter while it was read")
                at += len(piece)
                yield piece
        finally:
            _log.info("artifact read", **self._told(manifest), first=first, bytes=at - first)

    def _told(self, manifest: Manifest) -> dict[str, Any]:
        return {
            "user": self._viewer.username,
            "namespace": manifest.namespace,
            "name": manifest.name,
            "captureID": manifest.capture,
            "sha256": manifest.sha256,
        }


def no_range(manifest: Manifest) -> Refused:
    """416 for bytes that are not there."""
    return Refused(
        416, "NoSuchRange", f"the artifact has {manifest.size} bytes; ask for one range of them", size=manifest.size
    )


def _shown(entry: Entry) -> dict[str, Any]:
    return objects.artifact(entry.manifest, entry.version)


def _title(held: list[Manifest]) -> str:
    return " against ".join(f"{one.leaf} of {one.pod}" for one in held)
