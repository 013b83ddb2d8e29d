"""The sandbox's etcd: one revision counter, objects, and a bounded history of changes per resource.

Objects in the store are never changed in place: a write puts a new one. So a watch event, a list and a snapshot can
share them, and each object is encoded once, when it is written.

History: `Collection.log` keeps the last `window` changes of a resource; `floor` is the newest revision that fell out.
From any revision not below the floor a watch can go on without loss and a list can be served as it was; below it the
answer is 410. `compact()` throws all history away, as a restart of the API server does with its watch cache.
"""

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from toe_async.sandbox.resources import Resource
from toe_async.sandbox.status import JsonObject

_META_ORDER = (
    "name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation", "creationTimestamp",
    "deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers",
    "managedFields",
)  # fmt: skip
_SORTED = msgspec.json.Encoder(order="sorted")
_PLAIN = msgspec.json.Encoder()


class Key(NamedTuple):
    """Namespace ("" for cluster-wide objects) and name."""

    namespace: str
    name: str


class Item(Struct, frozen=True):
    """One version of one object: decoded, and encoded as an item of a list is."""

    key: Key
    revision: int
    obj: JsonObject
    raw: bytes


class Change(Struct, frozen=True):
    """One step of history. For DELETED `item` is the last state at the revision of its deletion."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    revision: int
    item: Item
    old: Item | None


def encode_item(resource: Resource, obj: JsonObject) -> bytes:
    """Encode as the real server writes list items.

    Built-in kinds: without kind and apiVersion, metadata first, in the order of the Go structs. Custom resources: with
    both and all keys sorted.
    """
    if resource.custom:
        return _SORTED.encode(obj)
    meta = obj["metadata"]
    ordered = {key: meta[key] for key in _META_ORDER if key in meta}
    rest = {key: value for key, value in obj.items() if key not in {"kind", "apiVersion", "metadata"}}
    return _PLAIN.encode({"metadata": ordered, **rest})


def whole(resource: Resource, raw: bytes) -> bytes:
    """An object that stands alone: a list item with its kind and apiVersion."""
    if resource.custom:
        return raw
    return b'{"kind":"%s","apiVersion":"%s",%s' % (resource.kind.encode(), resource.api_version.encode(), raw[1:])


class Collection:
    """All objects of one resource and their recent history."""

    def __init__(self, window: int, floor: int) -> None:
        self.items: dict[Key, Item] = {}
        self.order: list[Key] = []
        self.log: list[Change] = []
        self.dropped = 0
        self.floor = floor
        self._window = window
        self.waiters: set[asyncio.Event] = set()

    def record(self, change: Change) -> None:
        """Apply one change and wake whoever watches."""
        key = change.item.key
        if change.type == "DELETED":
            del self.items[key]
            del self.order[bisect_left(self.order, key)]
        else:
            if key not in self.items:
                insort(self.order, key)
            self.items[key] = change.item
        self.log.append(change)
        if len(self.log) >= 2 * self._window:  # halve at once: trimming one by one would move the list each time
            self._forget(len(self.log) - self._window)
        for waiter in self.waiters:
            waiter.set()

    def _forget(self, count: int) -> None:
        if count:
            self.floor = self.log[count - 1].revision
            self.dropped += count
            del self.log[:count]

    def compact(self, revision: int) -> None:
        """Forget all history up to `revision`."""
        self._forget(len(self.log))
        self.floor = max(self.floor, revision)

    def after(self, revision: int) -> int:
        """The sequence number of the first change after a revision, for `since`."""
        return self.dropped + bisect_right(self.log, revision, key=lambda change: change.revision)

    def since(self, sequence: int) -> list[Change] | None:
        """Changes from a sequence number on; None when some of them are already forgotten."""
        return None if sequence < self.dropped else self.log[sequence - self.dropped :]

    def at(self, revision: int) -> Iterator[Item]:
        """The objects in key order as they were at a revision not below the floor."""
        first = bisect_right(self.log, revision, key=lambda change: change.revision)
        undone: dict[Key, Item | None] = {}
        for change in reversed(self.log[first:]):
            undone[change.item.key] = change.old
        keys = self.order if not undone else sorted({*self.order, *undone})
        for key in keys:
            item = undone[key] if key in undone else self.items[key]
            if item is not None:
                yield item


class Store:
    """Every collection under one revision counter. `listeners` are called synchronously after each change."""

    def __init__(self, window: int) -> None:
        self.revision = 0
        self._window = window
        self._collections: dict[tuple[str, str], Collection] = {}
        self.listeners: list[Callable[[Resource, Change], None]] = []

    def collection(self, resource: Resource) -> Collection:
        """The collection of a resource, made at its first use."""
        held = self._collections.get(resource.storage_key)
        if held is None:
            # a custom resource's history begins with its definition; what is older is 410 for it
            floor = self.revision if resource.custom else 0
            held = self._collections[resource.storage_key] = Collection(self._window, floor)
        return held

    def forget(self, resource: Resource) -> None:
        """Drop a collection whose resource is no longer served."""
        self._collections.pop(resource.storage_key, None)

    def get(self, resource: Resource, key: Key) -> Item | None:
        """The present state of one object."""
        return self.collection(resource).items.get(key)

    def put(self, resource: Resource, key: Key, obj: JsonObject) -> Item:
        """Write an object under the next revision; `obj` belongs to the store from now on."""
        collection = self.collection(resource)
        old = collection.items.get(key)
        item = self._stamp(resource, key, obj)
        self._publish(resource, collection, Change("MODIFIED" if old else "ADDED", item.revision, item, old))
        return item

    def remove(self, resource: Resource, item: Item) -> Item:
        """Delete an object; returns its last state at the revision of the deletion."""
        collection = self.collection(resource)
        last = self._stamp(resource, item.key, {**item.obj, "metadata": dict(item.obj["metadata"])})
        self._publish(resource, collection, Change("DELETED", last.revision, last, item))
        return last

    def compact(self) -> None:
        """Forget all history: a watch or a page from any older revision is answered 410."""
        for collection in self._collections.values():
            collection.compact(self.revision)

    def wake_watchers(self) -> None:
        """Let every watcher look whether it has to end."""
        for collection in self._collections.values():
            for waiter in collection.waiters:
                waiter.set()

    def _stamp(self, resource: Resource, key: Key, obj: JsonObject) -> Item:
        self.revision += 1
        obj["metadata"]["resourceVersion"] = str(self.revision)
        return Item(key, self.revision, obj, encode_item(resource, obj))

    def _publish(self, resource: Resource, collection: Collection, change: Change) -> None:
        collection.record(change)
        for listener in self.listeners:
            listener(resource, change)
