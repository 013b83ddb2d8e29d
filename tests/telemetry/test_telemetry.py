"""Logs keep one object a line, health says why, metrics start at zero."""

import io
import json
import logging

import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest

from toe_async.telemetry import log
from toe_async.telemetry.health import Health
from toe_async.telemetry.metrics import CollectorMetrics, OperatorMetrics


@pytest.mark.parametrize("format_", ["json", "console"])
def test_no_value_can_forge_a_line(format_: log.LogFormat) -> None:
    """Newlines and terminal escapes in a value stay inside their line."""
    stream = io.StringIO()
    log.configure(format_, "info", stream)
    log.get("test.lines").info("pod seen", pod='web\n{"msg":"forged"}\x1b[31m')
    structlog.reset_defaults()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert "\x1b[31m" not in lines[0]


@pytest.mark.parametrize("whose", ["ours", "a library's"])
@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_traceback_shows_no_values_and_forges_no_line(format_: log.LogFormat, whose: str) -> None:
    """Whatever package is installed that would show them: the variables of a failing call hold tokens."""
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        log.configure(format_, "info", stream)
        fails = log.get("test.trace").exception if whose == "ours" else logging.getLogger("test.trace").exception
        token = "".join(["bearer", "-", "secret"])
        try:
            raise ValueError(f"{len(token)}\n2026-01-01 [info] forged\x1b[31m")
        except ValueError:
            fails("it failed")
    finally:
        structlog.reset_defaults()
        root.handlers[:] = before
        root.setLevel(level)
    text = stream.getvalue()
    first, *rest = text.splitlines()
    assert "it failed" in first
    assert "ValueError: 13" in text
    assert "bearer-secret" not in text
    assert "\x1b" not in text
    assert all(line.startswith("    ") or not line for line in rest)
    assert format_ == "console" or not rest


def test_json_lines_carry_the_promised_keys() -> None:
    """ts, level, logger, msg and the call's own keys."""
    stream = io.StringIO()
    log.configure("json", "info", stream)
    log.get("test.keys").warning("capture failed", reason="PortRefused", long="x" * 5000)
    log.get("test.keys").debug("unseen")
    structlog.reset_defaults()
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert {"ts", "level", "logger", "msg", "reason"} <= entry.keys()
    assert (entry["level"], entry["logger"], entry["msg"]) == ("warning", "test.keys", "capture failed")
    assert len(entry["long"]) < 2100


def test_health_names_the_failing_check_and_its_sentence() -> None:
    """One failing check makes the whole not ready and says why; liveness is apart."""
    health = Health()
    health.add("synced", lambda: "pods are not listed yet")
    health.add("policy", lambda: None)
    health.add("loop", lambda: None, live=True)
    ready, text = health.readyz()
    assert not ready
    assert "[-]synced failed: pods are not listed yet" in text
    assert health.readyz("policy")[0]
    assert health.livez()[0]
    with pytest.raises(KeyError):
        health.readyz("unknown")


@pytest.mark.parametrize("metrics", [OperatorMetrics, CollectorMetrics])
def test_metrics_can_be_exposed_before_anything_happened(metrics: type[OperatorMetrics | CollectorMetrics]) -> None:
    """Every family has its help text from the first scrape on, and the build names itself."""
    registry = CollectorRegistry()
    metrics(registry)
    text = generate_latest(registry).decode()
    assert 'toe_build_info{version="' in text
    assert "# HELP rest_client_requests_total" in text
