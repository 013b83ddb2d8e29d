"""A sandbox of each test's own, and a client for it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from toe_async.sandbox.cluster import Sandbox, SandboxSettings, start


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A running cluster that measures often."""
    async with start(SandboxSettings(metrics_resolution_seconds=0.2, watch_window=10)) as held:
        yield held


@pytest.fixture
async def admin(sandbox: Sandbox) -> AsyncIterator[aiohttp.ClientSession]:
    """A session of the cluster's administrator, with the server's address as base."""
    context = ssl.create_default_context(cadata=sandbox.certificate_authority.decode())
    headers = {"Authorization": f"Bearer {sandbox.admin_token}"}
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(sandbox.url, connector=connector, headers=headers) as session:
        yield session


@pytest.fixture
async def kubeconfig(sandbox: Sandbox, tmp_path: Path) -> Path:
    """The administrator's kubeconfig, as a file."""
    path = tmp_path / "kubeconfig"
    await asyncio.to_thread(sandbox.write_kubeconfig, path)
    return path
