"""``toe-async operator``: flags -> parts -> a manager that starts and stops them in order."""

import argparse
import asyncio
import gc
import os
import socket
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path

from toe_async import __version__
from toe_async.apis.captures import ArtifactRecord, CaptureRecord, Receipt
from toe_async.apis.kinds import POWER_TOOLS
from toe_async.apis.profilingconfig import ProfilingConfig
from toe_async.apis.reasons import Reason
from toe_async.capture.pprof import take
from toe_async.capture.targets import opted_in
from toe_async.cli import flags, process, tools
from toe_async.cli.serve import health_app, metrics_app, serving
from toe_async.cli.watches import AnyInformer, Watches, watches
from toe_async.controllers.profilingconfig.accounts import Accounts
from toe_async.controllers.profilingconfig.controller import ProfilingConfigController
from toe_async.controllers.profilingconfig.facts import ConfigKey
from toe_async.controllers.profilingconfig.ledger import Ledger
from toe_async.controllers.profilingconfig.matching import PodIndex
from toe_async.controllers.profilingconfig.monitor import MetricsMonitor
from toe_async.controllers.profilingconfig.observe import Views
from toe_async.controllers.profilingconfig.runner import CaptureRunner
from toe_async.controllers.profilingconfig.sinkhealth import SinkHealth
from toe_async.kube.client import Client, ClientSettings, connect
from toe_async.kube.errors import KubeError
from toe_async.lib.clock import SystemClock
from toe_async.lib.tasks import TaskOwner
from toe_async.runtime.controller import Controller
from toe_async.runtime.keys import Key
from toe_async.runtime.leader import LeaderElector
from toe_async.runtime.manager import Manager, Part, PartFailedError
from toe_async.runtime.policy import PROFILING_POLICY, PolicyMonitor
from toe_async.runtime.recorder import Recorder
from toe_async.runtime.workqueue import WorkQueue
from toe_async.sinks.allow import Allows
from toe_async.sinks.allowfile import AllowFile
from toe_async.sinks.delivery import Delivery, DeliveryFailed
from toe_async.sinks.errors import SinkError
from toe_async.sinks.router import Sinks
from toe_async.sinks.spool import Spool, SpoolEntry
from toe_async.sinks.tooldeliveries import ToolDeliveries
from toe_async.telemetry import log
from toe_async.telemetry.health import Health
from toe_async.telemetry.metrics import OperatorMetrics

_log = log.get("operator")


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    add = flags.from_environment(parser).add
    add("kubeconfig", flags.text, "", "how to reach the API server; default: the pod's service account", metavar="FILE")
    add("namespace", flags.text, os.environ.get("POD_NAMESPACE", "toe-system"), "namespace of this operator")
    add("agents-namespace", flags.text, "toe-agents", "namespace of capture Secrets and of tools' own pods")
    add("sinks-file", flags.text, "", "the administrator's list of sinks; without it no S3 sink", metavar="FILE")
    add("collector-url", flags.text, "https://toe-collector.toe-system.svc:8443", "the collector")
    add("collector-ca", flags.text, "", "CA of the collector's certificate, PEM", metavar="FILE")
    add("collector-token-file", flags.text, "", "our token for the collector", metavar="FILE")
    add("uploader-service-account", flags.text, "toe-uploader", "whose tokens upload", metavar="NAME")
    add("spool-dir", flags.text, "/var/spool/toe", "where captures wait for their sink")
    add("spool-bytes", flags.size, 4 << 30, "most bytes in the spool")
    add("max-capture-bytes", flags.size, 2 << 30, "largest profile")
    add("max-concurrent-captures", flags.count, 8, "captures that run at a time", metavar="N")
    add(
        "upload-deadline",
        flags.duration,
        timedelta(hours=1),
        "how long a sink may be away before a profile is given up",
    )
    add("metrics-address", flags.address, ("", 8080), "where /metrics answers", metavar="HOST:PORT")
    add("health-address", flags.address, ("", 8081), "where /healthz and /readyz answer", metavar="HOST:PORT")
    add("leader-elect", flags.truth, True, "whether replicas agree on a leader by a Lease", metavar="BOOL")
    add("lease-name", flags.text, "toe-async-operator", "name of that Lease")
    add(
        "identity",
        flags.text,
        os.environ.get("POD_NAME") or socket.gethostname(),
        "who we are in claims and in the Lease",
    )
    add(
        "policy",
        flags.one_of("required", "optional"),
        "required",
        "whether the admission policy for ProfilingConfigs must be in force",
    )
    tools.declare(add)
    add("shutdown-grace", flags.duration, timedelta(seconds=50), "how long a stop may take")
    add("log-format", flags.one_of("json", "console"), "json", "how log lines look")
    add("log-level", flags.one_of(*log.LEVELS), "info", "least level that is logged")
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    log.configure(given.log_format, given.log_level)
    return process.run("toe-async operator", partial(_operate, given), (PartFailedError, KubeError, SinkError, OSError))


