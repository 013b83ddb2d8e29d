"""PowerTools on the cluster: the tool that most tests run, its targets, and what a status says."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import yaml

from tests.e2e.harness import SYSTEM, Kube, Object, until

GROUP = "codriverlabs.ai.toe.run"
OVER = ("Completed", "PartiallyFailed", "Failed", "Cancelled")

# What the tool does is its first argument; whatever it is, it says so in a file first.
PROBE = """
import os, signal, sys, time
output, target, word = sys.argv[1], sys.argv[2], sys.argv[3]
with open(os.path.join(output, "found.txt"), "w") as file:
    file.write("target %s, %s\\n" % (target, " ".join(sys.argv[3:])))
    file.write("sees " + open("/proc/%s/comm" % target).read())
if word == "fail":
    sys.exit(3)
if word == "fail-on" and sys.argv[4] == os.uname().nodename:
    sys.exit(4)
if word == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while word in ("stay", "deaf"):
    time.sleep(0.2)
"""


def probe(name: str = "probe", **spec: Any) -> Object:
    """The configuration of a tool that needs no rights."""
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "PowerToolConfig",
        "metadata": {"name": name, "namespace": SYSTEM},
        "spec": {
            "name": name,
            "image": "localhost/toe-tool-sysreport:dev",
            "securityContext": {},
            "command": ["python3", "-c", PROBE.replace("{", "{{").replace("}", "}}")],
            "defaultArgs": ["{output}", "{target_pid}"],
            **spec,
        },
    }


def powertool(
    name: str, *args: str, tool: str = "probe", app: str = "web", duration: str = "5s", **spec: Any
) -> Object:
    """A PowerTool for the pods of one app; ``spec`` replaces whole parts of it."""
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "PowerTool",
        "metadata": {"name": name},
        "spec": {
            "targets": {"labelSelector": {"matchLabels": {"app": app}}},
            "tool": {"name": tool, "duration": duration, "args": list(args)},
            "output": {"mode": "collector"},
            **spec,
        },
    }


def web(name: str, *, app: str = "web", user: int | None = 1000, **spec: Any) -> Object:
    """A pod that does nothing, under a user of its own."""
    context: Object = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    context |= {"seccompProfile": {"type": "RuntimeDefault"}}
    context |= {"runAsUser": user, "runAsNonRoot": user != 0} if user is not None else {}
    container = {
        "name": "web",
        "image": "localhost/toe-tool-sysreport:dev",
        "command": ["python3", "-c", "import time\nwhile True: time.sleep(1)"],
        "securityContext": context,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [{**container, **spec.pop("container", {})}],
            **spec,
        },
    }


def ready(kube: Kube, *tools: str) -> None:
    """Wait until the tools' configurations are Ready."""

    def waiting() -> list[str]:
        configs = kube.items(f"powertoolconfigs.{GROUP}", namespace=SYSTEM)
        held = {one["metadata"]["name"]: one.get("status", {}) for one in configs}
        return [name for name in tools if condition(held.get(name, {}), "Ready").get("status") != "True"]

    until(f"tools {', '.join(tools)} are ready", lambda: not waiting(), describe=waiting)


def running(kube: Kube, namespace: str, *names: str, seconds: float = 90) -> None:
    """Wait until the pods run."""

    def up() -> bool:
        pods = {p["metadata"]["name"]: p for p in kube.items("pods", namespace=namespace)}
        return all(pods.get(name, {}).get("status", {}).get("phase") == "Running" for name in names)

    until(f"pods {', '.join(names[:5])} run", up, seconds=seconds)


def status(kube: Kube, namespace: str, name: str) -> Object:
    """The status of a PowerTool; {} while there is none."""
    found: Object = kube.get(f"powertools.{GROUP}", name, namespace=namespace).get("status", {})
    return found


def condition(held: Object, type_: str) -> Object:
    """One condition of a status; {} while it is not there."""
    found: Object = next((c for c in held.get("conditions", ()) if c["type"] == type_), {})
    return found


def wait_for(
    kube: Kube,
    namespace: str,
    name: str,
    what: str,
    fits: Callable[[Object], object],
    *,
    seconds: float = 120,
) -> Object:
    """The status of a PowerTool as soon as it fits."""

    def found() -> Object:
        held = status(kube, namespace, name)
        return held if held and fits(held) else {}

    def describe() -> str:
        events = kube("-n", namespace, "get", "events", "--sort-by=.lastTimestamp", check=False).out[-2000:]
        return yaml.safe_dump(status(kube, namespace, name))[-4000:] + events

    return until(f"{namespace}/{name}: {what}", found, seconds=seconds, every=0.5, describe=describe)


def finished(kube: Kube, namespace: str, name: str, *phases: str, seconds: float = 150) -> Object:
    """The status once the run is over; it must have ended in one of the phases, Completed when none is named."""
    held = wait_for(kube, namespace, name, "is over", lambda s: s.get("phase") in OVER, seconds=seconds)
    assert held["phase"] in (phases or ("Completed",)), yaml.safe_dump(held)
    assert adds_up(held), held
    return held


def adds_up(held: Object) -> bool:
    """Whether the counts of a status sum to what was selected."""
    parts = ("pendingPods", "runningPods", "completedPods", "failedPods", "cancelledPods")
    return sum(int(held.get(part, 0)) for part in parts) == int(held.get("selectedPods", 0))


def tool_containers(kube: Kube, namespace: str) -> dict[str, list[Object]]:
    """Statuses of our ephemeral containers, by pod."""
    found = {}
    for pod in kube.items("pods", namespace=namespace):
        held = pod.get("status", {}).get("ephemeralContainerStatuses", ())
        found[pod["metadata"]["name"]] = [one for one in held if one["name"].startswith("toe-")]
    return found


def at_work(kube: Kube, namespace: str, name: str, pods: int) -> Object:
    """The status of a PowerTool once the containers of its tools run in so many pods."""
    held = wait_for(kube, namespace, name, f"{pods} run", lambda s: s.get("runningPods") == pods)
    wanted = set(held["activePods"].values())

    def up() -> bool:
        found = [one for each in tool_containers(kube, namespace).values() for one in each if one["name"] in wanted]
        return len(found) == pods and all("running" in one["state"] for one in found)

    until(f"the containers of {namespace}/{name} run", up, seconds=60)
    return held


def spans(containers: Sequence[Object]) -> list[tuple[datetime, datetime]]:
    """When each container of a tool began and ended, by its own account."""
    ended = [one["state"]["terminated"] for one in containers if "terminated" in one["state"]]
    return [(datetime.fromisoformat(one["startedAt"]), datetime.fromisoformat(one["finishedAt"])) for one in ended]


def most_at_once(held: Sequence[tuple[datetime, datetime]]) -> int:
    """How many of the spans overlapped at most; one that begins in the second in which another ends does not."""
    edges = sorted([(begin, 1) for begin, _ in held] + [(end, -1) for _, end in held], key=lambda e: (e[0], e[1]))
    most = now = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most
