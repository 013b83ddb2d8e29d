"""Synthetic pods that look like a busy cluster's: some 8.35 KB of JSON each, a third of it managedFields.

What is shared and what is not decides what a cache costs, so it follows real clusters: ten pods a ReplicaSet share
labels, image and owner; 12 % have a sidecar; names, UIDs, IPs and versions are each pod's own.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

FIRST_VERSION = 1_000_000
_PODS_A_SET = 10
_IMAGE = "registry.example.com/team-%d/service-%d@sha256:%s"


def pods(count: int) -> Iterator[bytes]:
    """Encode pods as the API server writes them in a list: without kind and apiVersion."""
    for number in range(count):
        yield msgspec.json.encode(pod(number))


def pod(number: int) -> dict[str, Any]:
    """The pod of that number: always the same."""
    group = number // _PODS_A_SET
    app, namespace = f"service-{group % 400}", f"team-{group % 40}"
    owner = f"{app}-{_hash('rs', group)[:9]}"
    name = f"{owner}-{_hash('pod', number)[:5]}"
    labels = {
        "app.kubernetes.io/name": app,
        "app.kubernetes.io/instance": f"{app}-production",
        "app.kubernetes.io/managed-by": "Helm",
        "pod-template-hash": _hash("rs", group)[:9],
        "team": namespace,
        "tier": ("web", "worker", "cache")[group % 3],
    }
    containers = [_container(app, group)]
    if number % 100 < 12:
        containers.append(_container("proxy", 7))
    made = f"2026-11-{1 + number % 20:02d}T{number % 24:02d}:15:{number % 60:02d}Z"
    return {
        "metadata": {
            "name": name,
            "generateName": f"{owner}-",
            "namespace": namespace,
            "uid": _uid(number),
            "resourceVersion": str(FIRST_VERSION + number),
            "creationTimestamp": made,
            "labels": labels,
            "annotations": {
                "checksum/config": _hash("config", group),
                "kubectl.kubernetes.io/default-container": app,
                "profiling.io/enabled": "true" if number % 10 == 0 else "false",
            },
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": owner,
                    "uid": _uid(10_000_000 + group),
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
            "managedFields": _managed(made),
        },
        "spec": _spec(namespace, number, containers),
        "status": _status(number, made, containers),
    }


def _container(name: str, group: int) -> dict[str, Any]:
    return {
        "name": name,
        "image": _IMAGE % (group % 40, group % 400, _hash("image", group)),
        "args": ["--listen=:8080", "--metrics=:9090", "--log-format=json"],
        "ports": [
            {"name": "http", "containerPort": 8080, "protocol": "TCP"},
            {"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
        ],
        "env": [{"name": f"SETTING_{key}", "value": f"value-{key}-of-{group % 50}"} for key in range(28)]
        + [{"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
        "resources": {
            "limits": {"cpu": "500m", "memory": "512Mi"},
            "requests": {"cpu": f"{100 + group % 4 * 50}m", "memory": "256Mi"},
        },
        "volumeMounts": [
            {"name": "config", "readOnly": True, "mountPath": "/etc/service"},
            {"name": "kube-api-access", "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
        ],
        "livenessProbe": _probe("/healthz"),
        "readinessProbe": _probe("/readyz"),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def _probe(path: str) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }


def _spec(namespace: str, number: int, containers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "volumes": [
            {"name": "config", "configMap": {"name": "config", "defaultMode": 420}},
            {
                "name": "kube-api-access",
                "projected": {"sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]},
            },
        ],
        "containers": containers,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": namespace,
        "serviceAccount": namespace,
        "nodeName": f"node-{number % 250}",
        "securityContext": {"fsGroup": 2000},
        "schedulerName": "default-scheduler",
        "tolerations": [
            {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            for what in ("not-ready", "unreachable")
        ],
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    }


def _status(number: int, made: str, containers: list[dict[str, Any]]) -> dict[str, Any]:
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {
        "phase": "Running",
        "conditions": [
            {"type": name, "status": "True", "lastProbeTime": None, "lastTransitionTime": made}
            for name in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
        ],
        "hostIP": f"192.168.0.{number % 250}",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": made,
        "containerStatuses": [
            {
                "name": container["name"],
                "state": {"running": {"startedAt": made}},
                "lastState": {},
                "ready": True,
                "restartCount": number % 3,
                "image": container["image"],
                "imageID": container["image"],
                "containerID": "containerd://" + _hash("container", number),
                "started": True,
            }
            for container in containers
        ],
        "qosClass": "Burstable",
    }


def _managed(made: str) -> list[dict[str, Any]]:
    fields: dict[str, Any] = {f"f:field-{number}": {"f:mountPath": {}, "f:name": {}} for number in range(58)}
    entry = {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": made, "fieldsType": "FieldsV1"}
    return [entry | {"fieldsV1": {"f:spec": fields}}]


def _uid(number: int) -> str:
    text = _hash("uid", number)
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:32]}"


def _hash(what: str, number: int) -> str:
    return hashlib.sha256(f"{what}{number}".encode()).hexdigest()
