"""APIServices: which backend serves a group and version, and what stands in the way of it. Pure.

The rules are those of the real aggregator with endpoint routing: a Service must exist, list the port, and have an
EndpointSlice with a ready endpoint under the port's name; then its discovery document must answer.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from toe_async.sandbox.status import Cause, JsonObject, bad_request

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_VERSION = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_PORT = 443
SERVICE_LABEL = "kubernetes.io/service-name"
"""The label by which an EndpointSlice belongs to a Service of its namespace."""


class Backend(Struct, frozen=True):
    """A group and version that is served by somebody else. `authority` is PEM, empty for the machine's own ones."""

    name: str
    group: str
    version: str
    namespace: str
    service: str
    port: int
    authority: bytes
    verified: bool
    group_priority: int
    version_priority: int

    @property
    def server_name(self) -> str:
        """The name that the backend's certificate has to carry."""
        return f"{self.service}.{self.namespace}.svc"


class Condition(Struct, frozen=True):
    """What the condition Available says."""

    status: str
    reason: str
    message: str


class Served(Struct, frozen=True):
    """What discovery tells about one backend. `fresh`: its last answer is the present one."""

    backend: Backend
    resources: list[JsonObject]
    fresh: bool
    openapi: bool


LOCAL = Condition("True", "Local", "Local APIServices are always available")
PASSED = Condition("True", "Passed", "all checks passed")


def default(obj: JsonObject, old: JsonObject | None) -> None:
    """Fill in the port and forget the status of a new object, in place. Raises Refusal for a bundle not in base64."""
    spec = obj.setdefault("spec", {})
    if spec.get("service"):
        spec["service"].setdefault("port", _PORT)
    try:
        base64.b64decode(spec.get("caBundle") or "", validate=True)
    except (ValueError, TypeError, binascii.Error) as error:
        what = 'APIService in version "v1" cannot be handled as a APIService'
        raise bad_request(f"{what}: illegal base64 data") from error
    if old is None:
        obj["status"] = {}


def check(obj: JsonObject) -> list[Cause]:
    """What is wrong with an APIService."""
    spec = obj["spec"]
    group, version, name = spec.get("group", ""), spec.get("version", ""), obj["metadata"].get("name", "")
    causes: list[Cause] = []

    def invalid(field: str, value: object, why: str) -> None:
        causes.append(Cause("FieldValueInvalid", f"Invalid value: {value}: {why}", field))

    if name != f"{version}.{group}":
        invalid("metadata.name", f'"{name}"', f'must be `spec.version+"."+spec.group`: "{version}.{group}"')
    if not group and version != "v1":
        message = "Required value: only v1 may have an empty group and it better be legacy kube"
        causes.append(Cause("FieldValueRequired", message, "spec.group"))
    if group and (not _SUBDOMAIN.fullmatch(group) or len(group) > 253):
        invalid("spec.group", f'"{group}"', "a lowercase RFC 1123 subdomain is expected")
    if not _VERSION.fullmatch(version) or len(version) > 63:
        invalid("spec.version", f'"{version}"', "a DNS-1035 label is expected")
    for field, largest in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        value = spec.get(field, 0)
        if not 0 < value <= largest:
            invalid(f"spec.{field}", value, f"must be positive and less than {largest}")
    bundle, skips = spec.get("caBundle") or "", bool(spec.get("insecureSkipTLSVerify"))
    service = spec.get("service")
    if not service:
        if bundle:
            size = len(base64.b64decode(bundle))
            invalid("spec.caBundle", f'"{size} bytes"', "local APIServices may not have a caBundle")
        if skips:
            field = "spec.insecureSkipTLSVerify"
            invalid(field, "true", "local APIServices may not have insecureSkipTLSVerify")
        return causes
    causes += [
        Cause("FieldValueRequired", "Required value", f"spec.service.{field}")
        for field in ("namespace", "name")
        if not service.get(field)
    ]
    if not 1 <= service["port"] <= 65535:
        invalid("spec.service.port", service["port"], "port is not valid: must be between 1 and 65535, inclusive")
    if bundle and skips:
        invalid("spec.insecureSkipTLSVerify", "true", "may not be true if caBundle is present")
    return causes


