"""Every shipped tool on the kind of target that it is for: what it leaves opens with its own reader."""

import base64
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.artifacts import Artifacts
from tests.e2e.harness import ROOT, Images, Kube, Object, container, until
from tests.e2e.powertools import finished, powertool, ready, running
from toe_async.profiles.parse import parse

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

TOOLS = ("jvm", "perf", "py-spy", "py-spy-dump", "strace", "sysreport", "tcpdump")
PYTHON = """
import time
def burn_here():
    total = 0
    for i in range(200000):
        total += i * i
    return total
while True:
    burn_here()
    time.sleep(0.02)
"""
TRAFFIC = """
import http.server, threading, time, urllib.request
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8080), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
while True:
    headers = {"Cookie": "x" * 64, "Authorization": "Basic c2VjcmV0LW9mLXRoZS10ZXN0"}
    urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8080/", headers=headers)).read()
    time.sleep(0.2)
"""
RESTRICTED: Object = {
    "runAsUser": 1234,
    "runAsGroup": 1234,
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(name: str, image: str, *, command: list[str] | None = None, args: tuple[str, ...] = ()) -> Object:
    """A pod of one container that Pod Security allows anywhere, at a third of a core."""
    made = container("main", image, args, cpu="300m", memory="256Mi")
    made["resources"]["requests"] = {"cpu": "10m", "memory": "32Mi"}  # three namespaces of them fit on two nodes
    made |= {"securityContext": RESTRICTED, **({"command": command} if command else {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [made],
        },
    }


TARGETS = (
    pod("go", "toe-e2e-target", args=("-burn", "1")),
    pod("python", "toe-tool-sysreport", command=["python3", "-c", PYTHON]),
    pod("jvm", "toe-e2e-jvm"),
    pod("traffic", "toe-tool-sysreport", command=["python3", "-c", TRAFFIC]),
    # tcpdump reads its own files here
    pod("reader", "toe-tool-tcpdump", command=["sleep", "infinity"]),
)


@pytest.fixture(scope="module")
def shipped(installed: Kube, images: None, tools: None, tmp_path_factory: pytest.TempPathFactory) -> Kube:
    """The shipped configurations are Ready."""
    built = Images(tmp_path_factory.mktemp("targets"))
    built.build("toe-e2e-jvm", ROOT / "tests/e2e/targets/jvm", ROOT / "tests/e2e/targets/jvm/Containerfile")
    installed("apply", "-k", ROOT / "deploy/tools")
    ready(installed, *TOOLS)
    return installed


def scene(kube: Kube, made: str, level: str) -> str:
    kube("label", "namespace", made, f"pod-security.kubernetes.io/enforce={level}")
    kube.apply(*TARGETS, namespace=made)
    running(kube, made, *(one["metadata"]["name"] for one in TARGETS))
    return made


@pytest.fixture(scope="module")
def privileged(shipped: Kube, namespace: Callable[[str], str]) -> str:
    """A namespace with a target of each kind that allows every tool."""
    return scene(shipped, namespace("tools"), "privileged")


@dataclass(frozen=True)
class Opened:
    """What a run left, by leaf, unpacked."""

    kube: Kube
    namespace: str
    files: dict[str, Path]

    def text(self, leaf: str) -> str:
        return self.files[leaf].read_text()


def pcap(found: Opened) -> None:
    """tcpdump reads it; only what the filter names is in it, and nothing of what the packets carry."""
    raw = found.files["capture.pcap"].read_bytes()
    assert b"c2VjcmV0" not in raw
    lines = read_back(found, "reader", "capture.pcap", "tcpdump -nr /tmp/f 2>/dev/null").splitlines()
    assert len(lines) > 5
    assert all(".8080" in line for line in lines if " IP " in line)
    assert "0 packets dropped by kernel" in found.text("tcpdump.log")


def read_back(found: Opened, name: str, leaf: str, command: str) -> str:
    """What a program in a pod says of a file, copied there by way of base64."""
    text = base64.b64encode(found.files[leaf].read_bytes()).decode()
    line = f"base64 -d > /tmp/f && {command}"
    return found.kube("-n", found.namespace, "exec", "-i", name, "--", "sh", "-c", line, stdin=text).out


def folded(leaf: str, *functions: str) -> Callable[[Opened], None]:
    def check(found: Opened) -> None:
        profile = parse(found.files[leaf].read_bytes())
        names = {frame.function for one in profile.samples for frame in one.stack}
        assert all(any(function in name for name in names) for function in functions), sorted(names)[:50]

    return check


def perf(found: Opened) -> None:
    folded("perf.folded", "burnCPUHere")(found)
    assert "burnCPUHere" in found.text("perf.script.txt")


def calls(found: Opened) -> None:
    text = found.text("strace.txt")
    assert re.search(r"^\d+ +\d\d:\d\d:\d\d\.\d+ \w+\(", text, re.MULTILINE)


def counts(found: Opened) -> None:
    assert re.search(r"^% time +seconds +usecs/call +calls", found.text("strace.txt"), re.MULTILINE)


def recording(found: Opened) -> None:
    assert "jdk.ExecutionSample" in read_back(
        found, "jvm", "recording.jfr", "mv /tmp/f /tmp/f.jfr && jfr summary /tmp/f.jfr; rm /tmp/f.jfr"
    )


def report(found: Opened) -> None:
    header, *samples = map(json.loads, found.text("sysreport.jsonl").splitlines())
    assert header["cgroup"] in (1, 2)
    assert len(samples) >= 5
    assert samples[-1]["group"]["cpu_limit"] == pytest.approx(0.3)
    assert [row[2] for row in samples[-1]["processes"]] == ["python3"]
    assert "System report" in found.text("sysreport.html")


def says(leaf: str, *words: str) -> Callable[[Opened], None]:
    def check(found: Opened) -> None:
        for word in words:
            assert word in found.text(leaf)

    return check


@dataclass(frozen=True)
class Case:
    """A run and what it must leave."""

    tool: str
    app: str
    check: Callable[[Opened], None]
    args: tuple[str, ...] = ()
    spec: dict[str, Any] = field(default_factory=dict)
    duration: str = "8s"


CASES = {
    "tcpdump": Case("tcpdump", "traffic", pcap, ("-i", "any", "port 8080 or port 443")),
    "strace": Case("strace", "python", calls, ("-e", "trace=all")),
    "strace-counts": Case("strace", "go", counts, ("-c",)),
    "perf": Case("perf", "go", perf, ("--frequency", "199")),
    "py-spy": Case("py-spy", "python", folded("profile.folded", "burn_here")),
    "py-spy-dump": Case("py-spy-dump", "python", says("py-spy-dump.out", "Python v3", "Thread")),
    "jvm-threads": Case("jvm", "jvm", says("threads.txt", "Full thread dump", "Busy.main")),
    "jvm-histogram": Case(
        "jvm", "jvm", says("heap-histogram.txt", "#instances", "java.lang.String"), ("heap-histogram",)
    ),
    "jvm-jfr": Case("jvm", "jvm", recording, ("jfr", "--settings", "profile"), duration="20s"),
    "jvm-profile": Case("jvm", "jvm", folded("profile.folded", "Busy.burnCpuHere"), ("profile",), duration="15s"),
    "sysreport": Case("sysreport", "python", report, ("--interval", "1s")),
}


def fetched(kube: Kube, namespace: str, held: Object, artifacts: Artifacts, into: Path) -> Opened:
    files = {}
    for one in held["artifacts"]:
        packed = into / one["sha256"]
        artifacts.fetch(namespace, one, packed)
        raw = packed.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        name = next(
            leaf for leaf in LEAVES if leaf in one["uri"] or leaf.replace(".", "-") in one["uri"].replace(".", "-")
        )
        files[name] = into / name
        files[name].write_bytes(content)
    return Opened(kube, namespace, files)


LEAVES = (
    "capture.pcap", "strace.txt", "perf.folded", "perf.script.txt", "profile.folded", "py-spy-dump.out", "threads.txt",
    "heap-histogram.txt", "recording.jfr", "sysreport.jsonl", "sysreport.html", *(f"{tool}.log" for tool in TOOLS),
    *(f"{tool}.out" for tool in TOOLS),
)  # fmt: skip


# One of each tool every time; its other ways to be asked at night.
OFTEN = ("tcpdump", "strace", "perf", "py-spy", "jvm", "sysreport")
_often = {next(name for name, case in CASES.items() if case.tool == tool) for tool in OFTEN}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in _often else pytest.mark.slow) for name in CASES]
)
def test_a_tool_leaves_what_its_own_reader_opens(
    shipped: Kube, privileged: str, artifacts: Artifacts, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    run = powertool(f"t-{name}", *case.args, tool=case.tool, app=case.app, duration=case.duration, **case.spec)
    shipped.apply(run, namespace=privileged)
    held = finished(shipped, privileged, f"t-{name}")
    case.check(fetched(shipped, privileged, held, artifacts, tmp_path))


def test_a_flight_recording_and_a_profile_leave_nothing_in_the_targets_tmp(shipped: Kube, privileged: str) -> None:
    """But for the socket of the JVM's own attach interface. After the tests above."""
    left = shipped("-n", privileged, "exec", "jvm", "--", "ls", "-A", "/tmp").out.split()
    assert [name for name in left if not name.startswith((".java_pid", "hsperfdata"))] == []


# What Pod Security lets a tool do to a target that runs as an ordinary user.
LEVELS = {
    "baseline": {"tcpdump": True, "strace": True, "perf": False, "py-spy": True, "jvm": True, "sysreport": True},
    "restricted": {"tcpdump": False, "strace": True, "perf": False, "py-spy": True, "jvm": True, "sysreport": True},
}
AGAINST = {"tcpdump": "traffic", "strace": "python", "perf": "go", "py-spy": "python", "jvm": "jvm", "sysreport": "go"}


@pytest.fixture(scope="module", params=LEVELS)
def leveled(shipped: Kube, namespace: Callable[[str], str], request: pytest.FixtureRequest) -> tuple[str, str]:
    """A namespace that enforces a level, with the same targets."""
    level = str(request.param)
    return scene(shipped, namespace(f"tools-{level}"), level), level


@pytest.mark.slow
@pytest.mark.parametrize("tool", AGAINST)
def test_a_pod_security_level_lets_a_tool_work_or_is_named_as_what_does_not(
    shipped: Kube, leveled: tuple[str, str], tool: str
) -> None:
    namespace, level = leveled
    shipped.apply(powertool(f"l-{tool}", tool=tool, app=AGAINST[tool], duration="4s"), namespace=namespace)
    held = finished(shipped, namespace, f"l-{tool}", "Completed", "Failed")
    if LEVELS[level][tool]:
        assert held["phase"] == "Completed", yaml.safe_dump(held)
    else:
        reasons = {row.get("reason") for row in held.get("targets", ())} | {c["reason"] for c in held["conditions"]}
        assert "PodSecurityDenied" in reasons, yaml.safe_dump(held)


@pytest.mark.parametrize("example", sorted(ROOT.glob("agents/*/example.yaml")), ids=lambda path: str(path.parent.name))
def test_every_shipped_example_applies(shipped: Kube, privileged: str, example: Path) -> None:
    """On a real API server, with its policies; as a dry run, since nothing here is called web."""
    if example.parent.name == "chaos":
        pytest.skip("its configuration is not applied unasked")
    shipped("-n", privileged, "apply", "--dry-run=server", "-f", example)


@pytest.mark.slow
def test_the_recorder_costs_less_than_one_per_cent_of_a_core(shipped: Kube, privileged: str) -> None:
    """At one sample a second, supervisor aside; by the kernel's own count of the container's processes."""
    run = powertool("cost", "--interval", "1s", tool="sysreport", app="python", duration="40s")
    shipped.apply(run, namespace=privileged)
    used: dict[str, int] = {}

    def seen() -> bool:
        """/proc is the pod's own as soon as the tool's container is in the target's PID namespace."""
        script = (
            "import glob\n"
            "for path in glob.glob('/proc/[0-9]*/stat'):\n"
            "    text = open(path).read()\n"
            "    command = open(path.replace('stat', 'cmdline')).read()\n"
            "    if '/opt/toe/tool' in command:\n"
            "        words = text.rpartition(')')[2].split(); print(int(words[11]) + int(words[12]), words[19])\n"
        )
        done = shipped("-n", privileged, "exec", "python", "--", "python3", "-c", script, check=False)
        for line in done.out.splitlines():
            ticks, started = line.split()
            used.setdefault(started, int(ticks))
            used[f"{started} last"] = int(ticks)
        held = shipped.get("powertools.codriverlabs.ai.toe.run", "cost", namespace=privileged).get("status", {})
        return held.get("phase") in ("Completed", "Failed")

    until("the recorder has run", seen, seconds=120, every=2)
    finished(shipped, privileged, "cost")
    spent = sum(used[f"{key} last"] - first for key, first in used.items() if "last" not in key)
    assert used
    assert spent <= 40, used  # ticks of 10 ms in 40 s, start and end excepted
