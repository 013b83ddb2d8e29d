"""Reading what the collector keeps, as a user with a bearer token does."""

import json
import ssl
import urllib.error
import urllib.request
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness import SYSTEM, Kube, Object


@dataclass(frozen=True)
class Answer:
    """What the collector said."""

    status: int
    body: bytes


class Artifacts:
    """The collector's HTTPS API through a forwarded port, its certificate checked against the Secret's CA."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def account(self, namespace: str, name: str, *, role: str = "") -> str:
        """A token of a service account in the namespace; ``role`` is a ClusterRole to bind to it there."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }
        self._kube.apply(account, *([binding] if role else []), namespace=namespace)
        return self._kube("-n", namespace, "create", "token", name).out.strip()

    def call(self, path: str, token: str = "", *, method: str = "GET", into: Path | None = None) -> Answer:
        """One request; a successful body goes to ``into`` when that is given."""
        secret = self._kube.get("secret", "toe-collector-tls", namespace=SYSTEM)
        context = ssl.create_default_context(cadata=b64decode(secret["data"]["ca.crt"]).decode())
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with self._kube.forward("svc/toe-collector", 8443) as port:
            request = urllib.request.Request(f"https://localhost:{port}{path}", headers=headers, method=method)
            try:
                with opener.open(request, timeout=60) as response:
                    if into is None:
                        return Answer(response.status, response.read())
                    with into.open("wb") as file:
                        while chunk := response.read(1 << 20):
                            file.write(chunk)
                    return Answer(response.status, b"")
            except urllib.error.HTTPError as error:
                return Answer(error.code, error.read())

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        parts = ["/apis/artifacts.toe.run/v1alpha1/namespaces", namespace, "artifacts", name, subresource]
        return "/".join(part for part in parts if part)

    def list(self, namespace: str, token: str, *, run: str = "") -> list[Object]:
        """What the collector has of a namespace; ``run`` is the UID of a ProfilingConfig."""
        answer = self.call(self.path(namespace) + (f"?run={run}" if run else ""), token)
        assert answer.status == 200, answer
        found: list[Object] = json.loads(answer.body)["items"]
        return found

    def name_of(self, namespace: str, artifact: Object, token: str) -> str:
        """The collector's name for an artifact of a ProfilingConfig's status; its list has it with the same digest."""
        name = str(artifact["uri"]).rpartition("/")[2]
        assert artifact["uri"] == self.path(namespace, name)
        (listed,) = (item for item in self.list(namespace, token) if item["metadata"]["name"] == name)
        assert artifact["sha256"] in json.dumps(listed)
        return name

    def fetch(self, namespace: str, artifact: Object, into: Path) -> None:
        """Write an artifact's bytes to a file, as an account that was given toe-artifact-reader."""
        token = self.account(namespace, "reader", role="toe-artifact-reader")
        name = self.name_of(namespace, artifact, token)
        answer = self.call(self.path(namespace, name, "content"), token, into=into)
        assert answer.status == 200, answer
