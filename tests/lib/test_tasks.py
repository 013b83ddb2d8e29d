"""Tasks end with their owner, and their errors are heard."""

import asyncio

import pytest

from toe_async.lib.tasks import TaskOwner, cancel_and_wait


async def test_leaving_the_owner_cancels_and_awaits_every_task() -> None:
    """A task that cleans up slowly is still waited for."""
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    async with TaskOwner(lambda name, error: None) as owner:
        owner.start(work("a"), name="a")
        owner.start(work("b"), name="b")
        await asyncio.sleep(0)
    assert sorted(ended) == ["a", "b"]


async def test_an_error_is_reported_by_name_and_leaves_the_others_alone() -> None:
    """One failing child neither cancels its siblings nor stays silent."""
    heard: list[tuple[str, str]] = []

    async def fail() -> None:
        raise ValueError("broken")

    async with TaskOwner(lambda name, error: heard.append((name, str(error)))) as owner:
        sibling = owner.start(asyncio.Event().wait(), name="sibling")
        owner.start(fail(), name="fails")
        for _ in range(3):
            await asyncio.sleep(0)
        assert heard == [("fails", "broken")]
        assert not sibling.done()
        assert len(owner) == 1


async def test_a_closed_owner_refuses_new_work() -> None:
    """A task can not slip in behind the shutdown, and its coroutine is closed, not leaked."""
    async with TaskOwner(lambda name, error: None) as owner:
        pass
    with pytest.raises(RuntimeError, match="shutting down"):
        owner.start(asyncio.sleep(0), name="late")


async def test_cancel_and_wait_swallows_the_errors_of_the_cancelled() -> None:
    """The one who cancels is not hit by what the cancelled task raises on its way out."""

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("on the way out")

    async with TaskOwner(lambda name, error: None) as owner:
        task = owner.start(stubborn(), name="stubborn")
        await asyncio.sleep(0)
        await cancel_and_wait(task)
        assert task.done()
