"""Where the API server is and who we are, read from a pod's service account or from kubeconfig files.

The files are read by us and not by kubernetes_asyncio's loader: that one blocks the event loop, keeps an exec plugin's
first token for ever, leaves decoded keys in the temporary folder, and turns TLS verification off while it refreshes
OIDC tokens. The library still gives TLS and the connections (kube.transport).

Everything here blocks; kube.auth calls it in a thread. Ways of signing in that we cannot do rightly are refused with a
sentence that names the way out, never skipped: skipping would make us somebody else, or nobody.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from toe_async.kube.errors import ConfigurationError
from toe_async.kube.proxies import proxy_for

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LARGEST_FILE = 4 << 20

T = TypeVar("T")


class Pem(msgspec.Struct, frozen=True):
    """A certificate or key: its bytes, and the file they came from if there is one."""

    data: bytes
    path: str | None = None


class Tls(msgspec.Struct, frozen=True):
    """All that a connection to the server is made of; when it changes, the sessions are made anew."""

    server: str
    server_name: str | None = None
    ca: Pem | None = None
    certificate: Pem | None = None
    key: Pem | None = None
    insecure: bool = False
    proxy: str | None = None


class Plugin(msgspec.Struct, frozen=True):
    """An exec credential plugin as a kubeconfig describes it; ``info`` is its KUBERNETES_EXEC_INFO."""

    argv: tuple[str, ...]
    api_version: str
    env: tuple[tuple[str, str], ...]
    info: str
    hint: str


class Identity(msgspec.Struct, frozen=True):
    """One reading of the files. ``plugin`` replaces token and client certificate when there is one."""

    tls: Tls
    token: str | None = None
    plugin: Plugin | None = None


def in_cluster(environ: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Identity:
    """The identity of a pod's service account; always a direct connection, whatever proxy the environment names."""
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    ca = folder / "ca.crt"
    return Identity(
        Tls(server, ca=Pem(_read(ca), str(ca))), token=_token(_read(folder / "token"), str(folder / "token"))
    )


def from_kubeconfig(paths: Sequence[Path], context: str | None, environ: Mapping[str, str]) -> Identity:
    """The identity of one context of kubeconfig files, merged as kubectl does: the first file that names a thing wins.

    Raises:
        ConfigurationError: no file, not a kubeconfig, an unknown name, or a way of signing in that is not supported.
    """
    files = [(path, _parse(path)) for path in paths if path.exists()]
    if not files:
        raise ConfigurationError(
            f"no kubeconfig at {', '.join(map(str, paths))}; name one with --kubeconfig or KUBECONFIG, or run in a pod"
        )
    wanted = context or next((file.current_context for _, file in files if file.current_context), None)
    if not wanted:
        raise ConfigurationError(
            f"{files[0][0]} names no current-context; choose one with `kubectl config use-context`"
        )
    chosen, _ = _find(
        "context", wanted, [(entry.name, entry.context, p) for p, file in files for entry in file.contexts or ()]
    )
    cluster, cluster_file = _find(
        "cluster",
        chosen.cluster,
        [(entry.name, entry.cluster, p) for p, file in files for entry in file.clusters or ()],
    )
    user, user_file = _User(), files[0][0]
    if chosen.user:
        user, user_file = _find(
            "user", chosen.user, [(entry.name, entry.user, p) for p, file in files for entry in file.users or ()]
        )
    _refuse_unsupported(chosen.user, user, user_file)
    server = cluster.server.rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise ConfigurationError(
            f"cluster {chosen.cluster!r} in {cluster_file}: server {server[:200]!r} is no http(s) URL"
        )
    tls = Tls(
        server,
        server_name=cluster.tls_server_name or None,
        ca=_pem(cluster.certificate_authority_data, cluster.certificate_authority, cluster_file),
        certificate=_pem(user.client_certificate_data, user.client_certificate, user_file),
        key=_pem(user.client_key_data, user.client_key, user_file),
        insecure=cluster.insecure_skip_tls_verify,
        proxy=cluster.proxy_url or proxy_for(server, environ),
    )
    if (tls.certificate is None) != (tls.key is None):
        raise ConfigurationError(f"user {chosen.user!r} in {user_file}: a client certificate and its key go together")
    plugin = _plugin(user.exec_, cluster, user_file) if user.exec_ else None
    token = user.token
    if user.token_file:  # as kubectl has it, the file wins over the inline token
        path = user_file.parent / user.token_file
        token = _token(_read(path), str(path))
    return Identity(tls, token or None, plugin)


class _Wire(msgspec.Struct, rename="kebab", frozen=True):
    """kubeconfig writes most names with dashes, and null for what is empty."""


class _Cluster(_Wire, frozen=True):
    server: str
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None


class _EnvVar(_Wire, frozen=True):
    name: str
    value: str


