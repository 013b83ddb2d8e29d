"""A container's command line and environment, from its spec. Pure but for the interpreter's place on disk."""

import base64
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from toe_async.sandbox.reaper import MARKER
from toe_async.sandbox.status import JsonObject

LOOPBACK = "POD_LOOPBACK"
"""Names the address that plays 127.0.0.1 inside the pod: pods share the machine's network, so each has its own."""

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Lookup = Callable[[str, str], JsonObject | None]
"""From (plural, name) to a Secret or ConfigMap of the pod's namespace."""


class ConfigError(Exception):
    """A container cannot be configured; the message is what its waiting state says."""


def command(container: JsonObject, env: Mapping[str, str]) -> tuple[str, ...]:
    """The argument vector. Raises ConfigError without a command: the sandbox has no images to take one from."""
    argv = [*(container.get("command") or ()), *(container.get("args") or ())]
    if not container.get("command"):
        raise ConfigError(
            "no command specified: the sandbox runs local programs, not images; give the container a command"
        )
    return tuple(_expand(one, env) for one in argv)


def environment(pod: JsonObject, container: JsonObject, address: str, marker: str, lookup: Lookup) -> dict[str, str]:
    """The whole environment of a container. Raises ConfigError for a reference to what is not there."""
    env = {
        "PATH": f"{Path(sys.executable).parent}:{_SYSTEM_PATH}",
        "HOME": "/",
        "HOSTNAME": pod["metadata"]["name"],
        LOOPBACK: address,
    }
    for one in container.get("env") or ():
        if (source := one.get("valueFrom")) is not None:
            value = _from(source, pod, address, lookup)
            if value is not None:
                env[one["name"]] = value
        else:
            env[one["name"]] = _expand(str(one.get("value", "")), env)
    env[MARKER] = marker
    return env


def _from(source: JsonObject, pod: JsonObject, address: str, lookup: Lookup) -> str | None:
    if (field := source.get("fieldRef")) is not None:
        return _field(pod, str(field["fieldPath"]), address)
    for kind, plural in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
        if (ref := source.get(kind)) is not None:
            held = lookup(plural, ref["name"])
            value = ((held or {}).get("data") or {}).get(ref["key"])
            if value is not None:
                return base64.b64decode(value).decode() if plural == "secrets" else str(value)
            if ref.get("optional"):
                return None
            what = f'{plural[:-1]} "{ref["name"]}" not found'
            raise ConfigError(
                what if held is None else f"couldn't find key {ref['key']} in {what.split(maxsplit=1)[0]} {ref['name']}"
            )
    raise ConfigError("the sandbox knows fieldRef, secretKeyRef and configMapKeyRef only")


def _field(pod: JsonObject, path: str, address: str) -> str:
    if path in {"status.podIP", "status.podIPs"}:
        return address
    if path == "status.hostIP":
        return "127.0.0.1"
    if (keyed := re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)) is not None:
        return str((pod["metadata"].get(keyed[1]) or {}).get(keyed[2], ""))
    value: object = pod
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, str | int):
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(value)


def _expand(text: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` as Kubernetes expands it: unknown names stay as they are, `$$` is one dollar."""

    def replaced(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return env.get(match[1], match[0])

    return _REFERENCE.sub(replaced, text)
