"""What a sandbox runs of this checkout: the objects of its deploy/, and pods whose containers are its own modules."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
RIGHTS = (
    "foundation/namespaces.yaml",
    "program/service-accounts.yaml",
    "program/rbac-operator.yaml",
    "program/rbac-collector.yaml",
    "program/admission-policy.yaml",
    "program/admission-policy-powertools.yaml",
    "program/admission-policy-operator.yaml",
)
"""The files of deploy/ that say where operator and collector run and what they may do."""
_LEFT_OUT = {"Deployment"}  # the sandbox has none: their pods are made here

Object = dict[str, Any]
_RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What the namespace of operator and collector asks of every container."""


def deployed(names: Iterable[str]) -> list[Object]:
    """The objects in files of deploy/, in their order, Deployments left out.

    Raises:
        FileNotFoundError: the program runs from an installation, which has no deploy/.
    """
    texts = ((ROOT / "deploy" / name).read_text() for name in names)
    return [one for text in texts for one in yaml.safe_load_all(text) if one and one["kind"] not in _LEFT_OUT]


def python_pod(namespace: str, name: str, command: list[str], *, profiled: bool = False, **container: Any) -> Object:
    """A pod with one container that runs a Python module with its arguments; $(POD_IP) in them is its address.

    `profiled`: it opts in to being profiled. `container` are further fields of the container.
    """
    annotations = {"profiling.io/enabled": "true"} if profiled else {}
    env = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "PYTHONPATH", "value": str(ROOT)},
    ]
    only = {
        "name": name,
        "image": "this-checkout",
        "command": [sys.executable, "-m", *command],
        "env": env,
        "securityContext": _RESTRICTED,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}, "annotations": annotations},
        "spec": {"containers": [{**only, **container}]},
    }


def http_probe(path: str, port: int) -> Object:
    """A probe of a container, one every second."""
    return {"httpGet": {"path": path, "port": port}, "periodSeconds": 1}
