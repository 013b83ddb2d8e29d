"""PowerTools from their creation to their end, over an API server by the sandbox's rules, in virtual time."""

import asyncio
from typing import Any

import msgspec
import pytest
from directapi import Call
from powertool_rig import Rig, failed, until

from toe_async.apis.meta import find_condition
from toe_async.apis.powertool import Phase, TargetState
from toe_async.controllers.powertool.facts import FINALIZER
from toe_async.controllers.powertool.observe import Limits
from toe_async.kube.errors import KubeError, TransportError
from toe_async.kube.requests import Request

GRANT = "toe.run/powertools-from"


def rig_with(*pods: str, **kwargs: Any) -> Rig:
    rig = Rig(**kwargs)
    rig.tool_config()
    for name in pods:
        rig.pod(name)
    return rig


def reason_of(rig: Rig, type_: str, name: str = "run") -> str:
    condition = find_condition(rig.read(name).status.conditions, type_)
    return condition.reason if condition is not None else ""


def is_over(rig: Rig, name: str = "run") -> bool:
    return rig.read(name).status.finished_at is not None


@pytest.mark.looptime
async def test_a_run_claims_starts_stores_and_completes() -> None:
    """The whole way: finalizer, claim, tool, artifact, totals, and the finalizer goes."""
    rig = rig_with("web-0", "web-1", "web-2")
    async with rig.process():
        rig.tool()
        await until(lambda: rig.read().status.phase is Phase.COMPLETED)
        await asyncio.sleep(5)
    tool = rig.read()
    assert (tool.status.selected_pods, tool.status.completed_pods) == (3, 3)
    assert len(tool.status.artifacts) == 3
    assert tool.status.bytes_written == 300
    assert FINALIZER not in tool.metadata.finalizers
    assert FINALIZER in next(one for one in rig.versions() if one.status.ledger).metadata.finalizers
    rig.check_every_version()


@pytest.mark.looptime
async def test_a_finished_run_is_never_written_again_however_often_it_is_looked_at() -> None:
    """PT1, PT19: 20 further reconciles, pods that come and go, an hour."""
    rig = rig_with("web-0")
    async with rig.process() as process:
        rig.tool()
        await until(lambda: is_over(rig))
        await asyncio.sleep(5)
        before, version = len(rig.api.writes), rig.read().metadata.resource_version
        for number in range(20):
            process.look_again("run")
            rig.pod(f"late-{number}")
            await asyncio.sleep(180)
        rig.api.delete("pods", "shop", "late-1")
        await asyncio.sleep(120)
    assert len(rig.api.writes) == before
    assert rig.read().metadata.resource_version == version
    assert len(rig.world.tools) == 1


@pytest.mark.looptime
async def test_a_run_that_goes_on_without_news_writes_nothing() -> None:
    """PT19: our own writes start no loop."""
    rig = rig_with("web-0", seconds=3600)
    async with rig.process() as process:
        rig.tool(tool={"name": "dump", "duration": "1h"})
        await until(lambda: rig.read().status.running_pods == 1)
        await asyncio.sleep(120)
        before = len(rig.api.writes)
        for _ in range(20):
            process.look_again("run")
            await asyncio.sleep(30)
        assert len(rig.api.writes) == before
        rig.api.delete("powertools", "shop", "run")
        await until(lambda: rig.api.get("powertools", "shop", "run") is None)


@pytest.mark.looptime
async def test_what_others_write_into_status_and_metadata_stays() -> None:
    """PT19: a condition of somebody else's, and a finalizer of his, are his."""
    rig = rig_with("web-0")
    other = {
        "type": "Reviewed",
        "status": "True",
        "reason": "Fine",
        "message": "",
        "lastTransitionTime": "2026-01-24T20:00:00Z",
    }
    async with rig.process():
        rig.tool()
        await until(lambda: rig.read().status.running_pods == 1)
        held = rig.api.get("powertools", "shop", "run") or {}
        conditions = [*held["status"]["conditions"], other]
        rig.api.change("powertools", "shop", "run", {"status": {"conditions": conditions}}, subresource="status")
        finalizers = [*held["metadata"]["finalizers"], "example.org/theirs"]
        rig.api.change("powertools", "shop", "run", {"metadata": {"finalizers": finalizers}})
        await until(lambda: is_over(rig))
        await asyncio.sleep(5)
    assert reason_of(rig, "Reviewed") == "Fine"
    assert rig.read().metadata.finalizers == ("example.org/theirs",)


