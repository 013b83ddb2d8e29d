"""Events on their way to the API server, under virtual time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from toe_async.apis.meta import ObjectRef
from toe_async.kube.errors import AlreadyExists, Forbidden, KubeError, NotFound, ServerError, TransportError
from toe_async.kube.requests import Request
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner
from toe_async.runtime.recorder import QUEUE_LIMIT, Recorder
from toe_async.telemetry.metrics import OperatorMetrics

pytestmark = pytest.mark.looptime

Value = Callable[..., float]
REF = ObjectRef(api_version="profiling.io/v1alpha1", kind="ProfilingConfig", namespace="ns", name="hot", uid="u")


class EventServer:
    """Keeps Events as the real one does: by name, created once, patched afterwards."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.faults: list[KubeError | None] = []
        self.lose_reply = False
        self.latency = 0.0

    async def send(self, request: Request) -> bytes:
        await asyncio.sleep(self.latency)
        self.requests.append(request.method)
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None and not self.lose_reply:
            raise fault
        assert request.body is not None
        body = json.loads(request.body)
        if request.method == "POST":
            assert request.path == f"/api/v1/namespaces/{body['metadata']['namespace']}/events"
            name = body["metadata"]["name"]
            if name in self.events:
                raise AlreadyExists(409, "AlreadyExists", "it exists")
            self.events[name] = body
        else:
            assert request.method == "PATCH"
            name = request.path.rsplit("/", 1)[1]
            if name not in self.events:
                raise NotFound(404, "NotFound", "expired")
            self.events[name] |= body
        if fault is not None:
            raise fault
        return json.dumps(self.events[name]).encode()

    @property
    def only(self) -> dict[str, Any]:
        (event,) = self.events.values()
        return event


@pytest.fixture
def server() -> EventServer:
    """An empty one."""
    return EventServer()


@pytest.fixture
def recorder(server: EventServer, clock: Clock, metrics: OperatorMetrics) -> Recorder:
    """One that is not running yet."""
    return Recorder(server, component="toe-async", instance="pod-1", clock=clock, metrics=metrics)


@asynccontextmanager
async def running(recorder: Recorder) -> AsyncIterator[None]:
    failures: list[BaseException] = []
    async with TaskOwner(lambda name, error: failures.append(error)) as owner:
        owner.start(recorder.run(), name="recorder")
        yield
    assert not failures


async def test_an_event_has_everything_that_describe_shows(recorder: Recorder, server: EventServer) -> None:
    """Whom, what, why, who says so and when."""
    async with running(recorder):
        recorder.event(REF, "Warning", "PortRefused", "nothing listens on 6060", "Capturing")
        await recorder.drain()
    event = dict(server.only)
    name = event.pop("metadata")["name"]
    assert name.startswith("hot.")
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "involvedObject": {
            "apiVersion": "profiling.io/v1alpha1",
            "kind": "ProfilingConfig",
            "namespace": "ns",
            "name": "hot",
            "uid": "u",
        },
        "type": "Warning",
        "reason": "PortRefused",
        "message": "nothing listens on 6060",
        "action": "Capturing",
        "source": {"component": "toe-async"},
        "reportingComponent": "toe-async",
        "reportingInstance": "pod-1",
        "firstTimestamp": "2026-01-24T20:00:00Z",
        "lastTimestamp": "2026-01-24T20:00:00Z",
        "count": 1,
    }


async def test_the_same_again_is_a_patch_of_count_and_time(recorder: Recorder, server: EventServer) -> None:
    """One object in the cluster, however often it happens."""
    async with running(recorder):
        for _ in range(3):
            recorder.event(REF, "Normal", "Why", "it is so")
            await recorder.drain()
            await asyncio.sleep(60)
    assert server.requests == ["POST", "PATCH", "PATCH"]
    assert (server.only["count"], server.only["lastTimestamp"]) == (3, "2026-01-24T20:02:00Z")
    assert server.only["firstTimestamp"] == "2026-01-24T20:00:00Z"


async def test_an_event_about_something_without_a_namespace_goes_to_default(
    recorder: Recorder, server: EventServer
) -> None:
    """As client-go does."""
    async with running(recorder):
        recorder.event(ObjectRef(api_version="v1", kind="Node", name="n"), "Normal", "Why", "so")
        await recorder.drain()
    assert server.only["metadata"]["namespace"] == "default"


async def test_an_expired_event_is_told_anew_with_its_count(recorder: Recorder, server: EventServer) -> None:
    """The server removes them after an hour."""
    async with running(recorder):
        recorder.event(REF, "Normal", "Why", "so")
        await recorder.drain()
        server.events.clear()
        recorder.event(REF, "Normal", "Why", "so")
        await recorder.drain()
        assert server.only["count"] == 2
        recorder.event(REF, "Normal", "Why", "so")
        await recorder.drain()
        assert server.only["count"] == 3
    assert server.requests == ["POST", "PATCH", "POST", "PATCH"]


