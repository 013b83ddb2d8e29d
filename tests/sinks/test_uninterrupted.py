"""Work that ends before its caller goes on."""

import asyncio
import threading

import pytest

from toe_async.sinks.uninterrupted import in_thread, to_the_end


async def test_a_cancelled_caller_leaves_only_when_its_thread_has_finished() -> None:
    """Else a file would be closed under the thread that writes to it."""
    entered, leave, left = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        leave.wait(5)
        left.set()

    caller = asyncio.get_running_loop().create_task(in_thread(work))
    await asyncio.to_thread(entered.wait, 5)
    caller.cancel()
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert left.is_set()


async def test_the_result_and_the_error_of_a_thread_come_back() -> None:
    """Nothing is lost on the way."""

    def fail() -> None:
        raise OSError(5, "io")

    assert await in_thread(lambda: 7) == 7
    with pytest.raises(OSError, match="io"):
        await in_thread(fail)


@pytest.mark.looptime
async def test_a_request_has_the_grace_and_not_a_second_more() -> None:
    """A clean-up goes on after the cancellation, yet a dead server cannot hold up the shutdown."""
    loop = asyncio.get_running_loop()
    request = loop.create_task(asyncio.sleep(100))
    caller = loop.create_task(to_the_end(request, grace=5))
    await asyncio.sleep(10)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert request.cancelled()
    assert loop.time() == 15


@pytest.mark.looptime
async def test_a_request_that_ends_within_the_grace_is_not_cancelled() -> None:
    """Its result stands, and the caller's cancellation still comes through."""
    loop = asyncio.get_running_loop()
    request = loop.create_task(asyncio.sleep(12, "stored"))
    caller = loop.create_task(to_the_end(request, grace=5))
    await asyncio.sleep(10)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert request.result() == "stored"
    assert loop.time() == 12
