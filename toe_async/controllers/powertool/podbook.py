"""Pods by UID and by namespace, as PowerTools ask for them. Fed by the pod informer's handler; never blocks."""

from collections.abc import Mapping

from toe_async.apis.pods import Pod


class PodBook:
    """A frozen target is a pod of one UID: another one under the same name is somebody else."""

    def __init__(self) -> None:
        self._by_uid: dict[str, Pod] = {}
        self._by_namespace: dict[str, dict[str, Pod]] = {}

    def handle(self, old: Pod | None, new: Pod | None) -> None:
        """Take over one change, as an informer reports it."""
        if old is not None:
            self._by_uid.pop(old.uid, None)
            held = self._by_namespace.get(old.namespace, {})
            if (known := held.get(old.name)) is not None and known.uid == old.uid:
                del held[old.name]
            if not held:
                self._by_namespace.pop(old.namespace, None)
        if new is not None:
            self._by_uid[new.uid] = new
            self._by_namespace.setdefault(new.namespace, {})[new.name] = new

    def get(self, uid: str) -> Pod | None:
        """The pod of that very UID."""
        return self._by_uid.get(uid)

    def of(self, namespace: str) -> Mapping[str, Pod]:
        """All pods of a namespace by name."""
        return self._by_namespace.get(namespace, {})