@pytest.mark.looptime
async def test_a_writer_who_is_always_faster_delays_the_run_and_never_doubles_it() -> None:
    """A 409 means: look again. Every write of ours meets a version that is another by then."""
    rig = rig_with("web-0", "web-1")
    rivals = list(range(12))

    def before(call: Call) -> KubeError | None:
        if call.verb == "patch" and call.resource.startswith("powertools") and rivals and len(rivals) % 2 == 0:
            rig.api.change("powertools", "shop", "run", {"metadata": {"labels": {"rival": str(rivals.pop())}}})
        elif call.verb == "patch" and rivals:
            rivals.pop()
        return None

    async with rig.process():
        rig.api.before = before
        rig.tool()
        await until(lambda: is_over(rig))
    assert not rivals
    assert set(rig.world.attempts().values()) == {1}
    assert rig.read().status.phase is Phase.COMPLETED
    rig.check_every_version()


@pytest.mark.looptime
async def test_a_claim_whose_answer_is_lost_is_begun_once() -> None:
    """The API server took the claim, we do not know it: the watch tells, and the tool starts, once."""
    rig = rig_with("web-0", "web-1")
    lost: list[Call] = []

    def after(call: Call) -> KubeError | None:
        if call.resource == "powertools/status" and not lost and call.body["status"].get("ledger"):
            lost.append(call)
            return TransportError("the connection was cut")
        return None

    async with rig.process():
        rig.api.after = after
        rig.tool()
        await until(lambda: is_over(rig))
    assert lost
    assert set(rig.world.attempts().values()) == {1}
    assert rig.read().status.completed_pods == 2


@pytest.mark.looptime
async def test_deleting_cancels_the_tools_and_the_object_goes_when_they_have_ended() -> None:
    """PT18: the finalizer holds the object while a tool runs, and no longer."""
    rig = rig_with("web-0", "web-1", seconds=3600)
    async with rig.process() as process:
        rig.tool(tool={"name": "dump", "duration": "1h"})
        await until(lambda: rig.read().status.running_pods == 2)
        await asyncio.sleep(2)
        rig.api.delete("powertools", "shop", "run")
        await until(lambda: rig.api.get("powertools", "shop", "run") is None, 30)
        assert set(process.runner.cancelled) == set(rig.world.tools)
        await asyncio.sleep(5)
        assert process.runner.running == frozenset()
    assert rig.versions()[-1].status.cancelled_pods == 2


@pytest.mark.looptime
@pytest.mark.parametrize("mode", ["collector", "ephemeral"])
async def test_an_object_whose_finalizer_was_taken_by_force_still_has_its_tools_stopped(mode: str) -> None:
    """Somebody skips the wait: the tools are told all the same, and keep nothing that nobody would find."""
    rig = rig_with("web-0", seconds=3600)
    async with rig.process() as process:
        rig.tool(tool={"name": "dump", "duration": "1h"}, output={"mode": mode})
        await until(lambda: rig.read().status.running_pods == 1)
        rig.api.change("powertools", "shop", "run", {"metadata": {"finalizers": None}})
        rig.api.delete("powertools", "shop", "run")
        await until(lambda: not process.runner.running, 10)
        assert set(process.runner.cancelled) == set(rig.world.tools)
        assert process.runner.discarded == (set(rig.world.tools) if mode == "ephemeral" else set())


