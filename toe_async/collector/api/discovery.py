"""What the group says of itself: groups, versions and resources, in the plain and in the aggregated form.

`watch` is not offered, on purpose. The garbage collector and the quota controller of a cluster watch every resource
that has it and keep the metadata of all its objects in memory; artifacts never change but for their hold, and there may
be a million of them. Without it kubectl's `-w` is refused in one sentence, and deleting waits by `get`.
"""

from typing import Any, Final

from toe_async.apis.kinds import ARTIFACTS

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
    version = {"groupVersion": ARTIFACTS.api_version, "version": ARTIFACTS.version}
    return {"name": ARTIFACTS.group, "versions": [version], "preferredVersion": version}


def resources() -> dict[str, Any]:
    """`/apis/artifacts.toe.run/v1alpha1`: an APIResourceList."""
    main = {
        "name": ARTIFACTS.plural,
        "singularName": ARTIFACTS.singular,
        "namespaced": True,
        "kind": ARTIFACTS.kind,
        "verbs": list(VERBS),
        "shortNames": list(ARTIFACTS.short_names),
        "categories": list(CATEGORIES),
    }
    below = [
        {
            "name": f"{ARTIFACTS.plural}/{sub}",
            "singularName": "",
            "namespaced": True,
            "kind": ARTIFACTS.kind,
            "verbs": ["get"],
        }
        for sub in SUBRESOURCES
    ]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": ARTIFACTS.api_version,
        "resources": [main, *below],
    }


def aggregated() -> dict[str, Any]:
    """`/apis` in one answer: an APIGroupDiscoveryList."""
    kind = {"group": ARTIFACTS.group, "version": ARTIFACTS.version, "kind": ARTIFACTS.kind}
    resource = {
        "resource": ARTIFACTS.plural,
        "responseKind": kind,
        "scope": "Namespaced",
        "singularResource": ARTIFACTS.singular,
        "verbs": list(VERBS),
        "shortNames": list(ARTIFACTS.short_names),
        "categories": list(CATEGORIES),
        "subresources": [{"subresource": sub, "responseKind": kind, "verbs": ["get"]} for sub in SUBRESOURCES],
    }
    version = {"version": ARTIFACTS.version, "resources": [resource], "freshness": "Current"}
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [{"metadata": {"name": ARTIFACTS.group}, "versions": [version]}],
    }
