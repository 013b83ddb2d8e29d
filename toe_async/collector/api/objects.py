"""Artifacts in the shape of Kubernetes objects, whole or their metadata alone."""

import uuid
from collections.abc import Iterable
from typing import Any

import msgspec

from toe_async.apis.kinds import ARTIFACTS
from toe_async.collector.captures import Manifest
from toe_async.lib.clock import rfc3339

HOLD = "toe.run/hold"
"""The annotation that keeps an artifact; its value says why."""

_UIDS = uuid.UUID("6f2e0f0e-5d0c-4f0a-9d0b-3f6a3c1f7b51")


def uid(held: Manifest) -> str:
    """The object's UID: always the same for one stored artifact, another one when its name is used again later."""
    told = "\0".join((held.namespace, held.name, held.capture, held.sha256, held.stored_at.isoformat()))
    return str(uuid.uuid5(_UIDS, told))


def artifact(held: Manifest, version: int) -> dict[str, Any]:
    """The object as plain data. `version` is the catalog's number of its last change."""
    told = {key: value for key, value in msgspec.to_builtins(held).items() if value is not None}
    return {
        "apiVersion": ARTIFACTS.api_version,
        "kind": ARTIFACTS.kind,
        "metadata": metadata(held, version),
        "artifact": told,
    }


def metadata(held: Manifest, version: int) -> dict[str, Any]:
    """The object's metadata; empty maps are left out, as an API server does."""
    found: dict[str, Any] = {
        "name": held.name,
        "namespace": held.namespace,
        "uid": uid(held),
        "resourceVersion": str(version),
        "creationTimestamp": rfc3339(held.stored_at),
    }
    if held.labels:
        found["labels"] = held.labels
    if held.hold:
        found["annotations"] = {HOLD: held.hold}
    return found


def partial(obj: dict[str, Any]) -> dict[str, Any]:
    """An object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def listed(items: Iterable[dict[str, Any]], version: int, continue_: str, remaining: int | None) -> dict[str, Any]:
    """A page of a list."""
    meta: dict[str, Any] = {"resourceVersion": str(version)}
    if continue_:
        meta["continue"] = continue_
    if continue_ and remaining is not None:
        meta["remainingItemCount"] = remaining
    return {"apiVersion": ARTIFACTS.api_version, "kind": ARTIFACTS.list_kind, "metadata": meta, "items": list(items)}


def partial_list(page: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a page's objects."""
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": page["metadata"],
        "items": [partial(one) for one in page["items"]],
    }
