"""Fixtures for the catalog's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.collector.catalog.catalogrig import SetClock
from toe_async.collector.catalog import Catalog, open_catalog
from toe_async.collector.disk import Disk


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def disk() -> AsyncIterator[Disk]:
    made = Disk()
    yield made
    await made.close()


@pytest.fixture
async def catalog(tmp_path: Path, disk: Disk, clock: SetClock) -> AsyncIterator[Catalog]:
    async with open_catalog(tmp_path / "index.sqlite", disk, clock) as made:
        yield made
