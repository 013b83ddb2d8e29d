"""Work that must be over before its caller goes on, even when the caller is cancelled.

A thread cannot be cancelled: a coroutine that left while its thread still writes would close a file under the writer.
The same holds for a request that makes something which has to be unmade. Both helpers wait for the end, then raise the
cancellation that came meanwhile.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(work: "asyncio.Future[Any]", grace: float | None = None) -> None:
    """Wait until `work` is done, whatever its result, and only then let a cancellation of the caller through.

    Once the caller is cancelled, `work` has `grace` seconds left before it is cancelled too; None is for work that is
    bounded and cannot be cancelled.
    """
    cancelled: asyncio.CancelledError | None = None
    ends_at: float | None = None
    loop = asyncio.get_running_loop()
    while not work.done():
        try:
            await asyncio.wait({work}, timeout=None if ends_at is None else max(ends_at - loop.time(), 0))
        except asyncio.CancelledError as error:
            cancelled = error
            if grace is not None and ends_at is None:
                ends_at = loop.time() + grace
        if ends_at is not None and loop.time() >= ends_at:
            work.cancel()
            ends_at = None
            grace = None
    if cancelled is not None:
        raise cancelled


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread; when this returns or raises, the thread has finished with it."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        await to_the_end(future)
    except asyncio.CancelledError:
        future.exception()  # the caller leaves by its cancellation; what the thread says is of no use any more
        raise
    return future.result()
