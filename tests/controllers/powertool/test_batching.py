"""Who begins now: batches, the administrator's slots, and tools that do not get along."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from powertool_world import BORN, NOW, after, condition, config, done, observe, pod, states, tool, uid

from toe_async.apis.powertool import Phase, TargetState
from toe_async.apis.reasons import Reason
from toe_async.controllers.powertool.batching import demand
from toe_async.controllers.powertool.facts import Observed, Occupant, Slots
from toe_async.controllers.powertool.ledger import Entry, decode, encode
from toe_async.controllers.powertool.plan import plan
from toe_async.controllers.powertool.waking import WAITING_SECONDS

THREE = [pod(0), pod(1), pod(2)]
OLDER, YOUNGER = BORN - timedelta(hours=1), BORN + timedelta(hours=1)


def strace(**changes: Any) -> Occupant:
    """Another PowerTool in a container."""
    made = Occupant("bank", "other", "pt-0", OLDER, "strace", (), "z" * 32)
    return replace(made, **changes)


def beside(other: Occupant, **changes: Any) -> Observed:
    """One pod whose container somebody else has, or waits for."""
    return observe([pod(0)], busy={(uid(0), "app"): (other,)}, **changes)


def test_no_more_run_at_a_time_than_the_batch_allows_and_the_next_follows_each_end() -> None:
    """maxConcurrentPods holds in every status; those that wait say what for."""
    seen = observe([pod(number) for number in range(5)], tool({"budgets": {"maxConcurrentPods": 2}}))
    decided = plan(seen)
    order = []
    while not decided.status.finished_at:
        order += [one.target.pod for one in decided.starts]
        assert decided.status.running_pods <= 2
        if decided.status.pending_pods:
            assert "maxConcurrentPods is 2" in condition(decided.status, "Running").message
        seen = after(seen, decided)
        first = min(seen.running)
        start = next(one for one in plan(replace(seen, running=frozenset())).resumes if one.id == first)
        seen = replace(seen, progress=done(start), running=seen.running - {first})
        decided = plan(seen)
    assert sorted(order) == [f"web-{number}" for number in range(5)]
    assert decided.status.phase is Phase.COMPLETED


@pytest.mark.parametrize(
    ("slots", "begun", "words"),
    [
        pytest.param(Slots(2, 50, {}, {}), 2, "--max-concurrent-tools)", id="cluster"),
        pytest.param(Slots(0, 50, {}, {}), 0, "--max-concurrent-tools)", id="none left"),
        pytest.param(Slots(-1, 50, {}, {}), 0, "--max-concurrent-tools)", id="lowered meanwhile"),
        pytest.param(Slots(50, 1, {}, {}), 2, "per-node is 1", id="one a node"),
        pytest.param(Slots(50, 5, {"node-0": 5}, {}), 1, "per-node is 5", id="a full node"),
        pytest.param(Slots(50, 5, {"node-0": 4}, {}), 2, "per-node is 5", id="a node with one place"),
        pytest.param(Slots(3, 50, {}, {"node-9": 2}), 1, "older PowerTools", id="older ones first, in the cluster"),
        pytest.param(Slots(50, 2, {}, {"node-0": 1}), 2, "older PowerTools", id="older ones first, on a node"),
        pytest.param(Slots(3, 2, {"node-9": 2}, {"node-9": 9}), 3, "", id="who waits for a full node keeps no slot"),
    ],
)
def test_the_administrators_limits_hold_and_older_powertools_go_first(slots: Slots, begun: int, words: str) -> None:
    """Three pods on two nodes, node-0 having two."""
    decided = plan(observe(THREE, slots=slots))
    assert len(decided.starts) == begun
    message = condition(decided.status, "Running").message
    assert words in message if words else "wait" not in message
    assert decided.recheck_seconds == (WAITING_SECONDS if begun < 3 else None)


FRIEND = config(compatibleWith=["strace"])


@pytest.mark.parametrize(
    ("other", "facts", "begins"),
    [
        pytest.param(strace(), {}, False, id="incompatible"),
        pytest.param(strace(compatible_with=("tcpdump",)), {}, False, id="only the other one agrees"),
        pytest.param(strace(), {"config": FRIEND}, False, id="only this one agrees"),
        pytest.param(strace(compatible_with=("tcpdump",)), {"config": FRIEND}, True, id="both agree"),
        pytest.param(strace(tool="tcpdump"), {}, False, id="the same tool twice"),
        pytest.param(
            strace(tool="tcpdump", compatible_with=("tcpdump",)), {"config": config(compatibleWith=["tcpdump"])}, True,
            id="a tool that is declared to get along with itself",
        ),
        pytest.param(strace(created=YOUNGER), {}, False, id="a younger one that runs"),
        pytest.param(strace(waiting=True), {}, False, id="an older one that queues"),
        pytest.param(strace(waiting=True, created=YOUNGER), {}, True, id="a younger one that queues"),
        pytest.param(strace(waiting=True, created=BORN, uid="pt-0"), {}, False, id="as old, but its UID is smaller"),
        pytest.param(strace(waiting=True, created=BORN, uid="pt-2"), {}, True, id="as old, but its UID is larger"),
        pytest.param(
            strace(waiting=True, compatible_with=("tcpdump",)), {"config": FRIEND}, True, id="a friend that queues",
        ),
        pytest.param(
            strace(namespace="", name="", tool="", uid="", created=None), {"config": FRIEND}, False,
            id="a container that no ledger knows",
        ),
    ],
)  # fmt: skip
def test_a_container_is_shared_by_tools_that_agree_and_queued_for_by_others(
    other: Occupant, facts: dict[str, Any], begins: bool
) -> None:
    """PT17: one run at a time a container, in order of creation, unless both tools are declared compatible."""
    decided = plan(beside(other, **facts))
    assert bool(decided.starts) is begins
    assert states(decided.status) == {TargetState.STARTING if begins else TargetState.QUEUED: 1}
    assert decided.status.phase is (Phase.RUNNING if begins else Phase.CONFLICTED)


def test_a_conflict_says_with_whom_and_ends_with_the_other_tool() -> None:
    """Conflicted names the other PowerTool; an Event tells it once; the container's end lets the run begin."""
    seen = beside(strace())
    decided = plan(seen)
    running = condition(decided.status, "Running")
    assert running.reason == Reason.CONFLICTED
    assert "PowerTool bank/other (tool strace) has" in running.message
    assert [one.reason for one in decided.events] == [Reason.CONFLICTED]
    assert decided.recheck_seconds == WAITING_SECONDS
    seen = after(seen, decided)
    again = plan(seen)
    assert (again.events, again.urgent) == ((), False)
    free = plan(replace(seen, busy={}))
    assert len(free.starts) == 1
    assert free.status.phase is Phase.RUNNING


