"""Two hundred targets, ten at a time: at every instant, at every write."""

import asyncio
from itertools import pairwise

import pytest
from powertool_rig import Rig, until

from toe_async.apis.powertool import FINAL_STATES, Phase
from toe_async.controllers.powertool import ledger

PODS, BATCH = 200, 10


@pytest.mark.slow
@pytest.mark.looptime
@pytest.mark.timeout(180)
async def test_two_hundred_targets_run_ten_at_a_time_and_the_totals_are_right_at_every_write() -> None:
    """Each write is read: totals add up, no more than ten are claimed, what has ended stays so; each runs once."""
    rig = Rig(seconds=30)
    rig.tool_config()
    for number in range(PODS):
        rig.pod(f"web-{number:03}", node=f"node-{number % 7}")
    async with rig.process():
        rig.tool(budgets={"maxConcurrentPods": BATCH}, tool={"name": "dump", "duration": "30s"})
        await until(lambda: rig.read().status.finished_at is not None, 3600)
    status = rig.read().status
    assert (status.phase, status.completed_pods, status.selected_pods) == (Phase.COMPLETED, PODS, PODS)
    assert rig.world.most_at_once() == BATCH
    assert len(rig.world.tools) == PODS
    assert set(rig.world.attempts().values()) == {1}
    # Twenty batches of 30 s: places are given on as soon as they are free.
    assert max(tool.ends for tool in rig.world.tools.values()) < 20 * 32
    # Claims, news and ends go together: the pods would be four writes each otherwise.
    assert len(rig.api.writes) < PODS / 2
    rig.check_every_version()


@pytest.mark.looptime
async def test_news_that_nothing_hangs_on_are_written_once_a_second_at_most() -> None:
    """Tools that begin one by one and tell of their bytes twenty times a second; the end of one is written at once."""
    rig = Rig(seconds=20)
    rig.world.tells_every = 0.05
    rig.world.pull_seconds = lambda capture: 0.15 * int(capture.target.pod.removeprefix("web-"))
    rig.tool_config()
    for number in range(20):
        rig.pod(f"web-{number}")
    moments: list[tuple[float, bool]] = []

    def note() -> None:
        entries = ledger.decode(rig.read().status.ledger)
        moments.append((asyncio.get_running_loop().time(), any(one.state in FINAL_STATES for one in entries)))

    rig.api.store.listeners.append(
        lambda resource, change: note() if resource.plural == "powertools" and change.type == "MODIFIED" else None
    )
    async with rig.process():
        rig.tool()
        await until(lambda: rig.read().status.finished_at is not None)
    running = [at for at, ended in moments[2:] if not ended]  # the first two are the finalizer and the claim
    assert 4 <= len(running) <= 8
    assert all(after - before >= 0.999 for before, after in pairwise(running))
    ended = next(at for at, ended in moments if ended)
    assert ended - min(tool.ends for tool in rig.world.tools.values()) < 0.2
