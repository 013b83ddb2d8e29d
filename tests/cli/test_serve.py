"""Metrics and health over real sockets."""

import aiohttp
from prometheus_client import CollectorRegistry

from toe_async.cli.serve import health_app, metrics_app, serving
from toe_async.telemetry.health import Health
from toe_async.telemetry.metrics import OperatorMetrics


async def test_metrics_and_health_answer_on_their_addresses() -> None:
    """/metrics is text that Prometheus reads; readiness names the failing check, liveness is apart."""
    metrics, health = OperatorMetrics(CollectorRegistry()), Health()
    problem: list[str | None] = ["pods are not listed yet"]
    health.add("synced", lambda: problem[0])
    async with (
        serving(metrics_app(metrics.registry), ("127.0.0.1", 0)) as (host, port),
        serving(health_app(health), ("127.0.0.1", 0)) as (_, health_port),
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"http://{host}:{port}/metrics") as answer:
            assert answer.status == 200
            assert "# TYPE profiling_captures_total counter" in await answer.text()
        url = f"http://{host}:{health_port}"
        async with session.get(f"{url}/healthz") as answer:
            assert answer.status == 200
        async with session.get(f"{url}/readyz") as answer:
            assert answer.status == 503
            assert "pods are not listed yet" in await answer.text()
        problem[0] = None
        async with session.get(f"{url}/readyz/synced") as answer:
            assert answer.status == 200
        async with session.get(f"{url}/readyz/unknown") as answer:
            assert answer.status == 404
