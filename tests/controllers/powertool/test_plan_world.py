"""Plans applied until nothing changes, in a world where pods die, tools fail and the operator is killed at any point.

What has to hold at every written status and for every tool that starts is checked by the world itself.
"""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace
from powertool_world import BORN, World, config, pod, tool

from toe_async.apis.powertool import FINAL_STATES, Phase, PowerTool, TargetState
from toe_async.controllers.powertool import ledger
from toe_async.controllers.powertool.counting import TERMINAL

NAMES = ("a", "b", "c")
TOOLS = ("tcpdump", "strace", "perf")
POLICIES = st.sampled_from(
    [
        {},
        {"onError": "stop"},
        {"onError": "retry", "backoff": {"initial": "10s", "max": "30s", "attempts": 3}},
    ]
)


def named(name: str, born: int, **spec: Any) -> PowerTool:
    """A PowerTool of that name, older or younger than the others."""
    created = (BORN + timedelta(seconds=born)).isoformat()
    return tool(spec, uid=f"uid-{name}", name=name, creationTimestamp=created)


class Machine(RuleBasedStateMachine):
    """Three PowerTools over a handful of pods. After every history the world settles and stays settled."""

    @initialize(
        pods=st.integers(0, 7),
        cluster=st.integers(1, 8),
        per_node=st.integers(1, 5),
        batch=st.sampled_from([None, 1, 2]),
        policy=POLICIES,
        friends=st.booleans(),
        tools=st.tuples(*[st.sampled_from(TOOLS)] * 3),
        deadline=st.sampled_from([None, 120]),
        schedule=st.booleans(),
        overlap=st.sampled_from(["Forbid", "Allow", "Replace"]),
    )
    def start(self, **drawn: Any) -> None:
        """Draw a world."""
        budgets = {"maxConcurrentPods": drawn["batch"]} if drawn["batch"] else {}
        made = []
        for at, name in enumerate(NAMES):
            spec: dict[str, Any] = {
                "tool": {"name": drawn["tools"][at], "duration": "30s"},
                "budgets": budgets,
                "failurePolicy": drawn["policy"],
            }
            if drawn["deadline"]:
                spec["activeDeadlineSeconds"] = drawn["deadline"]
            if drawn["schedule"] and name == "c":
                spec |= {"schedule": "*/5 * * * *", "concurrencyPolicy": drawn["overlap"]}
            made.append(named(name, at, **spec))
        self.world = World(
            made,
            [pod(number) for number in range(drawn["pods"])],
            cluster=drawn["cluster"],
            per_node=drawn["per_node"],
        )
        if drawn["friends"]:
            self.world.configs = {
                "tcpdump": config("tcpdump", compatibleWith=["strace"]),
                "strace": config("strace", compatibleWith=["tcpdump"]),
            }
        self.pods = 100

    @rule(name=st.sampled_from(NAMES), cut=st.sampled_from([None, None, None, 0, 1]))
    def reconcile(self, name: str, cut: int | None) -> None:
        """One plan; sometimes the operator is killed in the middle of carrying it out."""
        self.world.step(name, cut=cut)
        if cut is not None:
            self.world.crash()

    @rule()
    def killed(self) -> None:
        """The operator starts anew."""
        self.world.crash()

    @precondition(lambda self: self.world.attempts)
    @rule(data=st.data(), state=st.sampled_from([TargetState.COMPLETED, TargetState.FAILED]), passing=st.booleans())
    def ends(self, data: st.DataObject, state: TargetState, passing: bool) -> None:
        """Some tool ends, or obeys."""
        self.world.end(data.draw(st.sampled_from(sorted(self.world.attempts))), state, passing=passing)

    @precondition(lambda self: self.world.pods)
    @rule(data=st.data(), gone=st.booleans())
    def pod_dies(self, data: st.DataObject, gone: bool) -> None:
        """A pod goes, and another of the same name comes."""
        uid = data.draw(st.sampled_from(sorted(self.world.pods)))
        old = self.world.pods[uid]
        if not gone:
            self.world.pods[uid] = replace(old, terminating=True)
            return
        del self.world.pods[uid]
        self.pods += 1
        self.world.pods[pod(self.pods).uid] = pod(self.pods, name=old.name)

    @rule(seconds=st.sampled_from([1, 15, 60, 400]))
    def time_passes(self, seconds: int) -> None:
        """Waits end, deadlines come, slots fall due."""
        self.world.now += timedelta(seconds=seconds)

    @rule(name=st.sampled_from(NAMES))
    def suspend_or_resume(self, name: str) -> None:
        """The one field that may change."""
        self.world.suspended ^= {name}

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        """kubectl delete."""
        self.world.deleted.add(name)

    @invariant()
    def nothing_runs_twice(self) -> None:
        """A target of one PowerTool has one attempt at a time, whatever was killed when."""
        if not hasattr(self, "world"):
            return
        running: set[tuple[str, str, str]] = set()
        for attempt in self.world.attempts.values():
            target, name = attempt.capture.target, attempt.capture.name
            if attempt.result is None and target.pod_uid in self.world.pods:
                key = (name, target.pod_uid, attempt.capture.run)
                assert key not in running, "two attempts on one target at once"
                running.add(key)

    def teardown(self) -> None:
        """Left alone, every PowerTool that may run comes to its end, and then nothing is written any more."""
        if not hasattr(self, "world"):
            return
        self.world.suspended.clear()
        for name, one in list(self.world.tools.items()):
            if one.spec.schedule:
                self.world.deleted.add(name)
        self.world.settle()
        assert not set(self.world.tools) & self.world.deleted, "a deleted PowerTool is let go"
        for one in self.world.tools.values():
            note(f"{one.metadata.name}: {one.status.phase}")
            assert one.status.phase in TERMINAL
            assert all(entry.state in FINAL_STATES for entry in ledger.decode(one.status.ledger))
            if one.status.phase is Phase.COMPLETED:
                assert one.status.artifacts
                assert one.status.bytes_written == 7 * one.status.completed_pods


