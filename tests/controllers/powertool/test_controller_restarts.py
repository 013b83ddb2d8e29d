"""The operator may end anywhere: what is claimed is taken up again, what has ended is never begun a second time."""

import asyncio
from collections.abc import Callable

import pytest
from directapi import Call
from powertool_rig import Rig, until

from toe_async.apis.powertool import FINAL_STATES, Phase
from toe_async.controllers.powertool.facts import FINALIZER
from toe_async.kube.errors import KubeError, TransportError
from toe_async.lib.tasks import TaskOwner, cancel_and_wait

PODS = 3


def rig_with(pods: int = PODS, *, seconds: float = 5.0) -> Rig:
    rig = Rig(seconds=seconds)
    rig.tool_config()
    for number in range(pods):
        rig.pod(f"web-{number}")
    return rig


def is_over(rig: Rig, name: str = "run") -> bool:
    tool = rig.read(name)
    return tool.status.finished_at is not None and FINALIZER not in tool.metadata.finalizers


async def lives(rig: Rig, dies: Callable[[asyncio.Event], None]) -> int:
    """Let one operator work until `dies` has set its event, and then another; returns the first one's requests."""
    killed = asyncio.Event()
    dies(killed)
    async with rig.process():
        rig.tool(budgets={"maxConcurrentPods": 2})
        over = asyncio.ensure_future(until(lambda: is_over(rig)))
        dead = asyncio.ensure_future(killed.wait())
        await asyncio.wait({over, dead}, return_when=asyncio.FIRST_COMPLETED)
        for task in (over, dead):
            task.cancel()
        await asyncio.gather(over, dead, return_exceptions=True)
    rig.api.before = rig.api.after = lambda call: None
    writes = len(rig.api.writes)
    async with rig.process():
        await until(lambda: is_over(rig))
        await asyncio.sleep(5)
    return writes


def at_write(rig: Rig, number: int, killed: asyncio.Event, *, made: bool) -> None:
    """Kill at the n-th write: before the API server has it, or after, the answer lost."""
    seen = 0

    def hook(call: Call) -> KubeError | None:
        nonlocal seen
        seen += call.is_write
        if seen < number:
            return None
        killed.set()  # from now on nothing comes through any more
        return TransportError("the process is dead")

    if made:
        rig.api.after = hook

        def dead(call: Call) -> KubeError | None:
            return TransportError("the process is dead") if killed.is_set() else None

        rig.api.before = dead
    else:
        rig.api.before = hook


@pytest.mark.looptime
@pytest.mark.parametrize("made", [False, True], ids=["before the write", "after it, its answer lost"])
@pytest.mark.parametrize("number", range(1, 12))
async def test_killed_at_any_write_the_run_is_finished_by_the_next_with_one_container_a_target(
    number: int, made: bool
) -> None:
    """G1, H1: the finalizer, the claims, each outcome, the end."""
    rig = rig_with()
    await lives(rig, lambda killed: at_write(rig, number, killed, made=made))
    assert set(rig.world.attempts().values()) == {1}
    assert {attempt for _, attempt in rig.world.attempts()} == {1}
    status = rig.read().status
    assert (status.phase, status.completed_pods, status.bytes_written) == (Phase.COMPLETED, PODS, 100 * PODS)
    assert len(status.artifacts) == PODS
    rig.check_every_version()


@pytest.mark.looptime
@pytest.mark.parametrize("moment", [0.05, 0.5, 3.0, 5.05, 5.2, 8.0, 10.2])
async def test_killed_at_any_moment_the_run_is_finished_by_the_next(moment: float) -> None:
    """The tools go on meanwhile; they are taken up, not begun again."""
    rig = rig_with()
    async with rig.process():
        rig.tool(budgets={"maxConcurrentPods": 2})
        await asyncio.sleep(moment)
    assert all(not tool.stopped.is_set() for tool in rig.world.tools.values())
    await asyncio.sleep(2)
    async with rig.process():
        await until(lambda: is_over(rig))
    assert set(rig.world.attempts().values()) == {1}
    assert rig.read().status.completed_pods == PODS
    rig.check_every_version()


