"""Request bodies and query options, read from what arrives. Pure but for the types of its errors."""

from collections.abc import Mapping
from typing import Any

import msgspec
import yaml

from toe_async.sandbox.patches import APPLY, BY_TYPE, STRATEGIC
from toe_async.sandbox.resources import Resource
from toe_async.sandbox.status import JsonObject, Refusal, bad_request
from toe_async.sandbox.verbs import DeleteOptions

LARGEST = 3 << 20
"""Bytes of a body that are read, as the real server has it."""


def media_type(content_type: str) -> str:
    """The bare media type of a Content-Type header."""
    return content_type.partition(";")[0].strip()


def decode(raw: bytes, content_type: str, what: str) -> Any:
    """A body as JSON values. Raises Refusal 400 and 415."""
    kind = media_type(content_type)
    if kind not in {"", "application/json", "application/yaml", "application/x-yaml"}:
        accepted = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
        message = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
        raise Refusal(415, "UnsupportedMediaType", message)
    if not raw:
        return {}
    return _yaml(raw) if "yaml" in kind else _json(raw, f"the object provided is unrecognized (must be of type {what})")


def patch(raw: bytes, content_type: str, resource: Resource) -> tuple[str, Any]:
    """The type and the content of a patch. Raises Refusal 400 and 415."""
    kind = media_type(content_type)
    refused = {STRATEGIC} if resource.custom else set()
    known = [one for one in (*BY_TYPE, APPLY) if one not in refused]
    if kind not in known:
        message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(known)}"
        raise Refusal(415, "UnsupportedMediaType", message)
    return kind, _yaml(raw) if kind == APPLY else _json(raw, "error decoding patch")


def delete_options(raw: bytes, content_type: str, query: Mapping[str, str]) -> DeleteOptions:
    """The options of a delete: the body where there is one, the query for what it leaves open."""
    held = decode(raw, content_type, "DeleteOptions") if raw else {}
    for name in ("gracePeriodSeconds", "propagationPolicy"):
        if name in query and name not in held:
            held[name] = int(query[name]) if name == "gracePeriodSeconds" and query[name].isdecimal() else query[name]
    if query.get("dryRun"):
        held["dryRun"] = [query["dryRun"]]
    try:
        return msgspec.convert({key: value for key, value in held.items() if value is not None}, DeleteOptions)
    except msgspec.ValidationError as error:
        raise bad_request(f"DeleteOptions are not understood: {error}") from error


def _json(raw: bytes, what: str) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"{what}: {error}") from error


def _yaml(raw: bytes) -> JsonObject:
    try:
        held = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise bad_request(f"error decoding YAML: {str(error)[:200]}") from error
    if not isinstance(held, dict):
        raise bad_request("error decoding YAML: an object is expected")
    return held
