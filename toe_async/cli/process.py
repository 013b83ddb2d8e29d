"""What every long-running command needs: signals, the event loop, and one sentence when it cannot start."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics


def run(program: str, work: Callable[[asyncio.Event], Awaitable[None]], expected: tuple[type[Exception], ...]) -> int:
    """Run ``work(stop)`` on a new loop until it returns; returns the exit code.

    TERM or INT sets ``stop``; a second one ends the process at once. An ``expected`` exception ends in one sentence
    and code 1; any other is a bug and shows its traceback.
    """
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_with_signals(work))
    except expected as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    return 0


def registry() -> CollectorRegistry:
    """A registry with the process's own figures, without a ``_created`` twin beside every counter."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    return made


async def _with_signals(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            os._exit(130)  # asked twice: whoever asks does not want to wait for anything
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    await work(stop)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where the extra ``speed`` is installed, else asyncio's own."""
    with suppress(ImportError):
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return factory
    return None
