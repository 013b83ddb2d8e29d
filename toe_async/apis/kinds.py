"""Which resources we talk about and where an API server keeps them: one descriptor a kind, for requests and CRDs."""

from urllib.parse import quote

from msgspec import Struct


class Kind(Struct, frozen=True):
    """One resource of the Kubernetes API. `path` never lets a name leave its segment: everything is percent-quoted."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """`group/version`, or the bare version for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        """The name kubectl accepts beside the plural."""
        return self.kind.lower()

    @property
    def list_kind(self) -> str:
        """The kind of a list of these."""
        return f"{self.kind}List"

    @property
    def crd_name(self) -> str:
        """`plural.group`: the CustomResourceDefinition's name, and how messages name the resource."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_service(self) -> str:
        """`version.group`: the name of the APIService by which an API server has the kind served elsewhere."""
        return f"{self.version}.{self.group}"

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """The URL path of a collection, an object or its subresource.

        `namespace=None` for a namespaced kind is the collection over all namespaces. Raises ValueError for a namespace
        given to a cluster-wide kind, an empty name, and a subresource without a name.
        """
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace is not None:
            if not self.namespaced:
                raise ValueError(f"{self.crd_name} is cluster-wide, yet namespace {namespace!r} was given")
            parts += ["namespaces", _segment(namespace)]
        parts.append(self.plural)
        if name is not None:
            if self.namespaced and namespace is None:
                raise ValueError(f"{self.crd_name} {name!r} needs its namespace")
            parts.append(_segment(name))
        if subresource:
            if name is None:
                raise ValueError(f"subresource {subresource!r} of {self.crd_name} needs an object's name")
            parts += [_segment(part) for part in subresource.split("/")]
        return "/".join(parts)


def _segment(text: str) -> str:
    if text in {"", ".", ".."}:
        raise ValueError(f"{text!r} cannot be one segment of an API path")
    return quote(text, safe="")


PODS = Kind("", "v1", "pods", "Pod", short_names=("po",))
NODES = Kind("", "v1", "nodes", "Node", namespaced=False, short_names=("no",))
NAMESPACES = Kind("", "v1", "namespaces", "Namespace", namespaced=False, short_names=("ns",))
EVENTS = Kind("", "v1", "events", "Event", short_names=("ev",))
SECRETS = Kind("", "v1", "secrets", "Secret")
CONFIG_MAPS = Kind("", "v1", "configmaps", "ConfigMap", short_names=("cm",))
SERVICES = Kind("", "v1", "services", "Service", short_names=("svc",))
SERVICE_ACCOUNTS = Kind("", "v1", "serviceaccounts", "ServiceAccount", short_names=("sa",))
LEASES = Kind("coordination.k8s.io", "v1", "leases", "Lease")
TOKEN_REVIEWS = Kind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
SUBJECT_ACCESS_REVIEWS = Kind(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
ROLES = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
CLUSTER_ROLES = Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = Kind(
    "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)
POD_METRICS = Kind("metrics.k8s.io", "v1beta1", "pods", "PodMetrics")
POLICIES = Kind(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False
)
POLICY_BINDINGS = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)
CRDS = Kind(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
    short_names=("crd", "crds"),
)
API_SERVICES = Kind("apiregistration.k8s.io", "v1", "apiservices", "APIService", namespaced=False)

PROFILING_CONFIGS = Kind("profiling.io", "v1alpha1", "profilingconfigs", "ProfilingConfig", short_names=("pc", "prof"))
BOLOMETER_CONFIGS = Kind("bolometer.io", "v1alpha1", "profilingconfigs", "ProfilingConfig", short_names=("bpc",))

POWER_TOOLS = Kind("codriverlabs.ai.toe.run", "v1alpha1", "powertools", "PowerTool", short_names=("pt",))
POWER_TOOL_CONFIGS = Kind(
    "codriverlabs.ai.toe.run", "v1alpha1", "powertoolconfigs", "PowerToolConfig", short_names=("ptc",)
)

ARTIFACTS = Kind("artifacts.toe.run", "v1alpha1", "artifacts", "Artifact", short_names=("art",))
"""Served by the collector, not by a CRD."""
