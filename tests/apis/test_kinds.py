"""Where an API server keeps things."""

import pytest

from toe_async.apis.kinds import CRDS, LEASES, NODES, PODS, PROFILING_CONFIGS, SERVICE_ACCOUNTS, Kind


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (PODS.path(), "/api/v1/pods"),
        (PODS.path("ns"), "/api/v1/namespaces/ns/pods"),
        (PODS.path("ns", "a"), "/api/v1/namespaces/ns/pods/a"),
        (PODS.path("ns", "a", "portforward"), "/api/v1/namespaces/ns/pods/a/portforward"),
        (NODES.path(name="n1"), "/api/v1/nodes/n1"),
        (LEASES.path("ns", "l"), "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l"),
        (CRDS.path(), "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"),
        (
            PROFILING_CONFIGS.path("ns", "a", "status"),
            "/apis/profiling.io/v1alpha1/namespaces/ns/profilingconfigs/a/status",
        ),
        (SERVICE_ACCOUNTS.path("ns", "a", "token"), "/api/v1/namespaces/ns/serviceaccounts/a/token"),
    ],
)
def test_paths_follow_the_api_servers_layout(path: str, expected: str) -> None:
    """Core kinds live under /api, all others under /apis; the namespace comes before the plural."""
    assert path == expected


@pytest.mark.parametrize("name", ["../secrets/x", "a?watch=1", "a#b", "a%2f", "ä", "a b"])
def test_a_name_cannot_leave_its_segment(name: str) -> None:
    """Whatever the name, the path keeps its number of segments and holds no query or fragment."""
    path = PODS.path("ns", name)
    assert path.count("/") == PODS.path("ns", "a").count("/")
    assert not set("?# ") & set(path)
    assert path.isascii()


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_vanish_from_the_path_is_refused(name: str) -> None:
    """A dot segment or an empty one would address something else."""
    with pytest.raises(ValueError, match="segment"):
        PODS.path("ns", name)


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "subresource"),
    [(NODES, "ns", None, ""), (PODS, None, "a", ""), (PODS, "ns", None, "status")],
    ids=["a namespace for a cluster-wide kind", "a name without its namespace", "a subresource without a name"],
)
def test_a_path_that_cannot_be_is_refused(
    kind: Kind, namespace: str | None, name: str | None, subresource: str
) -> None:
    """These would silently address a collection or another object."""
    with pytest.raises(ValueError, match=kind.plural):
        kind.path(namespace, name, subresource)


def test_names_that_kubectl_accepts_are_derived_from_the_kind() -> None:
    """The CRD and RBAC use the same ones."""
    assert (PROFILING_CONFIGS.api_version, PROFILING_CONFIGS.crd_name) == (
        "profiling.io/v1alpha1",
        "profilingconfigs.profiling.io",
    )
    assert (PROFILING_CONFIGS.singular, PROFILING_CONFIGS.list_kind) == ("profilingconfig", "ProfilingConfigList")
    assert (PODS.api_version, PODS.crd_name) == ("v1", "pods")
