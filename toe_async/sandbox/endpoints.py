"""EndpointSlices of Services that select pods, kept as the real controller keeps them.

A Service without a selector is left alone: whoever made it writes its slices. Unlike the real server's, the addresses
may be loopback ones, because the sandbox's pods have no others.
"""

from itertools import zip_longest

from toe_async.sandbox.apiservices import SERVICE_LABEL
from toe_async.sandbox.pending import Pending
from toe_async.sandbox.resources import ENDPOINT_SLICES, PODS, SERVICES, Resource
from toe_async.sandbox.status import JsonObject, Refusal
from toe_async.sandbox.store import Change, Item, Key
from toe_async.sandbox.verbs import DeleteOptions, Verbs

_MANAGER_LABEL = "endpointslice.kubernetes.io/managed-by"
_MANAGER = "endpointslice-controller.k8s.io"


def slices(service: JsonObject, pods: list[JsonObject]) -> list[JsonObject]:
    """The slices that a Service with a selector ought to have: one for each set of ports; without pods an empty one."""
    meta = service["metadata"]
    by_ports: dict[tuple[tuple[str, int, str], ...], list[JsonObject]] = {}
    for pod in pods:
        if pod["status"].get("podIP") and pod["status"].get("phase") not in {"Succeeded", "Failed"}:
            by_ports.setdefault(_ports(service, pod), []).append(_endpoint(pod))
    owner = {"apiVersion": "v1", "kind": "Service", "name": meta["name"], "uid": meta["uid"],
             "controller": True, "blockOwnerDeletion": True}  # fmt: skip
    return [
        {
            "metadata": {
                "generateName": f"{meta['name']}-",
                "labels": {SERVICE_LABEL: meta["name"], _MANAGER_LABEL: _MANAGER},
                "ownerReferences": [owner],
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": name, "port": port, "protocol": protocol} for name, port, protocol in ports],
        }
        for ports, endpoints in (by_ports or {(): []}).items()
    ]


def _ports(service: JsonObject, pod: JsonObject) -> tuple[tuple[str, int, str], ...]:
    named = {
        port["name"]: int(port["containerPort"])
        for container in pod["spec"].get("containers") or ()
        for port in container.get("ports") or ()
        if port.get("name")
    }
    found = []
    for port in service["spec"].get("ports") or ():
        target = port.get("targetPort") or port["port"]
        number = named.get(target) if isinstance(target, str) else int(target)
        if number is not None:
            found.append((port.get("name", ""), number, port.get("protocol", "TCP")))
    return tuple(found)


def _endpoint(pod: JsonObject) -> JsonObject:
    meta, status = pod["metadata"], pod["status"]
    serving = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ())
    leaving = "deletionTimestamp" in meta
    return {
        "addresses": [status["podIP"]],
        "conditions": {"ready": serving and not leaving, "serving": serving, "terminating": leaving},
        "nodeName": pod["spec"].get("nodeName", ""),
        "targetRef": {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]},
    }


class Endpoints:
    """Looks at changes of Services and pods, in a task of its own; what waits is one entry a Service at most."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs
        self._store = verbs.store
        self._pending: Pending[Key] = Pending()
        self._store.listeners.append(self._note)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._pending.run(self._sync)

    def _note(self, resource: Resource, change: Change) -> None:
        if resource is SERVICES:
            self._pending.add(change.item.key)
        elif resource is PODS:
            for key in self._store.collection(SERVICES).items:
                if key.namespace == change.item.key.namespace:
                    self._pending.add(key)

    def _sync(self, key: Key) -> None:
        service = self._store.get(SERVICES, key)
        selector = (service.obj["spec"].get("selector") or {}) if service is not None else {}
        if service is None or not selector:  # the slices of a Service that is gone go with their owner
            return
        pods = [
            item.obj
            for item in self._store.collection(PODS).items.values()
            if item.key.namespace == key.namespace
            and selector.items() <= (item.obj["metadata"].get("labels") or {}).items()
        ]
        held = [item for item in slices_of(self._verbs, key) if _managed(item.obj)]
        for wanted, item in zip_longest(slices(service.obj, pods), held):
            try:
                self._write(key, wanted, item)
            except Refusal as refusal:
                if refusal.code not in {403, 404, 409}:  # the namespace went in the meantime
                    raise

    def _write(self, service: Key, wanted: JsonObject | None, item: Item | None) -> None:
        if item is None and wanted is not None:
            self._verbs.create(ENDPOINT_SLICES, service.namespace, wanted)
        elif item is not None and wanted is not None:
            changed = {key: wanted[key] for key in ("endpoints", "ports")}
            self._verbs.update(ENDPOINT_SLICES, item.key, lambda obj: {**obj, **changed})
        elif item is not None:
            self._verbs.delete(ENDPOINT_SLICES, item.key, DeleteOptions())


def slices_of(verbs: Verbs, service: Key) -> list[Item]:
    """All slices of a Service, whoever keeps them."""
    return [
        item
        for item in verbs.store.collection(ENDPOINT_SLICES).items.values()
        if item.key.namespace == service.namespace
        and (item.obj["metadata"].get("labels") or {}).get(SERVICE_LABEL) == service.name
    ]


def _managed(obj: JsonObject) -> bool:
    return bool((obj["metadata"].get("labels") or {}).get(_MANAGER_LABEL) == _MANAGER)
