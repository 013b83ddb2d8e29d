"""Chaos on a real kubelet: each effect on its target, and everything as before however it ends."""

import time
from collections.abc import Callable

import pytest

from tests.e2e.harness import ROOT, SYSTEM, Kube, kill_pod, until
from tests.e2e.powertools import finished, powertool, ready, running, tool_containers, wait_for, web

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

COUNTER = "import time\nn = 0\nwhile True:\n    n += 1\n    open('/tmp/n', 'w').write(str(n))\n    time.sleep(0.1)"
SERVER = "from http.server import *; ThreadingHTTPServer(('', 8080), SimpleHTTPRequestHandler).serve_forever()"


@pytest.fixture(scope="module")
def scene(installed: Kube, tools: None, namespace: Callable[[str], str]) -> str:
    """A namespace with a pod that counts; chaos is switched on."""
    installed("apply", "-f", ROOT / "agents/chaos/powertoolconfig.yaml")
    ready(installed, "chaos")
    name = namespace("chaos")
    installed.apply(
        web("web-1", container={"command": ["python3", "-c", COUNTER]}),
        web("server", app="server", container={"command": ["python3", "-c", SERVER]}),
        namespace=name,
    )
    running(installed, name, "web-1", "server")
    return name


def count(kube: Kube, namespace: str) -> int:
    """How far the target has counted."""
    return int(kube("-n", namespace, "exec", "web-1", "-c", "web", "--", "cat", "/tmp/n").out or "0")


def stands_still(kube: Kube, namespace: str) -> bool:
    first = count(kube, namespace)
    time.sleep(0.6)
    return count(kube, namespace) == first


def runs(kube: Kube, namespace: str) -> bool:
    return not stands_still(kube, namespace)


def test_a_suspended_target_stands_still_and_runs_on(installed: Kube, scene: str) -> None:
    installed.apply(powertool("freeze", "process", "suspend", "60", "1", tool="chaos", duration="12s"), namespace=scene)
    wait_for(installed, scene, "freeze", "runs", lambda s: s.get("runningPods") == 1)
    until("the target stands still", lambda: stands_still(installed, scene), seconds=10)
    finished(installed, scene, "freeze")
    assert runs(installed, scene)


def test_a_deleted_run_lets_its_target_go(installed: Kube, scene: str) -> None:
    installed.apply(powertool("freeze-long", "suspend", "600", "1", tool="chaos", duration="10m"), namespace=scene)
    wait_for(installed, scene, "freeze-long", "runs", lambda s: s.get("runningPods") == 1)
    until("the target stands still", lambda: stands_still(installed, scene), seconds=10)
    installed("-n", scene, "delete", "powertool", "freeze-long", timeout=60)
    until("the target runs", lambda: runs(installed, scene), seconds=15)


def test_silence_of_the_operator_ends_it(installed: Kube, scene: str) -> None:
    """Both replicas are gone for longer than a heartbeat may be missing."""
    installed.apply(powertool("freeze-alone", "suspend", "600", "1", tool="chaos", duration="10m"), namespace=scene)
    wait_for(installed, scene, "freeze-alone", "runs", lambda s: s.get("runningPods") == 1)
    until("the target stands still", lambda: stands_still(installed, scene), seconds=10)
    installed("-n", SYSTEM, "scale", "deployment/toe-operator", "--replicas=0")
    try:
        for pod in installed.operators():
            kill_pod(pod)
        began = time.monotonic()
        until("the target runs", lambda: runs(installed, scene), seconds=100)
        print(f"the target ran {time.monotonic() - began:.0f} s after the operator had gone")
    finally:
        installed("-n", SYSTEM, "scale", "deployment/toe-operator", "--replicas=2")
        installed.ready("toe-operator")
    finished(installed, scene, "freeze-alone", "Failed", "Completed", "Cancelled", seconds=120)


def test_a_killed_first_process_is_started_again_by_the_kubelet(installed: Kube, scene: str) -> None:
    def restarts() -> int:
        (held,) = installed.get("pod", "web-1", namespace=scene)["status"]["containerStatuses"]
        return int(held["restartCount"])

    before = restarts()
    installed.apply(powertool("kill", "process", "terminate-force", tool="chaos", duration="20s"), namespace=scene)
    until("the container was started again", lambda: restarts() == before + 1, seconds=60)
    running(installed, scene, "web-1")


def test_one_service_is_out_of_reach_for_a_while(installed: Kube, scene: str) -> None:
    address = installed.get("pod", "server", namespace=scene)["status"]["podIP"]
    code = f"import urllib.request; urllib.request.urlopen('http://{address}:8080', timeout=2)"

    def reached() -> bool:
        done = installed("-n", scene, "exec", "web-1", "-c", "web", "--", "python3", "-c", code, check=False)
        return done.code == 0

    until("the server answers", reached, seconds=30)
    installed.apply(
        powertool("block", "network", "connectivity", address, "8080", tool="chaos", duration="15s"), namespace=scene
    )
    wait_for(installed, scene, "block", "runs", lambda s: s.get("runningPods") == 1)
    until("the server is out of reach", lambda: not reached(), seconds=10)
    finished(installed, scene, "block")
    assert reached()


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("cpu", "50"), marks=pytest.mark.slow),
        pytest.param(("memory", "pressure", "40", "spike"), marks=pytest.mark.slow),
        ("storage", "30", "/scratch"),
    ],
)
def test_load_comes_and_goes(installed: Kube, scene: str, words: tuple[str, ...]) -> None:
    if words[0] == "storage":
        volume = {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}
        mount = {"name": "scratch", "mountPath": "/scratch"}
        installed.apply(web("disk", app="disk", volumes=[volume], container={"volumeMounts": [mount]}), namespace=scene)
        running(installed, scene, "disk")
    app = "disk" if words[0] == "storage" else "web"
    name = f"load-{words[0]}"
    installed.apply(powertool(name, *words, tool="chaos", app=app, duration="6s"), namespace=scene)
    held = finished(installed, scene, name)
    assert held["completedPods"] == 1
    ours = tool_containers(installed, scene)["disk" if app == "disk" else "web-1"]
    assert all("terminated" in one["state"] for one in ours)


def test_words_that_are_no_effect_are_refused_before_anything_is_made(installed: Kube, scene: str) -> None:
    before = len(tool_containers(installed, scene)["web-1"])
    installed.apply(powertool("nonsense", "explode", tool="chaos"), namespace=scene)
    held = wait_for(installed, scene, "nonsense", "is refused", lambda s: "explode" in str(s.get("conditions")))
    assert held.get("runningPods", 0) == 0
    assert len(tool_containers(installed, scene)["web-1"]) == before


def test_the_kill_switch_ends_what_runs(installed: Kube, scene: str) -> None:
    installed.apply(powertool("switched", "suspend", "600", "1", tool="chaos", duration="10m"), namespace=scene)
    wait_for(installed, scene, "switched", "runs", lambda s: s.get("runningPods") == 1)
    until("the target stands still", lambda: stands_still(installed, scene), seconds=10)
    patch = '{"spec":{"suspend":true}}'
    installed("-n", SYSTEM, "patch", "powertoolconfig", "chaos", "--type=merge", "-p", patch)
    until("the target runs", lambda: runs(installed, scene), seconds=30)
    finished(installed, scene, "switched", "Cancelled", "Failed")
    installed("-n", SYSTEM, "delete", "powertoolconfig", "chaos")
