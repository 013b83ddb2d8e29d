"""What follows from changes: noted with each of them, each thing once, and done one after the other in a task."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Pending(Generic[T]):
    """Work that waits, in the order in which it was first noted; bounded by how many different things there are."""

    def __init__(self) -> None:
        self._todo: dict[T, None] = {}
        self._woken = asyncio.Event()

    def add(self, work: T) -> None:
        """Note something to do; what waits already is not noted twice."""
        self._todo[work] = None
        self._woken.set()

    async def run(self, do: Callable[[T], None]) -> None:
        """Do what is noted, until cancelled; everybody else has a turn after each."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._todo:
                work = next(iter(self._todo))
                del self._todo[work]
                do(work)
                await asyncio.sleep(0)
