"""What the collector is told at its start, and every limit it keeps."""

import ipaddress
from pathlib import Path

from msgspec import Struct

from toe_async.collector.errors import SettingsError


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds against slow, oversized and numerous peers. Times are in seconds, sizes in bytes."""

    header_seconds: float = 10.0
    """From the connection (or the last answer) to the end of a request's headers; also the TLS handshake."""
    body_grace_seconds: float = 10.0
    body_bytes_per_second: int = 1024
    idle_seconds: float = 30.0
    """Longest silence of a sender, and longest time in which a reader takes nothing."""
    linger_seconds: float = 1.0
    """How long the body of a refused request is read and thrown away, so that the answer gets through."""
    connections: int = 2048
    connections_per_address: int = 256
    uploads: int = 512
    """Uploads at a time; one holds at most about 384 KiB of memory."""
    uploads_per_capture: int = 256
    piece_bytes: int = 8 << 20
    """Largest piece of an upload in pieces, the last one excepted."""
    reserved_seconds: float = 60.0
    """How long after its last request the declared rest of an upload in pieces stays set aside."""
    min_free_bytes: int = 64 << 20
    """Kept free for records and manifests: an upload that would go below it is answered 507."""
    review_seconds: float = 10.0
    """How long the API server's word about a token is believed, yes and no alike."""
    reload_seconds: float = 5.0
    """How often certificates, date layout and retention are looked at."""
    drain_seconds: float = 15.0
    """How long a stopping collector waits for uploads under way."""


class CollectorSettings(Struct, frozen=True, kw_only=True):
    """One collector. `listen` and `metrics_address` are `host:port`, an empty host meaning every interface."""

    root: Path
    operator_users: frozenset[str]
    """Usernames that may register and cancel."""
    uploader_users: frozenset[str]
    """Usernames that may upload, each with a token whose audience names the capture."""
    listen: str = ":8443"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    """PEM certificates; only clients with a certificate of one of them may connect. None: any client may."""
    insecure_http: bool = False
    """Plain HTTP; only on a loopback address."""
    config_dir: Path | None = None
    """The mounted ConfigMap; its file `dateFormat` is the layout of the date in storage paths, `retention` how long
    artifacts stay."""
    max_artifact_bytes: int = 2 << 30
    max_capture_bytes: int | None = None
    """Of all artifacts of one capture; this and the next three: None is no limit, uploads under way are counted."""
    max_namespace_bytes: int | None = None
    max_namespace_artifacts: int | None = None
    max_store_bytes: int | None = None
    metrics_address: str = ""
    """Where /metrics and the probes answer in plain HTTP besides the main address; empty: nowhere else."""
    store_url: str = ""
    """Where artifacts are kept; empty: below `root`, which is needed in any case for what is under way."""
    aggregation_listen: str = ""
    """Where the API server reaches us as an aggregated API; empty: it does not."""
    register_ca: Path | None = None
    """The CA of our certificate, kept in the APIService's `caBundle`."""
    trusted_proxies: frozenset[str] = frozenset()
    """Common names of authenticating proxies whose X-Remote-User is believed on the main address."""
    title: str = "toe"
    """What the pages call this collector, the cluster's name for example."""
    limits: Limits = Limits()


class Address(Struct, frozen=True):
    """A host (empty: every interface) and a port (0: any free one)."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host == "localhost" or (bool(self.host) and ipaddress.ip_address(self.host).is_loopback)


def parse_address(text: str) -> Address:
    """Read `host:port`, `:port` or `[v6]:port`.

    Raises:
        SettingsError: not an address; names cannot be listened on, `localhost` excepted.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        if not colon or not 0 <= int(port) <= 65535:
            raise ValueError(port)
        if host not in {"", "localhost"}:
            ipaddress.ip_address(host)
    except ValueError as bad:
        raise SettingsError(f"{text[:80]!r} is no address to listen on; write it like :8443 or 127.0.0.1:8443") from bad
    return Address(host, int(port))


def check(settings: CollectorSettings) -> None:
    """Refuse settings that would open the collector wider than meant, or not at all.

    Raises:
        SettingsError: one sentence with the way out.
    """
    address = parse_address(settings.listen)
    pair = settings.tls_cert, settings.tls_key
    if settings.insecure_http:
        if (*pair, settings.client_ca) != (None, None, None):
            raise SettingsError(
                "plain HTTP and certificates exclude each other: drop --insecure-http, or --tls-cert, --tls-key and "
                "--client-ca"
            )
        if not address.loopback:
            raise SettingsError(
                f"plain HTTP is for loopback only and {settings.listen!r} is not: listen on 127.0.0.1, or give "
                "--tls-cert and --tls-key"
            )
    elif None in pair:
        raise SettingsError("a key pair is missing: give --tls-cert and --tls-key (or --insecure-http on loopback)")
    if settings.metrics_address:
        parse_address(settings.metrics_address)
    if settings.aggregation_listen:
        parse_address(settings.aggregation_listen)
        if None in pair:
            raise SettingsError("the API server speaks TLS: give --tls-cert and --tls-key, or no --aggregation-listen")
    if settings.register_ca is not None and not settings.aggregation_listen:
        raise SettingsError("--register-ca is for the APIService: give --aggregation-listen too, or neither")
    if settings.trusted_proxies and settings.client_ca is None and not address.loopback:
        raise SettingsError(
            "a proxy is known by its certificate: give --client-ca with --trusted-proxy, or listen on loopback"
        )
