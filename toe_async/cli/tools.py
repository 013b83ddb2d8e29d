"""The part of the operator that runs PowerTools: made from its flags and from what the operator has anyway."""

import argparse
import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from msgspec import Struct

from toe_async.apis.core import NamespaceObject
from toe_async.apis.kinds import POWER_TOOL_CONFIGS
from toe_async.apis.pods import Pod
from toe_async.apis.powertoolconfig import decode_power_tool_config
from toe_async.capture.toolattempt import Parts, ToolSettings
from toe_async.capture.toolconfig import ToolPolicy
from toe_async.capture.toolkube import ToolKube
from toe_async.capture.toolrunner import ToolRunner
from toe_async.cli import flags
from toe_async.cli.watches import Watches
from toe_async.controllers.powertool.accounts import Accounts
from toe_async.controllers.powertool.controller import PowerToolController
from toe_async.controllers.powertool.facts import ToolKey
from toe_async.controllers.powertool.observe import Limits, Views
from toe_async.controllers.powertool.occupancy import Occupancy
from toe_async.controllers.powertool.podbook import PodBook
from toe_async.controllers.powertool.preparing import Preparations, Probe
from toe_async.controllers.powertool.writing import Writer
from toe_async.controllers.powertoolconfig.controller import FIELD_MANAGER, PowerToolConfigController
from toe_async.kube.client import Client
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner
from toe_async.runtime.controller import Controller
from toe_async.runtime.keys import Key
from toe_async.runtime.manager import Part
from toe_async.runtime.policy import POWERTOOL_POLICY, PolicyMonitor
from toe_async.runtime.recorder import Recorder
from toe_async.runtime.statuses import StatusWriter
from toe_async.runtime.subscriptions import Subscriptions
from toe_async.runtime.workqueue import WorkQueue
from toe_async.sinks.allow import Allows
from toe_async.sinks.collector import CollectorAccess
from toe_async.sinks.toolcaptures import ToolCaptures
from toe_async.sinks.tooldeliveries import ToolDeliveries
from toe_async.telemetry.metrics import OperatorMetrics

_SETTLING = 0.2  # of the time that a stop may take: what a tool has stored is asked for and written down


class ToolSide(Struct, frozen=True):
    """What the manager runs in every replica, what only in the leading one, and how all PowerTools are woken."""

    services: tuple[Part, ...]
    leading: tuple[Part, ...]
    wake_all: Callable[[], None]


def declare(add: Callable[..., None]) -> None:
    """Declare the flags that concern tools."""
    add("max-concurrent-tools", flags.count, 50, "tools that run at a time in the cluster", metavar="N")
    add("max-concurrent-tools-per-node", flags.count, 5, "tools that run at a time on a node", metavar="N")
    add("require-image-digest", flags.truth, False, "whether tools' images must be named by digest", metavar="BOOL")
    add("chaos", flags.one_of("on", "off"), "on", "whether tools that disturb their target may run; off stops them")
    add(
        "powertool-policy",
        flags.one_of("required", "optional"),
        "required",
        "whether the admission policy for PowerTools must be in force",
    )


