"""Captures run apart from reconciles: whole or not at all, retried where it helps, accounted whatever happens."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from profilingconfig_facts import facts, observe
from prometheus_client import CollectorRegistry

from toe_async.apis.captures import CaptureRecord
from toe_async.apis.meta import ObjectRef
from toe_async.apis.profilingconfig import ProfilingConfig, decode_profiling_config
from toe_async.apis.profilingstatus import ArtifactState, CaptureState, CaptureStatus, ProfileType
from toe_async.apis.reasons import Reason
from toe_async.capture.pprof import CaptureFailed, Taken
from toe_async.capture.targets import PprofTarget
from toe_async.controllers.profilingconfig.accounts import Accounts
from toe_async.controllers.profilingconfig.facts import ConfigKey, Start
from toe_async.controllers.profilingconfig.ledger import Ledger, status_patch
from toe_async.controllers.profilingconfig.plan import plan
from toe_async.controllers.profilingconfig.runner import CaptureRunner, Write
from toe_async.kube.errors import TransportError
from toe_async.kube.requests import Request
from toe_async.lib.clock import SystemClock
from toe_async.lib.tasks import TaskOwner
from toe_async.sinks.spool import Spool
from toe_async.telemetry.metrics import OperatorMetrics

KEY = ConfigKey("profiling.io", "shop", "hot")


class Server:
    """Holds the one ProfilingConfig; ``down`` makes every request fail."""

    def __init__(self, config: ProfilingConfig) -> None:
        self.document: dict[str, Any] = msgspec.to_builtins(config)
        self.down = False

    async def send(self, request: Request) -> bytes:
        await asyncio.sleep(0)
        if self.down:
            raise TransportError("connection refused")
        if request.body is not None:
            self.document["status"] |= msgspec.json.decode(request.body)["status"]
        return msgspec.json.encode(self.document)

    @property
    def config(self) -> ProfilingConfig:
        return decode_profiling_config(msgspec.json.encode(self.document))

    @property
    def row(self) -> CaptureStatus:
        (row,) = self.config.status.recent
        return row


class Target:
    """Plays the pod: a body, or failures first. ``hold`` keeps a profile from ending."""

    def __init__(self) -> None:
        self.failures: dict[ProfileType, list[CaptureFailed]] = {}
        self.held: set[ProfileType] = set()
        self.asked: list[ProfileType] = []
        self.holding = asyncio.Event()

    async def take(
        self, target: PprofTarget, profile: ProfileType, seconds: int, write: Write, *, max_bytes: int
    ) -> Taken:
        self.asked.append(profile)
        body = f"profile {profile}".encode()
        await write(body[:4])
        if failures := self.failures.get(profile):
            raise failures.pop(0)
        if profile in self.held:
            self.holding.set()
            await asyncio.Event().wait()
        await write(body[4:])
        return Taken(len(body), hashlib.sha256(body).hexdigest(), verified=True)


class Events:
    """Remembers what was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def event(self, ref: ObjectRef, type_: str, reason: str, message: str, action: str = "") -> None:
        self.told.append(f"{ref.kind} {type_} {reason}")


