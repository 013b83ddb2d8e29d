"""The operator's informers: which collections it holds, cut down to what is used."""

from msgspec import Struct

from toe_async.apis.core import NamespaceObject, Node, decode_namespace, decode_node
from toe_async.apis.kinds import BOLOMETER_CONFIGS, NAMESPACES, NODES, PODS, PROFILING_CONFIGS, Kind
from toe_async.apis.pods import Pod, PodDecoder
from toe_async.apis.profilingconfig import ProfilingConfig, decode_profiling_config
from toe_async.apis.profilingstatus import CaptureState
from toe_async.kube.client import Client
from toe_async.lib.clock import Clock
from toe_async.runtime.informer import Informer
from toe_async.runtime.keys import Key
from toe_async.telemetry.metrics import OperatorMetrics


class Watches(Struct, frozen=True):
    """Everything that is watched. ``configs`` is by API group."""

    pods: Informer[Pod]
    nodes: Informer[Node]
    namespaces: Informer[NamespaceObject]
    configs: dict[str, Informer[ProfilingConfig]]

    def required(
        self,
    ) -> tuple[Informer[Pod] | Informer[Node] | Informer[NamespaceObject] | Informer[ProfilingConfig], ...]:
        """What the operator cannot work without; the second group's CRD may be left out of an installation (D9)."""
        return tuple(informer for informer in self.all() if informer is not self.configs[BOLOMETER_CONFIGS.group])

    def all(self) -> tuple[Informer[Pod] | Informer[Node] | Informer[NamespaceObject] | Informer[ProfilingConfig], ...]:
        """Every informer, for start, health and metrics."""
        return (self.pods, self.nodes, self.namespaces, *self.configs.values())


def watches(client: Client, clock: Clock, metrics: OperatorMetrics) -> Watches:
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
    )


def _configs(kind: Kind, client: Client, clock: Clock, metrics: OperatorMetrics) -> Informer[ProfilingConfig]:
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
