"""`kubectl toe run|status|cancel|tools|preflight` against an API server with our CRDs, rights and real rules."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.aggregated import Plugin
from tests.contract.clusters import Server, sandbox_server
from toe_async.apis.crd import all_crds
from toe_async.apis.kinds import ARTIFACTS, CRDS, POWER_TOOL_CONFIGS, POWER_TOOLS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

RBAC = "/apis/rbac.authorization.k8s.io/v1"


@dataclass
class Cluster:
    """A sandbox with our kinds, an approved tool, and the plugin of some user."""

    server: Server
    folder: Path

    async def plugin(self, user: str = "admin") -> Plugin:
        assert self.server.sandbox is not None
        path = self.folder / f"{user}.kubeconfig"
        groups = None if user == "admin" else ("people",)
        await asyncio.to_thread(self.server.sandbox.write_kubeconfig, path, user, groups)
        home = self.folder / f"home-{user}"
        await asyncio.to_thread(home.mkdir, exist_ok=True)
        return Plugin(home, path)

    async def approve(self, name: str, **spec: Any) -> None:
        body = {
            "apiVersion": POWER_TOOL_CONFIGS.api_version,
            "kind": POWER_TOOL_CONFIGS.kind,
            "metadata": {"name": name},
            "spec": {"name": name, "image": "registry.example/tool:1", "securityContext": {}, **spec},
        }
        await self.server.make(POWER_TOOL_CONFIGS.path(self.server.namespace), body)

    async def powertool(self, name: str) -> dict[str, Any]:
        answer = await self.server.call("GET", POWER_TOOLS.path(self.server.namespace, name))
        assert answer.status == 200, answer.raw
        body: dict[str, Any] = answer.body
        return body

    async def tell(self, name: str, **status: Any) -> None:
        """Write a status as the operator does."""
        path = POWER_TOOLS.path(self.server.namespace, name, "status")
        answer = await self.server.merge(path, {"status": status})
        assert answer.status == 200, answer.raw


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with sandbox_server() as server:
        for crd in all_crds():
            made = await server.make_cluster_wide(CRDS.path(), crd)
            await server.until(
                CRDS.path(None, made["metadata"]["name"]),
                lambda one: any(
                    c["type"] == "Established" and c["status"] == "True"
                    for c in one.get("status", {}).get("conditions", ())
                ),
            )
        yield Cluster(server, tmp_path)


ROW = {"pod": "web-1", "uid": "u1", "container": "web", "state": "Completed", "attempt": 1, "bytes": 2048}


async def test_a_run_is_written_as_the_flags_say(cluster: Cluster) -> None:
    plugin, at = await cluster.plugin(), ("-n", cluster.server.namespace)
    ran = await plugin.run(
        "run", "tcpdump", *at, "-l", "app in (a,b),tier=web", "--container", "web", "--duration", "1m",
        "--warmup", "5s", "--preset", "low", "--max-cpu", "50", "--overhead", "5", "--at-once", "3",
        "--on-error", "stop", "--deadline", "1h", "--ttl", "10m", "--name", "traffic", "--mode", "pvc",
        "--claim", "out", "--path", "/x",
        "--compress", "none", "--rolling", "10s", "--retention-days", "3", "--max-targets", "7", "--pick", "Oldest",
        "--from-namespaces", "a,b", "--", "-i", "any", "--", "-l",
    )  # fmt: skip
    assert (ran.code, ran.lines) == (0, ["powertool.codriverlabs.ai.toe.run/traffic"]), ran.err
    spec = (await cluster.powertool("traffic"))["spec"]
    assert spec["targets"] == {
        "labelSelector": {
            "matchLabels": {"tier": "web"},
            "matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}],
        },
        "container": "web",
        "maxTargets": 7,
        "pick": "Oldest",
        "namespaceSelector": {"matchNames": ["a", "b"]},
    }
    assert spec["tool"] == {
        "name": "tcpdump",
        "duration": "1m",
        "args": ["-i", "any", "--", "-l"],
        "warmup": "5s",
        "resolutionPreset": "low",
        "maxCPUPercent": 50,
    }
    assert spec["output"] == {
        "mode": "pvc",
        "pvc": {"claimName": "out", "path": "/x"},
        "compress": "none",
        "rollingInterval": "10s",
        "retentionDays": 3,
    }
    assert spec["budgets"] == {"maxConcurrentPods": 3, "perPodOverheadTarget": 5}
    assert (spec["failurePolicy"]["onError"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (
        "stop",
        3600,
        600,
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-l", "a=b", "--mode", "pvc"), "--mode pvc needs --claim"),
        (("-l", "a=b", "--bucket", "x"), "--bucket is for --mode s3"),
        (
            (
                "-l",
                "a=(",
            ),
            "-l: label selector is not understood",
        ),
        ((), "-l/--selector"),
        (("-l", "a=b", "-A"), "a run belongs to one namespace"),
    ],
)
async def test_flags_that_do_not_fit_are_usage(cluster: Cluster, words: tuple[str, ...], says: str) -> None:
    ran = await (await cluster.plugin()).run("run", "tcpdump", *words)
    assert ran.code == 2
    assert says in ran.err


async def test_what_the_server_refuses_is_told_and_a_dry_run_writes_nothing(cluster: Cluster) -> None:
    plugin, at = await cluster.plugin(), ("-n", cluster.server.namespace, "-l", "a=b")
    wrong = await plugin.run("run", "tcpdump", *at, "--duration", "soon")
    assert wrong.code == 1
    assert "spec.tool.duration" in wrong.err
    dry = await plugin.run("run", "tcpdump", *at, "--name", "dry", "--dry-run")
    assert (dry.code, dry.out) == (0, "powertool.codriverlabs.ai.toe.run/dry would be created\n"), dry.err
    shown = await plugin.run("run", "tcpdump", *at, "--dry-run=server", "-o", "yaml")
    assert yaml.safe_load(shown.out)["spec"]["tool"]["name"] == "tcpdump"
    listed = await plugin.run("status", "-n", cluster.server.namespace)
    assert listed.err == f"No runs of tools in namespace {cluster.server.namespace}.\n"


@pytest.mark.parametrize(("phase", "code"), [("Completed", 0), ("PartiallyFailed", 5), ("Failed", 1), ("Cancelled", 1)])
async def test_waiting_ends_with_the_run_and_the_code_tells_how_it_went(
    cluster: Cluster, phase: str, code: int
) -> None:
    plugin, at = await cluster.plugin(), ("-n", cluster.server.namespace)
    process = await plugin.start("run", "probe", *at, "-l", "a=b", "--name", "waited", "--wait")
    await cluster.server.until(POWER_TOOLS.path(cluster.server.namespace, "waited"), lambda one: True)
    await cluster.tell("waited", phase="Running", selectedPods=1, runningPods=1)
    artifact = {"uri": ARTIFACTS.path(cluster.server.namespace, "a-probe.out"), "size": 2048, "sha256": "0" * 64}
    failed = {"type": "Failed", "status": "True", "reason": "ToolFailed", "message": "one \x1b[31mfailed"}
    condition = {**failed, "lastTransitionTime": "2026-01-24T20:44:08Z"}
    await cluster.tell(
        "waited",
        phase=phase,
        runningPods=0,
        completedPods=1,
        targets=[ROW],
        artifacts=[artifact],
        conditions=[condition],
    )
    out, err = await process.communicate()
    assert process.returncode == code, err
    shown = out.decode()
    assert f"waited: {phase}" in shown
    assert "ToolFailed: one failed" in shown
    assert "web-1" in shown
    assert "2.0 KiB" in shown
    assert "\na-probe.out " in shown, "as `kubectl toe get` takes it"
    assert "\x1b" not in shown


async def test_runs_are_a_table_and_one_is_itself_as_json(cluster: Cluster) -> None:
    plugin, at = await cluster.plugin(), ("-n", cluster.server.namespace)
    await plugin.run("run", "probe", *at, "-l", "a=b", "--name", "one")
    await cluster.tell("one", phase="Running", selectedPods=4, completedPods=1, failedPods=2, runningPods=1)
    table = await plugin.run("status", *at)
    assert table.lines[1].split()[:5] == ["one", "probe", "Running", "1/4", "2"]
    everywhere = await plugin.run("status", "-A")
    assert everywhere.lines[1].split()[:2] == [cluster.server.namespace, "one"]
    found = json.loads((await plugin.run("status", "one", *at, "-o", "json")).out)
    assert found["status"]["failedPods"] == 2
    assert yaml.safe_load((await plugin.run("status", *at, "-o", "yaml")).out)["items"][0]["metadata"]["name"] == "one"
    assert (await plugin.run("status", *at, "-o", "name")).lines == ["powertool.codriverlabs.ai.toe.run/one"]
    gone = await plugin.run("status", "none", *at)
    assert gone.code == 1
    assert "not found" in gone.err


async def test_cancelling_asks_the_operator_with_the_reason(cluster: Cluster) -> None:
    plugin, at = await cluster.plugin(), ("-n", cluster.server.namespace)
    await plugin.run("run", "probe", *at, "-l", "a=b", "--name", "long")
    ran = await plugin.run("cancel", "long", *at, "--reason", "enough seen")
    assert (ran.code, ran.out) == (0, "powertool/long is being cancelled\n"), ran.err
    assert (await cluster.powertool("long"))["metadata"]["annotations"] == {"toe.run/cancel": "enough seen"}


async def test_what_cannot_be_cancelled_is_said(cluster: Cluster) -> None:
    """An empty reason is none to the operator, and what is over is not ended again."""
    plugin, at = await cluster.plugin(), ("-n", cluster.server.namespace)
    await plugin.run("run", "probe", *at, "-l", "a=b", "--name", "past")
    empty = await plugin.run("cancel", "past", *at, "--reason", " ")
    assert (empty.code, "--reason is empty" in empty.err) == (2, True)
    await cluster.tell("past", phase="Completed")
    ran = await plugin.run("cancel", "past", *at)
    assert (ran.code, ran.out) == (0, "powertool/past is over already: Completed\n"), ran.err


async def test_a_schedule_is_waited_for_until_the_run_that_goes_on_is_over(cluster: Cluster) -> None:
    """A schedule itself never ends: without a run there is nothing to wait for, and cancelling it says how to go on."""
    plugin, at = await cluster.plugin(), ("-n", cluster.server.namespace)
    spec = {
        "targets": {"labelSelector": {"matchLabels": {"app": "web"}}},
        "tool": {"name": "probe", "duration": "30s"},
        "output": {"mode": "collector"},
        "schedule": "@hourly",
    }
    body = {"apiVersion": POWER_TOOLS.api_version, "kind": POWER_TOOLS.kind, "metadata": {"name": "often"}}
    await cluster.server.make(POWER_TOOLS.path(cluster.server.namespace), {**body, "spec": spec})
    idle = await plugin.run("status", "often", *at, "--wait")
    assert (idle.code, "has no run to wait for now" in idle.err) == (1, True)
    nine, ten = "2026-01-24T09:00:00Z", "2026-01-24T10:00:00Z"
    queued = {
        "type": "Running",
        "status": "False",
        "reason": "Conflicted",
        "message": "1 wait",
        "lastTransitionTime": nine,
    }
    await cluster.tell("often", phase="Conflicted", run=nine, scheduledAt=nine, startedAt=nine, conditions=[queued])
    process = await plugin.start("status", "often", *at, "--wait")
    assert process.stderr is not None
    assert await process.stderr.readline() == b"often waits: Conflicted: 1 wait\n"
    record = {"scheduledAt": nine, "startedAt": nine, "finishedAt": ten, "phase": "PartiallyFailed"}
    await cluster.tell("often", phase="Running", run=ten, scheduledAt=ten, startedAt=ten, runs=[record])
    _, err = await process.communicate()
    assert process.returncode == 5, err
    ran = await plugin.run("cancel", "often", *at)
    assert "powertool often toe.run/cancel-" in ran.err


async def test_waiting_says_why_nothing_begins_and_answers_in_the_form_that_is_asked_for(cluster: Cluster) -> None:
    """Without a terminal too: a script's log tells what it hangs on."""
    plugin, at = await cluster.plugin(), ("-n", cluster.server.namespace)
    process = await plugin.start("run", "probe", *at, "-l", "a=b", "--name", "held", "--wait", "-o", "json")
    await cluster.server.until(POWER_TOOLS.path(cluster.server.namespace, "held"), lambda one: True)
    moment = {"lastTransitionTime": "2026-01-24T20:44:08Z"}
    accepted = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "tool probe may run here"}
    running = {"type": "Running", "status": "False", "reason": "Suspended", "message": "spec.suspend is true"}
    await cluster.tell("held", phase="Pending", conditions=[{**accepted, **moment}, {**running, **moment}])
    assert process.stderr is not None
    assert await process.stderr.readline() == b"held waits: Suspended: spec.suspend is true\n"
    await cluster.tell("held", phase="Cancelled")
    out, err = await process.communicate()
    assert process.returncode == 1, err
    assert json.loads(out)["status"]["phase"] == "Cancelled"