@pytest.mark.looptime
async def test_a_finished_object_is_deleted_after_its_time_and_only_if_it_is_the_one_that_was_seen() -> None:
    """ttlSecondsAfterFinished, with UID and version as preconditions."""
    rig = rig_with("web-0")
    async with rig.process():
        rig.tool(ttlSecondsAfterFinished=30)
        await until(lambda: is_over(rig))
        last = rig.read()
        await asyncio.sleep(25)
        assert rig.api.get("powertools", "shop", "run") is not None
        await until(lambda: rig.api.get("powertools", "shop", "run") is None, 20)
    (deletion,) = (call for call in rig.api.writes if call.verb == "delete")
    assert deletion.body["preconditions"]["uid"] == last.metadata.uid
    assert deletion.body["preconditions"]["resourceVersion"]


@pytest.mark.looptime
async def test_a_withdrawn_grant_stops_what_runs_there_within_ten_seconds() -> None:
    """H22: the namespace's owner has the last word."""
    rig = rig_with(seconds=3600)
    rig.api.change("namespaces", "", "other", {"metadata": {"annotations": {GRANT: "shop"}}})
    rig.pod("web-0", namespace="other")
    targets = {"labelSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": {"matchNames": ["other"]}}
    async with rig.process() as process:
        rig.tool(targets=targets, tool={"name": "dump", "duration": "1h"})
        await until(lambda: rig.read().status.running_pods == 1)
        rig.api.change("namespaces", "", "other", {"metadata": {"annotations": {GRANT: "nobody"}}})
        await until(lambda: not process.runner.running, 10)
        await until(lambda: is_over(rig), 10)
        (row,) = rig.read().status.targets
        assert (row.state, row.reason) == (TargetState.CANCELLED, "NamespaceNotGranted")


@pytest.mark.looptime
async def test_an_expression_finds_only_namespaces_that_grant_it_and_only_while_they_do() -> None:
    """H22: the others are nobody's business, so that they are left out without a word."""
    rig = rig_with(seconds=3600)
    rig.api.create("namespaces", "", {"metadata": {"name": "other-2"}})
    rig.api.change("namespaces", "", "other", {"metadata": {"annotations": {GRANT: "sh*"}}})
    for namespace in ("other", "other-2"):
        rig.pod("web-9", namespace=namespace)
    targets = {"labelSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": {"matchRegex": "other.*"}}
    async with rig.process() as process:
        rig.tool(targets=targets, tool={"name": "dump", "duration": "1h"})
        await until(lambda: rig.read().status.running_pods == 1)
        assert [row.namespace for row in rig.read().status.targets] == ["other"]
        assert reason_of(rig, "Accepted") == "Accepted"
        rig.api.change("namespaces", "", "other", {"metadata": {"annotations": {GRANT: None}}})
        await until(lambda: not process.runner.running, 10)
        await until(lambda: is_over(rig), 10)
        assert [row.reason for row in rig.read().status.targets] == ["NamespaceNotGranted"]


@pytest.mark.looptime
async def test_a_namespace_that_grants_nothing_gets_no_tool_until_it_does() -> None:
    """The refusal waits for the annotation, and the annotation wakes it."""
    rig = rig_with()
    rig.pod("web-0", namespace="other")
    targets = {"labelSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": {"matchNames": ["other"]}}
    async with rig.process():
        rig.tool(targets=targets)
        await asyncio.sleep(5)
        assert reason_of(rig, "Accepted") == "NamespaceNotGranted"
        assert not rig.world.tools
        rig.api.change("namespaces", "", "other", {"metadata": {"annotations": {GRANT: "team-*, shop"}}})
        await until(lambda: is_over(rig), 30)
    assert rig.read().status.phase is Phase.COMPLETED


