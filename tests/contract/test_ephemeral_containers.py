"""Containers that are added to a pod: what the API server takes, and what the kubelet makes of them."""

import asyncio

import pytest

from tests.contract.clusters import JSON, Server
from tests.contract.ephemerals import IDLE, STRATEGIC, add, nowhere, reaches, running, status_of, tool
from tests.contract.test_pods import pod

FIELD = "spec.ephemeralContainers"
KILLED = """
import os, signal, time
if os.fork():
    signal.pause()
time.sleep(0.2)
os.kill(os.getppid(), signal.SIGKILL)
"""
REFUSED = "cannot be set for an Ephemeral Container"


async def test_an_added_container_is_completed_and_answered_with_its_pod(server: Server) -> None:
    made = await nowhere(server)
    wanted = tool(stdin=True, stdinOnce=False, tty=False, targetContainerName="main")
    added = await add(server, wanted, uid=made["metadata"]["uid"])
    again = await server.call("GET", server.core("pods", "p/ephemeralcontainers"))
    assert (added.status, added.body["kind"]) == (200, "Pod")
    assert added.body["metadata"]["generation"] == made["metadata"]["generation"] + 1
    (held,) = added.body["spec"]["ephemeralContainers"]
    assert held == {
        **tool(stdin=True, targetContainerName="main"),
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }
    assert again.body["spec"] == added.body["spec"]


async def test_the_same_patch_again_changes_nothing(server: Server) -> None:
    await nowhere(server)
    first = await add(server, tool())
    second = await add(server, tool())
    assert (second.status, second.body["metadata"]["resourceVersion"]) == (
        200,
        first.body["metadata"]["resourceVersion"],
    )


async def test_strategic_merge_puts_new_containers_first_and_keeps_the_others(server: Server) -> None:
    await nowhere(server)
    await add(server, tool("b"))
    await add(server, tool("c"), tool("a"))
    found = await add(server, {"name": "b"}, tool("e"), tool("d"))
    assert [one["name"] for one in found.body["spec"]["ephemeralContainers"]] == ["c", "a", "b", "e", "d"]


