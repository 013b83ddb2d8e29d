"""What the group says of itself: groups, versions and resources, in the plain and in the aggregated form.

`watch` is not offered, on purpose. The garbage collector and the quota controller of a cluster watch every resource
that has it and keep the metadata of all its objects in memory; artifacts never change but for their hold, and there may
be a million of them. Without it kubectl's `-w` is refused in one sentence, and deleting waits by `get`.
"""

from typing import Any, Final

from toe_async.collector.api.status import API_VERSION, RESOURCE, VERSION
from toe_async.collector.auth import ARTIFACTS_GROUP

KIND: Final = "Artifact"
LIST_KIND: Final = "ArtifactList"
SHORT_NAMES: Final = ("art",)
CATEGORIES: Final = ("toe",)
VERBS: Final = ("delete", "deletecollection", "get", "list", "patch")
SUBRESOURCES: Final = ("content", "render")

AGGREGATED_TYPE: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def groups() -> dict[str, Any]:
    """`/apis`: an APIGroupList."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group()]}


def group() -> dict[str, Any]:
    """`/apis/artifacts.toe.run`: an APIGroup."""
    return {"kind": "APIGroup", "apiVersion": "v1", **_group()}


def _group() -> dict[str, Any]:
    version = {"groupVersion": API_VERSION, "version": VERSION}
    return {"name": ARTIFACTS_GROUP, "versions": [version], "preferredVersion": version}


def resources() -> dict[str, Any]:
    """`/apis/artifacts.toe.run/v1alpha1`: an APIResourceList."""
    main = {
        "name": RESOURCE,
        "singularName": KIND.lower(),
        "namespaced": True,
        "kind": KIND,
        "verbs": list(VERBS),
        "shortNames": list(SHORT_NAMES),
        "categories": list(CATEGORIES),
    }
    below = [
        {"name": f"{RESOURCE}/{sub}", "singularName": "", "namespaced": True, "kind": KIND, "verbs": ["get"]}
        for sub in SUBRESOURCES
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": [main, *below]}


def aggregated() -> dict[str, Any]:
    """`/apis` in one answer: an APIGroupDiscoveryList."""
    kind = {"group": ARTIFACTS_GROUP, "version": VERSION, "kind": KIND}
    resource = {
        "resource": RESOURCE,
        "responseKind": kind,
        "scope": "Namespaced",
        "singularResource": KIND.lower(),
        "verbs": list(VERBS),
        "shortNames": list(SHORT_NAMES),
        "categories": list(CATEGORIES),
        "subresources": [{"subresource": sub, "responseKind": kind, "verbs": ["get"]} for sub in SUBRESOURCES],
    }
    version = {"version": VERSION, "resources": [resource], "freshness": "Current"}
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [{"metadata": {"name": ARTIFACTS_GROUP}, "versions": [version]}],
    }