@pytest.mark.looptime
async def test_a_tool_that_is_approved_later_begins_then() -> None:
    """A changed configuration wakes the PowerTools that name it; until then ToolNotFound, and no write per pass."""
    rig = Rig()
    rig.pod("web-0")
    async with rig.process() as process:
        rig.tool()
        await asyncio.sleep(5)
        assert reason_of(rig, "Accepted") == "ToolNotFound"
        before = len(rig.api.writes)
        for _ in range(20):
            process.look_again("run")
            await asyncio.sleep(61)
        assert len(rig.api.writes) == before
        rig.tool_config()
        await until(lambda: is_over(rig), 30)
    assert rig.read().status.phase is Phase.COMPLETED


@pytest.mark.looptime
async def test_a_missing_policy_stops_everything_until_it_is_there() -> None:
    """H21."""
    rig = rig_with("web-0")
    rig.policy_problem = "the policy is missing"
    async with rig.process() as process:
        rig.tool()
        await asyncio.sleep(5)
        assert reason_of(rig, "Accepted") == "PolicyMissing"
        rig.policy_problem = None
        process.controller.wake_all()
        await until(lambda: is_over(rig), 30)
    assert rig.read().status.phase is Phase.COMPLETED


@pytest.mark.looptime
async def test_a_store_that_is_away_holds_a_run_back_until_it_answers() -> None:
    """The sink is tried before the run, and again."""
    rig = rig_with("web-0")
    rig.sink_answer = "connection refused"
    async with rig.process():
        rig.tool()
        await asyncio.sleep(40)
        assert reason_of(rig, "Accepted") == "StoreUnreachable"
        rig.sink_answer = None
        await until(lambda: is_over(rig), 90)
    assert rig.read().status.phase is Phase.COMPLETED


@pytest.mark.looptime
async def test_a_pod_that_vanishes_closes_its_target_and_the_totals_add_up() -> None:
    """PT5: also for one that had not begun; a pod of the same name is another one."""
    rig = rig_with("web-0", "web-1", "web-2", seconds=3600)
    async with rig.process():
        rig.tool(tool={"name": "dump", "duration": "1h"}, budgets={"maxConcurrentPods": 1})
        await until(lambda: rig.read().status.running_pods == 1)
        waiting = [row.pod for row in rig.read().status.targets if row.state is TargetState.PENDING]
        rig.api.delete("pods", "shop", waiting[0], at_once=True)
        await until(lambda: rig.read().status.failed_pods == 1, 10)
        rig.pod(waiting[0])
        await asyncio.sleep(5)
        row = next(row for row in rig.read().status.targets if row.pod == waiting[0])
        assert (row.state, row.reason) == (TargetState.FAILED, "PodGone")
        assert rig.read().status.selected_pods == 3
        rig.api.delete("powertools", "shop", "run")
        await until(lambda: rig.api.get("powertools", "shop", "run") is None)
    rig.check_every_version()


@pytest.mark.looptime
async def test_two_powertools_on_one_container_run_one_after_the_other() -> None:
    """PT17: the second queues, says so, and begins when the first is done."""
    rig = rig_with("web-0", seconds=20)
    async with rig.process():
        rig.tool("first")
        await until(lambda: rig.read("first").status.running_pods == 1)
        rig.tool("second")
        await until(lambda: rig.read("second").status.phase is Phase.CONFLICTED, 10)
        await until(lambda: is_over(rig, "second"), 120)
    assert rig.world.most_at_once() == 1
    first, second = (
        next(tool for tool in rig.world.tools.values() if tool.capture.name == name) for name in ("first", "second")
    )
    assert first.ends <= second.began <= first.ends + 5
    assert [rig.read(name).status.phase for name in ("first", "second")] == [Phase.COMPLETED, Phase.COMPLETED]


