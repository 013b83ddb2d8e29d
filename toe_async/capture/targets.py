"""Which port, path and container of a pod to ask for profiles, from the pod alone.

The annotations are the pod author's words: they may point at any port of the author's own pod, and nothing else. A bad
value is refused with a sentence; it is never replaced by a default. `bolometer.io/enabled` and `bolometer.io/port`
count where ours are absent (D9).
"""

import re

from msgspec import Struct

from toe_async.apis.pods import DEFAULT_CONTAINER, Pod
from toe_async.apis.reasons import Reason

__all__ = ["DEFAULT_PORT", "PprofTarget", "Refused", "is_running", "opted_in", "service_of", "target_of"]

DEFAULT_PORT = 6060
DEFAULT_PATH = "/debug/pprof"
_LONGEST_PATH = 200
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_DIGITS = re.compile(r"[0-9]{1,5}")
_SERVICE_LABELS = ("app.kubernetes.io/name", "app", "k8s-app")
# The CronJob controller ends a Job's name in the scheduled time, in minutes since 1970 (in seconds before 1.21).
_CRON_RUN = re.compile(r"(.+)-[0-9]{8,10}")
# What generateName appends: five characters of apimachinery's alphabet, which has no vowels.
_GENERATED = re.compile(r"(.+)-[bcdfghjklmnpqrstvwxz2456789]{5}")


class PprofTarget(Struct, frozen=True, gc=False):
    """Where one pod serves its profiles. `path` is the folder that holds them, without a slash at its end."""

    namespace: str
    pod: str
    pod_uid: str
    container: str
    port: int
    path: str


class Refused(Struct, frozen=True, gc=False):
    """Why a pod that opted in cannot be profiled, for `notFired` and an Event."""

    reason: Reason
    sentence: str


def opted_in(pod: Pod) -> bool:
    """The annotation says exactly "true" (D8)."""
    return _annotation(pod, "enabled") == "true"


def is_running(pod: Pod) -> bool:
    """Only a Running pod that is not on its way out is ever captured."""
    return pod.phase == "Running" and not pod.terminating


def target_of(pod: Pod) -> PprofTarget | Refused:
    """Port, path and container of a pod that opted in.

    The container is the one that declares the port, else that of `kubectl.kubernetes.io/default-container`, else the
    first. In a pod on the node's network only a declared port may be reached, since the node's own services listen
    beside it (D10).
    """
    port = _port(pod)
    if isinstance(port, Refused):
        return port
    path = _path(pod)
    if isinstance(path, Refused):
        return path
    declaring = next((one.name for one in pod.containers if any(number == port for _, number in one.ports)), "")
    if pod.host_network and not declaring:
        return Refused(
            Reason.HOST_NETWORK_REFUSED,
            f"pod {pod.namespace}/{pod.name} is on the node's network and no container declares port {port}; "
            "declare it as a containerPort",
        )
    container = declaring or _default_container(pod)
    if not container:
        return Refused(Reason.TARGET_CONTAINER_MISSING, f"pod {pod.namespace}/{pod.name} has no container")
    return PprofTarget(pod.namespace, pod.name, pod.uid, container, port, path)


def service_of(pod: Pod) -> str:
    """The service that a pod belongs to (D11): a label, else its owner, else what its name begins with. Never empty."""
    for key in _SERVICE_LABELS:
        if label := pod.labels.get(key):
            return label
    if pod.owner_kind == "ReplicaSet":
        return _without(pod.owner_name, pod.labels.get("pod-template-hash", ""))
    if pod.owner_kind == "Job":
        run = _CRON_RUN.fullmatch(pod.owner_name)
        return run[1] if run else pod.owner_name
    if pod.owner_kind == "Node":  # a static pod is called after its manifest and its node
        return _without(pod.name, pod.node)
    if pod.owner_name:
        return pod.owner_name
    generated = _GENERATED.fullmatch(pod.name)
    return generated[1] if generated else pod.name


def _without(name: str, suffix: str) -> str:
    return (name.removesuffix(f"-{suffix}") if suffix else name) or name


def _annotation(pod: Pod, key: str) -> str | None:
    ours = pod.annotations.get(f"profiling.io/{key}")
    return pod.annotations.get(f"bolometer.io/{key}") if ours is None else ours


def _port(pod: Pod) -> int | Refused:
    text = _annotation(pod, "port")
    if text is None:
        return DEFAULT_PORT
    if _DIGITS.fullmatch(text):
        if 1 <= int(text) <= 65535:
            return int(text)
        return _bad(pod, "port", text, "a port is from 1 to 65535")
    named = {name: number for one in reversed(pod.containers) for name, number in reversed(one.ports) if name}
    if text in named:
        return named[text]
    names = ", ".join(sorted(named))[:120] or "none"
    return _bad(pod, "port", text, f"write a number or the name of a containerPort (declared here: {names})")


def _path(pod: Pod) -> str | Refused:
    text = pod.annotations.get("profiling.io/path")
    if text is None:
        return DEFAULT_PATH
    path = text.rstrip("/")
    if path == "" and text == "/":
        return ""
    if len(text) > _LONGEST_PATH or not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        return _bad(pod, "path", text, f"write a plain path such as {DEFAULT_PATH}; the profile's name is added to it")
    return path


def _default_container(pod: Pod) -> str:
    names = [one.name for one in pod.containers]
    chosen = pod.annotations.get(DEFAULT_CONTAINER, "")
    return chosen if chosen in names else next(iter(names), "")


def _bad(pod: Pod, key: str, text: str, way_out: str) -> Refused:
    where = f"profiling.io/{key}" if f"profiling.io/{key}" in pod.annotations else f"bolometer.io/{key}"
    return Refused(
        Reason.BAD_ANNOTATION, f"annotation {where} of pod {pod.namespace}/{pod.name} is {text[:60]!r}: {way_out}"
    )
