"""Orders, artifacts and children for the tests of the renderer."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from toe_async.collector.rendering.renderer import RenderOrder

FOLDED = b"main;work;hot 30\nmain;work;warm 12\nmain;idle 8\n"


@dataclass
class Artifact:
    """Bytes of an artifact, handed out in pieces."""

    body: bytes
    reads: int = 0

    @property
    def size(self) -> int:
        return len(self.body)

    async def read(self, offset: int, size: int) -> bytes:
        self.reads += 1
        await asyncio.sleep(0)
        return self.body[offset : offset + size]


def order(body: bytes = FOLDED, as_: str = "top", sample: str | None = None, **more: object) -> RenderOrder:
    """An order for one artifact."""
    return RenderOrder(as_, "cart-0", sample, (Artifact(body),), **more)  # type: ignore[arg-type]


def child(code: str, *arguments: str) -> tuple[str, ...]:
    """A child that runs this code instead of ours."""
    return (sys.executable, "-I", "-B", "-c", code, *arguments)


def children() -> set[int]:
    """Processes that this one started and that are still there, zombies included."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that ended meanwhile
            found.update(map(int, (task / "children").read_text().split()))
    return found


def lives(pid: int) -> bool:
    """Whether the process runs; one that nobody reaps does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.fixture(autouse=True)
async def _no_process_is_left_behind() -> AsyncIterator[None]:
    before = await asyncio.to_thread(children)
    yield
    assert await asyncio.to_thread(children) <= before


def resident() -> int:
    """Memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
