"""The few controllers that clients notice when they are missing.

Namespaces get their `default` service account and are emptied when they are deleted; objects whose owners are gone are
removed (orphaned or waited for, as the delete asked); a deleted CRD takes its objects with it.

Work is noted synchronously with each change and deduplicated, so it is bounded by the number of objects; owners are
found through an index, never by a search through the store.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from toe_async.sandbox.pending import Pending
from toe_async.sandbox.resources import CRDS, NAMESPACES, SERVICE_ACCOUNTS, Resource
from toe_async.sandbox.status import JsonObject, Refusal
from toe_async.sandbox.store import Change, Item, Key
from toe_async.sandbox.verbs import DeleteOptions, Verbs

_PROPAGATION = frozenset({"orphan", "foregroundDeletion"})


class _Work(NamedTuple):
    kind: Literal["populate", "empty", "collect", "propagate", "undefine"]
    resource: Resource
    key: Key
    uid: str = ""


_Place = tuple[tuple[str, str], Key]


class Controllers:
    """Looks at every change once it is written and does what follows from it, in a task of its own."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs
        self._store = verbs.store
        self._pending: Pending[_Work] = Pending()
        self._dependents: dict[str, dict[_Place, None]] = {}
        self._store.listeners.append(self._note)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._pending.run(self._do)

    def _note(self, resource: Resource, change: Change) -> None:
        key, meta = change.item.key, change.item.obj["metadata"]
        self._index(resource, change)
        if resource is NAMESPACES and change.type != "DELETED":
            self._pending.add(_Work("empty" if "deletionTimestamp" in meta else "populate", resource, key))
        if change.type == "DELETED":
            if meta["uid"] in self._dependents:
                self._pending.add(_Work("collect", resource, key, meta["uid"]))
            if resource is CRDS:
                self._pending.add(_Work("undefine", resource, key))
            if key.namespace:
                self._pending.add(_Work("empty", NAMESPACES, Key("", key.namespace)))
            for one in meta.get("ownerReferences") or ():
                self._revisit(one, key.namespace)
        elif "deletionTimestamp" in meta and _PROPAGATION & {*(meta.get("finalizers") or ())}:
            self._pending.add(_Work("propagate", resource, key))

    def _index(self, resource: Resource, change: Change) -> None:
        place = (resource.storage_key, change.item.key)
        for item, present in ((change.old, False), (change.item, change.type != "DELETED")):
            for one in (item.obj["metadata"].get("ownerReferences") or ()) if item is not None else ():
                if present:
                    self._dependents.setdefault(one["uid"], {})[place] = None
                elif held := self._dependents.get(one["uid"]):
                    held.pop(place, None)
                    if not held:
                        del self._dependents[one["uid"]]

    def _revisit(self, reference: JsonObject, namespace: str) -> None:
        """A dependent went: an owner that waits for its dependents may be free now."""
        found = self._owner(reference, namespace)
        if found is not None and "deletionTimestamp" in found[1].obj["metadata"]:
            self._pending.add(_Work("propagate", found[0], found[1].key))

    def _do(self, work: _Work) -> None:
        match work.kind:
            case "populate":
                if self._store.get(SERVICE_ACCOUNTS, Key(work.key.name, "default")) is None:
                    self._quietly(SERVICE_ACCOUNTS, work.key)
            case "empty":
                self._empty(work.key)
            case "collect":
                self._collect(work.uid)
            case "propagate":
                self._propagate(work.resource, work.key)
            case "undefine":
                self._undefine(work.key.name)

    def _quietly(self, resource: Resource, namespace: Key) -> None:
        try:
            self._verbs.create(resource, namespace.name, {"metadata": {"name": "default"}})
        except Refusal as refusal:
            if refusal.code not in {403, 404, 409}:  # the namespace went in the meantime, or somebody was faster
                raise

    def _empty(self, namespace: Key) -> None:
        held = self._store.get(NAMESPACES, namespace)
        if held is None or "deletionTimestamp" not in held.obj["metadata"]:
            return
        left = False
        for resource in [one for one in self._verbs.registry if one.namespaced and not one.virtual]:
            items = self._store.collection(resource).items
            for item in [item for item in items.values() if item.key.namespace == namespace.name]:
                if "deletionTimestamp" not in item.obj["metadata"]:
                    self._delete(resource, item.key)
                left = left or item.key in items
        if not left:
            self._verbs.update(NAMESPACES, namespace, lambda obj: {**obj, "spec": {}})

    def _collect(self, uid: str) -> None:
        for resource, key in self._dependents_of(uid):
            item = self._store.get(resource, key)
            references = item.obj["metadata"].get("ownerReferences") or () if item is not None else ()
            if references and not any(self._owner(one, key.namespace) for one in references if one["uid"] != uid):
                self._delete(resource, key)

    def _propagate(self, resource: Resource, key: Key) -> None:
        item = self._store.get(resource, key)
        if item is None:
            return
        uid = item.obj["metadata"]["uid"]
        finalizers = item.obj["metadata"].get("finalizers") or ()
        for owned, dependent in self._dependents_of(uid):
            if "orphan" in finalizers:
                self._verbs.update(
                    owned, dependent, lambda obj: _without(obj, "ownerReferences", lambda r: r["uid"] == uid)
                )
            else:
                self._delete(owned, dependent)
        if uid not in self._dependents:
            self._verbs.update(resource, key, lambda obj: _without(obj, "finalizers", _PROPAGATION.__contains__))

    def _undefine(self, name: str) -> None:
        plural, _, group = name.partition(".")
        for resource in [one for one in self._verbs.registry if (one.group, one.plural) == (group, plural)]:
            for item in list(self._store.collection(resource).items.values()):
                self._store.remove(resource, item)
            self._store.forget(resource)
        self._verbs.registry.drop(group, plural)

    def _dependents_of(self, uid: str) -> list[tuple[Resource, Key]]:
        found = [(self._verbs.registry.stored(storage), key) for storage, key in self._dependents.get(uid, ())]
        return [(resource, key) for resource, key in found if resource is not None]

    def _owner(self, reference: JsonObject, namespace: str) -> tuple[Resource, Item] | None:
        resource = self._verbs.registry.of_kind(reference["apiVersion"], reference["kind"])
        if resource is None:
            return None
        held = self._store.get(resource, Key(namespace if resource.namespaced else "", reference["name"]))
        return None if held is None or held.obj["metadata"]["uid"] != reference["uid"] else (resource, held)

    def _delete(self, resource: Resource, key: Key) -> None:
        try:
            self._verbs.delete(resource, key, DeleteOptions())
        except Refusal as refusal:
            if refusal.code != 404:
                raise


def _without(obj: JsonObject, field: str, unwanted: Callable[[Any], bool]) -> JsonObject:
    kept = [one for one in obj["metadata"].get(field) or () if not unwanted(one)]
    return {**obj, "metadata": {**obj["metadata"], field: kept}}
