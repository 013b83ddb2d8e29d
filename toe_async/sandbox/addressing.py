"""Which pod and which of its containers a request to a subresource means, with the real server's refusals."""

from toe_async.sandbox.kubelet import Kubelet
from toe_async.sandbox.pod import Pod
from toe_async.sandbox.resources import PODS
from toe_async.sandbox.routes import Route
from toe_async.sandbox.status import JsonObject, bad_request, not_found
from toe_async.sandbox.store import Key, Store

_KINDS = ("initContainers", "containers", "ephemeralContainers")


def find_pod(store: Store, kubelet: Kubelet, asked: Route) -> tuple[JsonObject, Pod | None]:
    """The object, and the pod when it runs or has run here. Raises Refusal 404."""
    key = Key(asked.namespace, asked.name)
    item = store.get(PODS, key)
    if item is None:
        raise not_found("", "pods", asked.name)
    return item.obj, kubelet.pod(key)


def choose_container(obj: JsonObject, wanted: str) -> str:
    """A container's name: the wanted one, or the only ordinary one. Raises Refusal 400."""
    spec, pod = obj["spec"], obj["metadata"]["name"]
    names = [one["name"] for one in spec["containers"]]
    if not wanted and len(names) > 1:
        listed = " ".join(names)
        raise bad_request(f"a container name must be specified for pod {pod}, choose one of: [{listed}]")
    known = {one["name"] for kind in _KINDS for one in spec.get(kind) or ()}
    if wanted and wanted not in known:
        raise bad_request(f"container {wanted} is not valid for pod {pod}")
    return wanted or names[0]