async def test_approved_tools_are_listed_with_what_this_user_may(cluster: Cluster) -> None:
    await cluster.approve("tcpdump", allowedNamespaces=["elsewhere"], description="packets", maxDuration="1h")
    await cluster.approve("sysreport", sensitivity="low")
    await cluster.approve("broken", allowedNamespaces=["team-["])
    where = ("--operator-namespace", cluster.server.namespace, "-n", cluster.server.namespace)
    listed = await (await cluster.plugin()).run("tools", *where)
    assert [line.split()[:6] for line in listed.lines[1:]] == [
        ["broken", "Unknown", "yes", "no", "moderate", "24h"],
        ["sysreport", "Unknown", "yes", "yes", "low", "24h"],
        ["tcpdump", "Unknown", "yes", "no", "moderate", "1h"],
    ]
    nobody = await (await cluster.plugin("nobody")).run("tools", *where)
    assert nobody.code == 3
    assert "powertoolconfigs" in nobody.err


async def test_a_preflight_tells_everything_in_one_go(cluster: Cluster) -> None:
    name = cluster.server.namespace
    await cluster.approve("mighty", securityContext={"capabilities": {"add": ["NET_RAW"]}}, allowedArgs=[])
    where = ("--operator-namespace", name, "-n", name, "-l", "app=web")
    plugin = await cluster.plugin()
    bare = await plugin.run("preflight", "mighty", *where)
    assert bare.code == 1
    assert "0 of 0 that match are running" in bare.out
    words = await plugin.run("can-i", "mighty", *where, "--", "--exec")
    assert "does not allow the argument '--exec'" in words.out
    unknown = await plugin.run("preflight", "nonsense", *where, "-o", "json")
    checks = {one["what"]: one for one in json.loads(unknown.out)["checks"]}
    assert checks["the tool is approved"]["fine"] is False
    assert "approved tools are: mighty" in checks["the tool is approved"]["words"]
    denied = await (await cluster.plugin("nobody")).run("preflight", "mighty", *where)
    assert denied.code == 3
    assert denied.out.count("NO") >= 3


