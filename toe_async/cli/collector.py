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
_NO_PROXIES: tuple[str, ...] = ()
_UPLOADERS: tuple[str, ...] = ("system:serviceaccount:toe-agents:toe-uploader",)


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    add = flags.from_environment(parser).add
    add("root", flags.text, "", "folder that holds the artifacts; required", metavar="DIR")
    add("listen", flags.text, ":8443", "address of the HTTPS service", metavar="HOST:PORT")
    add("tls-cert", flags.text, "", "certificate chain, PEM", metavar="FILE")
    add("tls-key", flags.text, "", "its key, PEM", metavar="FILE")
    parser.add_argument("--insecure-http", action="store_true", help="plain HTTP, on a loopback address only")
    add("config-dir", flags.text, "", "mounted ConfigMap with the keys dateFormat and retention", metavar="DIR")
    add("kubeconfig", flags.text, "", "how to reach the API server; default: the pod's service account", metavar="FILE")
    add("operator-user", flags.names, _OPERATORS, "who may register captures")
    add("uploader-user", flags.names, _UPLOADERS, "who may upload")
    add("max-artifact-bytes", flags.size, 2 << 30, "largest artifact")
    add("max-capture-bytes", flags.or_none(flags.size), None, "most of one capture's artifacts together")
    add("max-namespace-bytes", flags.or_none(flags.size), None, "most that is kept of one namespace")
    add("max-namespace-artifacts", flags.or_none(flags.count), None, "most artifacts of one namespace")
    add("max-store-bytes", flags.or_none(flags.size), None, "most that is kept at all")
    add("store-url", flags.text, "", "s3://BUCKET/PREFIX?endpoint=URL&region=NAME; empty: below --root", metavar="URL")
    add("client-ca", flags.text, "", "only clients with a certificate of this CA may connect, PEM", metavar="FILE")
    add("aggregation-listen", flags.text, "", "where the API server reaches us, such as :8444", metavar="HOST:PORT")
    add("register-ca", flags.text, "", "CA to enter into the APIService, ca.crt of our Secret", metavar="FILE")
    add("trusted-proxy", flags.names, _NO_PROXIES, "names of authenticating proxies whose X-Remote-User is believed")
    add("title", flags.text, "toe", "what the pages call this collector, such as the cluster's name")
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
        max_capture_bytes=given.max_capture_bytes,
        max_namespace_bytes=given.max_namespace_bytes,
        max_namespace_artifacts=given.max_namespace_artifacts,
        max_store_bytes=given.max_store_bytes,
        store_url=given.store_url,
        client_ca=Path(given.client_ca) if given.client_ca else None,
        aggregation_listen=given.aggregation_listen,
        register_ca=Path(given.register_ca) if given.register_ca else None,
        trusted_proxies=frozenset(given.trusted_proxy),
        title=given.title,
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
