"""The contexts of the user's kubeconfig: their names, the current one, and the namespace that each defaults to.

Signing in is kube.kubeconfig's; this reads the little that only a command line asks for. Blocks.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

_LARGEST_FILE = 4 << 20
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Contexts(msgspec.Struct, frozen=True):
    """`namespaces` maps each context's name to its namespace; `current` is empty when no file names one."""

    current: str
    namespaces: dict[str, str]


def files(kubeconfig: str | None, environ: Mapping[str, str]) -> list[Path]:
    """The kubeconfig files that kubectl would read, in its order, whether they exist or not."""
    if kubeconfig is not None:
        return [Path(kubeconfig).expanduser()]
    named = [part for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return [Path(part).expanduser() for part in named or ["~/.kube/config"]]


def read(paths: list[Path]) -> Contexts:
    """Merge the files as kubectl does: the first one that names a thing wins. What cannot be read counts as empty;
    signing in will say what is wrong with it."""
    current, namespaces = "", dict[str, str]()
    for path in paths:
        document = _load(path)
        current = current or _text(document.get("current-context"))
        entries = document.get("contexts")
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and (name := _text(entry.get("name"))):
                context = entry.get("context")
                namespaces.setdefault(name, _text(context.get("namespace")) if isinstance(context, dict) else "")
    return Contexts(current, namespaces)


def default_namespace(kubeconfig: str | None, context: str | None, environ: Mapping[str, str]) -> str:
    """Where a command looks when no namespace is given: the context's, a pod's own, or `default`."""
    if uses_pod(kubeconfig, environ):
        try:
            return _POD_NAMESPACE.read_text("ascii").strip() or "default"
        except (OSError, UnicodeDecodeError):
            return "default"
    found = read(files(kubeconfig, environ))
    return found.namespaces.get(context or found.current, "") or "default"


def uses_pod(kubeconfig: str | None, environ: Mapping[str, str]) -> bool:
    """Whether a pod's service account signs in: as with kubectl, only where there is no kubeconfig at all."""
    if kubeconfig is not None or not environ.get("KUBERNETES_SERVICE_HOST"):
        return False
    return not any(path.exists() for path in files(None, environ))


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            document = yaml.safe_load(file.read(_LARGEST_FILE))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
