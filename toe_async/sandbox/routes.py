"""From a method and a path to what is asked: verb, resource, namespace, name, subresource. Pure."""

from urllib.parse import unquote

from msgspec import Struct

from toe_async.sandbox.rbac import Attributes

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get", "HEAD": "get", "DELETE": "delete"}
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


class Route(Struct, frozen=True):
    """One request, understood. `path` is set for what is no resource; then the other fields are empty."""

    verb: str
    path: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def scope(self) -> str:
        """The namespace that the objects live in; a Namespace object itself lives in none."""
        return "" if self.resource == "namespaces" else self.namespace

    def attributes(self) -> Attributes:
        """What RBAC is asked."""
        if self.path:
            return Attributes(self.verb, path=self.path)
        return Attributes(self.verb, self.group, self.resource, self.subresource, self.namespace, self.name)


def route(method: str, raw_path: str, query: dict[str, str]) -> Route:
    """Understand a request. Paths that are no resources keep the HTTP method as their verb."""
    plain = Route(method.lower(), raw_path)
    parts = [unquote(part) for part in raw_path.strip("/").split("/")]
    match parts:
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return plain
    namespace = ""
    if len(rest) >= 2 and rest[0] == "namespaces":
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
            rest = rest[2:]
    resource, name = rest[0], rest[1] if len(rest) > 1 else ""
    subresource = "/".join(rest[2:])
    verb = _VERBS.get(method, method.lower())
    if verb == "get" and not name:
        verb = "watch" if query.get("watch", "") in {"1", "true", "True"} else "list"
        name = _named_by_field(query.get("fieldSelector", ""))
    elif verb == "delete" and not name:
        verb = "deletecollection"
    return Route(verb, "", group, version, resource, namespace, name, subresource)


def _named_by_field(selector: str) -> str:
    """A list of one named object may be allowed by a rule with that resource name."""
    for term in selector.split(","):
        path, found, value = term.partition("=")
        if found and path == "metadata.name":
            return value.lstrip("=")
    return ""
