"""Tasks that somebody owns.

asyncio.TaskGroup ends everything when one child fails, which is right for one piece of work and wrong for a set of
unrelated ones (captures, deliveries). A TaskOwner keeps unrelated children apart and still leaves none behind.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


async def cancel_and_wait(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel the tasks and wait until each has ended, however it ends; their errors are dropped."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.gather(*tasks, return_exceptions=True)


class TaskOwner:
    """Owns tasks that do not depend on each other; leaving the context cancels and awaits every one of them.

    ``on_error(name, exception)`` is called for a task that ends by an exception; cancellation is no error.
    """

    def __init__(self, on_error: Callable[[str, BaseException], None]) -> None:
        self._on_error = on_error
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        await cancel_and_wait(*self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, coro: Coroutine[Any, Any, T], *, name: str) -> "asyncio.Task[T]":
        """Run a coroutine as a task of this owner.

        Raises:
            RuntimeError: the owner is closing; the coroutine is closed unrun.
        """
        if self._closed:
            coro.close()
            raise RuntimeError(f"cannot start {name}: its owner is shutting down")
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(task.get_name(), error)