async def test_a_preflight_looks_where_the_run_would(cluster: Cluster) -> None:
    """Into the namespaces that are named, each with its grant; and at the bounds of the tool's configuration."""
    own = cluster.server.namespace
    await cluster.approve("mild", maxDuration="1m", allowedNamespaces=[own, f"{own}-open"])
    for name, annotations in ((f"{own}-open", {"toe.run/powertools-from": own}), (f"{own}-shut", {})):
        body = {"metadata": {"name": name, "annotations": annotations}}
        await cluster.server.make_cluster_wide("/api/v1/namespaces", body)
    plugin = await cluster.plugin()
    where = ("--operator-namespace", own, "-n", own, "-l", "app=web", "-o", "json")
    both = f"{own}-open,{own}-shut"
    ran = await plugin.run("preflight", "mild", *where, "--from-namespaces", both, "--duration", "2m")
    checks = {one["what"]: one for one in json.loads(ran.out)["checks"]}
    assert checks[f"{own}-open lets {own} run tools in its pods"]["fine"] is True
    shut = checks[f"{own}-shut lets {own} run tools in its pods"]
    assert (shut["fine"], f"kubectl annotate namespace {own}-shut" in shut["words"]) == (False, True)
    assert (
        f"not in {own}-shut; it is allowed in {own}, {own}-open" in checks["it is allowed where it is to run"]["words"]
    )
    assert "2m is longer than the 1m that tool mild may take" in checks["it may run as long"]["words"]
    nobody = await (await cluster.plugin("nobody")).run(
        "preflight", "mild", *where[:-2], "--operator-namespace", "home"
    )
    assert "ask for the right to use powertoolconfigs/mild in namespace home" in nobody.out
    wrong = await plugin.run("preflight", "No_Name", *where)
    assert (wrong.code, "this makes no PowerTool" in wrong.err) == (2, True)
