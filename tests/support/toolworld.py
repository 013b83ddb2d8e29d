"""A cluster, a collector and a bucket for runs of tools, in virtual time, with a ledger of everything that was done.

The supervisor here judges messages by the real one's rules (`agent.control.Desk`). Every call that leaves the operator
passes a numbered point, before and after it takes effect, at which a test may end the operator.
"""

import asyncio
import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from loopclock import EPOCH, LoopClock
from prometheus_client import CollectorRegistry

from toe_async.agent.control import Cancel, Desk, Heartbeat, Lines, OrdersCame, TokenCame
from toe_async.agent.protocol import Leaf, Orders, Result, digest, message
from toe_async.apis.captures import CaptureRecord, NotStored, Receipt, Standing, StoredLeaf, Target
from toe_async.apis.core import NamespaceObject
from toe_async.apis.powertool import (
    CollectorOutput,
    Output,
    OutputMode,
    PowerToolSpec,
    PvcOutput,
    S3Output,
    Targets,
    TargetSelector,
    Tool,
)
from toe_async.apis.powertoolconfig import PowerToolConfigSpec, ToolSecurity
from toe_async.apis.reasons import Reason
from toe_async.capture.toolattempt import Parts, ToolSettings
from toe_async.capture.toolports import Fetch
from toe_async.capture.toolrun import Progress, ToolCapture
from toe_async.capture.toolrunner import ToolRunner
from toe_async.capture.vessels import container_name
from toe_async.kube.errors import (
    AlreadyExists,
    Invalid,
    KubeError,
    NotFound,
    RemoteCommandBroken,
    ServerError,
)
from toe_async.kube.remotechannels import STDERR, STDOUT
from toe_async.kube.requests import Request
from toe_async.lib.tasks import TaskOwner
from toe_async.telemetry.metrics import OperatorMetrics

NOW = EPOCH
AGENTS, NAMESPACE, POD, UID, APP = "toe-agents", "shop", "web-1", "11111111-2222", "app"
BODY = b"what the tool found " * 50
PLAIN = ToolSecurity()
SHA = hashlib.sha256(BODY).hexdigest()


def capture(mode: OutputMode = "collector", *, security: ToolSecurity = PLAIN, **changes: Any) -> ToolCapture:
    """A claimed attempt of a tool that runs for ten seconds."""
    made: dict[str, Any] = {
        "id": "abcdefghijklmnopqrstuvwxyz234567",
        "namespace": NAMESPACE,
        "name": "look",
        "uid": "run-uid",
        "run": "",
        "attempt": 1,
        "claimed_at": NOW,
        "target": Target(
            namespace=NAMESPACE,
            pod=POD,
            pod_uid=UID,
            container=APP,
            node="node-1",
            labels={"app": "web"},
            service="web",
        ),
        "tool": PowerToolConfigSpec(name="probe", image="tools/probe:1", security_context=security, command=("probe",)),
        "spec": PowerToolSpec(
            targets=Targets(label_selector=TargetSelector(match_labels={"app": "web"})),
            tool=Tool(name="probe", duration="10s"),
            output=Output(
                mode=mode,
                pvc=PvcOutput(claim_name="data", path="out") if mode == "pvc" else None,
                collector=CollectorOutput() if mode == "collector" else None,
                s3=S3Output(bucket="captures") if mode == "s3" else None,
            ),
        ),
        "matching_labels": {"app": "web"},
    }
    return ToolCapture(**(made | changes))


@dataclass
class Stream:
    """One attached connection."""

    world: "World"
    container: "Container"
    chunks: "asyncio.Queue[bytes | None]" = field(default_factory=asyncio.Queue)
    broken: bool = False

    async def send(self, data: bytes) -> None:
        kinds = [json.loads(line)["type"] for line in data.splitlines()]
        async with self.world.point(f"send {kinds[0]}"):
            if self.broken or self.container.state != "running":
                raise RemoteCommandBroken("the connection was lost")
            self.container.hear(data)

    def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[tuple[int, bytes]]:
        yield STDERR, b"noise\n"
        while (chunk := await self.chunks.get()) is not None:
            yield STDOUT, chunk
        if self.broken:
            raise RemoteCommandBroken("the connection was lost")


