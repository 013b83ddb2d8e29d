"""What the operator's own account may make, whatever its code does and whatever its RBAC would let it do."""

from typing import Any

Object = dict[str, Any]


def tool(name: str = "toe-0123456789", **more: object) -> Object:
    made = {"name": name, "image": "registry.invalid/tool:1", "command": ["/opt/toe/supervisor"], "stdin": True}
    return {**made, **more}


CONTAINERS: list[tuple[str, Object, str]] = [
    ("one of ours", tool(), ""),
    ("another name", tool("debugger"), "named toe-*"),
    ("another program", tool(command=["/bin/sh"]), "run /opt/toe/supervisor"),
    ("no program, so the image's own", {k: v for k, v in tool().items() if k != "command"}, "run /opt/toe/supervisor"),
    ("an environment", tool(env=[{"name": "TOKEN", "value": "x"}]), "no environment"),
]


def secret(**more: object) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "toe-authz"}, **more}


SECRETS: list[tuple[str, str, Object, bool]] = [
    ("an empty one", "toe-agents", secret(type="Opaque"), True),
    ("one without a type, which is Opaque", "toe-agents", secret(), True),
    ("one with data", "toe-agents", secret(stringData={"a": "b"}), False),
    ("one of another type", "toe-agents", secret(type="example.com/own"), False),
    ("one that a token is put into", "toe-agents",
     secret(type="kubernetes.io/service-account-token",
            metadata={"name": "t", "annotations": {"kubernetes.io/service-account.name": "default"}}), False),
    ("an empty one elsewhere", "toe-system", secret(type="Opaque"), False),
]  # fmt: skip


def agent(namespace: str = "toe-agents", **more: object) -> Object:
    spec = {"hostPID": True, "automountServiceAccountToken": False, "activeDeadlineSeconds": 60,
            "containers": [tool()], **more}  # fmt: skip
    metadata = {"name": "toe-0123456789", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {key: value for key, value in spec.items() if value is not None}}  # fmt: skip


AGENTS: list[tuple[str, Object, bool]] = [
    ("one of ours", agent(), True),
    ("another namespace", agent("toe-authz-own"), False),
    ("another program", agent(containers=[tool(command=["sh"])]), False),
    ("another container beside it", agent(containers=[tool(), tool("shell")]), False),
    ("an init container", agent(initContainers=[tool("toe-init")]), False),
    ("an environment", agent(containers=[tool(env=[{"name": "A", "value": "b"}])]), False),
    ("the node's files", agent(volumes=[{"name": "root", "hostPath": {"path": "/"}}]), False),
    ("no deadline", agent(activeDeadlineSeconds=None), False),
    ("an API token", agent(automountServiceAccountToken=None), False),
]
