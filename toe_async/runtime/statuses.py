"""Writing an object's status: only what differs, only on what was seen, and never by two answers to one question.

A patch names the version and the incarnation that it was decided on, so the API server refuses it (409) once anybody
else has written. Fields that our types do not know are in no patch: they belong to whoever wrote them.
"""

from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from toe_async.apis.kinds import Kind
from toe_async.apis.meta import ObjectMeta
from toe_async.kube.requests import merge_patch
from toe_async.kube.sender import Sender


class HasMetadata(Protocol):
    """Any object of the API."""

    @property
    def metadata(self) -> ObjectMeta: ...


T = TypeVar("T", bound=HasMetadata)
K = TypeVar("K", bound=Hashable)


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7396) from one object to another: maps key by key, lists whole, null for what left."""
    patch: dict[str, Any] = dict.fromkeys(before.keys() - after.keys())
    for key, value in after.items():
        held = before.get(key)
        if isinstance(held, dict) and isinstance(value, dict):
            if inner := differences(held, value):
                patch[key] = inner
        elif key not in before or held != value:
            patch[key] = value
    return patch


class StatusWriter(Generic[T]):
    """Writes the status of objects of one kind. `manager` is the field manager that the writes are recorded under."""

    def __init__(self, client: Sender, kind: Kind, decode: Callable[[bytes], T], manager: str) -> None:
        self._client, self._kind, self._decode, self._manager = client, kind, decode, manager

    async def write(self, obj: T, old: msgspec.Struct, new: msgspec.Struct) -> T:
        """Make the status `new` where it is `old` in `obj`; returns the object as it is then.

        Raises:
            Conflict: the object changed in between; decide again on what it is now.
            KubeError: not written, or not known to be.
        """
        changed = differences(msgspec.to_builtins(old), msgspec.to_builtins(new))
        if not changed:
            return obj
        meta = obj.metadata
        bound = {"resourceVersion": meta.resource_version, "uid": meta.uid}
        request = merge_patch(
            self._kind,
            meta.namespace,
            meta.name,
            msgspec.json.encode({"metadata": bound, "status": changed}),
            subresource="status",
            field_manager=self._manager,
        )
        return self._decode(await self._client.send(request))


class OwnWrites(Generic[K, T]):
    """What our own writes returned, for as long as the watch is behind them.

    Without it a decision that follows a write at once would be made on the state before it, and end in a conflict.
    """

    def __init__(self) -> None:
        self._latest: dict[K, T] = {}

    def wrote(self, key: K, obj: T) -> None:
        """Keep what a write returned."""
        self._latest[key] = obj

    def newest(self, key: K, cached: T | None) -> T | None:
        """The newer one of what the watch has and what we wrote; nothing once the watch says that it is gone."""
        written = self._latest.get(key)
        if cached is None or written is None:
            self.forget(key)
            return cached
        if written.metadata.uid == cached.metadata.uid and _older(cached, written):
            return written
        self.forget(key)
        return cached

    def forget(self, key: K) -> None:
        """The object is gone."""
        self._latest.pop(key, None)


def _older(one: HasMetadata, other: HasMetadata) -> bool:
    """Whether ``one`` is known to be older. Versions are numbers on every server we know; else nothing is claimed."""
    first, second = one.metadata.resource_version, other.metadata.resource_version
    return first.isdecimal() and second.isdecimal() and int(first) < int(second)
