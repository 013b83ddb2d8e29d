"""Pod Security admission: each thing that a level forbids, with the words that say so."""

import pytest

from tests.contract.clusters import JSON, Answer, Server
from tests.contract.ephemerals import IDLE, add, nowhere, tool
from tests.contract.test_pods import pod

ENFORCE = "pod-security.kubernetes.io/enforce"
PRIVILEGED = 'privileged (container "main" must not set securityContext.privileged=true)'
ESCALATION = (
    'allowPrivilegeEscalation != false (container "main" must set securityContext.allowPrivilegeEscalation=false)'
)
DROP = 'container "main" must set securityContext.capabilities.drop=["ALL"]'
ADDED = "in securityContext.capabilities.add"
NON_ROOT = 'runAsNonRoot != true (pod or container "main" must set securityContext.runAsNonRoot=true)'
SECCOMP = (
    'seccompProfile (pod or container "main" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
    '"Localhost")'
)
UNCONFINED = {"seccompProfile": {"type": "Unconfined"}}
NEVER_UNCONFINED = 'must not set securityContext.seccompProfile.type to "Unconfined"'
GOOD_POD = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
GOOD = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


async def enforce(server: Server, level: str) -> Answer:
    namespace = f"/api/v1/namespaces/{server.namespace}"
    answer = await server.merge(namespace, {"metadata": {"labels": {ENFORCE: level}}})
    if answer.status == 200:  # a real server learns of it a moment later
        probe = {**pod(IDLE, "probe", hostPID=True)}
        await server.eventually(
            lambda: server.call("POST", server.core("pods"), probe, dryRun="All"),
            lambda one: (one.status == 201) if level == "privileged" else f'"{level}:latest"' in one.message,
        )
    return answer


async def create(server: Server, spec: JSON, context: JSON | None = None) -> Answer:
    made = pod(IDLE, nodeName="contract-no-node", **spec)
    if context is not None:
        made["spec"]["containers"][0]["securityContext"] = context
    return await server.call("POST", server.core("pods"), made, dryRun="All")


def refused(answer: Answer, level: str, *violations: str) -> None:
    assert answer.status == 403
    assert answer.body["reason"] == "Forbidden"
    assert answer.message == f'pods "p" is forbidden: violates PodSecurity "{level}:latest": {", ".join(violations)}'


BASELINE: list[tuple[JSON, JSON | None, tuple[str, ...]]] = [
    ({}, None, ()),
    ({}, {"runAsUser": 0}, ()),
    ({}, {"capabilities": {"add": ["CHOWN", "NET_BIND_SERVICE"]}}, ()),
    ({}, {"privileged": True}, (PRIVILEGED,)),
    ({"hostPID": True}, None, ("host namespaces (hostPID=true)",)),
    ({"hostIPC": True, "hostNetwork": True}, None, ("host namespaces (hostNetwork=true, hostIPC=true)",)),
    ({"volumes": [{"name": "h", "hostPath": {"path": "/x"}}, {"name": "e", "emptyDir": {}}]}, None,
     ('hostPath volumes (volume "h")',)),
    ({}, {"capabilities": {"add": ["SYS_PTRACE", "NET_RAW", "CHOWN"]}},
     (f'non-default capabilities (container "main" must not include "NET_RAW", "SYS_PTRACE" {ADDED})',)),
    ({"securityContext": UNCONFINED}, None, (f"seccompProfile (pod {NEVER_UNCONFINED})",)),
    ({}, UNCONFINED, (f'seccompProfile (container "main" {NEVER_UNCONFINED})',)),
    ({"hostPID": True, "hostNetwork": True}, {"privileged": True, "capabilities": {"add": ["SYS_ADMIN"]}},
     ('non-default capabilities (container "main" must not include "SYS_ADMIN" in securityContext.capabilities.add)',
      "host namespaces (hostNetwork=true, hostPID=true)", PRIVILEGED)),
]  # fmt: skip
RESTRICTED: list[tuple[JSON, JSON | None, tuple[str, ...]]] = [
    ({"securityContext": GOOD_POD}, GOOD, ()),
    ({}, {**GOOD, **GOOD_POD}, ()),
    ({"securityContext": GOOD_POD}, {**GOOD, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}, ()),
    ({}, None, (ESCALATION, f"unrestricted capabilities ({DROP})", NON_ROOT, SECCOMP)),
    ({"hostPID": True}, {"privileged": True},
     ("host namespaces (hostPID=true)", PRIVILEGED, ESCALATION, f"unrestricted capabilities ({DROP})", NON_ROOT,
      SECCOMP)),
    ({}, {"capabilities": {"add": ["SYS_PTRACE", "CHOWN"]}},
     (ESCALATION,
      f'unrestricted capabilities ({DROP}; container "main" must not include "CHOWN", "SYS_PTRACE" {ADDED})',
      NON_ROOT, SECCOMP)),
    ({"securityContext": GOOD_POD}, {**GOOD, "runAsNonRoot": False, "runAsUser": 0},
     ('runAsNonRoot != true (container "main" must not set securityContext.runAsNonRoot=false)',
      'runAsUser=0 (container "main" must not set runAsUser=0)')),
    ({"securityContext": {**GOOD_POD, "runAsUser": 0}}, GOOD, ("runAsUser=0 (pod must not set runAsUser=0)",)),
    ({"securityContext": {**GOOD_POD, "runAsUser": 0}}, {**GOOD, "runAsUser": 0},
     ('runAsUser=0 (pod and container "main" must not set runAsUser=0)',)),
    ({"securityContext": {**GOOD_POD, "runAsNonRoot": False}}, GOOD,
     ("runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",)),
    ({"securityContext": {**GOOD_POD, **UNCONFINED}}, GOOD, (f"seccompProfile (pod {NEVER_UNCONFINED})",)),
    ({"securityContext": GOOD_POD}, {**GOOD, **UNCONFINED},
     (f'seccompProfile (container "main" {NEVER_UNCONFINED})',)),
    ({"securityContext": GOOD_POD, "volumes": [{"name": "n", "nfs": {"server": "x", "path": "/"}},
                                               {"name": "h", "hostPath": {"path": "/"}},
                                               {"name": "e", "emptyDir": {}}]}, GOOD,
     ('restricted volume types (volumes "n", "h" use restricted volume types "hostPath", "nfs")',)),
    ({"securityContext": GOOD_POD, "volumes": [{"name": "h", "hostPath": {"path": "/"}}]}, GOOD,
     ('restricted volume types (volume "h" uses restricted volume type "hostPath")',)),
]  # fmt: skip


