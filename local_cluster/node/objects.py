"""The objects that a cluster with a node starts with."""

from typing import Any

from local_cluster.layout import DNS_ADDRESS, NODE_ADDRESS
from local_cluster.node.files import DNS
from local_cluster.storage import storage_class

RBAC_GROUP = "rbac.authorization.k8s.io"
KUBELET_CLIENT = "kubelet-client"


def first_objects() -> dict[str, Any]:
    """A list of them."""
    items = [
        _bound("tests-kubelet-client", "system:kubelet-api-admin", KUBELET_CLIENT),
        _dns_role(),
        _bound("tests-dns", "tests-dns", DNS),
        _dns_service(),
        _dns_endpoint(),
        storage_class(),
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _bound(name: str, role: str, user: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": RBAC_GROUP, "kind": "User", "name": user}],
    }


def _dns_role() -> dict[str, Any]:
    verbs = ["list", "watch"]
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "tests-dns"},
        "rules": [
            {"apiGroups": [""], "resources": ["endpoints", "namespaces", "pods", "services"], "verbs": verbs},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs},
        ],
    }


def _dns_service() -> dict[str, Any]:
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": DNS_ADDRESS, "ports": ports},
    }


def _dns_endpoint() -> dict[str, Any]:
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns-node",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_ADDRESS]}],
        "ports": ports,
    }