@pytest.mark.slow
def test_every_history_settles_and_breaks_no_rule() -> None:
    """Restarts, deaths, failures, deletions and suspensions in any order; a sample, seeds printed when one fails."""
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Stage.generate],
        ),
    )


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_every_history_settles_in_many_more_worlds() -> None:
    """The same with time to look."""
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=3000, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.parametrize("cut", [0, 1, None])
def test_killed_at_each_step_of_each_plan_a_run_ends_as_if_nothing_had_been(cut: int | None) -> None:
    """One attempt a target, all completed, whether the kill came before the write, before the starts, or after."""
    world = World([named("a", 0, budgets={"maxConcurrentPods": 2})], [pod(number) for number in range(6)])
    for turn in range(40):
        world.step("a", cut=cut if turn % 2 else None)
        world.crash()
        if turn % 3 == 0:
            world.end_all()
    world.settle()
    assert len(world.attempts) == 6
    assert world.tools["a"].status.completed_pods == 6


@pytest.mark.slow
def test_two_hundred_pods_in_batches_of_ten_have_right_totals_at_every_write() -> None:
    """The world checks each status; here the whole way of a large run."""
    world = World([named("a", 0, budgets={"maxConcurrentPods": 10})], [pod(number) for number in range(200)])
    world.settle()
    status = world.tools["a"].status
    assert (status.phase, status.completed_pods, len(world.attempts)) == (Phase.COMPLETED, 200, 200)
    assert len(status.targets) > 0


def test_incompatible_powertools_take_turns_in_order_of_their_creation() -> None:
    """One container, three tools that do not get along: the oldest first, none for ever."""
    world = World([named(name, at) for at, name in enumerate(NAMES)], [pod(0)])
    begun: list[str] = []
    for _ in range(12):
        for name in reversed(NAMES):
            decided = world.step(name)
            begun += [name for _ in decided.starts] if decided else []
        if len(begun) == 1 and begun[0] == "c":
            assert world.tools["a"].status.phase is Phase.CONFLICTED
        world.end_all()
    assert begun == ["c", "a", "b"], "c was there first while nobody else had asked; then the older of the two"


def test_the_oldest_powertool_gets_the_slots_that_come_free() -> None:
    """One slot in the cluster: a younger PowerTool waits until the older has begun all of its targets."""
    world = World([named("old", 0), named("new", 9)], [pod(number) for number in range(4)], cluster=1)
    world.configs = {"tcpdump": config("tcpdump", compatibleWith=["tcpdump"])}
    begun: list[str] = []
    for _ in range(30):
        for name in ("old", "new"):
            decided = world.step(name)
            begun += [name for _ in decided.starts] if decided else []
        world.end_all()
    assert begun == ["old"] * 4 + ["new"] * 4