async def test_a_storm_is_held_back_and_counted(recorder: Recorder, server: EventServer, value: Value) -> None:
    """25 reach the server, the rest shows as dropped."""
    async with running(recorder):
        for _ in range(100):
            recorder.event(REF, "Normal", "Why", "so")
        await recorder.drain()
    assert len(server.requests) == 25
    assert value("toe_events_dropped_total") == 75


async def test_recording_never_blocks_and_the_queue_is_bounded(recorder: Recorder, value: Value) -> None:
    """Nobody sends at all here; what does not fit is counted."""
    for number in range(QUEUE_LIMIT + 50):
        recorder.event(ObjectRef(name=str(number)), "Normal", "Why", "so")
    assert value("toe_events_dropped_total") == 50


@pytest.mark.parametrize("fault", [TransportError("reset"), ServerError(500, "InternalError", "x")], ids=repr)
async def test_an_outage_is_waited_out(recorder: Recorder, server: EventServer, fault: KubeError, value: Value) -> None:
    """The Event arrives late, with the time when it happened."""
    server.faults = [fault] * 8
    async with running(recorder):
        recorder.event(REF, "Normal", "Why", "so")
        await asyncio.sleep(0)
        await recorder.drain()
    assert server.only["lastTimestamp"] == "2026-01-24T20:00:00Z"
    assert value("toe_events_dropped_total") == 0


async def test_an_outage_that_does_not_end_costs_the_event_and_not_the_recorder(
    recorder: Recorder, server: EventServer, clock: Clock, value: Value
) -> None:
    """After some 90 s it is dropped and counted; the next one goes through."""
    server.faults = [TransportError("reset")] * 12
    async with running(recorder):
        recorder.event(REF, "Normal", "First", "so")
        recorder.event(REF, "Normal", "Second", "so")
        await recorder.drain()
    assert 60 < clock.monotonic() < 180
    assert value("toe_events_dropped_total") == 1
    assert server.only["reason"] == "Second"


async def test_a_refusal_is_final(recorder: Recorder, server: EventServer, clock: Clock, value: Value) -> None:
    """No right, or a namespace that is going away: trying again is useless."""
    server.faults = [Forbidden(403, "Forbidden", "namespace is being terminated")]
    async with running(recorder):
        recorder.event(REF, "Normal", "Why", "so")
        await recorder.drain()
    assert (server.requests, clock.monotonic()) == (["POST"], 0)
    assert value("toe_events_dropped_total") == 1


async def test_a_lost_reply_does_not_make_two_events(recorder: Recorder, server: EventServer, value: Value) -> None:
    """The second try finds its own Event under the name that only this process uses."""
    server.faults, server.lose_reply = [TransportError("the reply was lost")], True
    async with running(recorder):
        recorder.event(REF, "Normal", "Why", "so")
        await recorder.drain()
        recorder.event(REF, "Normal", "Why", "so")
        await recorder.drain()
    assert server.requests == ["POST", "POST", "PATCH"]
    assert server.only["count"] == 2
    assert value("toe_events_dropped_total") == 0


async def test_a_message_is_cut_at_1024_bytes_between_characters(recorder: Recorder, server: EventServer) -> None:
    """Half a character would be no UTF-8."""
    async with running(recorder):
        recorder.event(REF, "Normal", "Why", "ä" * 2000)
        await recorder.drain()
    message = server.only["message"]
    assert message.endswith("ä...")
    assert 1020 <= len(message.encode()) <= 1024


async def test_two_processes_give_different_names(server: EventServer, clock: Clock, metrics: OperatorMetrics) -> None:
    """Also for the same object in the same microsecond, and within 253 characters."""
    ref = ObjectRef(api_version="v1", kind="Pod", namespace="ns", name="x" * 253)
    for instance in ("one", "two"):
        recorder = Recorder(server, component="toe-async", instance=instance, clock=clock, metrics=metrics)
        async with running(recorder):
            recorder.event(ref, "Normal", "Why", "so")
            await recorder.drain()
    assert len(server.events) == 2
    assert all(len(name) <= 253 for name in server.events)


async def test_a_stop_in_the_middle_leaves_the_rest_in_the_queue(recorder: Recorder, server: EventServer) -> None:
    """A later run goes on with it; draining with nothing to do returns at once."""
    server.latency = 10
    await recorder.drain()
    recorder.event(REF, "Normal", "First", "so")
    recorder.event(REF, "Normal", "Second", "so")
    async with running(recorder):
        await asyncio.sleep(15)
    server.latency = 0
    async with running(recorder):
        await recorder.drain()
    assert {event["reason"] for event in server.events.values()} == {"First", "Second"}