@pytest.mark.looptime
async def test_the_administrators_limits_hold_over_all_powertools() -> None:
    """At most three in the cluster and two on a node, whoever asks; everybody gets his turn."""
    rig = Rig(seconds=10, limits=Limits(cluster=3, per_node=2))
    rig.tool_config()
    for number in range(4):
        rig.pod(f"a-{number}", node="node-1", app="a")
        rig.pod(f"b-{number}", node=f"node-{number % 2 + 1}", app="b")
    async with rig.process():
        for app in "ab":
            rig.tool(app, targets={"labelSelector": {"matchLabels": {"app": app}}})
        await until(lambda: is_over(rig, "a") and is_over(rig, "b"))
    assert rig.world.most_at_once() == 3
    for node in ("node-1", "node-2"):
        tools = [tool for tool in rig.world.tools.values() if tool.capture.target.node == node]
        for tool in tools:
            assert sum(other.began <= tool.began < other.ends for other in tools) <= 2
    assert [rig.read(app).status.completed_pods for app in "ab"] == [4, 4]


@pytest.mark.looptime
@pytest.mark.parametrize(("seconds", "lag"), [(0.7, 0.0), (0.1, 0.5), (0.7, 0.3), (0.3, 0.5)])
async def test_a_claim_on_its_way_counts_for_whoever_decides_meanwhile(seconds: float, lag: float) -> None:
    """API server and watch take their time: nobody gives the one place, or the one container, away a second time."""
    rig = Rig(seconds=10, limits=Limits(cluster=1, per_node=1))
    rig.tool_config(compatibleWith=["dump"])
    rig.pod("web-0")
    for number in range(4):
        rig.pod(f"a-{number}", app=f"a{number}")
    async with rig.process():
        rig.api.seconds, rig.api.lag = seconds, lag
        for number in range(4):
            rig.tool(f"run-{number}", targets={"labelSelector": {"matchLabels": {"app": f"a{number}"}}})
        rig.tool("run-4")
        await until(lambda: all(is_over(rig, f"run-{number}") for number in range(5)))
    assert rig.world.most_at_once() == 1
    assert len(rig.world.tools) == 5


@pytest.mark.looptime
async def test_tools_that_are_declared_compatible_share_a_container() -> None:
    """Both have to say so."""
    rig = rig_with("web-0", seconds=20)
    rig.tool_config("trace", compatibleWith=["watch"])
    rig.tool_config("watch", compatibleWith=["trace"])
    async with rig.process():
        for name in ("trace", "watch"):
            rig.tool(name, tool={"name": name, "duration": "5s"})
        await until(lambda: is_over(rig, "trace") and is_over(rig, "watch"))
    assert rig.world.most_at_once() == 2


@pytest.mark.looptime
async def test_a_tools_container_that_no_ledger_knows_is_waited_for() -> None:
    """PT17: what runs in the pod counts, also when its PowerTool is gone or its status was edited."""
    rig = rig_with("web-0")
    stranger = {"name": "toe-aaaaaaaaaaaaaaaaaaaa", "image": "none", "targetContainerName": "app"}
    rig.api.change(
        "pods", "shop", "web-0", {"spec": {"ephemeralContainers": [stranger]}}, subresource="ephemeralcontainers"
    )

    def stand(state: dict[str, Any]) -> None:
        told = {"name": stranger["name"], "image": "none", "imageID": "", "ready": False, "restartCount": 0}
        statuses = [{**told, "state": state}]
        rig.api.change(
            "pods", "shop", "web-0", {"status": {"ephemeralContainerStatuses": statuses}}, subresource="status"
        )

    stand({"running": {"startedAt": "2026-01-24T20:00:00Z"}})
    async with rig.process():
        rig.tool()
        await until(lambda: rig.read().status.phase is Phase.CONFLICTED, 10)
        await asyncio.sleep(30)
        assert not rig.world.tools
        stand({"terminated": {"exitCode": 0, "finishedAt": "2026-01-24T20:01:00Z"}})
        await until(lambda: is_over(rig), 30)
    assert rig.read().status.phase is Phase.COMPLETED


