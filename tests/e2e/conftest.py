"""One installation for all end-to-end tests: images, certificate, S3 server, operator and collector."""

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.artifacts import Artifacts
from tests.e2e.harness import ROOT, SYSTEM, Images, Kube, Object, seaweedfs, until

S3_NAMESPACE = "toe-e2e-s3"
S3_ENDPOINT = f"http://s3.{S3_NAMESPACE}.svc:8333"
BUCKET = "profiles"
ACCESS_KEY, SECRET_KEY = "AKIATEST", "secretkey123"
_IDENTITIES = (
    '{"identities":[{"name":"t","credentials":[{"accessKey":"%s","secretKey":"%s"}],'
    '"actions":["Admin","Read","List","Tagging","Write"]}]}'
)

# One installation serves all, so the order is part of the plan: what breaks or removes things comes after what looks at
# rights and restarts, and the idle check has the cluster to itself.
ORDER = (
    "install",
    "captures",
    "access",
    "tokens",
    "artifacts",
    "bad_input",
    "powertool",
    "tools",
    "authorisation",
    "metrics",
    "rights",
    "large",
    "chaos",
    "takeover",
    "uninstall",
    "powertool_faults",
    "faults",
    "idle",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the end-to-end tests into their order, as written within a file, whatever a plugin made of it."""
    ours = [item for item in items if item.path.parent == Path(__file__).parent]

    def place(item: pytest.Item) -> tuple[int, int]:
        return ORDER.index(item.path.stem.removeprefix("test_")), item.reportinfo()[1] or 0

    items[:] = [item for item in items if item not in ours] + sorted(ours, key=place)


@pytest.fixture(scope="session")
def kube() -> Kube:
    """The cluster under test; what an earlier run left in it is removed first."""
    path = os.environ.get("KUBECONFIG")
    assert path, "end-to-end tests need KUBECONFIG of a disposable cluster"
    kube = Kube(Path(path))
    left = [item["metadata"]["name"] for item in kube.items("namespaces", selector="toe-e2e=scene")]
    if left:
        kube("delete", "namespace", *left, "--wait", timeout=180)
    return kube


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All images are in all nodes."""
    images = Images(tmp_path_factory.mktemp("images"))
    images.build("toe-async", ROOT, ROOT / "Containerfile")
    images.program("toe-e2e-target", images.go(ROOT / "tests/e2e/targets"))
    images.program("toe-e2e-s3", seaweedfs())


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The image of every shipped tool that can be built from public sources is in all nodes."""
    images = Images(tmp_path_factory.mktemp("tools"))
    for containerfile in sorted((ROOT / "agents").glob("*/Containerfile")):
        if containerfile.parent.name not in {"aperf", "base"}:
            images.build(f"toe-tool-{containerfile.parent.name}", ROOT, containerfile)


@dataclass(frozen=True)
class S3:
    """The S3 server as the tests see it; the operator reaches it as ``S3_ENDPOINT``."""

    kube: Kube

    def spec(self, prefix: str, **more: str) -> Object:
        """The s3Config of a ProfilingConfig."""
        return {"bucket": BUCKET, "prefix": prefix, "region": "us-east-1", "endpoint": S3_ENDPOINT, **more}

    def client(self, port: int) -> Any:
        """A synchronous client through a forwarded port."""
        from botocore.config import Config
        from botocore.session import Session

        return Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 2}),
        )

    def keys(self, prefix: str) -> list[str]:
        with self.kube.forward("svc/s3", 8333, namespace=S3_NAMESPACE) as port:
            listed = self.client(port).list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for entry in listed.get("Contents", ())]

    def fetch(self, uri: str, into: Path) -> dict[str, str]:
        """Store the object at ``s3://BUCKET/KEY`` in a file; returns its metadata."""
        key = uri.removeprefix(f"s3://{BUCKET}/")
        with self.kube.forward("svc/s3", 8333, namespace=S3_NAMESPACE) as port:
            answer = self.client(port).get_object(Bucket=BUCKET, Key=key)
            with into.open("wb") as file:
                for chunk in answer["Body"].iter_chunks(1 << 20):
                    file.write(chunk)
        metadata: dict[str, str] = answer["Metadata"]
        return metadata

    def reachable(self, yes: bool) -> None:
        """Take the server out of its Service (connections are refused), or put it back. Its data stays."""
        selector = {"app": "s3" if yes else "nobody"}
        patch = f'{{"spec":{{"selector":{{"app":"{selector["app"]}"}}}}}}'
        self.kube("-n", S3_NAMESPACE, "patch", "service", "s3", "-p", patch)


@pytest.fixture(scope="session")
def s3(kube: Kube, images: None) -> S3:
    """A SeaweedFS in the cluster with one bucket."""
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": S3_NAMESPACE}})
    command = (
        "mini -dir=/data -ip=127.0.0.1 -ip.bind=0.0.0.0 -master.telemetry=false -admin.ui=false -webdav=false "
        f"-s3.port=8333 -s3.port.iceberg=0 -s3.port.lance=0 -bucket={BUCKET} -s3.config=/etc/s3/s3.json"
    )
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532},
        "containers": [
            {
                "name": "s3",
                "image": "localhost/toe-e2e-s3:dev",
                "args": command.split(),
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8333}, "periodSeconds": 1},
                "volumeMounts": [
                    {"name": "data", "mountPath": "/data"},
                    {"name": "data", "mountPath": "/tmp"},
                    {"name": "config", "mountPath": "/etc/s3"},
                ],
            }
        ],
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "config", "configMap": {"name": "s3"}}],
    }
    labels = {"app": "s3", "app.kubernetes.io/name": "s3"}
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "s3"},
            "data": {"s3.json": _IDENTITIES % (ACCESS_KEY, SECRET_KEY)},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "s3"},
            "spec": {
                "selector": {"matchLabels": {"app": "s3"}},
                "strategy": {"type": "Recreate"},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "s3"},
            "spec": {"selector": {"app": "s3"}, "ports": [{"port": 8333}]},
        },
        namespace=S3_NAMESPACE,
    )
    kube.ready("s3", namespace=S3_NAMESPACE)
    return S3(kube)