@dataclass
class Script:
    """What the supervisor makes of its orders."""

    result: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    upload: bool = True
    report: bool = True
    seconds: float | None = None
    reason: str = ""
    noise: tuple[bytes, ...] = ()


@dataclass
class Container:
    """One container of a tool and the supervisor in it."""

    world: "World"
    spec: dict[str, Any]
    state: str = "waiting"
    reason: str = "ContainerCreating"
    message: str = ""
    exit_code: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    phase: str = "waiting"
    accepted: int = 0
    cancelled: bool = False
    discarded: bool = False
    cancels: int = 0
    tokens: list[str] = field(default_factory=list)
    beats: int = 0
    streams: list[Stream] = field(default_factory=list)
    told: bytes = b""
    kept: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.capture = self.spec["args"][2]
        self.desk = Desk(self.capture, self.spec["args"][4])
        self.lines = Lines()
        self.news = asyncio.Event()

    def status(self) -> dict[str, Any]:
        stamp = self.started_at.isoformat() if self.started_at else None
        states: dict[str, dict[str, Any]] = {
            "waiting": {"waiting": {"reason": self.reason, "message": self.message}},
            "running": {"running": {"startedAt": stamp}},
            "ended": {
                "terminated": {
                    "exitCode": self.exit_code,
                    "reason": self.reason,
                    "message": self.message,
                    "startedAt": stamp,
                    "finishedAt": self.finished_at.isoformat() if self.finished_at else None,
                }
            },
        }
        return {"name": self.spec["name"], "imageID": "sha256:77", "state": states[self.state]}

    def say(self, data: bytes) -> None:
        for stream in self.streams:
            stream.chunks.put_nowait(data)

    def enter(self, phase: str) -> None:
        self.phase = phase
        self.say(message("state", phase=phase, seconds=0.0, bytes=17, target=""))

    def hear(self, data: bytes) -> None:
        """The real supervisor's rules."""
        for line in self.lines.feed(data):
            assert line is not None
            match self.desk.judge(line):
                case OrdersCame(orders, again):
                    self.say(message("accepted", digest=digest(orders)))
                    if again:
                        self.enter(self.phase)
                        self.say(self.told)
                    else:
                        self.accepted += 1
                        self.world.start(self.work(orders))
                case TokenCame(token):
                    self.tokens.append(token)
                    self.news.set()
                case Heartbeat():
                    self.beats += 1
                    self.enter(self.phase)
                case Cancel(discard):
                    self.cancelled, self.discarded = True, self.discarded or discard
                    self.cancels += 1
                    self.news.set()
                    if not self.accepted:
                        self.end(4, "", json.dumps(asdict(Result(capture=self.capture, outcome="cancelled"))))
                case refused:
                    self.say(message("refused", message=getattr(refused, "message", "")))

    async def work(self, orders: Orders) -> None:
        script = self.world.script
        for noise in script.noise:
            self.say(noise)
        self.enter("running")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(orders.duration if script.seconds is None else script.seconds):
                while not self.cancelled:
                    self.news.clear()
                    await self.news.wait()
        self.enter("storing")
        leaf = Leaf(name="probe.out", size=len(BODY), sha256=SHA, state="stored")
        if orders.mode == "collector" and script.upload:
            await self.upload(orders)
        elif orders.mode in {"ephemeral", "s3"}:
            leaf = Leaf(name="probe.out", size=len(BODY), sha256=SHA, state="kept")
            self.kept = {leaf.name: BODY}
        elif orders.mode == "pvc":
            leaf = Leaf(name="probe.out", size=len(BODY), sha256=SHA, state="stored", uri="/out/abcdefghij-probe.out")
        outcome, heard = "cancelled" if self.cancelled else "completed", self.cancels
        leaves = () if self.discarded else (leaf,)
        self.kept = {} if self.discarded else self.kept
        result = Result(capture=self.capture, outcome=outcome, exit_code=0, leaves=leaves, port=8123)
        body = asdict(result) | script.result
        self.told = message("result", **body)
        self.say(self.told)
        if self.kept:  # a further cancel ends it
            self.enter("keeping")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(orders.keep_seconds):
                    while self.kept and self.cancels == heard:
                        self.news.clear()
                        await self.news.wait()
            self.kept.clear()
        self.end(
            4 if outcome == "cancelled" else script.exit_code, script.reason, json.dumps(body) if script.report else ""
        )

    async def upload(self, orders: Orders) -> None:
        world = self.world
        while True:
            if self.tokens and self.tokens[-1] in world.tokens and world.collector_up:
                world.stored[self.capture] = [("probe.out", len(BODY), SHA)]
                world.ledger["artifact"] += 1
                world.states[self.capture] = "Complete"
                return
            self.say(message("need-token"))
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await self.news.wait()

    def run(self) -> None:
        """The kubelet has started it."""
        self.state, self.started_at = "running", self.world.clock.now()
        self.say(message("ready", capture=self.capture))
        self.world.changed()

    def end(self, code: int, reason: str = "", text: str = "") -> None:
        """It has ended."""
        if self.state == "ended":
            return
        self.state, self.exit_code, self.message = "ended", code, text
        self.finished_at = self.world.clock.now()
        self.reason = reason or ("Completed" if code == 0 else "Error")
        for stream in self.streams:
            stream.chunks.put_nowait(None)
        self.world.changed()

    def cut(self) -> None:
        """Lose every connection."""
        for stream in self.streams:
            stream.broken = True
            stream.chunks.put_nowait(None)
        self.streams.clear()