async def tool_side(
    given: argparse.Namespace,
    client: Client,
    watched: Watches,
    stack: AsyncExitStack,
    *,
    allow: Allows,
    deliveries: ToolDeliveries,
    probe: Probe,
    owner: TaskOwner,
    fence: Callable[[], None],
    clock: Clock,
    metrics: OperatorMetrics,
) -> ToolSide:
    """Make the parts. `stack` ends what has to be ended; `owner` outlives every tool's task."""
    recorder = Recorder(client, component="toe-async/powertool", instance=given.identity, clock=clock, metrics=metrics)
    policy = ToolPolicy(require_digest=given.require_image_digest, heartbeat_tools=given.chaos == "on")
    captures = await stack.enter_async_context(ToolCaptures(client, _collector(given), clock))
    subscriptions: Subscriptions[Pod] = Subscriptions(lambda pod: Key(pod.namespace, pod.name))
    watched.pods.add_handler(subscriptions.handle)
    runner = ToolRunner(
        Parts(
            kube=ToolKube(client),
            watch=subscriptions,
            namespaces=partial(_namespace, watched),
            captures=captures,
            deliveries=deliveries,
            ca=partial(_ca, given.collector_ca),
            settings=ToolSettings(
                agents_namespace=given.agents_namespace,
                collector_url=given.collector_url,
                max_bytes=given.max_capture_bytes,
                upload_seconds=given.upload_deadline.total_seconds(),
            ),
            clock=clock,
        ),
        metrics,
        owner,
    )
    # Callbacks are looked up when they are called, long after this.
    monitor = PolicyMonitor(
        client,
        POWERTOOL_POLICY,
        lambda: controller.wake_all(),
        required=given.powertool_policy == "required",
        flag="--powertool-policy",
    )
    book, occupancy = PodBook(), Occupancy(lambda name: views.compatible_with(name))
    views = Views(
        configs=watched.tool_configs,
        pods=watched.pods,
        namespaces=watched.namespaces,
        book=book,
        occupancy=occupancy,
        allow=allow,
        clock=clock,
        policy=policy,
        limits=Limits(cluster=given.max_concurrent_tools, per_node=given.max_concurrent_tools_per_node),
        policy_problem=lambda: monitor.problem,
    )
    queue: WorkQueue[ToolKey] = WorkQueue("powertool", clock=clock, metrics=metrics)
    controller = PowerToolController(
        views=views,
        tools=watched.tools,
        configs=watched.tool_configs,
        pods=watched.pods,
        namespaces=watched.namespaces,
        book=book,
        occupancy=occupancy,
        preparations=Preparations(client, probe, clock),
        runner=runner,
        writer=Writer(client, clock),
        accounts=Accounts(recorder, metrics),
        queue=queue,
        fence=fence,
        policy_known=lambda: monitor.known,
        clock=clock,
    )
    workers = Controller("powertool", queue, controller.reconcile, clock=clock, metrics=metrics)
    checks = _checking(client, watched, policy, fence=fence, clock=clock, metrics=metrics)
    settling = _SETTLING * given.shutdown_grace.total_seconds()
    return ToolSide(
        services=(Part("tool events", recorder.run, drain=recorder.drain),),
        leading=(
            Part("tool policy", monitor.run),
            Part("powertoolconfig", checks.run, drain=checks.drain),
            Part("agent pods", runner.keep_tidy),
            Part("powertool", partial(controller.lead, workers, settling), drain=workers.drain),
        ),
        wake_all=controller.wake_all,
    )


def _checking(
    client: Client,
    watched: Watches,
    policy: ToolPolicy,
    *,
    fence: Callable[[], None],
    clock: Clock,
    metrics: OperatorMetrics,
) -> Controller[Key]:
    queue: WorkQueue[Key] = WorkQueue("powertoolconfig", clock=clock, metrics=metrics)
    controller = PowerToolConfigController(
        configs=watched.tool_configs,
        writer=StatusWriter(client, POWER_TOOL_CONFIGS, decode_power_tool_config, FIELD_MANAGER),
        queue=queue,
        fence=fence,
        clock=clock,
        policy=policy,
    )
    return Controller("powertoolconfig", queue, controller.reconcile, clock=clock, metrics=metrics)


def _collector(given: argparse.Namespace) -> CollectorAccess:
    return CollectorAccess(
        url=given.collector_url,
        token_file=Path(given.collector_token_file) if given.collector_token_file else None,
        ca=Path(given.collector_ca) if given.collector_ca else None,
        agents_namespace=given.agents_namespace,
        uploader_account=given.uploader_service_account,
        max_bytes=given.max_capture_bytes,
    )


async def _ca(file: str) -> str:
    """The CA of the collector's certificate, PEM; read each time, since it is renewed."""
    return await asyncio.to_thread(Path(file).read_text) if file else ""


def _namespace(watched: Watches, name: str) -> NamespaceObject | None:
    return watched.namespaces.store.get(Key("", name))
