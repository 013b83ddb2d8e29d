"""Pod Security admission: what the levels baseline and restricted forbid, in the real server's words and order.

Checked are pods that are created and ephemeral containers that are added; the whole pod counts each time, so one that
violates the level of its namespace already takes no tool. Not checked, unlike in the real one: AppArmor, SELinux,
procMount, sysctls, probes and hooks of other hosts, and what is special to Windows and to user namespaces.
"""

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from toe_async.sandbox.admission import Attempt
from toe_async.sandbox.ephemeral import SUBRESOURCE
from toe_async.sandbox.resources import NAMESPACES, PODS
from toe_async.sandbox.status import Cause, JsonObject, forbidden
from toe_async.sandbox.store import Key, Store

ENFORCE = "pod-security.kubernetes.io/enforce"
_VERSION = "pod-security.kubernetes.io/enforce-version"
_LEVELS = ("privileged", "baseline", "restricted")
_ADDABLE = frozenset({
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
})  # fmt: skip
_VOLUMES = frozenset({"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected",
                      "secret"})  # fmt: skip
_KINDS = ("initContainers", "containers", "ephemeralContainers")
_PROFILES = frozenset({"RuntimeDefault", "Localhost"})


def review(store: Store, attempt: Attempt) -> None:
    """Raises Refusal 403 for a pod that the level of its namespace forbids."""
    begins = attempt.operation == "CREATE" and not attempt.subresource
    grows = attempt.operation == "UPDATE" and attempt.subresource == SUBRESOURCE
    if attempt.resource is not PODS or attempt.obj is None or not (begins or grows):
        return
    namespace = store.get(NAMESPACES, Key("", attempt.namespace))
    labels = (namespace.obj["metadata"].get("labels") or {}) if namespace is not None else {}
    level = labels.get(ENFORCE, "privileged")
    if found := violations(level, attempt.obj["spec"]):
        why = f'violates PodSecurity "{level}:{labels.get(_VERSION, "latest")}": {", ".join(found)}'
        raise forbidden("", PODS.plural, attempt.name, why)


def check_labels(labels: JsonObject) -> list[Cause]:
    """A namespace's level is one that there is."""
    level = labels.get(ENFORCE)
    if level is None or level in _LEVELS:
        return []
    message = f'Invalid value: "{level}": must be one of {", ".join(_LEVELS)}'
    return [Cause("FieldValueInvalid", message, f"metadata.labels[{ENFORCE}]")]


def violations(level: str, spec: JsonObject) -> list[str]:
    """What a level has against a pod; `reason (details)` each."""
    containers = [one for kind in _KINDS for one in spec.get(kind) or ()]
    pod = _Pod(spec, spec.get("securityContext") or {}, [_Container(one) for one in containers])
    return [f"{reason} ({said})" for reason, check in _CHECKS.get(level, ()) if (said := check(pod))]


class _Container:
    def __init__(self, spec: JsonObject) -> None:
        self.name: str = spec["name"]
        self.context: JsonObject = spec.get("securityContext") or {}
        capabilities = self.context.get("capabilities") or {}
        self.added: list[str] = capabilities.get("add") or []
        self.dropped: list[str] = capabilities.get("drop") or []
        self.host_ports = [port["hostPort"] for port in spec.get("ports") or () if port.get("hostPort")]

    @property
    def profile(self) -> str | None:
        held: str | None = (self.context.get("seccompProfile") or {}).get("type")
        return held


class _Pod(Struct, frozen=True):
    spec: JsonObject
    context: JsonObject
    containers: list[_Container]

    def those(self, fits: Callable[[_Container], bool]) -> list[str]:
        return [one.name for one in self.containers if fits(one)]


def _named(kind: str, names: Sequence[str]) -> str:
    return f"{kind}{'' if len(names) == 1 else 's'} {_quoted(names)}"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _privileged(pod: _Pod) -> str:
    names = pod.those(lambda one: bool(one.context.get("privileged")))
    return f"{_named('container', names)} must not set securityContext.privileged=true" if names else ""


def _host_namespaces(pod: _Pod) -> str:
    return ", ".join(f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(name))


def _host_paths(pod: _Pod) -> str:
    names = [one["name"] for one in pod.spec.get("volumes") or () if "hostPath" in one]
    return _named("volume", names) if names else ""


