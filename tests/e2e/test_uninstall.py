"""Taking the program away keeps every artifact and every ProfilingConfig; putting it back finds them."""

from collections.abc import Callable

import pytest

from tests.e2e.artifacts import Artifacts
from tests.e2e.conftest import install
from tests.e2e.harness import ROOT, SYSTEM, Kube, config, target, until, wait_for_capture

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_uninstalling_keeps_artifacts_and_configs(
    installed: Kube, artifacts: Artifacts, namespace: Callable[[str], str]
) -> None:
    name = namespace("uninstall")
    on_demand = {"enabled": True, "intervalSeconds": 60}
    installed.apply(
        target("target"),
        config("watch", "target", onDemand=on_demand, profileTypes=["goroutine"], collector={}),
        namespace=name,
    )
    (artifact,) = wait_for_capture(installed, name, "watch")["artifacts"]
    token = artifacts.account(name, "reader", role="toe-artifact-reader")
    kept = artifacts.name_of(name, artifact, token)

    installed("delete", "-k", ROOT / "deploy/program", "--wait", timeout=180)
    until("no pod is left", lambda: not installed.items("pods", namespace=SYSTEM), seconds=90)
    assert installed.config(name, "watch")["status"]["recent"]
    claim = installed.get("persistentvolumeclaim", "toe-collector-store", namespace=SYSTEM)
    assert claim["status"]["phase"] == "Bound"

    install(installed)
    until("a leader", installed.leader)
    token = artifacts.account(name, "reader", role="toe-artifact-reader")
    answer = artifacts.call(artifacts.path(name, kept, "content"), token)
    assert (answer.status, len(answer.body)) == (200, artifact["size"])


def test_nothing_stays_stuck_when_a_namespace_goes_while_the_operator_is_away(
    installed: Kube, namespace: Callable[[str], str]
) -> None:
    name = namespace("goes")
    installed.apply(target("target"), config("watch", "target", collector={}), namespace=name)
    until("the config was seen", lambda: installed.config(name, "watch").get("status"))
    installed("-n", SYSTEM, "scale", "deployment", "toe-operator", "--replicas=0")
    try:
        installed("delete", "namespace", name, "--wait", "--timeout=60s")
    finally:
        installed("-n", SYSTEM, "scale", "deployment", "toe-operator", "--replicas=2")
        installed.ready("toe-operator")
