"""A kubeconfig or a pod's service account becomes one identity, or a sentence that says what is wrong."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from toe_async.kube.client import ClientSettings, load_identity
from toe_async.kube.errors import ConfigurationError
from toe_async.kube.kubeconfig import Identity, from_kubeconfig, in_cluster

SERVER = "https://k8s.example:6443"


def write(path: Path, **parts: Any) -> Path:
    document = {
        "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": SERVER}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump({**document, **parts}))
    return path


def user(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "u", "user": fields}]


def cluster(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "k", "cluster": {"server": SERVER, **fields}}]


def load(*paths: Path, context: str | None = None) -> Identity:
    return from_kubeconfig(paths, context, {})


def test_a_plain_token_and_server(tmp_path: Path) -> None:
    """The least a kubeconfig can hold."""
    identity = load(write(tmp_path / "k", clusters=cluster(server=SERVER + "/")))
    assert (identity.tls.server, identity.token, identity.plugin, identity.tls.ca) == (SERVER, "t", None, None)


def test_data_and_files_are_both_read_and_files_lie_beside_the_kubeconfig(tmp_path: Path) -> None:
    """A relative path starts at the file that names it."""
    (tmp_path / "ca.pem").write_bytes(b"CA")
    encoded = base64.b64encode(b"KEY").decode()
    identity = load(
        write(
            tmp_path / "k",
            clusters=cluster(
                **{"certificate-authority": "ca.pem", "tls-server-name": "other", "proxy-url": "http://p"}
            ),
            users=user(**{"client-certificate-data": base64.b64encode(b"CERT").decode(), "client-key-data": encoded}),
        )
    )
    tls = identity.tls
    assert tls.ca is not None
    assert tls.certificate is not None
    assert tls.key is not None
    assert (tls.ca.data, tls.ca.path) == (b"CA", str(tmp_path / "ca.pem"))
    assert (tls.certificate.data, tls.key.data, tls.key.path) == (b"CERT", b"KEY", None)
    assert (tls.server_name, tls.proxy) == ("other", "http://p")


def test_a_token_file_wins_over_the_token_and_loses_its_newline(tmp_path: Path) -> None:
    """As kubectl has it; a newline would otherwise break the header."""
    (tmp_path / "token").write_text("fresh\n")
    assert load(write(tmp_path / "k", users=user(token="stale", tokenFile="token"))).token == "fresh"


def test_several_files_merge_and_the_first_one_wins(tmp_path: Path) -> None:
    """KUBECONFIG=a:missing:b; each relative path still belongs to its own file."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "token").write_text("from sub")
    first = write(tmp_path / "a", users=user(token="first"), contexts=[])
    second = write(tmp_path / "sub" / "b", users=user(token="second"), clusters=cluster(server="https://other"))
    identity = load(first, tmp_path / "missing", second)
    assert (identity.token, identity.tls.server) == ("first", SERVER)
    write(tmp_path / "a", users=[], contexts=[])
    write(tmp_path / "sub" / "b", users=user(tokenFile="token"))
    assert load(first, second).token == "from sub"


def test_another_context_than_the_current_one(tmp_path: Path) -> None:
    """--context chooses; a context without a user is anonymous."""
    contexts = [
        {"name": "c", "context": {"cluster": "k", "user": "u"}},
        {"name": "d", "context": {"cluster": "k"}},
    ]
    path = write(tmp_path / "k", contexts=contexts)
    assert load(path).token == "t"
    assert load(path, context="d").token is None


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"current-context": None}, "names no current-context"),
        ({"current-context": "x"}, "no context 'x'; it has: c"),
        ({"clusters": None}, "no cluster 'k'; it has: none"),
        ({"users": []}, "no user 'u'"),
        ({"clusters": cluster(server="k8s:6443")}, "no http"),
        ({"clusters": [{"name": "k"}]}, "missing required field `cluster`"),
        ({"users": user(**{"auth-provider": {"name": "oidc", "config": {"refresh-token": "s3cret"}}})}, "oidc"),
        ({"users": user(**{"auth-provider": {"name": "gcp"}})}, "use an exec plugin"),
        ({"users": user(username="a", password="s3cret")}, "user name and password"),
        ({"users": user(**{"as": "root", "token": "t"})}, "impersonates 'root'"),
        ({"users": user(exec={"command": "x", "apiVersion": "v1", "interactiveMode": "Always"})}, "wants a terminal"),
        ({"users": user(tokenFile="missing")}, "cannot read"),
        ({"users": user(**{"client-certificate-data": "QQ=="})}, "go together"),
        ({"users": user(**{"client-key-data": "s3cret!"})}, "not base64"),
        ({"clusters": cluster(**{"certificate-authority": "missing.pem"})}, "missing.pem"),
    ],
)
def test_what_cannot_work_is_told_in_a_sentence(tmp_path: Path, parts: dict[str, Any], said: str) -> None:
    """Nothing is skipped, since that would sign us in as somebody else; no secret is in the words."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        load(write(tmp_path / "k", **parts))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["token: 's3cret\nusers: [", "- s3cret", "users: 5", "users: [{name: u, user: {token: {}}}]"]
)
def test_a_file_that_is_no_kubeconfig_is_not_quoted(tmp_path: Path, text: str) -> None:
    """A parser's message would repeat the line, and with it a key."""
    path = tmp_path / "k"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="is no kubeconfig") as caught:
        load(path)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_kubeconfig_names_the_way_out(tmp_path: Path) -> None:
    """Somebody runs the operator outside of a pod without a kubeconfig."""
    with pytest.raises(ConfigurationError, match="--kubeconfig or KUBECONFIG"):
        load(tmp_path / "missing")


