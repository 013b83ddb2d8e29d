"""Rules of the built-in kinds: defaults, checks and the status that a new object starts with.

Only what our clients can run into is here. Unknown fields of built-in kinds are kept; the real server drops them, or
refuses them under strict validation.
"""

import base64
import re
from collections.abc import Callable
from typing import Any

from toe_async.sandbox import apiservices, crds, ephemeral, podsecurity
from toe_async.sandbox.resources import (
    APISERVICES,
    CLAIMS,
    CRDS,
    ENDPOINT_SLICES,
    EVENTS,
    LEASES,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICES,
    Resource,
)
from toe_async.sandbox.status import Cause, JsonObject, bad_request

_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_STANDARD_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion"})
_ANY_NAME = frozenset({"roles", "rolebindings", "clusterroles", "clusterrolebindings"})
_ANNOTATION_BYTES = 256 * 1024
_ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_OMITTED_WHEN_FALSE = ("stdin", "stdinOnce", "tty")
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")


def check_metadata(resource: Resource, meta: JsonObject) -> list[Cause]:
    """Names, labels, annotations and finalizers."""
    causes = _check_name(resource, meta.get("name", ""))
    for key, value in (meta.get("labels") or {}).items():
        if not _QUALIFIED.fullmatch(key):
            message = f"Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or '.'"
            causes.append(Cause("FieldValueInvalid", message, "metadata.labels"))
        if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            message = (
                f'Invalid value: "{value}": a valid label must be an empty string or consist of alphanumeric '
                "characters, '-', '_' or '.', and must start and end with an alphanumeric character"
            )
            causes.append(Cause("FieldValueInvalid", message, "metadata.labels"))
    if sum(len(k) + len(str(v)) for k, v in (meta.get("annotations") or {}).items()) > _ANNOTATION_BYTES:
        message = f"Too long: may not be more than {_ANNOTATION_BYTES} bytes"
        causes.append(Cause("FieldValueTooLong", message, "metadata.annotations"))
    for index, name in enumerate(meta.get("finalizers") or ()):
        if "/" not in name and name not in _STANDARD_FINALIZERS:
            message = f'Invalid value: "{name}": name is neither a standard finalizer name nor is it fully qualified'
            causes.append(Cause("FieldValueInvalid", message, f"metadata.finalizers[{index}]"))
    return causes


def _check_name(resource: Resource, name: str) -> list[Cause]:
    if not name:
        message = "Required value: name or generateName is required"
        return [Cause("FieldValueRequired", message, "metadata.name")]
    if resource.plural in _ANY_NAME:
        fits = "/" not in name and "%" not in name and name not in {".", ".."}
        return [] if fits else [Cause("FieldValueInvalid", f'Invalid value: "{name}": may not contain \'/\'', "metadata.name")]  # fmt: skip  # noqa: E501
    if resource is APISERVICES:  # its group and version decide: see its own check
        return []
    if resource in {NAMESPACES, SERVICES}:
        if re.fullmatch(_LABEL, name) and len(name) <= 63:
            return []
        message = (
            f'Invalid value: "{name}": a lowercase RFC 1123 label must consist of lower case alphanumeric characters '
            "or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', "
            f"regex used for validation is '{_LABEL}')"
        )
        return [Cause("FieldValueInvalid", message, "metadata.name")]
    if re.fullmatch(_SUBDOMAIN, name) and len(name) <= 253:
        return []
    message = (
        f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '
        "'-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', "
        f"regex used for validation is '{_SUBDOMAIN}')"
    )
    return [Cause("FieldValueInvalid", message, "metadata.name")]


def default(resource: Resource, obj: JsonObject, old: JsonObject | None) -> None:
    """Fill in the kind's defaults, in place."""
    filler = _DEFAULTS.get(resource.storage_key)
    if filler is not None:
        filler(obj, old)


def _default_pod(obj: JsonObject, old: JsonObject | None) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("serviceAccountName", "default")
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("enableServiceLinks", True)
    for container in [one for kind in _CONTAINERS for one in spec.get(kind) or ()]:
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault("imagePullPolicy", _pull_policy(container.get("image") or ""))
        for name in [name for name in _OMITTED_WHEN_FALSE if container.get(name) is False]:
            del container[name]
        for port in container.get("ports") or ():
            port.setdefault("protocol", "TCP")
        limits = container["resources"].get("limits") or {}
        if limits:  # a limit without a request is the request, too
            requests = container["resources"].setdefault("requests", {})
            for name, value in limits.items():
                requests.setdefault(name, value)
    if old is None:
        obj["status"] = {"phase": "Pending", "qosClass": _qos(spec)}


def _pull_policy(image: str) -> str:
    name = image.rpartition("/")[2]
    fixed = "@" in name or (":" in name and not name.endswith(":latest"))
    return "IfNotPresent" if fixed else "Always"


def _qos(spec: JsonObject) -> str:
    held = [(one["resources"].get("requests") or {}, one["resources"].get("limits") or {}) for one in spec.get("containers") or ()]  # fmt: skip  # noqa: E501
    if not any(requests or limits for requests, limits in held):
        return "BestEffort"
    full = all(limits.keys() >= {"cpu", "memory"} and requests == limits for requests, limits in held)
    return "Guaranteed" if full else "Burstable"


def _default_namespace(obj: JsonObject, old: JsonObject | None) -> None:
    name = obj["metadata"].get("name", "")
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
    if old is None:
        obj["spec"] = {"finalizers": ["kubernetes"]}
        obj["status"] = {"phase": "Active"}


