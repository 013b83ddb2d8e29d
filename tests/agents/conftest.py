"""A wrapper with programs of its own in front of PATH."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agents.wrapping import Wrapper


@pytest.fixture
def wrapper(tmp_path: Path) -> Callable[[str], Wrapper]:
    """Makes the one of a module below toe_async.agent."""

    def make(module: str) -> Wrapper:
        folder, programs = tmp_path / "out", tmp_path / "programs"
        folder.mkdir()
        programs.mkdir()
        return Wrapper(module, folder, programs)

    return make