def test_a_container_of_which_no_powertool_knows_is_named() -> None:
    """Deleting a run frees nothing while its tool still runs, and a user can see why."""
    stranger = strace(namespace="", name="", tool="", uid="", created=None, capture="q" * 20)
    assert f"toe-{'q' * 20}" in condition(plan(beside(stranger)).status, "Running").message


def test_other_targets_run_while_one_queues_and_the_phase_is_running() -> None:
    """Conflicted is only said while nothing of the run runs; the batch's place goes to the next target."""
    seen = observe(THREE, tool({"budgets": {"maxConcurrentPods": 1}}), busy={(uid(0), "app"): (strace(),)})
    decided = plan(seen)
    assert states(decided.status) == {TargetState.QUEUED: 1, TargetState.STARTING: 1, TargetState.PENDING: 1}
    assert decided.status.phase is Phase.RUNNING
    assert decided.status.pending_pods == 2


def test_only_the_container_that_is_wanted_counts() -> None:
    """Another container of the same pod is no conflict."""
    assert len(plan(observe([pod(0)], busy={(uid(0), "side"): (strace(),)})).starts) == 1


@pytest.mark.parametrize("what", ["suspend", "policy"])
def test_who_may_not_begin_gives_its_place_in_the_queue_up(what: str) -> None:
    """No deadlock: a suspended or refused PowerTool keeps nobody out."""
    seen = beside(strace())
    queued = after(seen, plan(seen))
    if what == "suspend":
        queued = replace(queued, tool=replace(queued.tool, spec=replace(queued.tool.spec, suspend=True)))
    else:
        queued = replace(queued, policy_problem="no policy")
    decided = plan(queued)
    assert states(decided.status) == {TargetState.PENDING: 1}
    assert decided.urgent