def backend(obj: JsonObject) -> Backend | None:
    """The backend of a valid APIService; None for a local one."""
    spec = obj["spec"]
    service = spec.get("service")
    if not service:
        return None
    return Backend(
        name=obj["metadata"]["name"],
        group=spec["group"],
        version=spec["version"],
        namespace=service["namespace"],
        service=service["name"],
        port=service["port"],
        authority=base64.b64decode(spec.get("caBundle") or ""),
        verified=not spec.get("insecureSkipTLSVerify"),
        group_priority=spec["groupPriorityMinimum"],
        version_priority=spec["versionPriority"],
    )


def available(obj: JsonObject) -> bool:
    """Whether requests are passed on, as the status says."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Available" and one["status"] == "True" for one in conditions)


def obstacle(one: Backend, service: JsonObject | None, slices: Sequence[JsonObject]) -> Condition | None:
    """Why discovery need not even be asked; None when it has to be."""
    at = f'service/{one.service} in "{one.namespace}"'
    if service is None:
        return Condition("False", "ServiceNotFound", f"{at} is not present")
    if service["spec"].get("type", "ClusterIP") != "ClusterIP":
        return None
    name = _port_name(service, one.port)
    if name is None:
        return Condition("False", "ServicePortError", f"{at} is not listening on port {one.port}")
    if not slices:
        return Condition("False", "EndpointsNotFound", f"cannot find endpointslices for {at}")
    if not _addresses(name, slices):
        message = f'endpointslices for {at} have no addresses with port name "{name}"'
        return Condition("False", "MissingEndpoints", message)
    return None


def addresses(one: Backend, service: JsonObject | None, slices: Iterable[JsonObject]) -> list[tuple[str, int]]:
    """Where the backend listens: (address, port) of every ready endpoint."""
    if service is None or service["spec"].get("type", "ClusterIP") == "ExternalName":
        return []
    name = _port_name(service, one.port)
    return [] if name is None else _addresses(name, slices)


def _port_name(service: JsonObject, port: int) -> str | None:
    found = [held.get("name", "") for held in service["spec"].get("ports") or () if held["port"] == port]
    return found[0] if found else None


def _addresses(port_name: str, slices: Iterable[JsonObject]) -> list[tuple[str, int]]:
    return [
        (address, port["port"])
        for one in slices
        for port in one.get("ports") or ()
        if (port.get("name") or "") == port_name and port.get("port")
        for endpoint in one.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint["addresses"]
    ]


def check_slice(obj: JsonObject) -> list[Cause]:
    """What is wrong with an EndpointSlice: its kind of addresses, and addresses that are none."""
    kinds, kind = ("FQDN", "IPv4", "IPv6"), obj.get("addressType")
    if kind not in kinds:
        message = f'Unsupported value: "{kind or ""}": supported values: "FQDN", "IPv4", "IPv6"'
        reason = "FieldValueNotSupported" if kind else "FieldValueRequired"
        return [Cause(reason, message if kind else "Required value", "addressType")]
    causes = []
    for index, endpoint in enumerate(obj.get("endpoints") or ()):
        for at, address in enumerate(endpoint.get("addresses") or ()):
            if kind != "FQDN" and not _is_address(address, 4 if kind == "IPv4" else 6):
                message = f'Invalid value: "{address}": must be a valid {kind} address'
                causes.append(Cause("FieldValueInvalid", message, f"endpoints[{index}].addresses[{at}]"))
    return causes


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def described(resources: Iterable[JsonObject], group: str, version: str) -> list[JsonObject]:
    """An APIResourceList's entries in the form of aggregated discovery: subresources under their resource."""
    found: dict[str, JsonObject] = {}
    for one in resources:
        name, _, sub = str(one["name"]).partition("/")
        kind = {"group": one.get("group") or group, "version": one.get("version") or version, "kind": one["kind"]}
        entry: JsonObject = found.setdefault(name, {"resource": name})
        if sub:
            held = {"subresource": sub, "responseKind": kind, "verbs": one.get("verbs") or []}
            entry.setdefault("subresources", []).append(held)
            continue
        entry |= {
            "responseKind": kind,
            "scope": "Namespaced" if one.get("namespaced") else "Cluster",
            "singularResource": one.get("singularName", ""),
            "verbs": one.get("verbs") or [],
        }
        entry |= {key: one[key] for key in ("shortNames", "categories") if one.get(key)}
    return list(found.values())