def _default_secret(obj: JsonObject, _: JsonObject | None) -> None:
    for key, value in (obj.pop("stringData", None) or {}).items():
        obj.setdefault("data", {})[key] = base64.b64encode(str(value).encode()).decode()
    obj.setdefault("type", "Opaque")
    for value in (obj.get("data") or {}).values():
        try:
            base64.b64decode(value or "", validate=True)
        except (ValueError, TypeError) as error:
            what = 'Secret in version "v1" cannot be handled as a Secret'
            raise bad_request(f"{what}: illegal base64 data") from error


def _default_service(obj: JsonObject, old: JsonObject | None) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    if old is None:
        obj["status"] = {"loadBalancer": {}}


def _default_slice(obj: JsonObject, _: JsonObject | None) -> None:
    obj.setdefault("endpoints", [])
    for port in obj.setdefault("ports", []) or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def _default_claim(obj: JsonObject, old: JsonObject | None) -> None:
    """A claim is bound at once: the sandbox has a folder for each."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")
    if old is None:
        capacity = (spec.get("resources") or {}).get("requests") or {}
        obj["status"] = {"phase": "Bound", "accessModes": spec.get("accessModes") or [], "capacity": capacity}


def _default_crd(obj: JsonObject, _: JsonObject | None) -> None:
    crds.default(obj)


_DEFAULTS: dict[tuple[str, str], Callable[[JsonObject, JsonObject | None], None]] = {
    PODS.storage_key: _default_pod,
    CLAIMS.storage_key: _default_claim,
    NAMESPACES.storage_key: _default_namespace,
    SECRETS.storage_key: _default_secret,
    CRDS.storage_key: _default_crd,
    SERVICES.storage_key: _default_service,
    ENDPOINT_SLICES.storage_key: _default_slice,
    APISERVICES.storage_key: apiservices.default,
}


def check(resource: Resource, obj: JsonObject, old: JsonObject | None, subresource: str = "") -> list[Cause]:
    """What is wrong with an object of a built-in kind, written whole or through a subresource."""
    match resource.storage_key:
        case PODS.storage_key:
            if old is not None and subresource == ephemeral.SUBRESOURCE:
                return ephemeral.check(obj, old)
            return _check_pod(obj, old)
        case NAMESPACES.storage_key:
            return podsecurity.check_labels(obj["metadata"].get("labels") or {})
        case CRDS.storage_key:
            return crds.validate(obj)
        case CLAIMS.storage_key:
            return _check_claim(obj["spec"])
        case LEASES.storage_key:
            return _check_lease(obj)
        case EVENTS.storage_key:
            return _check_event(obj)
        case APISERVICES.storage_key:
            return apiservices.check(obj)
        case ENDPOINT_SLICES.storage_key:
            return apiservices.check_slice(obj)
    return []


def _check_claim(spec: JsonObject) -> list[Cause]:
    causes = []
    modes = spec.get("accessModes") or ()
    if not modes:
        message = "Required value: at least 1 access mode is required"
        causes.append(Cause("FieldValueRequired", message, "spec.accessModes"))
    for mode in modes:
        if mode not in _ACCESS_MODES:
            listed = ", ".join(f'"{one}"' for one in _ACCESS_MODES)
            message = f'Unsupported value: "{mode}": supported values: {listed}'
            causes.append(Cause("FieldValueNotSupported", message, "spec.accessModes"))
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        causes.append(Cause("FieldValueRequired", "Required value", "spec.resources[storage]"))
    return causes


def _check_event(obj: JsonObject) -> list[Cause]:
    about = (obj.get("involvedObject") or {}).get("namespace", "")
    if (about or "default") == obj["metadata"].get("namespace"):
        return []
    message = f'Invalid value: "{about}": does not match event.namespace'
    return [Cause("FieldValueInvalid", message, "involvedObject.namespace")]


def _check_pod(obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    spec = obj["spec"]
    causes: list[Cause] = []
    if not spec.get("containers"):
        causes.append(Cause("FieldValueRequired", "Required value", "spec.containers"))
    names: set[str] = set()
    for index, container in enumerate(spec.get("containers") or ()):
        path = f"spec.containers[{index}]"
        name = container.get("name", "")
        if not name:
            causes.append(Cause("FieldValueRequired", "Required value", f"{path}.name"))
        elif name in names:
            causes.append(Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{path}.name"))
        names.add(name)
        if not container.get("image"):
            causes.append(Cause("FieldValueRequired", "Required value", f"{path}.image"))
    if old is None and spec.get("ephemeralContainers"):
        causes.append(Cause("FieldValueForbidden", "Forbidden: cannot be set on create", "spec.ephemeralContainers"))
    policy = spec["restartPolicy"]
    if policy not in {"Always", "OnFailure", "Never"}:
        message = f'Unsupported value: "{policy}": supported values: "Always", "Never", "OnFailure"'
        causes.append(Cause("FieldValueNotSupported", message, "spec.restartPolicy"))
    if old is not None and _fixed(spec) != _fixed(old["spec"]):
        message = (
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
            "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously "
            "negative)"
        )
        causes.append(Cause("FieldValueForbidden", message, "spec"))
    return causes


def _fixed(spec: JsonObject) -> JsonObject:
    kept = {
        key: value for key, value in spec.items() if key not in {"activeDeadlineSeconds", "tolerations", "nodeName"}
    }
    for name in ("containers", "initContainers"):
        kept[name] = [{k: v for k, v in one.items() if k != "image"} for one in spec.get(name) or ()]
    return kept


def _check_lease(obj: JsonObject) -> list[Cause]:
    spec: dict[str, Any] = obj.get("spec") or {}
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        message = f"Invalid value: {seconds}: must be greater than 0"
        return [Cause("FieldValueInvalid", message, "spec.leaseDurationSeconds")]
    return []
