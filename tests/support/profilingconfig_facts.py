"""Facts for decisions about a ProfilingConfig: everything is well unless a test says otherwise."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from toe_async.apis.core import PodUsage
from toe_async.apis.pods import Container, Pod
from toe_async.apis.profilingconfig import ProfilingConfig, decode_profiling_config
from toe_async.capture.triggers import History
from toe_async.controllers.profilingconfig.facts import Observed, PodFacts

NOW = datetime(2026, 1, 24, 20, 44, 8, tzinfo=UTC)


def config(spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None) -> ProfilingConfig:
    """A configuration as the API server would send it."""
    document = {
        "apiVersion": "profiling.io/v1alpha1",
        "kind": "ProfilingConfig",
        "metadata": {"name": "hot", "namespace": "shop", "uid": "cr-1", "generation": 1, "resourceVersion": "7"},
        "spec": {"collector": {}, **(spec or {})},
        "status": status or {},
    }
    return decode_profiling_config(msgspec.json.encode(document))


def pod(name: str = "web-1", uid: str = "", **changes: Any) -> Pod:
    """A running pod that opted in and asks for half a core and 100 MiB."""
    made = Pod(
        namespace="shop",
        name=name,
        uid=uid or f"uid-{name}",
        resource_version="1",
        phase="Running",
        node="node-1",
        ip="10.0.0.1",
        labels={"app": "web"},
        annotations={"profiling.io/enabled": "true"},
        terminating=False,
        host_network=False,
        ready=True,
        owner_kind="",
        owner_name="",
        start_time=NOW - timedelta(hours=1),
        containers=(Container("app", False, (("pprof", 6060),), 0.5, None, 100 * 2**20, None),),
    )
    return replace(made, **changes)


def facts(name: str = "web-1", cpu: float | None = 0.1, **changes: Any) -> PodFacts:
    """A pod and its usage in cores; None is a pod without metrics."""
    made = changes.pop("pod", None) or pod(name)
    usage = PodUsage("shop", made.name, changes.pop("at", NOW - timedelta(seconds=5)), 10.0, {"app": (cpu or 0, 1e6)})
    return replace(
        PodFacts(pod=made, usage=usage if cpu is not None else None, node=None, history=History(), last_started=None),
        **changes,
    )


def observe(
    *pods: PodFacts, spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **changes: Any
) -> Observed:
    """What was observed; keyword arguments replace its fields, ``spec`` and ``status`` go into the config."""
    made = Observed(
        now=NOW,
        holder="replica-a",
        group="profiling.io",
        config=config(spec, status),
        policy_problem=None,
        granted=True,
        sink_problem=None,
        pods_problem=None,
        metrics_problem=None,
        metrics_polled=True,
        store_problem=None,
        store_probed=True,
        spool_problem=None,
        matched=len(pods),
        pods=pods,
        busy=frozenset(),
        running=frozenset(),
        gone=frozenset(),
        free_captures=8,
        collector="https://toe-collector.toe-system.svc:8443",
        soft_written=None,
    )
    return replace(made, **changes)