@dataclass
class World:
    """Everything that outlives an operator."""

    clock: LoopClock
    tasks: TaskOwner
    script: Script = field(default_factory=Script)
    ledger: Counter[str] = field(default_factory=Counter)
    refusals: list[KubeError] = field(default_factory=list)
    """What the next writes are answered."""
    containers: dict[str, Container] = field(default_factory=dict)
    agents: dict[str, dict[str, Any]] = field(default_factory=dict)
    pod: dict[str, Any] | None = field(default_factory=dict)
    watchers: list[Callable[[], None]] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    starts: bool = True
    start_seconds: float = 1.0
    states: dict[str, str] = field(default_factory=dict)
    stored: dict[str, list[tuple[str, int, str]]] = field(default_factory=dict)
    details: dict[str, dict[str, str]] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    collector_up: bool = True
    bucket: dict[str, bytes] = field(default_factory=dict)
    points: list[str] = field(default_factory=list)
    kill_at: int = -1
    killed: asyncio.Event = field(default_factory=asyncio.Event)
    fetches: int = 0

    def __post_init__(self) -> None:
        self.pod = {
            "metadata": {"name": POD, "namespace": NAMESPACE, "uid": UID, "labels": {"app": "web"}},
            "spec": {
                "nodeName": "node-1",
                "containers": [{"name": APP, "image": "app:1"}],
                "volumes": [{"name": "vol", "persistentVolumeClaim": {"claimName": "data"}}],
            },
            "status": {
                "phase": "Running",
                "containerStatuses": [
                    {
                        "name": APP,
                        "containerID": "containerd://c1",
                        "state": {"running": {"startedAt": NOW.isoformat()}},
                    }
                ],
            },
        }

    def start(self, work: Any) -> None:
        self.tasks.start(work, name="world")

    @contextlib.asynccontextmanager
    async def point(self, name: str) -> AsyncIterator[None]:
        """Where an operator may end, before and after what it does here."""
        await self._pass(f"before {name}")
        yield
        await self._pass(f"after {name}")

    async def _pass(self, name: str) -> None:
        self.points.append(name)
        if len(self.points) - 1 == self.kill_at:
            self.killed.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0.01)

    def changed(self) -> None:
        for one in list(self.watchers):
            one()

    @property
    def container(self) -> Container:
        (only,) = self.containers.values()
        return only

    # -- the API server ---------------------------------------------------------------------------------------------

    async def send(self, request: Request) -> bytes:
        async with self.point(f"{request.method} {request.path.rsplit('/', 1)[-1]}"):
            return json.dumps(self.answer(request)).encode()

    def answer(self, request: Request) -> Any:
        if request.method != "GET" and self.refusals:
            raise self.refusals.pop(0)
        in_agents = f"/namespaces/{AGENTS}/" in request.path
        match request.method:
            case "GET" if request.path.endswith("/pods"):
                return {"metadata": {}, "items": [self.agent(name) for name in self.agents]}
            case "GET" if in_agents:
                return self.agent(request.path.rsplit("/", 1)[-1])
            case "GET":
                return self.target()
            case "PATCH":
                return self.patch(json.loads(request.body or b""))
            case "POST":
                return self.create(json.loads(request.body or b""))
            case _:
                return self.delete(request.path.rsplit("/", 1)[-1])

    def target(self) -> dict[str, Any]:
        if self.pod is None:
            raise NotFound(404, "NotFound", "pods not found")
        mine = [one for one in self.containers.values() if one.spec["name"] not in self.agents]
        pod: dict[str, Any] = json.loads(json.dumps(self.pod))
        pod["spec"]["ephemeralContainers"] = [one.spec for one in mine]
        pod["status"]["ephemeralContainerStatuses"] = [one.status() for one in mine]
        return pod

    def agent(self, name: str) -> dict[str, Any]:
        if name not in self.agents:
            raise NotFound(404, "NotFound", "pods not found")
        pod: dict[str, Any] = json.loads(json.dumps(self.agents[name]))
        if name in self.containers:
            held = self.containers[name]
            phases = {"waiting": "Pending", "running": "Running", "ended": "Succeeded"}
            pod["status"] = {"phase": phases[held.state], "containerStatuses": [held.status()]}
        return pod

    def patch(self, body: dict[str, Any]) -> dict[str, Any]:
        pod = self.target()
        if body["metadata"]["uid"] != pod["metadata"]["uid"]:
            raise Invalid(422, "Invalid", "metadata.uid: Invalid value: field is immutable")
        for spec in body["spec"]["ephemeralContainers"]:
            held = self.containers.get(spec["name"])
            if held is not None and held.spec != spec:
                raise Invalid(422, "Invalid", "existing ephemeral containers may not be changed")
            if held is None:
                self.make(spec)
        return self.target()

    def create(self, pod: dict[str, Any]) -> dict[str, Any]:
        name = pod["metadata"]["name"]
        if name in self.agents:
            raise AlreadyExists(409, "AlreadyExists", "it exists")
        pod["metadata"]["uid"] = "aaaa-1"
        pod["metadata"]["creationTimestamp"] = self.clock.now().isoformat()
        self.agents[name] = pod
        self.make(pod["spec"]["containers"][0])
        return pod

    def delete(self, name: str) -> dict[str, Any]:
        if self.agents.pop(name, None) is None:
            raise NotFound(404, "NotFound", "it is gone")
        self.ledger["agent deleted"] += 1
        self.containers.pop(name, None)
        return {}

    def make(self, spec: dict[str, Any]) -> None:
        self.ledger["container"] += 1
        held = self.containers[spec["name"]] = Container(self, spec)
        if self.starts:
            asyncio.get_running_loop().call_later(self.start_seconds, held.run)

    @contextlib.asynccontextmanager
    async def attach(self, namespace: str, pod: str, container: str) -> AsyncIterator[Stream]:
        async with self.point("attach"):
            held = self.containers.get(container)
            if held is None or held.state != "running":
                raise ServerError(500, "Unknown", "container is not running")
            self.ledger["attach"] += 1
            stream = Stream(self, held)
            held.streams.append(stream)
        try:
            yield stream
        finally:
            if stream in held.streams:
                held.streams.remove(stream)

    @contextlib.asynccontextmanager
    async def get(
        self, namespace: str, pod: str, port: int, target: str, seconds: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self.point(f"fetch {target.rsplit('/', 1)[-1]}"):
            held, leaf = self.container, target.rsplit("/", 1)[-1]
            if held.state != "running" or port != 8123 or (leaf not in held.kept and leaf != ".fetched"):
                raise ServerError(500, "Unknown", "nothing listens")
            self.fetches += leaf != ".fetched"

        async def chunks() -> AsyncIterator[bytes]:
            if leaf == ".fetched":
                held.kept.clear()
                held.news.set()
                return
            yield held.kept[leaf]

        yield chunks()

    @contextlib.contextmanager
    def watching(self, namespace: str, name: str, changed: Callable[[], None]) -> Iterator[None]:
        self.watchers.append(changed)
        try:
            yield
        finally:
            self.watchers.remove(changed)

    def namespace(self, name: str) -> NamespaceObject | None:
        return NamespaceObject(name, "1", self.labels, {})

    # -- the collector ----------------------------------------------------------------------------------------------

    async def register(
        self, record: CaptureRecord, *, expires: datetime, details: dict[str, str]
    ) -> Standing | NotStored:
        async with self.point("register"):
            if not self.collector_up:
                return NotStored(reason=Reason.UPLOAD_RETRYING, message="the collector gives no answer")
            assert NOW < expires < NOW + timedelta(days=7)
            self.ledger["registration"] += record.id not in self.states
            self.states.setdefault(record.id, "Open")
            self.details.setdefault(record.id, {}).update(details)
            return Standing(
                state=self.states[record.id],  # type: ignore[arg-type]
                artifacts=tuple(
                    StoredLeaf(leaf=leaf, uri=f"artifacts://{NAMESPACE}/{record.id[:10]}-{leaf}", size=size, sha256=sha)
                    for leaf, size, sha in self.stored.get(record.id, [])
                ),
            )

    async def cancel(self, capture_id: str) -> NotStored | None:
        async with self.point("cancel capture"):
            if self.states.get(capture_id) == "Open":
                self.states[capture_id] = "Cancelled"
            return None

    @contextlib.asynccontextmanager
    async def hold(self, capture_id: str) -> AsyncIterator["TicketHere"]:
        ticket = TicketHere(self, capture_id)
        try:
            yield ticket
        finally:
            if not ticket.left:
                self.secrets.discard(capture_id)
                self.tokens.clear()

    # -- the bucket -------------------------------------------------------------------------------------------------

    async def deliver(
        self, record: CaptureRecord, leaf: str, size: int, sha256: str, fetch: Fetch
    ) -> Receipt | NotStored:
        key = f"{record.id}/{leaf}"
        if key not in self.bucket:
            async with fetch() as chunks:
                body = b"".join([chunk async for chunk in chunks])
            if hashlib.sha256(body).hexdigest() != sha256:
                return NotStored(reason=Reason.TRUNCATED, message="other bytes came")
            async with self.point("store"):
                self.ledger["artifact"] += key not in self.bucket
                self.bucket[key] = body
        return Receipt(uri=f"s3://captures/{key}", size=size, sha256=sha256)

    def release(self, capture_id: str) -> None:
        self.ledger["released"] += 1


@dataclass
class TicketHere:
    """A ticket of the world's API server."""

    world: World
    capture: str
    left: bool = False
    held: str = ""

    async def token(self, *, anew: bool) -> str | NotStored:
        async with self.world.point("token"):
            if self.held and not anew:
                return self.held
            if self.capture not in self.world.secrets:
                self.world.secrets.add(self.capture)
                self.world.ledger["secret"] += 1
            self.held = f"token-{len(self.world.points)}"
            self.world.tokens.add(self.held)
            return self.held

    def leave(self) -> None:
        self.left = True


class Operator:
    """One process's runner in a world."""

    def __init__(self, world: World, **settings: float) -> None:
        self.world, self.told = world, list[Progress]()
        self.owner = TaskOwner(lambda name, error: None)
        self.metrics = OperatorMetrics(CollectorRegistry())
        parts = Parts(
            kube=world,
            watch=world,
            namespaces=world.namespace,
            captures=world,
            deliveries=world,
            ca=self._ca,
            settings=ToolSettings(
                agents_namespace=AGENTS, collector_url="https://collector:8443", max_bytes=1 << 30, **settings
            ),
            clock=world.clock,
        )
        self.ended = asyncio.Event()
        self.runner = ToolRunner(parts, self.metrics, self.owner)
        self.ca = "-----BEGIN CERTIFICATE-----"

    async def _ca(self) -> str:
        return self.ca

    def start(self, wanted: ToolCapture) -> None:
        self.runner.start(wanted, self._hear)

    def _hear(self, _: ToolCapture, progress: Progress) -> None:
        self.told.append(progress)
        if progress.finished_at is not None or progress.state.value in {"Completed", "Failed", "Cancelled"}:
            self.ended.set()

    async def outcome(self, wanted: ToolCapture) -> Progress:
        """Run an attempt to its end."""
        self.start(wanted)
        await self.ended.wait()
        while self.runner.running:
            await asyncio.sleep(0.01)
        return self.told[-1]

    async def die(self) -> None:
        """End without a word to anybody."""
        await self.owner.__aexit__(None, None, None)


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    """A world, and everything in it ended afterwards."""
    errors: list[BaseException] = []
    async with TaskOwner(lambda name, error: errors.append(error)) as tasks:
        yield World(LoopClock(), tasks)
    assert not errors, errors


NAME = container_name(capture().id)
