"""Places that are few, given in turn: one viewer's many orders wait behind everybody else's first."""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator


class NoPlace(Exception):  # noqa: N818 -- it names the state of the queue
    """Too many wait already, or it took too long."""


class Places:
    """`count` places and a bounded queue in front of them."""

    def __init__(self, count: int, waiting: int, waiting_each: int, seconds: float) -> None:
        """At most `waiting` wait, `waiting_each` of them for one viewer, none longer than `seconds`."""
        self._free, self._waiting, self._each, self._seconds = count, waiting, waiting_each, seconds
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def take(self, viewer: str) -> AsyncIterator[None]:
        """Have a place for as long as the block lasts.

        Raises:
            NoPlace: come again later.
        """
        if self._free and not self._queues:
            self._free -= 1
        else:
            await self._wait(viewer)
        try:
            yield
        finally:
            self._give_on()

    async def _wait(self, viewer: str) -> None:
        queue = self._queues.get(viewer, ())
        if sum(map(len, self._queues.values())) >= self._waiting or len(queue) >= self._each:
            raise NoPlace
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(viewer, deque()).append(turn)
        try:
            async with asyncio.timeout(self._seconds):
                await turn
        except BaseException as ended:
            if turn.done() and not turn.cancelled():
                self._give_on()  # our turn came in the same moment as our end
            else:
                self._leave(viewer, turn)
            if isinstance(ended, TimeoutError):
                raise NoPlace from None
            raise

    def _leave(self, viewer: str, turn: "asyncio.Future[None]") -> None:
        queue = self._queues[viewer]
        queue.remove(turn)
        if not queue:
            del self._queues[viewer]

    def _give_on(self) -> None:
        if not self._queues:
            self._free += 1
            return
        viewer, queue = self._queues.popitem(last=False)
        turn = queue.popleft()
        if queue:
            self._queues[viewer] = queue  # behind everybody who waits
        turn.set_result(None)