@pytest.mark.looptime
async def test_the_tests_above_kill_at_every_write_of_a_run() -> None:
    """A run of this size makes no more writes than there are points."""
    rig = rig_with()
    writes = await lives(rig, lambda killed: None)
    assert 4 <= writes <= 11


@pytest.mark.looptime
async def test_what_was_deleted_while_no_operator_was_there_is_cancelled_by_the_next() -> None:
    """The finalizer kept the object: the next leader takes the tool up and stops it."""
    rig = rig_with(seconds=3600)
    async with rig.process():
        rig.tool(tool={"name": "dump", "duration": "1h"})
        await until(lambda: rig.read().status.running_pods == PODS)
    rig.api.delete("powertools", "shop", "run")
    await asyncio.sleep(10)
    assert rig.api.get("powertools", "shop", "run") is not None
    async with rig.process() as process:
        await until(lambda: rig.api.get("powertools", "shop", "run") is None, 60)
        assert set(process.runner.cancelled) == set(rig.world.tools)
    assert len(rig.world.tools) == PODS


@pytest.mark.looptime
async def test_a_leader_that_lost_its_lease_writes_and_starts_nothing_and_stops_no_tool() -> None:
    """What it wants to write is refused by its own fence; its successor finishes the run."""
    rig = rig_with(seconds=20)
    async with rig.process():
        rig.tool(budgets={"maxConcurrentPods": 1})
        await until(lambda: rig.read().status.running_pods == 1)
        rig.leading = False
        before, begun = len(rig.api.writes), len(rig.world.tools)
        await asyncio.sleep(60)
        assert len(rig.api.writes) == before
        assert len(rig.world.tools) == begun
    taken_up = rig.world.taken_up.total()
    async with rig.process():  # one that believes to lead, and does not
        await asyncio.sleep(5)
    assert (rig.world.taken_up.total(), len(rig.api.writes)) == (taken_up, before)
    rig.leading = True
    async with rig.process():
        await until(lambda: is_over(rig))
    assert set(rig.world.attempts().values()) == {1}
    assert rig.read().status.phase is Phase.COMPLETED
    assert all(tool.outcome.state in FINAL_STATES for tool in rig.world.tools.values())


@pytest.mark.looptime
async def test_a_target_that_vanished_while_no_operator_was_there_is_closed_and_not_begun_again() -> None:
    """PT5, PT6: the pod of the same name that came in its place is another one."""
    rig = rig_with(1, seconds=3600)
    async with rig.process():
        rig.tool(tool={"name": "dump", "duration": "1h"})
        await until(lambda: rig.read().status.running_pods == 1)
    rig.api.delete("pods", "shop", "web-0", at_once=True)
    rig.pod("web-0")
    async with rig.process():
        await until(lambda: is_over(rig), 60)
    assert len(rig.world.tools) == 1
    (row,) = rig.read().status.targets
    assert row.reason == "PodGone"


@pytest.mark.looptime
async def test_a_replica_that_loses_the_lease_and_wins_it_again_goes_on_with_what_runs() -> None:
    """Its tasks ended with the lease; the tools did not, and nothing had to change for it to look at them again."""
    rig = rig_with(seconds=60)
    async with rig.process() as process:
        rig.tool(tool={"name": "dump", "duration": "60s"})
        await until(lambda: rig.read().status.running_pods == PODS)
        await asyncio.sleep(5)
        await cancel_and_wait(process.leading)
        assert process.runner.running == frozenset()
        await asyncio.sleep(10)
        async with TaskOwner(lambda name, error: rig.errors.append(repr(error))) as owner:
            owner.start(process.lead(), name="again")
            await asyncio.sleep(1)
            assert len(process.runner.running) == PODS
            await until(lambda: is_over(rig))
    assert set(rig.world.attempts().values()) == {1}
    assert rig.read().status.completed_pods == PODS
