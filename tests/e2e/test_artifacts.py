"""`kubectl get artifacts` and `kubectl toe` on a real cluster, by users of every kind."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.e2e.harness import Done, Kube, Object, config, run, target, until, wait_for_capture

pytestmark = pytest.mark.e2e

ONCE: Object = {"onDemand": {"enabled": True, "intervalSeconds": 3600}, "profileTypes": ["goroutine", "heap"]}
GROUP = "artifacts.toe.run"


@pytest.fixture(scope="module")
def places(installed: Kube, namespace: Callable[[str], str]) -> tuple[str, str]:
    """Two namespaces with two artifacts each."""
    names = namespace("artifacts-a"), namespace("artifacts-b")
    for name in names:
        installed.apply(target("target"), config("watch", "target", **ONCE, collector={}), namespace=name)
    for name in names:
        wait_for_capture(installed, name, "watch")
    until("the API is there", lambda: installed("get", "artifacts", "-n", names[0], check=False).code == 0)
    return names


@pytest.fixture(scope="module")
def certificate_user(installed: Kube, tmp_path_factory: pytest.TempPathFactory) -> Kube:
    """A kubectl whose user is a certificate, signed by the cluster through its own API."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "carla")])
    wanted = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = wanted.public_bytes(serialization.Encoding.PEM)
    installed("delete", "csr", "toe-e2e-carla", "--ignore-not-found")
    installed.apply(
        {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": "toe-e2e-carla"},
            "spec": {
                "request": b64encode(pem).decode(),
                "signerName": "kubernetes.io/kube-apiserver-client",
                "usages": ["client auth"],
                "expirationSeconds": 3600,
            },
        }
    )
    installed("certificate", "approve", "toe-e2e-carla")
    certificate = until(
        "the certificate is signed", lambda: installed.get("csr", "toe-e2e-carla")["status"].get("certificate")
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    user = {"client-certificate-data": certificate, "client-key-data": b64encode(private).decode()}
    return as_user(installed, tmp_path_factory.mktemp("carla"), user)


def as_user(kube: Kube, folder: Path, user: Object) -> Kube:
    """A kubectl of another user of the same cluster."""
    held = yaml.safe_load(kube.kubeconfig.read_text())
    held["users"] = [{"name": held["users"][0]["name"], "user": user}]
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(held))
    path.chmod(0o600)
    return Kube(path)


def bind(kube: Kube, namespace: str, role: str, subject: Object) -> None:
    name = f"{role}-{subject['name']}"
    kube.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [subject],
        },
        namespace=namespace,
    )


def names_in(kube: Kube, namespace: str) -> list[str]:
    return [item["metadata"]["name"] for item in kube.items("artifacts", namespace=namespace)]


@pytest.fixture(scope="module")
def account_user(installed: Kube, places: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Kube:
    """A kubectl whose user is a service account of namespace A."""
    where, _ = places
    installed.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "dan"}}, namespace=where)
    token = installed("-n", where, "create", "token", "dan").out.strip()
    return as_user(installed, tmp_path_factory.mktemp("dan"), {"token": token})


@pytest.mark.parametrize("who", ["certificate", "account"])
def test_a_user_lists_the_namespace_he_may_and_no_other_by_plain_kubectl(
    installed: Kube, places: tuple[str, str], certificate_user: Kube, account_user: Kube, who: str
) -> None:
    a, b = places
    if who == "certificate":
        user, subject = certificate_user, {"kind": "User", "name": "carla", "apiGroup": "rbac.authorization.k8s.io"}
    else:
        user, subject = account_user, {"kind": "ServiceAccount", "name": "dan", "namespace": a}
    bind(installed, a, "toe-artifact-reader", subject)
    until("the binding is in force", lambda: user("get", "artifacts", "-n", a, check=False).code == 0)
    assert sorted(names_in(user, a)) == sorted(names_in(installed, a))
    assert len(names_in(user, a)) == 2
    refused = user("get", "artifacts", "-n", b, check=False)
    assert refused.code != 0
    assert "orbidden" in refused.err
    assert not set(names_in(installed, b)) & set((refused.out + refused.err).split())
    assert user("get", "artifacts", "-A", check=False).code != 0
    theirs = names_in(installed, b)[0]
    for path in (theirs, f"{theirs}/content", "0123456789-heap.pprof"):
        hidden = user("get", "--raw", f"/apis/{GROUP}/v1alpha1/namespaces/{b}/artifacts/{path}", check=False)
        assert "orbidden" in hidden.err, hidden


def test_kubectl_shows_explains_selects_and_pages(installed: Kube, places: tuple[str, str]) -> None:
    a, _ = places
    table = installed("get", "artifacts", "-n", a).out.splitlines()
    assert len(table) == 3, table
    assert "NAME" in table[0]
    assert "AGE" in table[0]
    assert len(installed("get", "artifacts", "-n", a, "-o", "wide").out.splitlines()[0]) > len(table[0])
    heap = installed.get("artifacts", namespace=a)["items"]
    chosen = installed("get", "artifacts", "-n", a, "--field-selector=artifact.leaf=heap.pprof", "-o", "name").out
    assert len(chosen.split()) == 1
    assert (
        installed("get", "artifacts", "-n", a, "-l", "app.kubernetes.io/name=target", "-o", "name").out.count("/") == 2
    )
    assert installed("get", "artifacts", "-n", a, "-l", "app.kubernetes.io/name=other", "-o", "name").out == ""
    wrong = installed("get", "artifacts", "-n", a, "--field-selector=artifact.colour=red", check=False)
    assert wrong.code != 0
    assert "artifact.colour" in wrong.err
    assert len(installed("get", "artifacts", "-n", a, "--chunk-size=1", "-o", "name").out.split()) == 2
    assert heap[0]["kind"] == "Artifact"
    assert "sha256" in installed("explain", "artifacts.artifact").out
    assert "SHA-256" in installed("explain", "artifacts.artifact.sha256").out
    assert GROUP in installed("api-resources", f"--api-group={GROUP}").out
    missing = installed("get", "artifact", "0123456789-heap.pprof", "-n", a, check=False)
    assert "not found" in missing.err


