"""Rules of `pods/ephemeralcontainers`: what may be added to a running pod, in the real server's words. Pure.

Nothing that is there can be changed or removed, only containers be added; every field that makes a container part of
the workload is refused. What changes through this subresource is `spec.ephemeralContainers` alone: whatever else a
body says is passed over.
"""

import re
from collections.abc import Iterator

from toe_async.sandbox.status import Cause, JsonObject

SUBRESOURCE = "ephemeralcontainers"
MIRROR = "kubernetes.io/config.mirror"

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NOT_FOR_THEM = (
    "ports", "resources", "resizePolicy", "restartPolicy", "restartPolicyRules", "livenessProbe", "readinessProbe",
    "startupProbe", "lifecycle",
)  # fmt: skip
_REFUSED = "Forbidden: cannot be set for an Ephemeral Container"
_MESSAGE_POLICIES = ("File", "FallbackToLogsOnError")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")


def only(old: JsonObject, wanted: JsonObject) -> JsonObject:
    """The old pod with the ephemeral containers of the wanted one."""
    spec = {name: value for name, value in old["spec"].items() if name != "ephemeralContainers"}
    if listed := (wanted.get("spec") or {}).get("ephemeralContainers"):
        spec["ephemeralContainers"] = listed
    meta = dict(old["metadata"])
    if "managedFields" in wanted["metadata"]:
        meta["managedFields"] = wanted["metadata"]["managedFields"]
    return {**old, "metadata": meta, "spec": spec}


def check(obj: JsonObject, old: JsonObject) -> list[Cause]:
    """What is wrong with the ephemeral containers of a pod that had those of `old`."""
    causes = list(_check_all(obj["spec"]))
    if MIRROR in (obj["metadata"].get("annotations") or {}):
        causes.append(Cause("FieldValueForbidden", "Forbidden: static pods do not support ephemeral containers", "[]"))
    held = {one.get("name", ""): one for one in obj["spec"].get("ephemeralContainers") or ()}
    for one in old["spec"].get("ephemeralContainers") or ():
        name = one["name"]
        if name not in held:
            message = f'Forbidden: existing ephemeral containers "{name}" may not be removed\n'
            causes.append(Cause("FieldValueForbidden", message, "spec.ephemeralContainers"))
        elif held[name] != one:
            changed = sorted(field for field in {*held[name], *one} if held[name].get(field) != one.get(field))
            message = f'Forbidden: existing ephemeral containers "{name}" may not be changed\n{", ".join(changed)}\n'
            causes.append(Cause("FieldValueForbidden", message, "spec.ephemeralContainers"))
    return causes


def _check_all(spec: JsonObject) -> Iterator[Cause]:
    targets = {one["name"] for kind in ("containers", "initContainers") for one in spec.get(kind) or ()}
    volumes = {one["name"] for one in spec.get("volumes") or ()}
    names = set(targets)
    for index, one in enumerate(spec.get("ephemeralContainers") or ()):
        path = f"spec.ephemeralContainers[{index}]"
        yield from check_name(one.get("name", ""), f"{path}.name")
        if not one.get("image"):
            yield _required(f"{path}.image")
        yield from _check_choices(one, path)
        for number, variable in enumerate(one.get("env") or ()):
            if not variable.get("name"):
                yield _required(f"{path}.env[{number}].name")
        yield from check_mounts(one, volumes, path)
        if one.get("name") in names:
            yield Cause("FieldValueDuplicate", f'Duplicate value: "{one["name"]}"', f"{path}.name")
        names.add(one.get("name", ""))
        target = one.get("targetContainerName", "")
        if target and target not in targets:
            yield Cause("FieldValueNotFound", f'Not found: "{target}"', f"{path}.targetContainerName")
        for field in _NOT_FOR_THEM:
            if one.get(field):
                yield Cause("FieldValueForbidden", _REFUSED, f"{path}.{field}")
        for number, mount in enumerate(one.get("volumeMounts") or ()):
            for field in ("subPath", "subPathExpr"):
                if mount.get(field):
                    yield Cause("FieldValueForbidden", _REFUSED, f"{path}.volumeMounts[{number}].{field}")


def check_name(name: str, path: str) -> Iterator[Cause]:
    """A container's name is a DNS label."""
    if not name:
        yield _required(path)
    elif len(name) > 63:
        yield Cause("FieldValueInvalid", f'Invalid value: "{name}": must be no more than 63 characters', path)
    elif not re.fullmatch(_LABEL, name):
        message = (
            f'Invalid value: "{name}": a lowercase RFC 1123 label must consist of lower case alphanumeric characters '
            "or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', "
            f"regex used for validation is '{_LABEL}')"
        )
        yield Cause("FieldValueInvalid", message, path)


def check_mounts(container: JsonObject, volumes: set[str], path: str) -> Iterator[Cause]:
    """Mounts name a volume of the pod, and each has a path of its own."""
    seen: set[str] = set()
    for number, mount in enumerate(container.get("volumeMounts") or ()):
        at, name, where = f"{path}.volumeMounts[{number}]", mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            yield _required(f"{at}.name")
        if name not in volumes:
            yield Cause("FieldValueNotFound", f'Not found: "{name}"', f"{at}.name")
        if not where:
            yield _required(f"{at}.mountPath")
        elif where in seen:
            yield Cause("FieldValueInvalid", f'Invalid value: "{where}": must be unique', f"{at}.mountPath")
        seen.add(where)


def _check_choices(one: JsonObject, path: str) -> Iterator[Cause]:
    for field, allowed in (("terminationMessagePolicy", _MESSAGE_POLICIES), ("imagePullPolicy", _PULL_POLICIES)):
        if one[field] not in allowed:
            listed = ", ".join(f'"{value}"' for value in allowed)
            message = f'Unsupported value: "{one[field]}": supported values: {listed}'
            yield Cause("FieldValueNotSupported", message, f"{path}.{field}")


def _required(path: str) -> Cause:
    return Cause("FieldValueRequired", "Required value", path)