class _Exec(_Wire, frozen=True):
    command: str
    api_version: str = msgspec.field(name="apiVersion")
    args: list[str] | None = None
    env: list[_EnvVar] | None = None
    install_hint: str | None = msgspec.field(name="installHint", default=None)
    interactive_mode: str | None = msgspec.field(name="interactiveMode", default=None)
    provide_cluster_info: bool = msgspec.field(name="provideClusterInfo", default=False)


class _AuthProvider(_Wire, frozen=True):
    name: str = "unnamed"


class _User(_Wire, frozen=True):
    token: str | None = None
    token_file: str | None = msgspec.field(name="tokenFile", default=None)
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    username: str | None = None
    impersonate: str | None = msgspec.field(name="as", default=None)
    auth_provider: _AuthProvider | None = None
    exec_: _Exec | None = msgspec.field(name="exec", default=None)


class _Context(_Wire, frozen=True):
    cluster: str
    user: str = ""


class _NamedCluster(_Wire, frozen=True):
    name: str
    cluster: _Cluster


class _NamedUser(_Wire, frozen=True):
    name: str
    user: _User


class _NamedContext(_Wire, frozen=True):
    name: str
    context: _Context


class _File(_Wire, frozen=True):
    current_context: str | None = None
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None


def _refuse_unsupported(name: str, user: _User, path: Path) -> None:
    where = f"user {name!r} in {path}"
    if user.auth_provider is not None:
        raise ConfigurationError(
            f"{where} signs in by auth-provider {user.auth_provider.name!r}, which kubectl has dropped or which "
            "cannot be refreshed safely here; use an exec plugin (kubelogin for OIDC) or a token"
        )
    if user.username:
        raise ConfigurationError(
            f"{where} signs in by user name and password, which API servers no longer take; use a token"
        )
    if user.impersonate:
        raise ConfigurationError(
            f"{where} impersonates {user.impersonate!r}, which is not supported; sign in as that user"
        )
    if user.exec_ and user.exec_.interactive_mode == "Always":
        raise ConfigurationError(
            f"{where}: the exec plugin {user.exec_.command!r} wants a terminal; there is none here"
        )


def _plugin(wanted: _Exec, cluster: _Cluster, path: Path) -> Plugin:
    command = wanted.command
    if "/" in command and not command.startswith("/"):
        command = str(path.parent / command)
    spec: dict[str, object] = {"interactive": False}
    if wanted.provide_cluster_info:
        ca = _pem(cluster.certificate_authority_data, cluster.certificate_authority, path)
        spec["cluster"] = {
            "server": cluster.server,
            "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
            **({"tls-server-name": cluster.tls_server_name} if cluster.tls_server_name else {}),
            **({"certificate-authority-data": base64.b64encode(ca.data).decode()} if ca else {}),
        }
    info = {"apiVersion": wanted.api_version, "kind": "ExecCredential", "spec": spec}
    return Plugin(
        argv=(command, *(wanted.args or ())),
        api_version=wanted.api_version,
        env=tuple((var.name, var.value) for var in wanted.env or ()),
        info=msgspec.json.encode(info).decode(),
        hint=wanted.install_hint or "",
    )


def _find(what: str, name: str, entries: Sequence[tuple[str, T, Path]]) -> tuple[T, Path]:
    for entry, value, path in entries:
        if entry == name:
            return value, path
    known = ", ".join(sorted({entry for entry, _, _ in entries})[:20]) or "none"
    raise ConfigurationError(f"the kubeconfig has no {what} {name!r}; it has: {known}")


def _parse(path: Path) -> _File:
    try:
        return msgspec.convert(yaml.safe_load(_read(path)) or {}, type=_File)
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError) as error:
        # A YAML error would quote the line, and the line may hold a key: only the place is told.
        mark = getattr(error, "problem_mark", None)
        place = (
            f"line {mark.line + 1}"
            if mark is not None
            else str(error)
            if isinstance(error, msgspec.MsgspecError)
            else ""
        )
        raise ConfigurationError(f"{path} is no kubeconfig: {place or type(error).__name__}") from None


def _pem(data: str | None, file: str | None, beside: Path) -> Pem | None:
    if data:
        try:
            return Pem(base64.b64decode(data, validate=True))
        except binascii.Error:
            raise ConfigurationError(f"{beside}: certificate or key data is not base64") from None
    if file:
        path = beside.parent / file
        return Pem(_read(path), str(path))
    return None


def _token(content: bytes, path: str) -> str:
    token = content.decode("ascii", errors="replace").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigurationError(f"{path} holds no token")
    return token


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _LARGEST_FILE:
        raise ConfigurationError(
            f"{path} is larger than {_LARGEST_FILE >> 20} MiB: neither a kubeconfig nor a certificate"
        )
    return content