def test_bytes_and_views_come_through_the_api_server(installed: Kube, places: tuple[str, str]) -> None:
    a, _ = places
    item = next(one for one in installed.items("artifacts", namespace=a) if one["artifact"]["leaf"] == "heap.pprof")
    path = f"/apis/{GROUP}/v1alpha1/namespaces/{a}/artifacts/{item['metadata']['name']}"
    argv = ["kubectl", f"--kubeconfig={installed.kubeconfig}", "get", "--raw"]
    content = subprocess.run([*argv, f"{path}/content"], capture_output=True, check=True, timeout=60).stdout
    assert hashlib.sha256(content).hexdigest() == item["artifact"]["sha256"]
    assert gzip.decompress(content)
    top = json.loads(installed("get", "--raw", f"{path}/render?as=top").out)
    assert top["rows"]
    page = installed("get", "--raw", f"{path}/render?as=flame").out
    assert page.startswith("<!doctype html>")
    other = names_in(installed, a)
    refused = installed("get", "--raw", f"{path}/render?as=diff&base={other[0]}x", check=False)
    assert refused.code != 0


def test_a_hold_is_kept_and_a_deletion_is_for_good(installed: Kube, places: tuple[str, str]) -> None:
    _, b = places
    name, other = names_in(installed, b)
    installed("-n", b, "annotate", "artifact", name, "toe.run/hold=incident 42")
    refused = installed("-n", b, "delete", "artifact", name, check=False)
    assert refused.code != 0
    assert "incident 42" in refused.err
    installed("-n", b, "annotate", "artifact", name, "toe.run/hold-")
    installed("-n", b, "delete", "artifact", name)
    assert names_in(installed, b) == [other]
    odd = installed("-n", b, "label", "artifact", other, "a=b", check=False)
    assert odd.code != 0
    installed("-n", b, "delete", "artifacts", "--all")
    assert names_in(installed, b) == []


def test_a_namespace_takes_its_artifacts_along_unless_one_is_held(
    installed: Kube, namespace: Callable[[str], str]
) -> None:
    """As with every other kind; whoever makes a namespace of that name later must not find them. A hold says why."""
    name = namespace("artifacts-going")
    installed.apply(target("target"), config("watch", "target", **ONCE, collector={}), namespace=name)
    wait_for_capture(installed, name, "watch")
    held, _ = names_in(installed, name)
    installed("-n", name, "annotate", "artifact", held, "toe.run/hold=incident 43")
    installed("delete", "namespace", name, "--wait=false")
    until("only what is held is left", lambda: names_in(installed, name) == [held])
    until("the namespace says why", lambda: "incident 43" in json.dumps(installed.get("namespace", name)["status"]))
    installed("-n", name, "annotate", "artifact", held, "toe.run/hold-")
    until("the namespace is gone", lambda: not installed.get("namespace", name), seconds=120)
    assert names_in(installed, name) == []


def toe(kube: Kube, *words: str | Path, folder: Path, check: bool = True) -> Done:
    """`kubectl toe`, through kubectl's own plugin mechanism."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    argv = ["env", "-C", folder, f"PATH={path}", f"KUBECONFIG={kube.kubeconfig}", "kubectl", "toe", *words]
    return run(argv, check=check)


def test_kubectl_toe_lists_fetches_shows_and_compares(
    installed: Kube, places: tuple[str, str], certificate_user: Kube, tmp_path: Path
) -> None:
    a, _ = places
    bind(
        installed, a, "toe-artifact-reader", {"kind": "User", "name": "carla", "apiGroup": "rbac.authorization.k8s.io"}
    )
    until("the binding is in force", lambda: certificate_user("get", "artifacts", "-n", a, check=False).code == 0)
    listed = json.loads(toe(certificate_user, "list", "-n", a, "-o", "json", folder=tmp_path).out)["items"]
    heap = next(one for one in listed if one["artifact"]["leaf"] == "heap.pprof")
    name = heap["metadata"]["name"]
    toe(certificate_user, "get", name, "-n", a, "-d", "out", folder=tmp_path)
    (file,) = (tmp_path / "out").iterdir()
    assert hashlib.sha256(file.read_bytes()).hexdigest() == heap["artifact"]["sha256"]
    assert toe(certificate_user, "open", name, "-n", a, "--as", "top", folder=tmp_path).out
    other = next(one for one in listed if one["artifact"]["leaf"] != "heap.pprof")["metadata"]["name"]
    assert toe(certificate_user, "diff", other, name, "-n", a, "--top", folder=tmp_path, check=False).code in {0, 1}
    denied = toe(certificate_user, "list", "-n", "kube-system", folder=tmp_path, check=False)
    assert denied.code == 3, denied
    denied = toe(certificate_user, "delete", name, "-n", a, "-y", folder=tmp_path, check=False)
    assert denied.code == 3, denied