async def _operate(given: argparse.Namespace, stop: asyncio.Event) -> None:
    metrics = OperatorMetrics(process.registry())
    settings = ClientSettings(kubeconfig=given.kubeconfig or None, user_agent=f"toe-operator/{__version__}")

    def count(method: str, host: str, code: str) -> None:
        metrics.rest_client_requests.labels(code, method, host).inc()

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(settings, observer=count))
        health = Health()
        await stack.enter_async_context(serving(metrics_app(metrics.registry), given.metrics_address))
        await stack.enter_async_context(serving(health_app(health), given.health_address))
        manager = await _assemble(given, client, metrics, health, stack)
        _log.info("operator starts", version=__version__, identity=given.identity, server=client.server)
        await manager.run(stop)


async def _assemble(
    given: argparse.Namespace, client: Client, metrics: OperatorMetrics, health: Health, stack: AsyncExitStack
) -> Manager:
    """Make every part and say in which order they run."""
    clock = SystemClock()
    allow = await AllowFile.open(Path(given.sinks_file) if given.sinks_file else None, given.collector_url)
    watched = watches(client, clock, metrics, given.namespace)
    index = PodIndex(opted_in)
    recorder = Recorder(
        client, component="toe-async/profilingconfig", instance=given.identity, clock=clock, metrics=metrics
    )
    upload_seconds = given.upload_deadline.total_seconds()
    ledger = Ledger(client)
    accounts = Accounts(ledger, recorder, clock, upload_seconds)
    spool = Spool(Path(given.spool_dir), given.spool_bytes, clock)
    recovered = await spool.recover()
    sinks = await stack.enter_async_context(_sinks(given, client, allow, clock))
    owner = await stack.enter_async_context(TaskOwner(_task_failed))
    runner = CaptureRunner(
        take=partial(take, client),
        spool=spool,
        accounts=accounts,
        pod_uid=partial(_pod_uid, watched),
        clock=clock,
        metrics=metrics,
        owner=owner,
        max_bytes=given.max_capture_bytes,
    )
    queue: WorkQueue[ConfigKey] = WorkQueue("profilingconfig", clock=clock, metrics=metrics)

    # The parts below name each other's callbacks; those are looked up when they are called, long after this.
    async def report(record: CaptureRecord, artifact: ArtifactRecord, outcome: Receipt | DeliveryFailed) -> None:
        await accounts.report(record, artifact, outcome)
        if isinstance(outcome, Receipt):
            health_of_sinks.heard(record, None)

    def retried(record: CaptureRecord, artifact: ArtifactRecord, reason: Reason, message: str) -> None:
        health_of_sinks.heard(record, message)

    tool_deliveries = ToolDeliveries(spool, POWER_TOOLS.group)
    delivery = Delivery(
        spool,
        sinks,
        tool_deliveries.reporting(report),
        on_retry=retried,
        clock=clock,
        metrics=metrics,
        deadline_seconds=upload_seconds,
    )
    runner.deliver_with(delivery)
    health_of_sinks = SinkHealth(delivery.probe, lambda place: controller.sink_changed(place))
    monitor = MetricsMonitor(client, index.opted_in, lambda namespace: controller.polled(namespace), clock, metrics)
    policy = PolicyMonitor(
        client,
        PROFILING_POLICY,
        lambda: controller.wake_all(),
        required=given.policy == "required",
        flag="--policy",
    )

    def sink_answer(config: ProfilingConfig) -> tuple[bool, str | None]:
        return health_of_sinks.answer(controller.wanted(config))

    def spool_problem() -> str | None:
        if spool.free_bytes >= given.max_capture_bytes:
            return None
        return f"the spool is full: {spool.used_bytes} bytes wait for their sinks; see StoreReachable"

    elector = (
        LeaderElector(
            client,
            namespace=given.namespace,
            name=given.lease_name,
            identity=given.identity,
            clock=clock,
            metrics=metrics,
        )
        if given.leader_elect
        else None
    )
    views = Views(
        pods=watched.pods,
        nodes=watched.nodes,
        namespaces=watched.namespaces,
        configs=watched.configs,
        index=index,
        usages=monitor,
        allow=allow,
        clock=clock,
        holder=given.identity,
        own_namespace=given.namespace,
        policy_problem=lambda: policy.problem,
        sink_answer=sink_answer,
        spool_problem=spool_problem,
    )
    controller = ProfilingConfigController(
        views=views,
        configs=watched.configs,
        pods=watched.pods,
        namespaces=watched.namespaces,
        index=index,
        monitor=monitor,
        sinks=health_of_sinks,
        runner=runner,
        accounts=accounts,
        ledger=ledger,
        queue=queue,
        fence=elector.fence if elector else lambda: None,
        policy_known=lambda: policy.known,
        clock=clock,
        metrics=metrics,
        collector=given.collector_url,
        max_captures=given.max_concurrent_captures,
    )
    workers = Controller("profilingconfig", queue, controller.reconcile, clock=clock, metrics=metrics)

    side = await tools.tool_side(
        given,
        client,
        watched,
        stack,
        allow=allow,
        deliveries=tool_deliveries,
        probe=delivery.probe,
        owner=owner,
        fence=elector.fence if elector else lambda: None,
        clock=clock,
        metrics=metrics,
    )

    def sinks_changed() -> None:
        controller.wake_all()
        side.wake_all()

    manager = Manager(clock=clock, elector=elector, grace=given.shutdown_grace.total_seconds())
    manager.add_service(Part("events", recorder.run, drain=recorder.drain))
    manager.add_service(Part("deliveries", delivery.run, drain=partial(_drained, spool)))
    for service in side.services:
        manager.add_service(service)
    _add_recovery(manager, accounts, [entry for entry in recovered if entry.record.group != POWER_TOOLS.group])
    _add_watches(manager, watched)
    captures_grace = 0.6 * given.shutdown_grace.total_seconds()
    manager.add_source(Part("captures", _forever, drain=partial(runner.drain, captures_grace)))
    for part in (
        Part("policy", policy.run),
        Part("metrics", monitor.run),
        Part("sinks", health_of_sinks.run),
        Part("sinks file", partial(allow.run, sinks_changed)),
        Part("demand", controller.keep_demand),
        Part("profilingconfig", workers.run, drain=workers.drain),
        *side.leading,
    ):
        manager.add_leading(part)
    _add_checks(health, manager, watched)
    return manager


