"""A clock that follows the test's own loop, and metrics that can be read."""

import asyncio
from collections.abc import Callable

import pytest
from loopclock import LoopClock
from prometheus_client import CollectorRegistry

from toe_async.telemetry.metrics import OperatorMetrics

# pytest-asyncio asks for the current loop before its first test, which makes one that nobody closes; None stands for
# "no loop here", and nothing is made.
asyncio.set_event_loop(None)


@pytest.fixture
def clock() -> LoopClock:
    """The test's time."""
    return LoopClock()


@pytest.fixture
def metrics() -> OperatorMetrics:
    """Metrics of their own registry."""
    return OperatorMetrics(CollectorRegistry())


Value = Callable[..., float]


@pytest.fixture
def value(metrics: OperatorMetrics) -> Value:
    """Read one sample by name and labels; a sample that was never made is an error."""

    def read(name: str, /, **labels: str) -> float:
        found = metrics.registry.get_sample_value(name, labels)
        assert found is not None, f"{name}{labels} does not exist"
        return found

    return read
