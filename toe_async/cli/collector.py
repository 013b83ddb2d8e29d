"""``toe-async collector``: flags -> settings -> the service."""

import argparse
import asyncio
from pathlib import Path

from toe_async import __version__
from toe_async.cli import flags, process
from toe_async.collector.app import serve
from toe_async.collector.errors import SettingsError
from toe_async.collector.settings import CollectorSettings
from toe_async.kube.client import ClientSettings, connect
from toe_async.kube.errors import KubeError
from toe_async.lib.clock import SystemClock
from toe_async.telemetry import log
from toe_async.telemetry.metrics import CollectorMetrics

_OPERATORS: tuple[str, ...] = ("system:serviceaccount:toe-system:toe-operator",)
_UPLOADERS: tuple[str, ...] = ("system:serviceaccount:toe-agents:toe-uploader",)


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    add = flags.from_environment(parser).add
    add("root", flags.text, "", "folder that holds the artifacts; required", metavar="DIR")
    add("listen", flags.text, ":8443", "address of the HTTPS service", metavar="HOST:PORT")
    add("tls-cert", flags.text, "", "certificate chain, PEM", metavar="FILE")
    add("tls-key", flags.text, "", "its key, PEM", metavar="FILE")
    parser.add_argument("--insecure-http", action="store_true", help="plain HTTP, on a loopback address only")
    add("config-dir", flags.text, "", "mounted ConfigMap with the key dateFormat", metavar="DIR")
    add("kubeconfig", flags.text, "", "how to reach the API server; default: the pod's service account", metavar="FILE")
    add("operator-user", flags.names, _OPERATORS, "who may register captures")
    add("uploader-user", flags.names, _UPLOADERS, "who may upload")
    add("max-artifact-bytes", flags.size, 2 << 30, "largest artifact")
    add("metrics-address", flags.text, ":8080", "where /metrics and the probes answer", metavar="HOST:PORT")
    add("log-format", flags.one_of("json", "console"), "json", "how log lines look")
    add("log-level", flags.one_of(*log.LEVELS), "info", "least level that is logged")
    parser.set_defaults(run=lambda given: _run(parser, given))


def _run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    if not given.root:
        parser.error("--root is required: the folder that holds the artifacts")
    log.configure(given.log_format, given.log_level)
    settings = CollectorSettings(
        root=Path(given.root),
        operator_users=frozenset(given.operator_user),
        uploader_users=frozenset(given.uploader_user),
        listen=given.listen,
        tls_cert=Path(given.tls_cert) if given.tls_cert else None,
        tls_key=Path(given.tls_key) if given.tls_key else None,
        insecure_http=given.insecure_http,
        config_dir=Path(given.config_dir) if given.config_dir else None,
        max_artifact_bytes=given.max_artifact_bytes,
        metrics_address=given.metrics_address,
    )

    async def work(stop: asyncio.Event) -> None:
        metrics = CollectorMetrics(process.registry())
        kube = ClientSettings(kubeconfig=given.kubeconfig or None, user_agent=f"toe-collector/{__version__}")
        async with (
            connect(
                kube, observer=lambda method, host, code: metrics.rest_client_requests.labels(code, method, host).inc()
            ) as client,
            serve(settings, client, SystemClock(), metrics),
        ):
            await stop.wait()

    return process.run("toe-async collector", work, (SettingsError, KubeError, OSError))