def test_an_empty_token_file_is_an_error_and_not_an_anonymous_user(tmp_path: Path) -> None:
    """As anonymous every answer would be 403, which leads the search the wrong way."""
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ConfigurationError, match="holds no token"):
        load(write(tmp_path / "k", users=user(tokenFile="token")))


def test_a_plugin_keeps_its_arguments_environment_and_cluster(tmp_path: Path) -> None:
    """The command is beside the kubeconfig when it has a slash; cluster info only where it is asked for."""
    spec = {
        "command": "bin/plugin",
        "apiVersion": "client.authentication.k8s.io/v1",
        "args": ["get", "token"],
        "env": [{"name": "A", "value": "b"}],
        "provideClusterInfo": True,
        "installHint": "install it",
        "interactiveMode": "Never",
    }
    encoded = base64.b64encode(b"CA").decode()
    path = write(
        tmp_path / "k",
        users=user(exec=spec),
        clusters=cluster(**{"certificate-authority-data": encoded, "tls-server-name": "n"}),
    )
    plugin = load(path).plugin
    assert plugin is not None
    assert plugin.argv == (str(tmp_path / "bin/plugin"), "get", "token")
    assert plugin.env == (("A", "b"),)
    assert json.loads(plugin.info) == {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "spec": {
            "interactive": False,
            "cluster": {
                "server": SERVER,
                "insecure-skip-tls-verify": False,
                "tls-server-name": "n",
                "certificate-authority-data": encoded,
            },
        },
    }
    spec |= {"command": "plugin", "provideClusterInfo": False}
    bare = load(write(tmp_path / "k", users=user(exec=spec))).plugin
    assert bare is not None
    assert bare.argv[0] == "plugin"
    assert "cluster" not in json.loads(bare.info)["spec"]


def test_a_pod_uses_its_service_account_and_no_proxy(tmp_path: Path) -> None:
    """IPv6 hosts get their brackets; the environment's proxy is for the outside."""
    (tmp_path / "token").write_text("sa\n")
    (tmp_path / "ca.crt").write_text("CA")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443", "HTTPS_PROXY": "http://p"}
    identity = in_cluster(environ, tmp_path)
    assert identity.tls.server == "https://[fd00::1]:443"
    assert (identity.token, identity.tls.proxy) == ("sa", None)
    assert identity.tls.ca is not None
    assert identity.tls.ca.data == b"CA"
    (tmp_path / "ca.crt").unlink()
    with pytest.raises(ConfigurationError, match=r"ca\.crt"):
        in_cluster(environ, tmp_path)


def test_where_the_identity_comes_from(tmp_path: Path) -> None:
    """An explicit kubeconfig wins over the pod, the pod over KUBECONFIG, that over the home folder."""
    path = write(tmp_path / "k")
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBECONFIG": str(path)}
    assert load_identity(ClientSettings(kubeconfig=str(path)), pod).token == "t"
    with pytest.raises(ConfigurationError, match="serviceaccount"):
        load_identity(ClientSettings(), pod)
    assert load_identity(ClientSettings(), {"KUBECONFIG": f":{tmp_path}/none:{path}"}).token == "t"
