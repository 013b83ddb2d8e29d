"""The group in OpenAPI, versions 2 and 3, so that `kubectl explain artifacts` works.

The schema of `artifact` is folded from the Manifest struct itself; what each field means is said here, for readers.
The API server merges the version 2 document into its own and passes version 3 through.
"""

import hashlib
from typing import Any, Final

from toe_async.apis.kinds import ARTIFACTS
from toe_async.apis.meta import encode
from toe_async.apis.schema import schema_of
from toe_async.collector.api.objects import HOLD
from toe_async.collector.captures import Manifest

_INFO: Final = {"title": "toe-collector", "version": ARTIFACTS.version}
_ONE: Final = ARTIFACTS.kind
_MANY: Final = ARTIFACTS.list_kind
_PREFIX: Final = ".".join(reversed(ARTIFACTS.group.split("."))) + f".{ARTIFACTS.version}"

_FIELDS: Final = {
    "name": "Name of the artifact in this API: the first ten characters of the capture's id, and the leaf.",
    "leaf": "File name that the tool gave to it.",
    "size": "Bytes stored.",
    "sha256": "SHA-256 digest of the bytes, in lower-case hex.",
    "storedAt": "When its last byte was stored.",
    "directory": "Folders below the collector's root that lead to it, the outermost first.",
    "file": "Name of its file in that folder.",
    "capture": "Id of the capture that it belongs to.",
    "namespace": "Namespace of the pod, and of this object.",
    "labels": "Labels by which the pod was chosen.",
    "run": "Name of the object that asked for the capture.",
    "runUID": "UID of that object; one that was made anew under the same name has another.",
    "kind": "Kind of that object, such as ProfilingConfig.",
    "pod": "Pod that it was taken from.",
    "podUID": "UID of that pod.",
    "container": "Container that it was taken from.",
    "node": "Node that the pod ran on.",
    "service": "Service that the pod belongs to, as derived from its labels and owner.",
    "tool": "What took it, such as pprof.",
    "reason": "Why it was taken, in one stable word.",
    "trigger": "Why it was taken, in a sentence with the figures.",
    "triggeredAt": "When the decision to take it fell.",
    "retentionDays": "Days after which it is removed, as its run asked for; absent: the collector's own rule.",
    "details": "How it came about, for readers: the tool's arguments, its image and digest, and the like.",
    "hold": f"Why it is kept from retention and deletion; empty when it is not. Set by annotation {HOLD}.",
}
_META: Final = {
    "name": "Name of the artifact, unique in the namespace.",
    "namespace": "Namespace of the pod that it was taken from.",
    "uid": "Always the same for one stored artifact.",
    "resourceVersion": "Changes when the artifact's hold changes.",
}
_API_VERSION: Final = "Version of the schema of this object."
_KIND: Final = "Name of the schema of this object."


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _texts(description: str) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": {"type": "string"}, "description": description}


def _said(name: str) -> dict[str, str]:
    return {"description": _FIELDS[name]} if name in _FIELDS else {}


def _artifact() -> dict[str, Any]:
    manifest = schema_of(Manifest)
    told = {name: schema | _said(name) for name, schema in manifest["properties"].items()}
    metadata = {name: _text(description) for name, description in _META.items()}
    metadata["creationTimestamp"] = _text("When it was stored.") | {"format": "date-time"}
    metadata["labels"] = _texts("Labels by which the pod was chosen; label selectors match these.")
    metadata["annotations"] = _texts(f"{HOLD} says why the artifact is kept; no other annotation can be set.")
    return {
        "type": "object",
        "description": "Artifact is one file of evidence that was taken from a pod and stored by the collector.",
        "properties": {
            "apiVersion": _text(_API_VERSION),
            "kind": _text(_KIND),
            "metadata": {
                "type": "object",
                "description": "Identity of the object.",
                "properties": metadata,
            },
            "artifact": {
                "type": "object",
                "description": "All that is known about the file.",
                "properties": told,
            },
        },
        "x-kubernetes-group-version-kind": [_identity(_ONE)],
    }