@pytest.mark.parametrize(("level", "rows"), [("baseline", BASELINE), ("restricted", RESTRICTED)])
async def test_what_a_level_forbids_when_a_pod_is_created(
    server: Server, level: str, rows: list[tuple[JSON, JSON | None, tuple[str, ...]]]
) -> None:
    await enforce(server, level)
    for spec, context, violations in rows:
        answer = await create(server, spec, context)
        if violations:
            refused(answer, level, *violations)
        else:
            assert answer.status == 201, answer.raw


async def test_containers_are_counted_and_a_host_port_is_named(server: Server) -> None:
    await enforce(server, "baseline")
    body = pod(IDLE)
    second = {**body["spec"]["containers"][0], "name": "second", "securityContext": {"privileged": True}}
    body["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    body["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 80}]
    body["spec"]["containers"].append(second)
    answer = await server.call("POST", server.core("pods"), body, dryRun="All")
    both = 'privileged (containers "main", "second" must not set securityContext.privileged=true)'
    refused(answer, "baseline", 'hostPort (container "main" uses hostPort 80)', both)


async def test_an_ephemeral_container_is_checked_together_with_its_pod(server: Server) -> None:
    await nowhere(server)
    await enforce(server, "baseline")
    plain = await add(server, tool(), dryRun="All")
    powerful = await add(server, tool(securityContext={"capabilities": {"add": ["SYS_PTRACE"]}}), dryRun="All")
    invalid = await add(server, {"name": "tool"}, dryRun="All")
    await enforce(server, "restricted")
    good = await add(server, tool(securityContext={**GOOD, **GOOD_POD}), dryRun="All")
    label = await server.merge(server.core("pods", "p"), {"metadata": {"labels": {"x": "y"}}})
    assert (plain.status, invalid.status, label.status) == (200, 422, 200)
    refused(
        powerful,
        "baseline",
        'non-default capabilities (container "tool" must not include "SYS_PTRACE" in securityContext.capabilities.add)',
    )
    refused(good, "restricted", ESCALATION, f"unrestricted capabilities ({DROP})", NON_ROOT, SECCOMP)


async def test_a_restricted_pod_takes_a_restricted_tool(server: Server) -> None:
    body = pod(IDLE, nodeName="contract-no-node", securityContext=GOOD_POD)
    body["spec"]["containers"][0]["securityContext"] = GOOD
    await enforce(server, "restricted")
    await server.make(server.core("pods"), body)
    plain = await add(server, tool())
    taken = await add(server, tool(securityContext=GOOD))
    refused(
        plain,
        "restricted",
        ESCALATION.replace('"main"', '"tool"'),
        f"unrestricted capabilities ({DROP})".replace('"main"', '"tool"'),
    )
    assert taken.status == 200


async def test_privileged_forbids_nothing_and_there_are_no_other_levels(server: Server) -> None:
    await enforce(server, "privileged")
    answer = await create(server, {"hostPID": True}, {"privileged": True})
    unknown = await enforce(server, "silly")
    assert answer.status == 201
    assert (unknown.status, unknown.causes) == (422, [("FieldValueInvalid", f"metadata.labels[{ENFORCE}]")])
    assert unknown.message.endswith('Invalid value: "silly": must be one of privileged, baseline, restricted')