def test_a_refusal_in_the_middle_holds_back_what_has_not_begun_and_is_told() -> None:
    """A missing policy kills no tool that runs."""
    seen = observe(THREE, tool({"budgets": {"maxConcurrentPods": 1}}))
    first = plan(seen)
    seen = replace(after(seen, first), policy_problem="the policy is missing", progress=done(first.starts[0]))
    decided = plan(seen)
    assert states(decided.status) == {TargetState.COMPLETED: 1, TargetState.PENDING: 2}
    assert condition(decided.status, "Accepted").reason == "PolicyMissing"
    assert "nothing new begins: the policy is missing" in condition(decided.status, "Running").message
    assert not decided.cancels


def test_a_waiting_attempt_queues_like_a_first_one() -> None:
    """Its wait is over, but meanwhile somebody has the container."""
    retry = {"failurePolicy": {"onError": "retry", "backoff": {"initial": "1s"}}}
    one = tool(retry, {"startedAt": NOW.isoformat(), "phase": "Running", "ledger": ""})
    text = encode((Entry(uid(0), "app", TargetState.WAITING, 1, NOW),))
    seen = observe([pod(0)], replace(one, status=replace(one.status, ledger=text)))
    decided = plan(replace(seen, busy={(uid(0), "app"): (strace(),)}))
    (entry,) = decode(decided.status.ledger)
    assert (entry.state, entry.attempt) == (TargetState.QUEUED, 1)
    assert plan(after(seen, decided)).starts[0].attempt == 2


NODES = {uid(number): f"node-{number % 2}" for number in range(4)}
ENTRIES = (
    Entry(uid(0), "app", TargetState.STARTING, 1, NOW),
    Entry(uid(1), "app", TargetState.QUEUED),
    Entry(uid(2), "app", TargetState.PENDING),
    Entry(uid(3), "app", TargetState.WAITING, 1, NOW),
    Entry(uid(4), "app", TargetState.PENDING),
    Entry(uid(5), "app", TargetState.COMPLETED, 1),
)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        pytest.param({}, {"node-0": 1, "node-1": 1}, id="pending and due ones whose pod is there"),
        pytest.param({"budgets": {"maxConcurrentPods": 2}}, {"node-0": 1}, id="as many as the batch has room for"),
        pytest.param({"budgets": {"maxConcurrentPods": 1}}, {}, id="a full batch"),
        pytest.param({"suspend": True}, {}, id="suspended"),
    ],
)
def test_demand_is_what_would_begin_if_slots_were_free(changes: dict[str, Any], wanted: dict[str, int]) -> None:
    """What younger PowerTools leave to an older one, by node."""
    assert demand(tool(changes), ENTRIES, NODES, NOW) == Counter(wanted)


def test_what_waits_or_is_over_or_deleted_demands_nothing() -> None:
    """No slot is kept for somebody who would not take it."""
    waiting = (Entry(uid(0), "app", TargetState.WAITING, 1, NOW + timedelta(seconds=1)),)
    assert demand(tool(), waiting, NODES, NOW) == Counter()
    over = tool(status={"phase": "Failed", "finishedAt": NOW.isoformat()})
    assert demand(over, ENTRIES, NODES, NOW) == Counter()
    refused = {"type": "Accepted", "status": "False", "reason": "x", "lastTransitionTime": NOW.isoformat()}
    assert demand(tool(status={"conditions": [refused]}), ENTRIES, NODES, NOW) == Counter()
    assert demand(tool(deletionTimestamp=NOW.isoformat()), ENTRIES, NODES, NOW) == Counter()


def test_a_target_whose_pod_nobody_told_of_waits_for_it() -> None:
    """Neither begun in the dark nor given up."""
    seen = observe(THREE, tool({"budgets": {"maxConcurrentPods": 1}}))
    first = plan(seen)
    seen = replace(after(seen, first), candidates=(), pods={}, progress=done(first.starts[0]))
    decided = plan(seen)
    assert states(decided.status) == {TargetState.COMPLETED: 1, TargetState.PENDING: 2}
    assert "2 for their pods to be seen" in condition(decided.status, "Running").message
    assert decided.recheck_seconds == WAITING_SECONDS