class Rig:
    """A runner with a claimed capture of heap, cpu and mutex."""

    def __init__(self, folder: Path, owner: TaskOwner) -> None:
        seen = observe(facts(cpu=0.9), spec={"profileTypes": ["heap", "cpu", "mutex"]})
        decided = plan(seen)
        self.start: Start = decided.starts[0]
        self.server = Server(seen.config)
        patch = status_patch(seen.config.status, decided.status, "7", "cr-1")
        assert patch is not None
        self.server.document["status"] = patch["status"]
        self.target, self.events, self.pod_uid = Target(), Events(), "uid-web-1"
        self.completed: list[str] = []
        self.ended = asyncio.Event()
        self.spool = Spool(folder, 1 << 30, SystemClock())
        clock = SystemClock()
        self.accounts = Accounts(Ledger(self.server), self.events, clock, 3600)
        self.runner = CaptureRunner(
            take=self.target.take,
            spool=self.spool,
            accounts=self.accounts,
            pod_uid=lambda namespace, name: self.pod_uid,
            clock=clock,
            metrics=OperatorMetrics(CollectorRegistry()),
            owner=owner,
            max_bytes=1 << 20,
        )
        self.runner.deliver_with(self)
        self.runner.on_end = lambda key: self.ended.set()

    def finished(self, record: CaptureRecord) -> None:
        """What the delivery is told."""
        self.completed.append(record.id)

    def spooled(self) -> list[str]:
        """Leaves that wait in the spool."""
        return sorted(entry.artifact.leaf for entry in self.spool.entries())

    def profiles(self, state: ArtifactState) -> dict[str, str]:
        """Profiles in a state, with their reasons."""
        return {str(one.type): one.reason for one in self.server.row.artifacts if one.state is state}

    def go(self) -> None:
        """Start the capture."""
        self.runner.start(KEY, self.start)


@asynccontextmanager
async def rig_in(folder: Path) -> AsyncIterator[Rig]:
    """A rig whose tasks end with the test."""
    async with TaskOwner(lambda name, error: pytest.fail(f"{name}: {error!r}")) as owner:
        rig = Rig(folder, owner)
        await rig.spool.recover()
        yield rig


@pytest.mark.looptime
async def test_every_profile_is_spooled_and_accounted(tmp_path: Path) -> None:
    """The row says Uploading with sizes and digests, the Events name config and pod, the delivery hears the end."""
    async with rig_in(tmp_path) as rig:
        rig.go()
        rig.go()
        await rig.ended.wait()
        assert rig.target.asked == [ProfileType.HEAP, ProfileType.CPU, ProfileType.MUTEX]
        assert rig.spooled() == ["cpu.pprof", "heap.pprof", "mutex.pprof"]
        assert rig.server.row.state is CaptureState.UPLOADING
        assert rig.server.config.status.total_profiles == 3
        heap = rig.server.row.artifacts[0]
        assert heap.sha256 == hashlib.sha256(b"profile heap").hexdigest()
        assert rig.completed == [rig.start.record.id]
        assert rig.events.told == ["ProfilingConfig Normal CaptureStarted", "Pod Normal CaptureStarted"]
        assert rig.runner.running == frozenset()


@pytest.mark.looptime
async def test_a_missing_profile_does_not_lose_the_others(tmp_path: Path) -> None:
    """PR8: one failing type keeps the others; nothing of it stays in the spool."""
    async with rig_in(tmp_path) as rig:
        rig.target.failures[ProfileType.MUTEX] = [CaptureFailed(Reason.PROFILE_MISSING, "404")]
        rig.go()
        await rig.ended.wait()
        assert rig.spooled() == ["cpu.pprof", "heap.pprof"]
        assert rig.profiles(ArtifactState.FAILED) == {"mutex": "ProfileMissing"}


@pytest.mark.looptime
async def test_a_busy_profiler_is_asked_again_and_is_no_failure(tmp_path: Path) -> None:
    """U8: HTTP 500 means that somebody else profiles; it is tried again for as long as a profile lasts."""
    async with rig_in(tmp_path) as rig:
        busy = [CaptureFailed(Reason.PROFILER_BUSY, "500", retry=True) for _ in range(3)]
        rig.target.failures[ProfileType.CPU] = busy
        rig.go()
        await rig.ended.wait()
        assert rig.target.asked.count(ProfileType.CPU) == 4
        assert "cpu.pprof" in rig.spooled()
        assert asyncio.get_running_loop().time() >= 50


