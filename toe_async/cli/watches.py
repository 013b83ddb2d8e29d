"""The operator's informers: which collections it holds, cut down to what is used."""

from typing import Any

from msgspec import Struct

from toe_async.apis.core import NamespaceObject, Node, decode_namespace, decode_node
from toe_async.apis.kinds import (
    BOLOMETER_CONFIGS,
    NAMESPACES,
    NODES,
    PODS,
    POWER_TOOL_CONFIGS,
    POWER_TOOLS,
    PROFILING_CONFIGS,
    Kind,
)
from toe_async.apis.pods import Pod, PodDecoder
from toe_async.apis.powertool import PowerTool, decode_power_tool
from toe_async.apis.powertoolconfig import PowerToolConfig, decode_power_tool_config
from toe_async.apis.profilingconfig import ProfilingConfig, decode_profiling_config
from toe_async.apis.profilingstatus import CaptureState
from toe_async.controllers.powertool import observe
from toe_async.controllers.powertoolconfig.controller import BY_NAME
from toe_async.lib.clock import Clock
from toe_async.runtime.informer import Informer, Streams
from toe_async.runtime.keys import Key
from toe_async.telemetry.metrics import OperatorMetrics

AnyInformer = Informer[Any]


class Watches(Struct, frozen=True):
    """Everything that is watched. ``configs`` is by API group, ``tool_configs`` of the operator's namespace only."""

    pods: Informer[Pod]
    nodes: Informer[Node]
    namespaces: Informer[NamespaceObject]
    configs: dict[str, Informer[ProfilingConfig]]
    tools: Informer[PowerTool]
    tool_configs: Informer[PowerToolConfig]

    def required(self) -> tuple[AnyInformer, ...]:
        """What the operator cannot work without.

        The CRDs of the second group (D9) and of PowerTools may be left out of an installation: the rest goes on.
        """
        optional = (self.configs[BOLOMETER_CONFIGS.group], self.tools, self.tool_configs)
        return tuple(informer for informer in self.all() if informer not in optional)

    def all(self) -> tuple[AnyInformer, ...]:
        """Every informer, for start, health and metrics."""
        return (self.pods, self.nodes, self.namespaces, *self.configs.values(), self.tools, self.tool_configs)


def watches(client: Streams, clock: Clock, metrics: OperatorMetrics, own_namespace: str) -> Watches:
    """Make the informers; they run when the manager starts them."""
    pods = PodDecoder()
    return Watches(
        pods=Informer(
            client,
            PODS,
            pods.decode,
            key_of=lambda pod: Key(pod.namespace, pod.name),
            version_of=lambda pod: pod.resource_version,
            uid_of=lambda pod: pod.uid,
            clock=clock,
            metrics=metrics,
            split_items=True,
            reset_decoder=pods.reset,
        ),
        nodes=Informer(
            client,
            NODES,
            decode_node,
            key_of=lambda node: Key("", node.name),
            version_of=lambda node: node.resource_version,
            clock=clock,
            metrics=metrics,
            split_items=True,
        ),
        namespaces=Informer(
            client,
            NAMESPACES,
            decode_namespace,
            key_of=lambda namespace: Key("", namespace.name),
            version_of=lambda namespace: namespace.resource_version,
            clock=clock,
            metrics=metrics,
            split_items=True,
        ),
        configs={kind.group: _configs(kind, client, clock, metrics) for kind in (PROFILING_CONFIGS, BOLOMETER_CONFIGS)},
        tools=power_tools(client, clock, metrics),
        tool_configs=power_tool_configs(client, clock, metrics, own_namespace),
    )


def power_tools(client: Streams, clock: Clock, metrics: OperatorMetrics) -> Informer[PowerTool]:
    """All PowerTools of the cluster."""
    return Informer(
        client,
        POWER_TOOLS,
        decode_power_tool,
        key_of=lambda tool: Key(tool.metadata.namespace, tool.metadata.name),
        version_of=lambda tool: tool.metadata.resource_version,
        uid_of=lambda tool: tool.metadata.uid,
        clock=clock,
        metrics=metrics,
        indexes=observe.TOOL_INDEXES,
    )


def power_tool_configs(
    client: Streams, clock: Clock, metrics: OperatorMetrics, namespace: str
) -> Informer[PowerToolConfig]:
    """The approved tools: those of one namespace, and no other."""
    return Informer(
        client,
        POWER_TOOL_CONFIGS,
        decode_power_tool_config,
        key_of=lambda config: Key(config.metadata.namespace, config.metadata.name),
        version_of=lambda config: config.metadata.resource_version,
        uid_of=lambda config: config.metadata.uid,
        namespace=namespace,
        clock=clock,
        metrics=metrics,
        indexes={BY_NAME: lambda config: [config.spec.name]},
    )


def _configs(kind: Kind, client: Streams, clock: Clock, metrics: OperatorMetrics) -> Informer[ProfilingConfig]:
    return Informer(
        client,
        kind,
        decode_profiling_config,
        key_of=lambda config: Key(config.metadata.namespace, config.metadata.name),
        version_of=lambda config: config.metadata.resource_version,
        uid_of=lambda config: config.metadata.uid,
        clock=clock,
        metrics=metrics,
        indexes={
            "target": lambda config: [config.target_namespace],
            "capturing": lambda config: [
                row.pod_uid for row in config.status.recent if row.state is CaptureState.CAPTURING
            ],
        },
    )
