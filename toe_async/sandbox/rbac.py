"""Who may do what: RBAC over the Role and binding objects in the store, as the real authorizer decides."""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from toe_async.sandbox.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES
from toe_async.sandbox.status import JsonObject, Refusal, forbidden, forbidden_path
from toe_async.sandbox.store import Key, Store

MASTERS = "system:masters"


class User(Struct, frozen=True):
    """Who asks, as authentication found out."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, list[str]] = {}


ANONYMOUS = User("system:anonymous", groups=("system:unauthenticated",))


class Attributes(Struct, frozen=True):
    """What is asked: a verb on a resource, or on a path when `path` is given."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


class Verdict(Struct, frozen=True):
    """Allowed or not; `reason` names the rule that allowed it."""

    allowed: bool
    reason: str = ""


def authorize(store: Store, user: User, want: Attributes) -> Verdict:
    """Decide. Nothing denies: what no rule allows is not allowed."""
    if MASTERS in user.groups:
        return Verdict(True)
    for binding, rules, where in _rules(store, user, want.namespace):
        if any(_covers(rule, want) for rule in rules):
            return Verdict(True, f"RBAC: allowed by {binding}{where}")
    return Verdict(False)


def refusal(user: User, want: Attributes) -> Refusal:
    """The 403 for a request that is not allowed."""
    if want.path:
        return forbidden_path(user.name, want.verb, want.path)
    resource = f"{want.resource}/{want.subresource}" if want.subresource else want.resource
    scope = f'in the namespace "{want.namespace}"' if want.namespace else "at the cluster scope"
    why = f'User "{user.name}" cannot {want.verb} resource "{resource}" in API group "{want.group}" {scope}'
    return forbidden(want.group, want.resource, want.name, why)


def _rules(store: Store, user: User, namespace: str) -> Iterator[tuple[str, list[JsonObject], str]]:
    for item in store.collection(CLUSTER_ROLE_BINDINGS).items.values():
        if (subject := _subject(item.obj, user, "")) is not None:
            yield _named(store, "ClusterRoleBinding", item.obj, subject)
    if namespace:
        for item in store.collection(ROLE_BINDINGS).items.values():
            if item.key.namespace == namespace and (subject := _subject(item.obj, user, namespace)) is not None:
                yield _named(store, "RoleBinding", item.obj, subject)


def _named(store: Store, kind: str, binding: JsonObject, subject: str) -> tuple[str, list[JsonObject], str]:
    meta, ref = binding["metadata"], binding["roleRef"]
    namespace = meta.get("namespace", "") if ref["kind"] == "Role" else ""
    role = store.get(ROLES if ref["kind"] == "Role" else CLUSTER_ROLES, Key(namespace, ref["name"]))
    rules = (role.obj.get("rules") or []) if role is not None else []
    name = f"{meta['name']}/{meta['namespace']}" if kind == "RoleBinding" else meta["name"]
    return f'{kind} "{name}"', rules, f' of {ref["kind"]} "{ref["name"]}" to {subject}'


def _subject(binding: JsonObject, user: User, namespace: str) -> str | None:
    for one in binding.get("subjects") or ():
        name = one["name"]
        match one["kind"]:
            case "User" if name == user.name:
                return f'User "{name}"'
            case "Group" if name in user.groups:
                return f'Group "{name}"'
            case "ServiceAccount":
                owner = one.get("namespace") or namespace
                if user.name == f"system:serviceaccount:{owner}:{name}":
                    return f'ServiceAccount "{name}/{owner}"'
    return None


def _covers(rule: JsonObject, want: Attributes) -> bool:
    if not _has(rule.get("verbs"), want.verb):
        return False
    if want.path:
        return any(_path_fits(one, want.path) for one in rule.get("nonResourceURLs") or ())
    names = rule.get("resourceNames")
    return (
        _has(rule.get("apiGroups"), want.group)
        and any(_resource_fits(one, want) for one in rule.get("resources") or ())
        and (not names or want.name in names)
    )


def _has(held: Iterable[str] | None, wanted: str) -> bool:
    values = list(held or ())
    return "*" in values or wanted in values


def _resource_fits(held: str, want: Attributes) -> bool:
    if held == "*":
        return True
    full = f"{want.resource}/{want.subresource}" if want.subresource else want.resource
    return held == full or (bool(want.subresource) and held == f"*/{want.subresource}")


def _path_fits(held: str, path: str) -> bool:
    return held == path or (held.endswith("*") and path.startswith(held[:-1]))


def _rule(groups: list[str], names: list[str], verbs: list[str]) -> JsonObject:
    return {"apiGroups": groups, "resources": names, "verbs": verbs}


_DISCOVERY = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", "/version", "/version/", "/healthz",
              "/livez", "/readyz"]  # fmt: skip
_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_VIEWED = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "pods/log",
    "pods/status",
    "serviceaccounts",
    "services",
    "events",
    "namespaces",
]
_EDITED = ["configmaps", "persistentvolumeclaims", "pods", "secrets", "serviceaccounts", "services", "events"]
_AUTHENTICATED = ("Group", "system:authenticated")

BOOTSTRAP_ROLES: dict[str, list[JsonObject]] = {
    "cluster-admin": [_rule(["*"], ["*"], ["*"]), {"nonResourceURLs": ["*"], "verbs": ["*"]}],
    "system:discovery": [{"nonResourceURLs": _DISCOVERY, "verbs": ["get"]}],
    "system:public-info-viewer": [
        {"nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"], "verbs": ["get"]}
    ],
    "system:basic-user": [
        _rule(["authorization.k8s.io"], ["selfsubjectaccessreviews"], ["create"]),
        _rule(["authentication.k8s.io"], ["selfsubjectreviews"], ["create"]),
    ],
    "system:auth-delegator": [
        _rule(["authentication.k8s.io"], ["tokenreviews"], ["create"]),
        _rule(["authorization.k8s.io"], ["subjectaccessreviews"], ["create"]),
    ],
    "view": [_rule([""], _VIEWED, _READ)],
    "edit": [
        _rule([""], sorted({*_VIEWED, *_EDITED}), _READ),
        _rule([""], _EDITED, _WRITE),
        _rule([""], ["pods/portforward", "pods/attach", "pods/exec"], ["get", "create"]),
    ],
}
"""The roles that a fresh cluster has, as far as discovery, kubectl and our manifests lean on them."""

AUTHENTICATION_CONFIG = "extension-apiserver-authentication"
"""The ConfigMap in kube-system that tells aggregated APIs whose word to take for who asks."""

AUTHENTICATION_READER = [
    {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [AUTHENTICATION_CONFIG], "verbs": _READ}
]
"""The Role `extension-apiserver-authentication-reader` beside it."""

BOOTSTRAP_BINDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "cluster-admin": (("Group", MASTERS),),
    "system:discovery": (_AUTHENTICATED,),
    "system:basic-user": (_AUTHENTICATED,),
    "system:public-info-viewer": (_AUTHENTICATED, ("Group", "system:unauthenticated")),
}
