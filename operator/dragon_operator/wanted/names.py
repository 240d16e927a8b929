"""Names, labels and annotations of everything the operator makes. Nothing else knows how they are spelt."""

from enum import StrEnum
from typing import Any

GROUP = "dragon-rag.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
DEPLOYMENT_KIND = "DragonDeployment"
DEVICE_KIND = "EdgeDevice"

FIELD_MANAGER = "dragon-operator"
MANAGED_BY = "app.kubernetes.io/managed-by"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
DEVICE = f"{GROUP}/device"
CHECKSUM = f"{GROUP}/checksum"
"""On a pod template: changes when the pods must be replaced because of what they read at start."""
ROTATION = f"{GROUP}/rotate-credentials"
"""On a DragonDeployment: a new value has its certificates reissued. On a Secret: the value it was made for."""
HOSTS = f"{GROUP}/hosts"
"""On a Secret with a server's certificate: the names it was issued for."""

REVOKED = f"{GROUP}/revoked"
"""On a Secret with a revocation list: the numbers on it."""
AUTHORITY = f"{GROUP}/authority"
"""On a Secret: the authority it was made with."""

FORMER_TOKENS = "former-tokens"
"""In Milvus' Secret: what it may still want to hear, one in a line."""

BROKER_IDENTITY = "broker-tls"
"""The Secret with the broker's own certificate, as a part of a name."""

BROKER_PORT, ENROLMENT_PORT = 8883, 8884
TRITON_PORT = 8001
TRITON_METRICS_PORT = 8002
MILVUS_PORT = 19530
MILVUS_HEALTH_PORT = 9091
CLOUD_PEER_PORT = 9464
USER_ID = 10001
"""Of every image of ours."""

CONFIG_FOLDER = "/etc/dragon"
TLS_FOLDER = "/etc/dragon/tls"
CRL_FOLDER = "/etc/dragon/crl"
DATA_FOLDER = "/var/lib/dragon"


Key = tuple[str, str]
"""Namespace and name of a deployment."""


class Component(StrEnum):
    """The parts of a deployment."""

    TRITON = "triton"
    MILVUS = "milvus"
    BROKER = "broker"
    CLOUD_PEER = "cloud-peer"
    DOCUMENTS = "documents"


def child(deployment: str, part: str) -> str:
    """Name of an object of a deployment: `helpdesk-broker`."""
    return f"{deployment}-{part}"


def join_secret(device: str) -> str:
    """Name of the Secret with a device's join token."""
    return child(device, "join")


def selector(deployment: str, component: Component) -> dict[str, str]:
    """The labels that pick out the pods of one component."""
    return {"app.kubernetes.io/name": "dragon", INSTANCE: deployment, COMPONENT: component.value}


def labels(deployment: str, component: Component | None) -> dict[str, str]:
    """The labels of an object; those of several components have none of one."""
    own = {"app.kubernetes.io/name": "dragon", INSTANCE: deployment, MANAGED_BY: FIELD_MANAGER}
    return own if component is None else {**own, COMPONENT: component.value}


def host(deployment: str, namespace: str, component: Component) -> str:
    """Name of a component's Service inside the cluster."""
    return f"{child(deployment, component.value)}.{namespace}.svc"


def owner(kind: str, name: str, uid: str) -> dict[str, Any]:
    """The reference by which an object goes when its owner, a resource of ours, goes."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def reference(obj: dict[str, Any]) -> tuple[str, str]:
    """(kind, name) of an object."""
    return obj["kind"], obj["metadata"]["name"]
