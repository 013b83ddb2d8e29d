"""Watch streams: initial events, changes, bookmarks, and 410 as an ERROR event inside the stream.

A watcher holds no queue: it remembers where in the collection's history it stands. One that falls behind the history is
cut off, as the real server does with slow watchers, and finds its 410 when it comes back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
from msgspec import Struct

from toe_async.sandbox.listing import ListOptions, version
from toe_async.sandbox.resources import Resource
from toe_async.sandbox.status import JsonObject, expired
from toe_async.sandbox.store import Change, Collection, Item, Store, encode_item

_BEFORE_END = 2.0
"""A last bookmark comes this many seconds before the server's own timeout, so that the client resumes cheaply."""


class Watch(Struct):
    """One watch request: what it selects and how its events are written."""

    resource: Resource
    namespace: str
    want: ListOptions
    selected: Callable[[JsonObject], bool]
    render: Callable[[str, Item], bytes]
    bookmark_seconds: float
    timeout_seconds: float

    def _type_for(self, change: Change) -> str | None:
        """How a change looks through the selectors: an object that leaves the selection is deleted for this watcher."""
        if self.namespace and change.item.key.namespace != self.namespace:
            return None
        before = change.old is not None and self.selected(change.old.obj)
        after = change.type != "DELETED" and self.selected(change.item.obj)
        if before and after:
            return "MODIFIED"
        if after:
            return "ADDED"
        return "DELETED" if before else None

    def _shown(self, change: Change, kind: str) -> Item:
        """What leaves the selection is shown as it was while selected, at the revision of the change."""
        if kind != "DELETED" or change.type == "DELETED" or change.old is None:
            return change.item
        meta = {**change.old.obj["metadata"], "resourceVersion": str(change.revision)}
        obj = {**change.old.obj, "metadata": meta}
        return Item(change.item.key, change.revision, obj, encode_item(self.resource, obj))

    async def events(self, store: Store, stop: asyncio.Event) -> AsyncIterator[bytes]:
        """Lines of the stream until the timeout, `stop`, or the end of this watcher's history."""
        collection = store.collection(self.resource)
        start = version(self.want.resource_version)
        if start and start < collection.floor:
            refusal = expired(f"too old resource version: {start} ({collection.floor})")
            yield line("ERROR", msgspec.json.encode(refusal.body()))
            return
        if self.want.initial_events or not start:
            start = store.revision
            present = [
                item
                for item in collection.at(start)
                if (not self.namespace or item.key.namespace == self.namespace) and self.selected(item.obj)
            ]
            for item in present:
                yield self.render("ADDED", item)
            if self.want.initial_events and self.want.bookmarks:
                yield self._bookmark(start, initial_end=True)
        async for event in self._follow(store, collection, start, stop):
            yield event

    async def _follow(
        self, store: Store, collection: Collection, start: int, stop: asyncio.Event
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + self.timeout_seconds
        last = end - _BEFORE_END
        bookmark = min(loop.time() + self.bookmark_seconds, last if last > loop.time() else end)
        sequence = collection.after(start)
        woken = asyncio.Event()
        collection.waiters.add(woken)
        try:
            while not stop.is_set():
                woken.clear()
                changes = collection.since(sequence)
                if changes is None:
                    return
                sequence += len(changes)
                for change in changes:
                    if change.revision > start and (kind := self._type_for(change)) is not None:
                        yield self.render(kind, self._shown(change, kind))
                now = loop.time()
                if now >= end:
                    return
                if self.want.bookmarks and now >= bookmark and collection.since(sequence) == []:
                    yield self._bookmark(max(store.revision, start))
                    bookmark = min(now + self.bookmark_seconds, last if last > now else end)
                try:
                    async with asyncio.timeout(min(end, bookmark if self.want.bookmarks else end) - now):
                        await woken.wait()
                except TimeoutError:
                    continue
        finally:
            collection.waiters.discard(woken)

    def _bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        meta: JsonObject = {"resourceVersion": str(revision)}
        if initial_end:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        obj = {"kind": self.resource.kind, "apiVersion": self.resource.api_version, "metadata": meta}
        return line("BOOKMARK", msgspec.json.encode(obj))


def line(kind: str, obj: bytes) -> bytes:
    """One event on the wire."""
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), obj)
