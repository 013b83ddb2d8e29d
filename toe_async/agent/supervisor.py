"""What a run of a tool needs of the part that takes care of its output: the interface between the two halves.

`toe_async.agent.run` is the run itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from toe_async.agent.protocol import Leaf, Orders


class CollectingError(Exception):
    """Output that did not get where it belongs. `reason` is one word of apis.reasons; `leaves` as they stand."""

    def __init__(self, reason: str, message: str, leaves: tuple[Leaf, ...] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.leaves = leaves


class Collecting(Protocol):
    """Takes care of a tool's output: `toe_async.agent.outputs.Outputs`.

    `start`, `tick`, `finish` and `keep` are called from one worker thread, in this order, and may block; `token` and
    `cancel` are called from the main thread at any time after the constructor and may not. `need_token` may be called
    from any thread, any number of times.
    """

    @property
    def port(self) -> int:
        """Once `finish` has returned: where on loopback the leaves are served, or 0."""

    @property
    def note(self) -> str:
        """Once `finish` has returned: what is to be told though nothing is lost."""

    def start(self, orders: Orders, folder: str, need_token: Callable[[], None]) -> None:
        """`folder` is the state folder of the run; `out/` and `leaves/` exist in it.

        `need_token` is called when something waits for a token while the tool runs.
        """

    def tick(self, now: float) -> None:
        """Called about once a second while the tool runs, with time.monotonic(): cuts and uploads closed segments."""

    def finish(self, deadline: float, need_token: Callable[[], None]) -> tuple[Leaf, ...]:
        """Bring everything that is in `out/` where it belongs, until `deadline` (time.monotonic()).

        Raises:
            CollectingError: something is lost.
        """

    def keep(self, deadline: float) -> None:
        """Block until all was fetched, `cancel` was called, or `deadline`. Returns at once if nothing is to be kept."""

    def token(self, token: str) -> None:
        """Take a token for the collector; ValueError when it is none."""

    def cancel(self) -> None:
        """Make whatever blocks above return soon."""