def _add_recovery(manager: Manager, accounts: Accounts, recovered: list[SpoolEntry]) -> None:
    """Enter what an earlier process left in the spool before anything else is decided."""
    entered = asyncio.Event()

    async def recover() -> None:
        await accounts.recovered(recovered)
        entered.set()
        await _forever()

    manager.add_service(Part("recovery", recover, ready=entered.wait))


def _add_watches(manager: Manager, watched: Watches) -> None:
    required = watched.required()
    for informer in watched.all():
        ready = informer.synced.wait if informer in required else None
        manager.add_source(Part(f"watch {informer.resource}", informer.run, ready=ready))
    manager.add_source(Part("memory", partial(_freeze, watched)))


def _add_checks(health: Health, manager: Manager, watched: Watches) -> None:
    # Liveness is that the loop turns and answers: an API server that is away is no reason to restart.
    health.add("started", manager.not_ready)
    for informer in watched.all():
        check = informer.check if informer in watched.required() else partial(_check_if_there, informer)
        health.add(f"watch-{informer.resource}", check)


def _check_if_there(informer: AnyInformer) -> str | None:
    """A kind whose CRD is not installed is no fault; one that was watched and went silent is."""
    return informer.check() if informer.synced.is_set() else None


def _sinks(given: argparse.Namespace, client: Client, allow: Allows, clock: SystemClock) -> Sinks:
    return Sinks(
        client,
        allow,
        clock=clock,
        collector_ca=Path(given.collector_ca) if given.collector_ca else None,
        collector_token=Path(given.collector_token_file) if given.collector_token_file else None,
        agents_namespace=given.agents_namespace,
        uploader=given.uploader_service_account,
        max_bytes=given.max_capture_bytes,
    )


def _pod_uid(watched: Watches, namespace: str, name: str) -> str | None:
    pod = watched.pods.store.get(Key(namespace, name))
    return pod.uid if pod is not None else None


async def _drained(spool: Spool) -> None:
    """Wait until everything received is stored; the caller brings the deadline.

    What came of a tool is still with that tool: the next leader fetches it again.
    """
    while any(entry.record.group != POWER_TOOLS.group for entry in spool.entries()):  # noqa: ASYNC110 -- the spool tells what comes, not what goes
        await asyncio.sleep(0.2)


async def _freeze(watched: Watches) -> None:
    """Once everything is listed, take it out of the garbage collector's sight: full collections then stay short."""
    for informer in watched.required():
        await informer.synced.wait()
    gc.collect()
    gc.freeze()
    await _forever()


async def _forever() -> None:
    await asyncio.Event().wait()


def _task_failed(name: str, error: BaseException) -> None:
    _log.error("a task failed", task=name, error=f"{type(error).__name__}: {error}")
