"""The server under test, as a fixture."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.clusters import REAL, Server, real_server, sandbox_server


@pytest.fixture(params=["sandbox", *(["real"] if REAL else [])])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """The cluster under test, with a namespace of the test's own."""
    async with real_server() if request.param == "real" else sandbox_server() as held:
        yield held


@pytest.fixture(autouse=True)
def _patience_with_the_real_cluster(request: pytest.FixtureRequest) -> None:
    """A real cluster takes its time to start pods and to measure them."""
    if "real" in request.node.name:
        request.node.add_marker(pytest.mark.timeout(180))
