"""What holds for every test: the event loop is never blocked by our code, and no task outlives its test."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("toe", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("toe")


def pytest_configure() -> None:
    """Say that no loop is set, or looptime asks the policy for one before each test and leaves it unclosed."""
    asyncio.set_event_loop(None)


@pytest.fixture
async def _no_task_is_left_behind() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    # Transports and cancelled tasks get a few turns of the loop to end; real waits would hide a leak.
    for _ in range(20):
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()]
    assert not left, f"tasks outlived their test: {left}"


@pytest.fixture(autouse=True)
def _async_guards(request: pytest.FixtureRequest) -> Iterator[None]:
    """Watch asynchronous tests for blocking calls made by our package and for leaked tasks."""
    if not inspect.iscoroutinefunction(getattr(request, "function", None)):
        yield
        return
    request.getfixturevalue("_no_task_is_left_behind")
    with blockbuster_ctx("toe_async"):
        yield
