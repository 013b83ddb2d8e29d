"""Fixtures for the collector's tests; what they are made of is in rig.py."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from tests.collector.rig import OPERATOR, READ, UPLOADER, Collector, FakeApi, Start
from toe_async.collector.app import serve
from toe_async.collector.settings import CollectorSettings
from toe_async.lib.clock import SystemClock
from toe_async.telemetry.metrics import CollectorMetrics


@pytest.fixture(scope="session", autouse=True)
def _no_stray_event_loop() -> None:
    # looptime asks the policy for a loop in every test, which makes one that nobody closes unless it was told not to.
    asyncio.set_event_loop(None)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def start(tmp_path: Path, api: FakeApi) -> Start:
    """Start a collector on a free loopback port; the same root and reviewer each time unless told otherwise."""

    @contextlib.asynccontextmanager
    async def started(*, root: Path | None = None, **changes: Any) -> AsyncIterator[Collector]:
        wanted = CollectorSettings(
            root=root or tmp_path / "store",
            operator_users=frozenset({OPERATOR}),
            uploader_users=frozenset({UPLOADER}),
            listen="127.0.0.1:0",
            insecure_http=True,
        )
        wanted = replace(wanted, **changes)
        metrics = CollectorMetrics(CollectorRegistry())
        reader = api.token("ada")
        api.grant("ada", "shop", "list", "get", "delete")
        api.grant("ada", "shop", "get", resource="artifacts/content")
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http,
            serve(wanted, api, SystemClock(), metrics) as served,
        ):
            operator = api.token(OPERATOR, "toe-collector")
            async with asyncio.timeout(5):
                lists, auth = f"{served.url}{READ}/shop/artifacts", {"Authorization": f"Bearer {reader}"}
                while (await http.get(lists, headers=auth, ssl=False)).status != 200:
                    await asyncio.sleep(0.005)
            yield Collector(served, http, api, wanted.root, metrics, operator, reader)

    return started


@pytest.fixture
async def collector(start: Start) -> AsyncIterator[Collector]:
    async with start() as running:
        yield running