def _host_ports(pod: _Pod) -> str:
    names = pod.those(lambda one: bool(one.host_ports))
    ports = sorted({port for one in pod.containers for port in one.host_ports}, key=str)
    uses = "uses" if len(names) == 1 else "use"
    listed = f"hostPort{'' if len(ports) == 1 else 's'} {', '.join(map(str, ports))}"
    return f"{_named('container', names)} {uses} {listed}" if names else ""


def _added(pod: _Pod, allowed: frozenset[str]) -> str:
    names = pod.those(lambda one: not allowed.issuperset(one.added))
    bad = sorted({capability for one in pod.containers for capability in one.added} - allowed)
    said = f"{_named('container', names)} must not include {_quoted(bad)} in securityContext.capabilities.add"
    return said if names else ""


def _capabilities(pod: _Pod) -> str:
    keeping = pod.those(lambda one: "ALL" not in one.dropped)
    kept = f'{_named("container", keeping)} must set securityContext.capabilities.drop=["ALL"]' if keeping else ""
    return "; ".join(one for one in (kept, _added(pod, frozenset({"NET_BIND_SERVICE"}))) if one)


def _escalation(pod: _Pod) -> str:
    names = pod.those(lambda one: one.context.get("allowPrivilegeEscalation") is not False)
    return f"{_named('container', names)} must set securityContext.allowPrivilegeEscalation=false" if names else ""


def _volumes(pod: _Pod) -> str:
    bad = {
        one["name"]: kind
        for one in pod.spec.get("volumes") or ()
        for kind in one.keys() - {"name"}
        if kind not in _VOLUMES
    }
    kinds = sorted(set(bad.values()))
    uses = "uses" if len(bad) == 1 else "use"
    said = f"{_named('volume', list(bad))} {uses} {_named('restricted volume type', kinds)}"
    return said if bad else ""


def _setters(pod: bool, containers: list[str]) -> str:
    return " and ".join([*(["pod"] if pod else []), *([_named("container", containers)] if containers else [])])


def _non_root(pod: _Pod) -> str:
    whole = pod.context.get("runAsNonRoot")
    if setters := _setters(whole is False, pod.those(lambda one: one.context.get("runAsNonRoot") is False)):
        return f"{setters} must not set securityContext.runAsNonRoot=false"
    names = [] if whole else pod.those(lambda one: one.context.get("runAsNonRoot") is None)
    return f"pod or {_named('container', names)} must set securityContext.runAsNonRoot=true" if names else ""


def _user(pod: _Pod) -> str:
    setters = _setters(pod.context.get("runAsUser") == 0, pod.those(lambda one: one.context.get("runAsUser") == 0))
    return f"{setters} must not set runAsUser=0" if setters else ""


def _unconfined(pod: _Pod) -> str:
    whole = (pod.context.get("seccompProfile") or {}).get("type")
    setters = _setters(whole == "Unconfined", pod.those(lambda one: one.profile == "Unconfined"))
    return f'{setters} must not set securityContext.seccompProfile.type to "Unconfined"' if setters else ""


def _seccomp(pod: _Pod) -> str:
    if said := _unconfined(pod):
        return said
    whole = (pod.context.get("seccompProfile") or {}).get("type")
    names = [] if whole in _PROFILES else pod.those(lambda one: one.profile not in _PROFILES)
    wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return f"pod or {_named('container', names)} {wanted}" if names else ""


_Check = tuple[str, Callable[[_Pod], str]]
_BOTH: tuple[_Check, ...] = (
    ("host namespaces", _host_namespaces),
    ("hostPort", _host_ports),
    ("privileged", _privileged),
)
_CHECKS: dict[str, tuple[_Check, ...]] = {
    "baseline": (
        ("non-default capabilities", lambda pod: _added(pod, _ADDABLE)),
        _BOTH[0],
        ("hostPath volumes", _host_paths),
        *_BOTH[1:],
        ("seccompProfile", _unconfined),
    ),
    "restricted": (
        *_BOTH,
        ("allowPrivilegeEscalation != false", _escalation),
        ("unrestricted capabilities", _capabilities),
        ("restricted volume types", _volumes),
        ("runAsNonRoot != true", _non_root),
        ("runAsUser=0", _user),
        ("seccompProfile", _seccomp),
    ),
}
