"""Work that must be over before its caller goes on, even when the caller is cancelled.

A thread cannot be cancelled: a coroutine that left while its thread still writes would close a file under the writer.
The same holds for a clean-up request that is half sent. Both helpers wait for the end, then raise the cancellation that
came meanwhile. The work itself must be bounded.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(work: "asyncio.Future[Any]") -> None:
    """Wait until `work` is done, whatever its result, and only then let a cancellation of the caller through."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as error:
            cancelled = error
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
