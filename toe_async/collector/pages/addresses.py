"""Addresses of our own pages, made from names of any kind. Pure."""

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from toe_async.collector.pages.artifacts import Artifact


def artifact(one: Artifact, view: str = "") -> str:
    """Where an artifact's page is, or one of its views."""
    return page(one.namespace, one.name, view)


def page(namespace: str, name: str, view: str = "") -> str:
    """The same for one that is known by its name alone."""
    base = f"/ui/artifacts/{quote(namespace, safe='', errors='replace')}/{quote(name, safe='', errors='replace')}"
    return f"{base}/{view}" if view else base


def diff(later: Artifact, earlier: Artifact) -> str:
    """Where one shows what changed since another."""
    return asked(artifact(later, "diff"), {"base": earlier.key})


def asked(path: str, fields: Mapping[str, str]) -> str:
    """A path with a query; empty fields are left out."""
    given = {key: value for key, value in fields.items() if value}
    return f"{path}?{urlencode(given, safe='/', errors='replace')}" if given else path
