"""Claims and volumes, as far as tools use them."""

import pytest

from tests.contract.clusters import JSON, Server
from tests.contract.ephemerals import IDLE, add, reaches, running, tool
from tests.contract.test_pods import main_status, pod

GOOD = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}}
MOUNT = [{"name": "v", "mountPath": "/data/deep"}]


@pytest.mark.parametrize(
    ("spec", "causes"),
    [
        ({"accessModes": []}, [("FieldValueRequired", "spec.accessModes")]),
        ({"accessModes": ["Bad"]}, [("FieldValueNotSupported", "spec.accessModes")]),
        ({"resources": {}}, [("FieldValueRequired", "spec.resources[storage]")]),
    ],
)
async def test_a_claim_says_how_it_is_accessed_and_how_large_it_is(
    server: Server, spec: JSON, causes: list[tuple[str, str]]
) -> None:
    claims = server.core("persistentvolumeclaims")
    refused = await server.call("POST", claims, {"metadata": {"name": "c"}, "spec": {**GOOD, **spec}})
    made = await server.make(claims, {"metadata": {"name": "c"}, "spec": GOOD})
    assert (refused.status, refused.causes) == (422, causes)
    assert (made["kind"], made["spec"]["volumeMode"]) == ("PersistentVolumeClaim", "Filesystem")


async def test_a_pod_waits_for_a_claim_that_is_not_there(server: Server) -> None:
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "nope"}}
    body = pod(IDLE, volumes=[volume])
    body["spec"]["containers"][0]["volumeMounts"] = MOUNT
    await server.make(server.core("pods"), body)

    def waits(one: JSON) -> bool:
        told = [*one["status"].get("conditions", ()), main_status(one).get("state", {}).get("waiting", {})]
        return any('persistentvolumeclaim "nope" not found' in held.get("message", "") for held in told)

    held = await server.until(server.core("pods", "p"), waits)
    assert held["status"]["phase"] == "Pending"


async def test_ephemeral_containers_share_an_empty_folder(server: Server) -> None:
    await running(server, volumes=[{"name": "v", "emptyDir": {}}])
    writing = "open('/data/deep/file', 'w').write('shared')"
    await add(server, tool("first", writing, volumeMounts=MOUNT))
    await reaches(server, "terminated", "first")
    await add(server, tool("second", "print(open('/data/deep/file').read())", volumeMounts=MOUNT))
    await reaches(server, "terminated", "second")
    log = await server.call("GET", server.core("pods", "p/log"), container="second")
    assert log.raw == b"shared\n"
