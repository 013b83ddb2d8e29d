"""EndpointSlices of Services that select pods: they follow the pods that run."""

import base64
from typing import Any

from tests.contract.clusters import Answer, Server, sandbox_server

JSON = dict[str, Any]
SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
PORTS = [{"name": "https", "containerPort": 8443}]
CONTAINER: JSON = {"name": "c", "image": "none", "command": ["sleep", "600"], "ports": PORTS}
POD: JSON = {
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {"terminationGracePeriodSeconds": 0, "containers": [CONTAINER]},
}


def service(selector: JSON) -> JSON:
    ports = [{"name": "https", "port": 443, "targetPort": "https"}]
    return {"metadata": {"name": "web"}, "spec": {"selector": selector, "ports": ports}}


async def until(server: Server, count: int, ready: int) -> list[JSON]:
    """Wait until the namespace has so many slices with so many ready endpoints in all."""

    def fits(answer: Answer) -> bool:
        items = answer.body["items"]
        found = [end for one in items for end in one["endpoints"] if end["conditions"]["ready"]]
        return (len(items), len(found)) == (count, ready)

    path = SLICES.format(server.namespace)
    answer = await server.eventually(lambda: server.call("GET", path), fits)
    items: list[JSON] = answer.body["items"]
    return items


async def test_a_slice_follows_pods_selector_and_service() -> None:
    async with sandbox_server() as server:
        made = await server.make(server.core("services"), service({"app": "web"}))
        assert (made["spec"]["type"], made["spec"]["ports"][0]["protocol"]) == ("ClusterIP", "TCP")
        await until(server, 1, 0)
        await server.make(server.core("pods"), POD)
        (held,) = await until(server, 1, 1)
        pod = (await server.call("GET", server.core("pods", "web"))).body
        assert held["ports"] == [{"name": "https", "port": 8443, "protocol": "TCP"}]
        assert held["endpoints"][0]["addresses"] == [pod["status"]["podIP"]]
        assert held["endpoints"][0]["targetRef"]["uid"] == pod["metadata"]["uid"]
        await server.merge(server.core("services", "web"), {"spec": {"selector": {"app": "other"}}})
        await until(server, 1, 0)
        await server.merge(server.core("services", "web"), {"spec": {"selector": {"app": "web"}}})
        await until(server, 1, 1)
        await server.call("DELETE", server.core("pods", "web"))
        await until(server, 1, 0)
        await server.call("DELETE", server.core("services", "web"))
        await until(server, 0, 0)


async def test_slices_of_a_service_without_a_selector_are_nobodys_but_their_makers() -> None:
    async with sandbox_server() as server:
        own = {
            "metadata": {"name": "own", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "port": 1}],
        }
        await server.make(SLICES.format(server.namespace), own)
        await server.make(server.core("services"), service({}))
        await server.make(server.core("services"), {**service({"app": "web"}), "metadata": {"name": "picky"}})
        held = await until(server, 2, 1)
        assert {one["metadata"]["name"] for one in held} > {"own"}


async def test_bad_slices_are_refused() -> None:
    async with sandbox_server() as server:
        path = SLICES.format(server.namespace)
        cases: list[tuple[JSON, str]] = [
            ({"addressType": "IPv4", "endpoints": [{"addresses": ["::1"]}]}, "endpoints[0].addresses[0]"),
            ({"addressType": "IPv6", "endpoints": [{"addresses": ["x"]}]}, "endpoints[0].addresses[0]"),
            ({"addressType": "IPv5", "endpoints": []}, "addressType"),
            ({"endpoints": []}, "addressType"),
        ]
        for body, field in cases:
            answer = await server.call("POST", path, {"metadata": {"name": "s"}, **body})
            assert (answer.status, [field for _, field in answer.causes]) == (422, [field])


async def test_an_aggregated_api_may_be_a_pod_of_the_sandbox() -> None:
    """Service, selector and pod are enough: the request arrives at the pod's own address."""
    async with sandbox_server() as server:
        sandbox = server.sandbox
        assert sandbox is not None
        pair = sandbox.serving_certificate("web", server.namespace)
        program = _PROGRAM.format(certificate=pair.certificate.decode(), key=pair.key.decode())
        container = {**CONTAINER, "command": ["python3", "-c", program]}
        await server.make(server.core("pods"), {**POD, "spec": {"containers": [container]}})
        await server.make(server.core("services"), service({"app": "web"}))
        await server.make_cluster_wide("/apis/apiregistration.k8s.io/v1/apiservices", {
            "metadata": {"name": "v1.pods.toe.run"},
            "spec": {
                "group": "pods.toe.run", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
                "service": {"namespace": server.namespace, "name": "web"},
                "caBundle": base64.b64encode(sandbox.certificate_authority).decode(),
            },
        })  # fmt: skip
        path = "/apis/pods.toe.run/v1/namespaces/default/things"
        answer = await server.eventually(lambda: server.call("GET", path), lambda one: one.status == 200)
        pod = (await server.call("GET", server.core("pods", "web"))).body
        assert answer.body == {"path": path, "user": "admin", "at": pod["status"]["podIP"]}


_PROGRAM = '''
import http.server, json, os, ssl, tempfile
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = {{"path": self.path, "user": self.headers["X-Remote-User"], "at": os.environ["POD_LOOPBACK"]}}
        raw = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
server = http.server.ThreadingHTTPServer((os.environ["POD_LOOPBACK"], 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
with tempfile.NamedTemporaryFile() as both:
    both.write(b"""{key}{certificate}""")
    both.flush()
    context.load_cert_chain(both.name)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
'''
