"""What a server says about itself: groups, resources, versions and OpenAPI, in the forms that kubectl asks for."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from toe_async.sandbox.apiservices import Served
from toe_async.sandbox.resources import Registry, Resource
from toe_async.sandbox.status import JsonObject

AGGREGATED = "apidiscovery.k8s.io"
_VERSION = "v1.36.0"
_SUB_VERBS = {
    "status": ["get", "patch", "update"],
    "finalize": ["update"],
    "log": ["get"],
    "portforward": ["create", "get"],
    "attach": ["create", "get"],
    "exec": ["create", "get"],
    "ephemeralcontainers": ["get", "patch", "update"],
    "token": ["create"],
}
_SUB_KINDS = {
    "log": "Pod",
    "portforward": "PodPortForwardOptions",
    "attach": "PodAttachOptions",
    "exec": "PodExecOptions",
    "token": "TokenRequest",
}
_PATCH_QUERY = ("dryRun", "fieldManager", "fieldValidation", "force")


def version_info() -> JsonObject:
    """`/version`."""
    return {
        "major": "1",
        "minor": "36",
        "gitVersion": f"{_VERSION}+toe-sandbox",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "python",
        "platform": "linux/amd64",
    }


def answer(registry: Registry, remote: Sequence[Served], path: str, accept: str) -> JsonObject | None:
    """The document at a discovery path; None for a path that is none of them.

    `remote` is what others serve, in the order of their priorities. What a single version of theirs serves they say
    themselves: such a path is not answered here.
    """
    parts = path.strip("/").split("/")
    versions = _versions(registry, remote)
    match parts:
        case ["version"]:
            return version_info()
        case ["api"] if AGGREGATED in accept:
            return _aggregated(registry, (), core=True)
        case ["apis"] if AGGREGATED in accept:
            return _aggregated(registry, remote, core=False)
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            groups = [_group(name, held) for name, held in versions.items() if name]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["apis", name] if name in versions:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions[name])}
        case ["api", version]:
            return _resource_list(registry, "", version)
        case ["apis", group, version]:
            return _resource_list(registry, group, version)
        case ["openapi", "v3"]:
            return _openapi_index(registry, remote)
        case ["openapi", "v3", "api", version]:
            return _openapi(registry, "", version)
        case ["openapi", "v3", "apis", group, version]:
            return _openapi(registry, group, version)
    return None


def _versions(registry: Registry, remote: Sequence[Served]) -> dict[str, list[str]]:
    found = registry.versions()
    for one in remote:
        versions = found.setdefault(one.backend.group, [])
        if one.backend.version not in versions:
            versions.append(one.backend.version)
    return found


def _group(name: str, versions: list[str]) -> JsonObject:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _of(registry: Registry, group: str, version: str) -> list[Resource]:
    found = [one for one in registry if (one.group, one.version) == (group, version)]
    return sorted(found, key=lambda one: one.plural)


def _resource_list(registry: Registry, group: str, version: str) -> JsonObject | None:
    served = _of(registry, group, version)
    if not served:
        return None
    listed: list[JsonObject] = []
    for one in served:
        entry: JsonObject = {
            "name": one.plural,
            "singularName": one.singular,
            "namespaced": one.namespaced,
            "kind": one.kind,
            "verbs": list(one.verbs),
        }
        if one.short_names:
            entry["shortNames"] = list(one.short_names)
        if one.categories:
            entry["categories"] = list(one.categories)
        listed.append(entry)
        listed.extend(
            {
                "name": f"{one.plural}/{sub}",
                "singularName": "",
                "namespaced": one.namespaced,
                "kind": _SUB_KINDS.get(sub, one.kind),
                "verbs": _SUB_VERBS[sub],
            }
            for sub in one.subresources
        )
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}


def _aggregated(registry: Registry, remote: Sequence[Served], *, core: bool) -> JsonObject:
    items = []
    elsewhere = {(one.backend.group, one.backend.version): one for one in remote}
    for name, versions in _versions(registry, remote).items():
        if bool(name) is core:
            continue
        served = []
        for version in versions:
            theirs = elsewhere.get((name, version))
            ours = [_aggregated_resource(one) for one in _of(registry, name, version)]
            resources = ours if theirs is None else theirs.resources
            freshness = "Current" if theirs is None or theirs.fresh else "Stale"
            served.append({"version": version, "resources": resources, "freshness": freshness})
        items.append({"metadata": {"name": name} if name else {}, "versions": served})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": f"{AGGREGATED}/v2", "metadata": {}, "items": items}


def _aggregated_resource(one: Resource) -> JsonObject:
    entry: JsonObject = {
        "resource": one.plural,
        "responseKind": {"group": one.group, "version": one.version, "kind": one.kind},
        "scope": "Namespaced" if one.namespaced else "Cluster",
        "singularResource": one.singular,
        "verbs": list(one.verbs),
    }
    if one.short_names:
        entry["shortNames"] = list(one.short_names)
    if one.categories:
        entry["categories"] = list(one.categories)
    if one.subresources:
        entry["subresources"] = [
            {
                "subresource": sub,
                "responseKind": {"group": one.group, "version": one.version, "kind": _SUB_KINDS.get(sub, one.kind)},
                "verbs": _SUB_VERBS[sub],
            }
            for sub in one.subresources
        ]
    return entry


def _openapi_index(registry: Registry, remote: Sequence[Served]) -> JsonObject:
    paths = {}
    for group, versions in registry.versions().items():
        for version in versions:
            at = f"apis/{group}/{version}" if group else f"api/{version}"
            paths[at] = {"serverRelativeURL": f"/openapi/v3/{at}"}
    for one in remote:
        at = f"apis/{one.backend.group}/{one.backend.version}"
        paths.pop(at, None)
        if one.openapi:
            paths[at] = {"serverRelativeURL": f"/openapi/v3/{at}"}
    return {"paths": paths}


def _openapi(registry: Registry, group: str, version: str) -> JsonObject | None:
    """Enough for kubectl: which kinds a PATCH takes with which parameters, and the schemas of custom resources."""
    served = _of(registry, group, version)
    if not served:
        return None
    paths: JsonObject = {}
    schemas: JsonObject = {}
    for _, held in groupby(served, key=lambda one: one.kind):
        one = next(held)
        identity = {"group": group, "version": version, "kind": one.kind}
        name = f"{'.'.join(reversed((group or 'core').split('.')))}.{version}.{one.kind}"
        schemas[name] = {**_schema(one), "x-kubernetes-group-version-kind": [identity]}
        base = f"/apis/{group}/{version}" if group else f"/api/{version}"
        at = f"{base}/namespaces/{{namespace}}/{one.plural}" if one.namespaced else f"{base}/{one.plural}"
        operation = {"x-kubernetes-group-version-kind": identity, **_responses(name)}
        paths[at] = {
            "get": {**operation, "x-kubernetes-action": "list"},
            "post": {**operation, "x-kubernetes-action": "post", "parameters": _parameters()},
        }
        paths[f"{at}/{{name}}"] = {
            "get": {**operation, "x-kubernetes-action": "get"},
            "patch": {**operation, "x-kubernetes-action": "patch", "parameters": _parameters()},
        }
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": _VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _responses(name: str) -> JsonObject:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {"responses": {"200": {"description": "OK", "content": content}}}


def _parameters() -> list[JsonObject]:
    return [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _PATCH_QUERY]


def _schema(one: Resource) -> JsonObject:
    header: dict[str, Any] = {
        "apiVersion": {"type": "string", "description": "The versioned schema of this object."},
        "kind": {"type": "string", "description": "The REST resource that this object is."},
        "metadata": {"type": "object", "description": "Standard object's metadata."},
    }
    if one.schema is None:
        return {"type": "object", "properties": header, "x-kubernetes-preserve-unknown-fields": True}
    root = one.schema.root
    return {**root, "properties": {**header, **(root.get("properties") or {})}}