@pytest.mark.looptime
async def test_a_broken_way_is_tried_once_more(tmp_path: Path) -> None:
    """A port-forward that broke may work a second later; one that breaks again has its reason."""
    async with rig_in(tmp_path) as rig:
        broken = [CaptureFailed(Reason.TRUNCATED, "cut", retry=True) for _ in range(2)]
        rig.target.failures = {ProfileType.HEAP: broken[:1], ProfileType.CPU: broken}
        rig.go()
        await rig.ended.wait()
        assert rig.spooled() == ["heap.pprof", "mutex.pprof"]
        assert rig.profiles(ArtifactState.FAILED) == {"cpu": "Truncated"}


@pytest.mark.looptime
async def test_a_pod_that_was_replaced_under_its_name_is_never_captured(tmp_path: Path) -> None:
    """H2: only the UID that was chosen; no port-forward is opened to its successor, and nothing is tried again."""
    async with rig_in(tmp_path) as rig:
        rig.pod_uid = "another"
        rig.go()
        await rig.ended.wait()
        assert rig.target.asked == []
        assert rig.spooled() == []
        assert set(rig.profiles(ArtifactState.FAILED).values()) == {"PodGone"}
        assert rig.server.row.state is CaptureState.FAILED
        assert "ProfilingConfig Warning CaptureFailed" in rig.events.told


@pytest.mark.looptime
async def test_a_cancelled_capture_keeps_what_it_has_and_says_why_the_rest_is_missing(tmp_path: Path) -> None:
    """A withdrawn grant stops the capture; whole profiles are still delivered."""
    async with rig_in(tmp_path) as rig:
        rig.target.held = {ProfileType.CPU}
        rig.go()
        await rig.target.holding.wait()
        rig.runner.cancel(rig.start.record.id, Reason.CANCELLED, "the grant was withdrawn")
        await rig.ended.wait()
        assert rig.spooled() == ["heap.pprof"]
        assert rig.profiles(ArtifactState.FAILED) == {"cpu": "Cancelled", "mutex": "Cancelled"}
        assert rig.server.row.state is CaptureState.UPLOADING


@pytest.mark.looptime
async def test_an_api_server_that_is_away_delays_the_account_and_loses_nothing(tmp_path: Path) -> None:
    """G3: the account is written when the API server is back, however long that takes."""
    async with rig_in(tmp_path) as rig:
        rig.server.down = True
        rig.go()
        while len(rig.spooled()) < 3:  # the disk works in real time
            await asyncio.sleep(1)
        await asyncio.sleep(600)
        assert rig.spooled() == ["cpu.pprof", "heap.pprof", "mutex.pprof"]
        assert rig.server.row.state is CaptureState.CAPTURING
        rig.server.down = False
        await rig.ended.wait()
        assert str(rig.server.row.state) == "Uploading"


@pytest.mark.looptime
async def test_a_stop_lets_captures_end_and_cuts_what_lasts_too_long(tmp_path: Path) -> None:
    """Draining: within its bound a capture ends by itself, beyond it it is told as Cancelled."""
    async with rig_in(tmp_path) as rig:
        rig.target.held = {ProfileType.MUTEX}
        rig.go()
        await rig.target.holding.wait()
        await rig.runner.drain(20)
        assert rig.profiles(ArtifactState.FAILED) == {"mutex": "Cancelled"}
        assert rig.spooled() == ["cpu.pprof", "heap.pprof"]
        assert rig.runner.running == frozenset()


@pytest.mark.looptime
async def test_a_restart_in_the_middle_delivers_what_is_whole_and_names_what_is_lost(tmp_path: Path) -> None:
    """kill -9: the next process finds the spool, enters whole profiles as captured and the others as ReplicaGone."""
    async with rig_in(tmp_path) as rig:
        rig.target.held = {ProfileType.CPU}
        rig.go()
        await rig.target.holding.wait()
        again = Spool(tmp_path, 1 << 30, SystemClock())
        recovered = await again.recover()
        await rig.accounts.recovered(recovered)
        assert {str(one.type): str(one.state) for one in rig.server.row.artifacts} == {
            "heap": "Captured",
            "cpu": "Failed",
            "mutex": "Failed",
        }
        assert rig.server.row.state is CaptureState.UPLOADING
