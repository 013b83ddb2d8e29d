"""Fixtures for the read API's tests; what they are made of is in shelf.py."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.collector.api.shelf import Shelf, StartShelf, shelf


@pytest.fixture
def start_shelf(tmp_path: Path) -> StartShelf:
    def started(*, complete: bool = True) -> AbstractAsyncContextManager[Shelf]:
        return shelf(tmp_path / "store", complete=complete)

    return started


@pytest.fixture
async def full(start_shelf: StartShelf) -> AsyncIterator[Shelf]:
    """A shelf that is empty and ready."""
    async with start_shelf() as made:
        yield made