def _list(artifact: dict[str, Any]) -> dict[str, Any]:
    metadata = {
        "resourceVersion": _text("The catalog's version when the page was read."),
        "continue": _text("Hands on to the next page; absent on the last one."),
        "remainingItemCount": {
            "type": "integer",
            "format": "int64",
            "description": "Artifacts on later pages; absent when that is not known.",
        },
    }
    return {
        "type": "object",
        "description": "ArtifactList is one page of artifacts, newest first.",
        "required": ["items"],
        "properties": {
            "apiVersion": _text(_API_VERSION),
            "kind": _text(_KIND),
            "metadata": {"type": "object", "description": "Where the page stands.", "properties": metadata},
            "items": {"type": "array", "description": "The artifacts.", "items": artifact},
        },
        "x-kubernetes-group-version-kind": [_identity(_MANY)],
    }


def _identity(kind: str) -> dict[str, str]:
    return {"group": ARTIFACTS.group, "version": ARTIFACTS.version, "kind": kind}


def _paths(answer: Any) -> dict[str, Any]:
    """Paths with their operations; `answer(kind)` is what a version of OpenAPI says of an answer of that kind."""
    base = f"/apis/{ARTIFACTS.api_version}"
    many = f"{base}/namespaces/{{namespace}}/{ARTIFACTS.plural}"
    one = f"{many}/{{name}}"

    def operation(action: str, name: str, kind: str, text: str) -> dict[str, Any]:
        return {
            "description": text,
            "operationId": f"{name}ArtifactsToeRunV1alpha1Artifact",
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _identity(_ONE),
            **answer(kind),
        }

    return {
        ARTIFACTS.path(): {"get": operation("list", "listAllNamespaces", _MANY, "list artifacts everywhere")},
        many: {
            "get": operation("list", "listNamespaced", _MANY, "list the artifacts of a namespace"),
            "delete": operation("deletecollection", "deleteCollectionNamespaced", _MANY, "delete artifacts"),
        },
        one: {
            "get": operation("get", "readNamespaced", _ONE, "read one artifact's metadata"),
            "delete": operation("delete", "deleteNamespaced", _ONE, "delete an artifact"),
            "patch": operation("patch", "patchNamespaced", _ONE, "hold or release an artifact"),
        },
    }


def _parameters(path: str, of: Any) -> dict[str, Any]:
    names = [name for name in ("namespace", "name") if f"{{{name}}}" in path]
    found = [{"name": name, "in": "path", "required": True, **of} for name in names]
    return {"parameters": found} if found else {}


def _v2() -> dict[str, Any]:
    def answer(kind: str) -> dict[str, Any]:
        schema = {"$ref": f"#/definitions/{_PREFIX}.{kind}"}
        return {"produces": ["application/json"], "responses": {"200": {"description": "OK", "schema": schema}}}

    return {
        "swagger": "2.0",
        "info": _INFO,
        "paths": {
            path: operations | _parameters(path, {"type": "string"}) for path, operations in _paths(answer).items()
        },
        "definitions": {
            f"{_PREFIX}.{_ONE}": _artifact(),
            f"{_PREFIX}.{_MANY}": _list({"$ref": f"#/definitions/{_PREFIX}.{_ONE}"}),
        },
    }


def _v3() -> dict[str, Any]:
    def answer(kind: str) -> dict[str, Any]:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{_PREFIX}.{kind}"}}}
        return {"responses": {"200": {"description": "OK", "content": content}}}

    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": {
            path: operations | _parameters(path, {"schema": {"type": "string"}})
            for path, operations in _paths(answer).items()
        },
        "components": {
            "schemas": {
                f"{_PREFIX}.{_ONE}": _artifact(),
                f"{_PREFIX}.{_MANY}": _list({"$ref": f"#/components/schemas/{_PREFIX}.{_ONE}"}),
            }
        },
    }


class Documents:
    """The documents as bytes, made once."""

    def __init__(self) -> None:
        self.v2 = encode(_v2())
        """`/openapi/v2`."""
        self.v3 = encode(_v3())
        """`/openapi/v3/apis/artifacts.toe.run/v1alpha1`."""
        at = f"apis/{ARTIFACTS.api_version}"
        link = {"serverRelativeURL": f"/openapi/v3/{at}?hash={etag(self.v3)}"}
        self.index = encode({"paths": {at: link}})
        """`/openapi/v3`: which documents there are; the link changes with the document."""


def etag(document: bytes) -> str:
    """What tells versions of a document apart."""
    return hashlib.sha256(document).hexdigest().upper()