def _give_the_claim_a_volume(kube: Kube) -> None:
    """Where the cluster makes no volumes by itself: one of type local, in a folder that all nodes of the tool share."""
    default = "storageclass.kubernetes.io/is-default-class"
    classes = kube.items("storageclasses")
    if any(c["metadata"].get("annotations", {}).get(default) == "true" for c in classes):
        return
    store = Path(os.environ.get("TOE_E2E_STORE", "/var/tmp/toe-e2e-store"))
    store.mkdir(mode=0o777, parents=True, exist_ok=True)
    every_node = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}]
    if kube.get("persistentvolume", "toe-e2e-store").get("status", {}).get("phase") == "Released":
        kube("patch", "persistentvolume", "toe-e2e-store", "--type=merge", "-p", '{"spec":{"claimRef":null}}')
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "toe-e2e-store"},
            "spec": {
                "capacity": {"storage": "20Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "local": {"path": str(store)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": every_node}},
            },
        }
    )


def install(kube: Kube) -> None:
    """Apply the manifests as a user does, and wait until everything is ready."""
    environment = {**os.environ, "KUBECONFIG": str(kube.kubeconfig)}
    subprocess.run([ROOT / "deploy/make-tls.sh"], env=environment, check=True, timeout=60)
    kube("apply", "-k", ROOT / "tests/e2e/install")
    with ThreadPoolExecutor() as pool:
        list(pool.map(kube.ready, ("toe-collector", "toe-operator")))


@pytest.fixture(scope="session")
def installed(kube: Kube, images: None, s3: S3) -> Kube:
    """Operator and collector run from this tree's image and are ready."""
    _give_the_claim_a_volume(kube)
    before = {item["metadata"]["name"] for item in kube.items("deployments", namespace=SYSTEM)}
    kube("apply", "-f", ROOT / "deploy/foundation/namespaces.yaml")
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "toe-s3-credentials"},
            "stringData": {
                "credentials": f"[default]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n"
            },
        },
        namespace=SYSTEM,
    )
    install(kube)
    if before:  # an earlier run's processes: the tag is the same, the image is not
        kube("-n", SYSTEM, "rollout", "restart", "deployment")
        for name in ("toe-collector", "toe-operator"):
            kube.ready(name)
    until("a leader", kube.leader, seconds=60)
    return kube


@pytest.fixture(scope="session")
def artifacts(installed: Kube) -> Artifacts:
    """What the collector keeps."""
    return Artifacts(installed)


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> Iterator[Callable[[str], str]]:
    """Makes a namespace of its own for a test: ``namespace("cpu")``. All go when the file's tests are through."""
    made: list[str] = []

    def make(suffix: str) -> str:
        name = f"toe-e2e-{suffix}"
        made.append(name)
        labels = {"toe-e2e": "scene"}
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        until("its service account", lambda: kube.get("serviceaccount", "default", namespace=name))
        return name

    yield make
    if made and not os.environ.get("TOE_E2E_KEEP"):
        kube("delete", "namespace", *made, "--wait=false", "--ignore-not-found")
