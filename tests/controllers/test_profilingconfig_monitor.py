"""Metrics are polled once per namespace, and sinks probed once per place."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from toe_async.apis.captures import CollectorRef, S3Ref, SinkRef
from toe_async.controllers.profilingconfig.monitor import MetricsMonitor
from toe_async.controllers.profilingconfig.sinkhealth import Place, SinkHealth, Wanted
from toe_async.kube.errors import ApiError, Forbidden, NotFound, TransportError
from toe_async.kube.requests import Request
from toe_async.lib.clock import SystemClock
from toe_async.lib.tasks import TaskOwner
from toe_async.telemetry.metrics import OperatorMetrics

Answer = Callable[[Request], bytes]


class Server:
    """Answers by a function and remembers when it was asked for what."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[float, str]] = []

    async def send(self, request: Request) -> bytes:
        self.asked.append((asyncio.get_running_loop().time(), request.path))
        await asyncio.sleep(0)
        return self.answer(request)


def metrics_of(*names: str) -> bytes:
    """A PodMetricsList."""
    items = [
        {
            "metadata": {"name": name, "namespace": "shop"},
            "timestamp": "2026-01-24T20:44:00Z",
            "window": "10s",
            "containers": [{"name": "app", "usage": {"cpu": "250m", "memory": "1Mi"}}],
        }
        for name in names
    ]
    return msgspec.json.encode({"kind": "PodMetricsList", "items": items})


@asynccontextmanager
async def running(work: Awaitable[None]) -> AsyncIterator[None]:
    """Run something until the block ends; what it raises fails the test."""
    failures: list[BaseException] = []
    async with TaskOwner(lambda name, error: failures.append(error)) as owner:
        owner.start(_await(work), name="under test")
        yield
    assert failures == []


async def _await(work: Awaitable[None]) -> None:
    await work


def monitor_of(server: Server, polled: list[str], keep: Mapping[str, object]) -> MetricsMonitor:
    """A monitor of opted-in pods."""
    return MetricsMonitor(
        server, lambda namespace: keep, polled.append, SystemClock(), OperatorMetrics(CollectorRegistry())
    )


@pytest.mark.looptime
async def test_a_namespace_is_polled_at_the_smallest_interval_whoever_asks() -> None:
    """D7: one poll per namespace and interval, and none where nobody asks."""
    server, polled = Server(lambda request: metrics_of("web-1", "stranger")), list[str]()
    monitor = monitor_of(server, polled, {"web-1": 1})
    monitor.demand({"shop": 10.0, "bank": 60.0})
    async with running(monitor.run()):
        await asyncio.sleep(59)
        assert polled.count("shop") == 6
        assert polled.count("bank") == 1
        assert set(monitor.usage("shop").usage) == {"web-1"}
        monitor.demand({"bank": 20.0})
        await asyncio.sleep(60)
        assert polled.count("shop") == 6
        assert polled.count("bank") == 4
        assert not monitor.usage("shop").polled


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NotFound(404, "NotFound", "no"), "install metrics-server"),
        (ApiError(503, "ServiceUnavailable", "down"), "503"),
        (Forbidden(403, "Forbidden", "cannot list pods.metrics.k8s.io"), "may not list"),
        (TransportError("connection refused"), "cannot be reached"),
    ],
)
async def test_an_outage_is_one_sentence_and_polling_goes_on(error: Exception, said: str) -> None:
    """PR11: 404 and 503 are told apart, samples are kept, and the end of the outage is seen."""
    server, polled = Server(lambda request: metrics_of("web-1")), list[str]()
    monitor = monitor_of(server, polled, {"web-1": 1})
    monitor.demand({"shop": 10.0})

    def fail(request: Request) -> bytes:
        raise error

    async with running(monitor.run()):
        await asyncio.sleep(1)
        good, server.answer = server.answer, fail
        await asyncio.sleep(10)
        assert said in (monitor.usage("shop").problem or "")
        assert "web-1" in monitor.usage("shop").usage
        server.answer = good
        await asyncio.sleep(10)
        assert monitor.usage("shop").problem is None


@pytest.mark.looptime
async def test_an_answer_that_is_no_list_is_a_problem_not_a_crash() -> None:
    """A proxy's login page must not end the poller."""
    server, polled = Server(lambda request: b"<html>"), list[str]()
    monitor = monitor_of(server, polled, {})
    monitor.demand({"shop": 10.0})
    async with running(monitor.run()):
        await asyncio.sleep(25)
        assert "no PodMetricsList" in (monitor.usage("shop").problem or "")
        assert len(polled) == 3


@pytest.mark.looptime
async def test_sinks_that_fail_together_are_probed_once_and_more_often_while_down() -> None:
    """The prefix does not matter to a probe; credentials do."""
    probed: list[tuple[float, SinkRef]] = []
    problem: list[str | None] = ["bucket is missing"]
    changed: list[Place] = []

    async def probe(ref: SinkRef, namespace: str) -> str | None:
        probed.append((asyncio.get_running_loop().time(), ref))
        return problem[0]

    health = SinkHealth(probe, changed.append)
    one, two = (Wanted(S3Ref(bucket="b", prefix=prefix), "shop") for prefix in ("x", "y"))
    other = Wanted(S3Ref(bucket="b", credentials_secret="mine"), "shop")
    async with running(health.run()):
        assert health.answer(one) == (False, None)
        health.demand([one, two, other, Wanted(CollectorRef(endpoint="https://c"), "shop")])
        await asyncio.sleep(1)
        assert len(probed) == 3
        assert health.answer(two) == (True, "bucket is missing")
        problem[0] = None
        await asyncio.sleep(15)
        assert health.answer(two) == (True, None)
        assert len(changed) == 6
        await asyncio.sleep(58)
        assert len(probed) == 6
        await asyncio.sleep(5)
        assert len(probed) == 9


@pytest.mark.looptime
async def test_a_probe_that_hangs_is_ended() -> None:
    """A black hole is a problem after twenty seconds, not a stuck loop."""

    async def probe(ref: SinkRef, namespace: str) -> str | None:
        await asyncio.Event().wait()
        return None

    health = SinkHealth(probe, lambda place: None)
    wanted = Wanted(CollectorRef(endpoint="https://c"), "shop")
    health.demand([wanted])
    async with running(health.run()):
        await asyncio.sleep(21)
        assert "no answer" in (health.answer(wanted)[1] or "")
