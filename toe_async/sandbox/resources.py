"""Which resources are served: the built-in ones in a table, those of CustomResourceDefinitions as they come."""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from toe_async.sandbox.schema import Structural

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")


class Column(Struct, frozen=True):
    """A printer column of a custom resource; `path` is JSONPath as in the CRD."""

    name: str
    type: str
    path: str
    priority: int = 0
    format: str = ""
    description: str = ""


class Resource(Struct, frozen=True, eq=False):
    """One served resource and the rules that hold for all its objects.

    `generation`: spec changes are counted. `unconditional`: a PUT without resourceVersion is allowed. `virtual`: never
    stored (reviews and metrics). A custom resource has a `schema`; nothing else does.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[str, ...] = ()
    generation: bool = False
    unconditional: bool = True
    virtual: bool = False
    fields: tuple[str, ...] = ()
    schema: Structural | None = None
    columns: tuple[Column, ...] = ()

    @property
    def api_version(self) -> str:
        """`group/version`, or the bare version in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def custom(self) -> bool:
        """Whether a CustomResourceDefinition made it."""
        return self.schema is not None

    @property
    def has_status(self) -> bool:
        """Whether status is written through its own subresource only."""
        return "status" in self.subresources

    @property
    def storage_key(self) -> tuple[str, str]:
        """Where its objects are kept."""
        return (self.group, self.plural)


def _core(
    plural: str,
    kind: str,
    *short: str,
    fields: tuple[str, ...] = (),
    subresources: tuple[str, ...] = (),
    namespaced: bool = True,
    generation: bool = False,
    verbs: tuple[str, ...] = ALL_VERBS,
) -> Resource:
    return Resource("", "v1", plural, kind, namespaced, kind.lower(), f"{kind}List", short, fields=fields,
                    subresources=subresources, generation=generation, verbs=verbs)  # fmt: skip


def _review(group: str, plural: str, kind: str) -> Resource:
    return Resource(group, "v1", plural, kind, False, kind.lower(), verbs=("create",), virtual=True)


def _rbac(plural: str, kind: str, *, namespaced: bool) -> Resource:
    return Resource("rbac.authorization.k8s.io", "v1", plural, kind, namespaced, kind.lower(), f"{kind}List")


_EVENT_FIELDS = (
    "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
    "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
    "reason", "reportingComponent", "source", "type",
)  # fmt: skip
_POD_FIELDS = (
    "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
    "status.phase", "status.podIP", "status.nominatedNodeName",
)  # fmt: skip
_NO_COLLECTION = ("create", "delete", "get", "list", "patch", "update", "watch")

PODS = _core(
    "pods",
    "Pod",
    "po",
    fields=_POD_FIELDS,
    generation=True,
    subresources=("status", "log", "portforward", "attach", "exec", "ephemeralcontainers"),
)
NAMESPACES = _core("namespaces", "Namespace", "ns", fields=("status.phase",), subresources=("status", "finalize"),
                   namespaced=False, verbs=_NO_COLLECTION)  # fmt: skip
NODES = _core("nodes", "Node", "no", fields=("spec.unschedulable",), subresources=("status",), namespaced=False)
SECRETS = _core("secrets", "Secret", fields=("type",))
SERVICE_ACCOUNTS = _core("serviceaccounts", "ServiceAccount", "sa", subresources=("token",))
EVENTS = _core("events", "Event", "ev", fields=_EVENT_FIELDS)
CONFIG_MAPS = _core("configmaps", "ConfigMap", "cm")
CLAIMS = _core("persistentvolumeclaims", "PersistentVolumeClaim", "pvc", subresources=("status",))
SERVICES = _core("services", "Service", "svc", subresources=("status",))
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", True, "lease", "LeaseList", unconditional=False)
ROLES = _rbac("roles", "Role", namespaced=True)
ROLE_BINDINGS = _rbac("rolebindings", "RoleBinding", namespaced=True)
CLUSTER_ROLES = _rbac("clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = _rbac("clusterrolebindings", "ClusterRoleBinding", namespaced=False)
POLICIES = Resource(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False,
    "validatingadmissionpolicy", "ValidatingAdmissionPolicyList", subresources=("status",), generation=True,
)  # fmt: skip
POLICY_BINDINGS = Resource(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding",
    False, "validatingadmissionpolicybinding", "ValidatingAdmissionPolicyBindingList", generation=True,
)  # fmt: skip
CRDS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False,
    "customresourcedefinition", "CustomResourceDefinitionList", ("crd", "crds"), ("api-extensions",),
    subresources=("status",), generation=True, unconditional=False,
)  # fmt: skip
APISERVICES = Resource(
    "apiregistration.k8s.io", "v1", "apiservices", "APIService", False, "apiservice", "APIServiceList",
    categories=("api-extensions",), subresources=("status",), unconditional=False,
)  # fmt: skip
ENDPOINT_SLICES = Resource(
    "discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True, "endpointslice", "EndpointSliceList",
    generation=True,
)  # fmt: skip
TOKEN_REVIEWS = _review("authentication.k8s.io", "tokenreviews", "TokenReview")
SELF_REVIEWS = _review("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview")
ACCESS_REVIEWS = _review("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview")
SELF_ACCESS_REVIEWS = _review("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview")
POD_METRICS = Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics", True, "", "PodMetricsList",
                       verbs=("get", "list"), virtual=True)  # fmt: skip
NODE_METRICS = Resource("metrics.k8s.io", "v1beta1", "nodes", "NodeMetrics", False, "", "NodeMetricsList",
                        verbs=("get", "list"), virtual=True)  # fmt: skip

BUILT_IN = (
    CONFIG_MAPS, CLAIMS, EVENTS, NAMESPACES, NODES, PODS, SECRETS, SERVICE_ACCOUNTS, SERVICES, LEASES, ROLES,
    ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS, POLICIES, POLICY_BINDINGS, CRDS, APISERVICES, ENDPOINT_SLICES,
    TOKEN_REVIEWS, SELF_REVIEWS, ACCESS_REVIEWS, SELF_ACCESS_REVIEWS, POD_METRICS, NODE_METRICS,
)  # fmt: skip


class Registry:
    """The resources served at this moment."""

    def __init__(self, resources: Iterable[Resource] = BUILT_IN) -> None:
        self._held = {(one.group, one.version, one.plural): one for one in resources}

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._held.values())

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource of a path, if it is served."""
        return self._held.get((group, version, plural))

    def stored(self, key: tuple[str, str]) -> Resource | None:
        """The resource whose objects are kept under a storage key."""
        return next((one for one in self._held.values() if one.storage_key == key and not one.virtual), None)

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        """The stored resource of an object or owner reference."""
        for one in self._held.values():
            if one.kind == kind and one.api_version == api_version and not one.virtual:
                return one
        return None

    def add(self, resource: Resource) -> None:
        """Serve a resource, in place of an older definition of the same."""
        self._held[resource.group, resource.version, resource.plural] = resource

    def drop(self, group: str, plural: str) -> None:
        """Serve a resource no more, in any version."""
        for key in [key for key in self._held if (key[0], key[2]) == (group, plural)]:
            del self._held[key]

    def versions(self) -> dict[str, list[str]]:
        """Group -> versions, core group first, in the order of registration."""
        found: dict[str, list[str]] = {"": ["v1"]}
        for group, version, _ in self._held:
            versions = found.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return found