@pytest.mark.looptime
async def test_a_failed_attempt_is_made_again_as_often_as_asked_and_counted_once() -> None:
    """failurePolicy retry: each attempt is a container of its own, the target fails once."""
    rig = rig_with("web-0")
    rig.world.outcome_of = failed(passing=True)
    async with rig.process():
        rig.tool(failurePolicy={"onError": "retry", "backoff": {"initial": "2s", "attempts": 3}})
        await until(lambda: is_over(rig))
        await asyncio.sleep(2)
    assert sorted(attempt for _, attempt in rig.world.attempts()) == [1, 2, 3]
    status = rig.read().status
    assert (status.phase, status.failed_pods) == (Phase.FAILED, 1)
    rig.check_every_version()


@pytest.mark.looptime
async def test_lastused_of_the_configuration_is_written_at_most_once_a_minute() -> None:
    """Three runs within a minute are one write; one after it is another."""
    rig = rig_with("web-0")
    used: list[Any] = []
    async with rig.process():
        for number in range(4):
            rig.tool(f"run-{number}")
            await until(lambda number=number: is_over(rig, f"run-{number}"))  # type: ignore[misc]
            if number == 2:
                await asyncio.sleep(70)
            used = [call.body for call in rig.api.writes if call.resource == "powertoolconfigs/status"]
    assert len(used) == 2


@pytest.mark.looptime
async def test_events_tell_the_begin_and_the_end() -> None:
    """Once each, on the PowerTool."""
    rig = rig_with("web-0")
    async with rig.process():
        rig.tool()
        await until(lambda: is_over(rig))
        await asyncio.sleep(120)
    assert rig.events
    assert len(rig.events) == len(set(rig.events))


@pytest.mark.looptime
async def test_the_hottest_pods_are_those_that_the_metrics_api_says() -> None:
    """One list of the namespace when the run begins, and none afterwards."""
    rig = rig_with("web-0", "web-1", "web-2", "web-3")
    use = {"web-0": "10m", "web-1": "900m", "web-2": "20m", "web-3": "800m"}
    asked: list[str] = []

    def metrics(request: Request) -> bytes | None:
        if not request.path.startswith("/apis/metrics.k8s.io/"):
            return None
        asked.append(request.path)
        return msgspec.json.encode(
            {
                "items": [
                    {
                        "metadata": {"name": name, "namespace": "shop"},
                        "timestamp": "2026-01-24T20:00:00Z",
                        "window": "15s",
                        "containers": [{"name": "app", "usage": {"cpu": cpu, "memory": "1Mi"}}],
                    }
                    for name, cpu in use.items()
                ]
            }
        )

    rig.api.computed = metrics
    targets = {"labelSelector": {"matchLabels": {"app": "web"}}, "pick": "Hottest", "maxTargets": 2}
    async with rig.process():
        rig.tool(targets=targets)
        await until(lambda: is_over(rig))
    assert {tool.capture.target.pod for tool in rig.world.tools.values()} == {"web-1", "web-3"}
    assert len(asked) <= 2, "asked by the decision that adds the finalizer and by the one that claims"


@pytest.mark.looptime
async def test_a_schedule_runs_in_its_zone_again_and_again_and_each_run_chooses_anew() -> None:
    """Every minute: a pod that is gone is not chosen again, one that came is."""
    rig = rig_with("web-0")
    async with rig.process():
        rig.tool(schedule="* * * * *", timeZone="Europe/Berlin")
        await until(lambda: len(rig.world.tools) == 1, 120)
        await until(lambda: is_over(rig), 30)
        rig.api.delete("pods", "shop", "web-0", at_once=True)
        rig.pod("web-9")
        await until(lambda: len(rig.world.tools) == 2, 120)
        await until(lambda: is_over(rig), 30)
        rig.api.change("powertools", "shop", "run", {"spec": {"suspend": True}})
        await asyncio.sleep(300)
    assert [tool.capture.target.pod for tool in rig.world.tools.values()] == ["web-0", "web-9"]
    assert len({tool.capture.run for tool in rig.world.tools.values()}) == 2
    assert rig.read().status.runs
