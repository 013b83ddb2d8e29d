"""Fixtures for everything that talks to an API server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kube.fakeapi import FakeApi, Kubeconfig, ManualClock, fine, serving
from toe_async.kube.client import Client, connect


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    """A plain-HTTP server that answers 200 until told otherwise."""
    fake = FakeApi(script=[fine()])
    async with serving(fake):
        yield fake


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Kubeconfig:
    return Kubeconfig(tmp_path / "kubeconfig")


@pytest.fixture
async def client(api: FakeApi, kubeconfig: Kubeconfig) -> AsyncIterator[Client]:
    """A client of `api` with a fixed token."""
    async with connect(kubeconfig.write(api.url, {"token": "t0"}), environ={}) as connected:
        yield connected


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
