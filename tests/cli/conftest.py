"""Fixtures for the command line: a fake of the aggregated API and the plugin as a process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.aggregated import Aggregated, Plugin, serving, write_kubeconfig


@pytest.fixture
async def api() -> AsyncIterator[Aggregated]:
    """The aggregated API, empty."""
    async with serving() as fake:
        yield fake


@pytest.fixture
def plugin(api: Aggregated, tmp_path: Path) -> Plugin:
    """The plugin with a kubeconfig that leads to `api`; its folder holds nothing."""
    kubeconfig, home = tmp_path / "kubeconfig", tmp_path / "home"
    write_kubeconfig(kubeconfig, api.url)
    home.mkdir()
    return Plugin(home, kubeconfig)
