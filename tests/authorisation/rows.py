"""The rows of the authorisation table: who wants to create what where, and what the oracle says to it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
PROGRAM = HERE.parents[1] / "deploy" / "program"
TOOLS = ("aperf", "tcpdump", "perf", "strace", "py-spy", "chaos")
PLACES = {
    "PowerTool": ("own", "granting", "closed", "own>granting", "own>closed"),
    "ProfilingConfig": ("own", "granting", "closed"),
    "PowerToolConfig": ("own", "granting", "closed", "system"),
}
SAID = {
    "container": "you may not do that in namespace {namespace}: ask for the right to patch pods/ephemeralcontainers",
    "use": "you may not use the tool {tool}: ask for the verb use on powertoolconfigs/{tool} in namespace toe-system",
    "forward": "you may not do that in namespace {namespace}: ask for the right to create pods/portforward there",
}
"""A part of the sentence with which each rule refuses."""

Object = dict[str, Any]


@dataclass(frozen=True)
class Places:
    """The namespaces that the table's words stand for."""

    own: str
    granting: str
    closed: str
    system: str = "toe-system"


@dataclass(frozen=True)
class Row:
    """One decision. `name` is the object's, so that an answer can be told to its row."""

    name: str
    role: str
    kind: str
    tool: str
    place: str
    expected: str

    def namespace(self, places: Places) -> str:
        found: str = getattr(places, self.place.partition(">")[0])
        return found

    def said(self, places: Places) -> str:
        """What the refusal of a policy must say."""
        return SAID[self.expected].format(namespace=self.namespace(places), tool=self.tool)

    def body(self, places: Places) -> Object:
        """The object to be created."""
        group = "profiling.io" if self.kind == "ProfilingConfig" else "codriverlabs.ai.toe.run"
        return {
            "apiVersion": f"{group}/v1alpha1",
            "kind": self.kind,
            "metadata": {"name": self.name, "namespace": self.namespace(places)},
            "spec": self._spec(places),
        }

    def _spec(self, places: Places) -> Object:
        if self.kind == "ProfilingConfig":
            return {"collector": {}}
        if self.kind == "PowerToolConfig":
            return {"name": self.tool, "image": f"registry.example/{self.tool}:1", "securityContext": {}}
        targets: Object = {"labelSelector": {"matchLabels": {"app": "web"}}}
        if other := self.place.partition(">")[2]:
            targets["namespaceSelector"] = {"matchNames": [getattr(places, other)]}
        return {"targets": targets, "tool": {"name": self.tool, "duration": "30s"}, "output": {"mode": "collector"}}


def rows() -> list[Row]:
    """All of them."""
    oracle = yaml.safe_load((HERE / "oracle.yaml").read_text())
    found: list[Row] = []
    for role in users():
        for kind, places in PLACES.items():
            said = oracle[role].get(kind, {})
            assert set(said) <= set(places), (role, kind)
            for place in places:
                verdict = said.get(place, "rbac")
                for tool in TOOLS if kind != "ProfilingConfig" else ("",):
                    one = verdict if isinstance(verdict, str) else verdict.get(tool, verdict["else"])
                    found.append(Row(f"row-{len(found)}", role, kind, tool, place, one))
    return found


@cache
def _loaded() -> Object:
    found: Object = yaml.safe_load((HERE / "roles.yaml").read_text())
    return found


def users() -> dict[str, str]:
    """Role -> the user's name."""
    found: dict[str, str] = _loaded()["users"]
    return found


def rbac(places: Places) -> Iterator[Object]:
    """The RBAC objects of roles.yaml."""
    loaded = _loaded()
    words = {"OWN": places.own, "CLOSED": places.closed}
    for role in loaded["roles"]:
        yield _rbac("ClusterRole", role["name"], rules=role["rules"])
    for number, (user, role, where) in enumerate(loaded["bindings"]):
        subject = {"kind": "User", "name": loaded["users"][user], "apiGroup": "rbac.authorization.k8s.io"}
        kind, _, name = role.rpartition("/")
        ref = {"kind": kind or "ClusterRole", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
        scope = "" if where == "*" else words.get(where, where)
        bound = "RoleBinding" if scope else "ClusterRoleBinding"
        yield _rbac(bound, f"toe-authz-{number}", namespace=scope, subjects=[subject], roleRef=ref)


def _rbac(kind: str, name: str, *, namespace: str = "", **more: Any) -> Object:
    meta = {"name": name, "labels": {"toe-authz": "rows"}, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": meta, **more}


def manifests(*names: str) -> Iterator[Object]:
    """The objects of files of deploy/program."""
    for name in names:
        yield from yaml.safe_load_all((PROGRAM / name).read_text())
