"""The shipped manifests render, a real schema accepts them, and every name in them leads to something that exists."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import pytest
import yaml

from toe_async.cli import collector as collector_command
from toe_async.cli import operator as operator_command
from toe_async.collector.auth import OPERATOR_AUDIENCE
from toe_async.runtime.policy import POWERTOOL_POLICY, PROFILING_POLICY

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OPERATOR, COLLECTOR = "toe-operator", "toe-collector"
PROFILES = ("profiling.io", "bolometer.io")
OURS = (*PROFILES, "codriverlabs.ai.toe.run")
FOREIGN = ("cert-manager.io", "monitoring.coreos.com")
ARRANGEMENTS = [
    ("foundation", ()),
    ("program", ()),
    ("base", ()),
    ("overlays/dev", ()),
    *(("base", (folder.name,)) for folder in sorted((DEPLOY / "components").iterdir())),
]

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    found = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind}/{name}"
    return found[0]


def pod_of(manifests: list[Manifest], deployment: str) -> Manifest:
    spec: Manifest = one(manifests, "Deployment", deployment)["spec"]["template"]["spec"]
    return spec


def flags(manifests: list[Manifest], deployment: str) -> dict[str, str]:
    (container,) = pod_of(manifests, deployment)["containers"]
    return dict(argument.removeprefix("--").split("=", 1) for argument in container["args"][1:])


def samples() -> Iterator[Manifest]:
    for path in sorted((DEPLOY / "samples").glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


def group(manifest: Manifest) -> str:
    return str(manifest["apiVersion"]).rpartition("/")[0]


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "components"), ARRANGEMENTS, ids=str)
def test_everything_that_is_shipped_renders_and_fits_the_api(
    render: Render, folder: str, components: tuple[str, ...]
) -> None:
    manifests = render(folder, components=components)
    assert manifests
    for manifest in manifests:
        if group(manifest) not in (*OURS, *FOREIGN):
            kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_the_samples_fit_the_api() -> None:
    kinds = set()
    for manifest in samples():
        kinds.add(manifest["kind"])
        if group(manifest) not in OURS:
            kubernetes_validate.validate(manifest, "1.37", strict=True)
    assert {"ProfilingConfig", "Pod", "Secret", "Role", "RoleBinding"} <= kinds


def test_no_object_is_shipped_twice(render: Render) -> None:
    names = [
        (m["apiVersion"], m["kind"], m["metadata"].get("namespace", ""), m["metadata"]["name"]) for m in render("base")
    ]
    assert len(names) == len(set(names))


def test_the_program_can_be_removed_without_its_artifacts_and_configs(render: Render) -> None:
    kinds = {m["kind"] for m in render("program")}
    assert not kinds & {"Namespace", "PersistentVolumeClaim", "CustomResourceDefinition"}
    assert {m["kind"] for m in render("foundation")} == {"Namespace", "PersistentVolumeClaim"}


def test_the_install_has_a_crd_for_each_group_that_is_granted(render: Render) -> None:
    crds = {m["spec"]["group"] for m in render("base") if m["kind"] == "CustomResourceDefinition"}
    assert crds == set(OURS)


@pytest.mark.parametrize("name", [OPERATOR, COLLECTOR])
def test_pods_meet_the_restricted_level(render: Render, name: str) -> None:
    manifests = render("program")
    pod = pod_of(manifests, name)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_the_namespaces_have_the_levels_that_their_pods_need(render: Render) -> None:
    manifests = render("foundation")
    label = "pod-security.kubernetes.io/enforce"
    assert one(manifests, "Namespace", "toe-system")["metadata"]["labels"][label] == "restricted"
    assert one(manifests, "Namespace", "toe-agents")["metadata"]["labels"][label] == "privileged"


@pytest.mark.parametrize("name", [OPERATOR, COLLECTOR])
def test_what_a_pod_mounts_and_names_exists(render: Render, name: str) -> None:
    manifests = render("base")
    pod = pod_of(manifests, name)
    namespace = one(manifests, "Deployment", name)["metadata"]["namespace"]
    have = {(m["kind"], m["metadata"]["name"]) for m in manifests if m["metadata"].get("namespace") == namespace}
    assert ("ServiceAccount", pod["serviceAccountName"]) in have
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for volume in volumes.values():
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in have
        if "persistentVolumeClaim" in volume:
            assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in have
        if "secret" in volume:  # made by make-tls.sh or cert-manager
            assert volume["secret"]["secretName"] == "toe-collector-tls"
    for container in pod["containers"]:
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) == set(volumes)
        for argument in container["args"]:
            path = argument.partition("=")[2]
            if path.startswith("/"):
                assert any(path == at or path.startswith(f"{at}/") for at in mounts.values()), f"{argument}: no mount"
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] in ports


def test_services_lead_to_ports_and_pods_that_exist(render: Render) -> None:
    manifests = render("program")
    for service in (m for m in manifests if m["kind"] == "Service"):
        deployment = one(manifests, "Deployment", service["spec"]["selector"]["app.kubernetes.io/name"])
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert {p["targetPort"] for p in service["spec"]["ports"]} <= {p["name"] for p in container["ports"]}


def test_the_names_that_one_program_tells_the_other_agree(render: Render) -> None:
    manifests = render("base")
    operator, collector = flags(manifests, OPERATOR), flags(manifests, COLLECTOR)
    accounts = {
        f"system:serviceaccount:{m['metadata']['namespace']}:{m['metadata']['name']}"
        for m in manifests
        if m["kind"] == "ServiceAccount"
    }
    assert {collector["operator-user"], collector["uploader-user"]} <= accounts
    assert collector["operator-user"].endswith(f":{pod_of(manifests, OPERATOR)['serviceAccountName']}")
    assert collector["uploader-user"] == (
        f"system:serviceaccount:{operator['agents-namespace']}:{operator['uploader-service-account']}"
    )
    service = one(manifests, "Service", "toe-collector")
    port = service["spec"]["ports"][0]["port"]
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert operator["collector-url"] == f"https://{host}:{port}"
    assert host in (DEPLOY / "make-tls.sh").read_text().replace("$namespace", "toe-system")


@pytest.mark.parametrize(("name", "program"), [(OPERATOR, operator_command), (COLLECTOR, collector_command)])
def test_the_programs_know_every_flag_that_they_are_given(render: Render, name: str, program: ModuleType) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    program.declare(parser)
    (container,) = pod_of(render("program"), name)["containers"]
    parser.parse_args(container["args"][1:])


@pytest.mark.parametrize("name", [PROFILING_POLICY, POWERTOOL_POLICY])
def test_the_policies_have_the_names_that_the_operator_looks_for(render: Render, name: str) -> None:
    assert one(render("program"), "ValidatingAdmissionPolicy", name)


def test_every_policy_is_bound_and_those_of_the_operator_are_about_its_account(render: Render) -> None:
    """One that looks at an account that nobody has holds nobody, and no API server says so."""
    manifests = render("program")
    operator, agents = one(manifests, "Deployment", OPERATOR), flags(manifests, OPERATOR)["agents-namespace"]
    account = pod_of(manifests, OPERATOR)["serviceAccountName"]
    user = f"system:serviceaccount:{operator['metadata']['namespace']}:{account}"
    limits = 0
    for policy in (m for m in manifests if m["kind"] == "ValidatingAdmissionPolicy"):
        name, spec = policy["metadata"]["name"], policy["spec"]
        binding = one(manifests, "ValidatingAdmissionPolicyBinding", name)["spec"]
        assert binding == {"policyName": name, "validationActions": ["Deny"]}
        assert spec["failurePolicy"] == "Fail"
        if name.startswith("toe-operator-limits-"):
            limits += 1
            assert [c["expression"] for c in spec["matchConditions"]] == [f"request.userInfo.username == '{user}'"]
            words = " ".join(rule["expression"] for rule in spec["validations"])
            assert "request.namespace" not in words or f"request.namespace == '{agents}'" in words
    assert limits == 4
    home = one(manifests, "ValidatingAdmissionPolicy", POWERTOOL_POLICY)["spec"]["variables"][0]["expression"]
    assert f".namespace('{operator['metadata']['namespace']}')" in home, "where the operator reads its configurations"


def test_the_operators_token_is_for_the_collector_alone(render: Render) -> None:
    (source,) = next(
        volume["projected"]["sources"]
        for volume in pod_of(render("program"), OPERATOR)["volumes"]
        if volume["name"] == "collector-token"
    )
    assert source["serviceAccountToken"]["audience"] == OPERATOR_AUDIENCE


def test_the_operator_never_sees_the_collectors_key(render: Render) -> None:
    (volume,) = (v for v in pod_of(render("program"), OPERATOR)["volumes"] if "secret" in v)
    assert volume["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


def test_the_spools_bound_is_below_the_volumes(render: Render) -> None:
    manifests = render("program")
    (volume,) = (v for v in pod_of(manifests, OPERATOR)["volumes"] if v["name"] == "spool")
    assert volume["emptyDir"]["sizeLimit"] == "5Gi"
    assert flags(manifests, OPERATOR)["spool-bytes"] == "4Gi"


def test_two_replicas_lead_in_turn_and_one_collector_owns_its_store(render: Render) -> None:
    manifests = render("program")
    assert one(manifests, "Deployment", OPERATOR)["spec"]["replicas"] == 2
    collector = one(manifests, "Deployment", COLLECTOR)["spec"]
    assert (collector.get("replicas", 1), collector["strategy"]["type"]) == (1, "Recreate")


def test_the_policy_has_its_binding_and_covers_both_groups(render: Render) -> None:
    manifests = render("program")
    name = "toe-profilingconfig-author"
    policy = one(manifests, "ValidatingAdmissionPolicy", name)["spec"]
    binding = one(manifests, "ValidatingAdmissionPolicyBinding", name)["spec"]
    assert (binding["policyName"], binding["validationActions"]) == (name, ["Deny"])
    assert policy["failurePolicy"] == "Fail"
    (rule,) = policy["matchConstraints"]["resourceRules"]
    assert (set(rule["apiGroups"]), set(rule["operations"])) == (set(PROFILES), {"CREATE", "UPDATE"})


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.yaml")), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_no_environment_variable_carries_a_credential(path: Path) -> None:
    for manifest in yaml.safe_load_all(path.read_text()):
        template = ((manifest or {}).get("spec") or {}).get("template") or {}
        for container in (template.get("spec") or {}).get("containers", ()):
            for variable in container.get("env", ()):
                assert "secretKeyRef" not in variable.get("valueFrom", {})
                assert not any(word in variable["name"] for word in ("KEY", "SECRET", "TOKEN", "PASSWORD"))