@pytest.mark.parametrize(
    ("container", "causes", "words"),
    [
        ({"image": ""}, [("FieldValueRequired", "[0].image")], "Required value"),
        ({"name": ""}, [("FieldValueRequired", "[0].name")], "Required value"),
        ({"name": "Bad_"}, [("FieldValueInvalid", "[0].name")], "a lowercase RFC 1123 label must consist of"),
        ({"name": "a" * 64}, [("FieldValueInvalid", "[0].name")], "must be no more than 63 characters"),
        ({"name": "main"}, [("FieldValueDuplicate", "[0].name")], 'Duplicate value: "main"'),
        ({"targetContainerName": "nope"}, [("FieldValueNotFound", "[0].targetContainerName")], 'Not found: "nope"'),
        ({"terminationMessagePolicy": "Bad"}, [("FieldValueNotSupported", "[0].terminationMessagePolicy")],
         'Unsupported value: "Bad": supported values: "File", "FallbackToLogsOnError"'),
        ({"imagePullPolicy": "Bad"}, [("FieldValueNotSupported", "[0].imagePullPolicy")],
         'Unsupported value: "Bad": supported values: "Always", "IfNotPresent", "Never"'),
        ({"env": [{"name": "", "value": "x"}]}, [("FieldValueRequired", "[0].env[0].name")], "Required value"),
        ({"volumeMounts": [{"name": "nope", "mountPath": "/x"}]},
         [("FieldValueNotFound", "[0].volumeMounts[0].name")], 'Not found: "nope"'),
        ({"volumeMounts": [{"name": "v"}]},
         [("FieldValueRequired", "[0].volumeMounts[0].mountPath")], "Required value"),
        ({"volumeMounts": [{"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "/x"}]},
         [("FieldValueInvalid", "[0].volumeMounts[1].mountPath")], 'Invalid value: "/x": must be unique'),
        ({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "a"}]},
         [("FieldValueForbidden", "[0].volumeMounts[0].subPath")], REFUSED),
        ({"resources": {"requests": {"cpu": "1"}}}, [("FieldValueForbidden", "[0].resources")], REFUSED),
        ({"ports": [{"containerPort": 80}]}, [("FieldValueForbidden", "[0].ports")], REFUSED),
        ({"livenessProbe": {"exec": {"command": ["x"]}}}, [("FieldValueForbidden", "[0].livenessProbe")], REFUSED),
        ({"readinessProbe": {"exec": {"command": ["x"]}}}, [("FieldValueForbidden", "[0].readinessProbe")], REFUSED),
        ({"lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}, [("FieldValueForbidden", "[0].lifecycle")], REFUSED),
        ({"restartPolicy": "Always"}, [("FieldValueForbidden", "[0].restartPolicy")], REFUSED),
        ({"ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}, "targetContainerName": "nope"},
         [("FieldValueNotFound", "[0].targetContainerName"), ("FieldValueForbidden", "[0].ports"),
          ("FieldValueForbidden", "[0].resources")], "Not found"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)  # fmt: skip
async def test_what_an_ephemeral_container_may_not_be(
    server: Server, container: JSON, causes: list[tuple[str, str]], words: str
) -> None:
    await nowhere(server, volumes=[{"name": "v", "emptyDir": {}}])
    refused = await add(server, {**tool(), **container})
    assert (refused.status, refused.body["reason"]) == (422, "Invalid")
    assert refused.causes == [(reason, f"{FIELD}{field}") for reason, field in causes]
    assert refused.message.startswith('Pod "p" is invalid: ')
    assert words in refused.message


async def test_two_new_containers_of_one_name_are_refused(server: Server) -> None:
    await nowhere(server)
    refused = await add(server, tool(), tool())
    assert (refused.status, refused.causes) == (422, [("FieldValueDuplicate", f"{FIELD}[1].name")])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"name": "tool", "image": "other:1"}, "may not be changed"),
        ({"name": "tool", "command": ["true"]}, "may not be changed"),
        ({"name": "tool", "$patch": "delete"}, "may not be removed"),
    ],
)
async def test_what_was_added_stays_as_it_is(server: Server, how: JSON, words: str) -> None:
    await nowhere(server)
    await add(server, tool())
    refused = await add(server, how)
    assert (refused.status, refused.causes) == (422, [("FieldValueForbidden", FIELD)])
    assert f'existing ephemeral containers "tool" {words}\n' in refused.message


async def test_a_list_that_is_replaced_removes_what_it_leaves_out(server: Server) -> None:
    await nowhere(server)
    await add(server, tool())
    path = server.core("pods", "p/ephemeralcontainers")
    merged = await server.merge(path, {"spec": {"ephemeralContainers": [tool("other")]}})
    both = await server.merge(
        path, {"spec": {"ephemeralContainers": [*(await server.call("GET", path)).body["spec"]["ephemeralContainers"],
                                                tool("other")]}}
    )  # fmt: skip
    emptied = await server.call("PUT", path, {"metadata": {"name": "p"}, "spec": {}})
    assert (merged.status, emptied.status) == (422, 422)
    assert (both.status, len(both.body["spec"]["ephemeralContainers"])) == (200, 2)


async def test_nothing_else_is_changed_through_the_subresource(server: Server) -> None:
    await nowhere(server)
    body = {"metadata": {"labels": {"x": "y"}}, "spec": {"hostNetwork": True, "ephemeralContainers": [tool()]}}
    path = server.core("pods", "p/ephemeralcontainers")
    changed = await server.call("PATCH", path, body, content_type=STRATEGIC)
    assert changed.status == 200
    assert (changed.body["metadata"]["labels"], "hostNetwork" in changed.body["spec"]) == ({"app": "p"}, False)
    assert len(changed.body["spec"]["ephemeralContainers"]) == 1


async def test_the_pod_itself_takes_no_ephemeral_containers(server: Server) -> None:
    made = pod(IDLE, "q")
    made["spec"]["ephemeralContainers"] = [tool()]
    created = await server.call("POST", server.core("pods"), made)
    await nowhere(server)
    body = {"spec": {"ephemeralContainers": [tool()]}}
    patched = await server.call("PATCH", server.core("pods", "p"), body, content_type=STRATEGIC)
    await add(server, tool())
    live = (await server.call("GET", server.core("pods", "p"))).body
    del live["spec"]["ephemeralContainers"]
    put = await server.call("PUT", server.core("pods", "p"), live)
    assert (created.status, created.causes) == (422, [("FieldValueForbidden", FIELD)])
    assert created.message.endswith(f"{FIELD}: Forbidden: cannot be set on create")
    for refused in (patched, put):
        assert (refused.status, refused.causes) == (422, [("FieldValueForbidden", "spec")])
        assert "pod updates may not change fields other than" in refused.message


async def test_another_pods_uid_and_an_older_version_are_refused(server: Server) -> None:
    made = await nowhere(server)
    path = server.core("pods", "p/ephemeralcontainers")
    other = await add(server, tool(), uid="zz")
    stale = await server.call(
        "PATCH", path, {"metadata": {"resourceVersion": "1"}, "spec": {"ephemeralContainers": [tool()]}},
        content_type=STRATEGIC,
    )  # fmt: skip
    put = await server.call("PUT", path, {**made, "metadata": {**made["metadata"], "uid": "zz", "resourceVersion": ""}})
    missing = await add(server, tool(), to="nope")
    assert (other.status, set(other.causes)) == (422, {("FieldValueInvalid", "metadata.uid")})
    assert other.message == 'Pod "p" is invalid: metadata.uid: Invalid value: "zz": field is immutable'
    assert (stale.status, stale.body["reason"]) == (409, "Conflict")
    assert (put.status, put.body["reason"]) == (409, "Conflict")
    assert "Precondition failed: UID in precondition: zz" in put.message
    assert (missing.status, missing.message) == (404, 'pods "nope" not found')


async def test_a_dry_run_adds_nothing(server: Server) -> None:
    await nowhere(server)
    answered = await add(server, tool(), dryRun="All")
    assert len(answered.body["spec"]["ephemeralContainers"]) == 1
    assert "ephemeralContainers" not in (await server.call("GET", server.core("pods", "p"))).body["spec"]


async def test_the_mirror_of_a_static_pod_takes_none(server: Server) -> None:
    body = pod(IDLE, nodeName="contract-no-node")
    body["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    await server.make(server.core("pods"), body)
    refused = await add(server, tool())
    assert (refused.status, refused.causes) == (422, [("FieldValueForbidden", "[]")])
    assert "static pods do not support ephemeral containers" in refused.message


async def test_the_right_to_add_is_one_to_patch_the_subresource(server: Server) -> None:
    await nowhere(server)
    token = await server.account("sa")
    path = server.core("pods", "p/ephemeralcontainers")
    body = {"spec": {"ephemeralContainers": [tool()]}}
    none = await server.call("PATCH", path, body, content_type=STRATEGIC, token=token)
    base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{server.namespace}"
    rule = {"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["patch"]}
    await server.make(f"{base}/roles", {"metadata": {"name": "add"}, "rules": [rule]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "add"}
    subject = {"kind": "ServiceAccount", "name": "sa", "namespace": server.namespace}
    await server.make(
        f"{base}/rolebindings", {"metadata": {"name": "add"}, "roleRef": reference, "subjects": [subject]}
    )
    allowed = await server.eventually(
        lambda: server.call("PATCH", path, body, content_type=STRATEGIC, token=token), lambda one: one.status != 403
    )
    read = await server.call("GET", path, token=token)
    assert (none.status, none.body["reason"]) == (403, "Forbidden")
    assert 'cannot patch resource "pods/ephemeralcontainers" in API group ""' in none.message
    assert (allowed.status, read.status) == (200, 403)
    for method in ("POST", "DELETE"):
        assert (await server.call(method, path, {})).status == 405


async def test_a_policy_sees_the_subresource(server: Server) -> None:
    base, name = "/apis/admissionregistration.k8s.io/v1", server.namespace
    policy = {
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"],
                                   "resources": ["pods/ephemeralcontainers"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            },
            "validations": [{"expression": "request.subResource != 'ephemeralcontainers'", "message": "none here"}],
        },
    }  # fmt: skip
    await server.make_cluster_wide(f"{base}/validatingadmissionpolicies", policy)
    binding = {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}
    await server.make_cluster_wide(f"{base}/validatingadmissionpolicybindings", binding)
    await nowhere(server)
    refused = await server.eventually(lambda: add(server, tool(), dryRun="All"), lambda one: one.status != 200)
    label = await server.merge(server.core("pods", "p"), {"metadata": {"labels": {"x": "y"}}})
    assert (refused.status, label.status) == (422, 200)
    assert "none here" in refused.message


async def test_it_runs_once_and_its_end_is_told_with_its_last_words(server: Server) -> None:
    await running(server)
    program = "import time; open('/dev/termination-log', 'w').write('said'); time.sleep(0.5); raise SystemExit(3)"
    await add(server, tool(program=program, targetContainerName="main"))
    began = await reaches(server, "running")
    ended = await reaches(server, "terminated")
    state = ended["state"]["terminated"]
    assert began["state"]["running"]["startedAt"]
    assert (state["exitCode"], state["reason"], state["message"]) == (3, "Error", "said")
    assert state["startedAt"] <= state["finishedAt"]
    assert state["containerID"] == ended["containerID"] == began["containerID"]
    assert (ended["ready"], ended["restartCount"], ended["lastState"]) == (False, 0, {})
    assert ended["imageID"]
    assert "uid" in ended["user"]["linux"]
    held = (await server.call("GET", server.core("pods", "p"))).body["status"]
    assert held["phase"] == "Running"
    assert {"type": "Ready", "status": "True"}.items() <= next(
        one for one in held["conditions"] if one["type"] == "Ready"
    ).items()


@pytest.mark.parametrize(
    ("program", "more", "code", "reason", "message"),
    [
        ("pass", {}, 0, "Completed", None),
        (KILLED, {"targetContainerName": "main"}, 137, "Error", None),
        ("open('/tmp/words', 'w').write('there')", {"terminationMessagePath": "/tmp/words"}, 0, "Completed", "there"),
        ("open('/dev/termination-log', 'w').write('x' * 5000)", {}, 0, "Completed", "x" * 4096),
        ("print('first'); print('second'); raise SystemExit(1)", {"terminationMessagePolicy": "FallbackToLogsOnError"},
         1, "Error", "first\nsecond\n"),
        ("print('first')", {"terminationMessagePolicy": "FallbackToLogsOnError"}, 0, "Completed", None),
    ],
    ids=["well", "killed", "path", "long", "logs", "logs of success"],
)  # fmt: skip
async def test_how_a_container_ends(
    server: Server, program: str, more: JSON, code: int, reason: str, message: str | None
) -> None:
    await running(server)
    await add(server, tool(program=program, **more))
    state = (await reaches(server, "terminated"))["state"]["terminated"]
    assert (state["exitCode"], state["reason"], state.get("message")) == (code, reason, message)


async def test_a_program_that_is_not_there_leaves_it_waiting(server: Server) -> None:
    await running(server)
    await add(server, {**tool(), "command": ["/opt/no/such/program"]})
    found = await server.until(
        server.core("pods", "p"),
        lambda one: status_of(one)["state"].get("waiting", {}).get("reason") == "RunContainerError",
    )
    held = status_of(found)
    assert "no such file or directory" in held["state"]["waiting"]["message"].lower()
    assert held["lastState"]["terminated"]["reason"] == "StartError"
    assert held["lastState"]["terminated"]["exitCode"] == 128
    assert held["restartCount"] == 0


async def test_an_image_that_cannot_be_pulled_is_tried_and_backed_off_from(server: Server) -> None:
    await running(server)
    await add(server, tool(image="localhost/contract-nope:1"))

    def reason(one: JSON) -> str:
        return str(status_of(one)["state"].get("waiting", {}).get("reason", ""))

    await server.until(server.core("pods", "p"), lambda one: reason(one) == "ErrImagePull")
    held = await server.until(server.core("pods", "p"), lambda one: reason(one) == "ImagePullBackOff")
    log = await server.call("GET", server.core("pods", "p/log"), container="tool")
    message = status_of(held)["state"]["waiting"]["message"]
    assert message.startswith('Back-off pulling image "localhost/contract-nope:1": ErrImagePull: failed to pull')
    assert (log.status, log.message) == (
        400,
        'container "tool" in pod "p" is waiting to start: trying and failing to pull image',
    )


async def test_a_pod_is_over_when_its_own_containers_are(server: Server) -> None:
    await running(server, program="import time; time.sleep(4)", restartPolicy="Never")
    await add(server, tool())
    await reaches(server, "running")
    ended = await server.until(server.core("pods", "p"), lambda one: one["status"]["phase"] == "Succeeded")
    late = await add(server, tool("late"))
    assert "terminated" in status_of(ended)["state"]
    assert late.status == 200
    assert status_of((await server.call("GET", server.core("pods", "p"))).body, "late") == {"state": {}}


async def test_several_run_beside_each_other_and_are_listed_by_name(server: Server) -> None:
    await running(server)
    await add(server, tool("c"))
    await add(server, tool("b", "print('hello')"), tool("a"))
    await asyncio.gather(reaches(server, "running", "a"), reaches(server, "running", "c"))
    await reaches(server, "terminated", "b")
    held = (await server.call("GET", server.core("pods", "p"))).body["status"]
    log = await server.call("GET", server.core("pods", "p/log"), container="b")
    main = await server.call("GET", server.core("pods", "p/log"))
    assert [one["name"] for one in held["ephemeralContainerStatuses"]] == ["a", "b", "c"]
    assert (log.raw, main.status) == (b"hello\n", 200)


async def test_deletion_ends_it_with_its_pod(server: Server) -> None:
    await running(server)
    await add(server, tool())
    await reaches(server, "running")
    await server.call("DELETE", server.core("pods", "p"))
    await server.gone(server.core("pods", "p"))


@pytest.mark.slow
async def test_metrics_list_it_while_it_runs(server: Server) -> None:
    await running(server)
    await add(server, tool())
    await reaches(server, "running")
    path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{server.namespace}/pods/p"
    async with asyncio.timeout(90):
        while True:
            found = await server.call("GET", path)
            if found.status == 200 and len(found.body["containers"]) == 2:
                break
            await asyncio.sleep(0.2)
    assert {one["name"] for one in found.body["containers"]} == {"main", "tool"}
