"""Metadata, and the parts that pods of every component share."""

from typing import Any

from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object
from dragon_operator.wanted.names import Component
from dragon_operator.wanted.spec import Pods

READY_SECONDS = 5


def metadata(
    deployment: Deployment,
    name: str,
    component: Component | None,
    *,
    annotations: dict[str, str] | None = None,
    is_owned: bool = True,
) -> Object:
    """Metadata of a child; what is not owned outlives the deployment."""
    made: Object = {
        "name": name,
        "namespace": deployment.namespace,
        "labels": names.labels(deployment.name, component),
    }
    if annotations:
        made["annotations"] = annotations
    if is_owned:
        made["ownerReferences"] = [deployment.owner]
    return made


def pod_template(
    deployment: Deployment,
    component: Component,
    pods: Pods,
    *,
    checksum: str,
    containers: list[Object],
    volumes: list[Object],
    **more: Any,
) -> Object:
    """A pod that runs as our user, reaches no API server and may write /tmp only."""
    images = deployment.images
    spec: Object = {
        "serviceAccountName": deployment.child("pods"),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": names.USER_ID,
            "runAsGroup": names.USER_ID,
            "fsGroup": names.USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
        **more,
    }
    if images.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in images.pull_secrets]
    if pods.node_selector:
        spec["nodeSelector"] = pods.node_selector
    if pods.tolerations:
        spec["tolerations"] = pods.tolerations
    return {
        "metadata": {
            "labels": names.labels(deployment.name, component),
            "annotations": {names.CHECKSUM: checksum},
        },
        "spec": spec,
    }


def container(deployment: Deployment, name: str, image: str, pods: Pods, **more: Any) -> Object:
    """A container without privileges, on a read-only root."""
    mounts = more.pop("volumeMounts", [])
    made: Object = {
        "name": name,
        "image": image,
        "imagePullPolicy": deployment.images.pull_policy,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *mounts],  # noqa: S108 - a volume of the pod's own
        **more,
    }
    resources = {
        key: values
        for key, values in (("requests", pods.resources.requests), ("limits", pods.resources.limits))
        if values
    }
    if resources and "resources" not in more:
        made["resources"] = resources
    return made


def secret_volume(name: str, secret: str, *, optional: bool = False) -> Object:
    """A volume with the keys of a Secret, for our group's eyes alone."""
    source: Object = {"secretName": secret, "defaultMode": 0o440}
    if optional:
        source["optional"] = True
    return {"name": name, "secret": source}


def service(
    deployment: Deployment, component: Component, ports: dict[str, int], *, is_headless: bool = False
) -> Object:
    """A Service inside the cluster for the pods of a component."""
    spec: Object = {
        "selector": names.selector(deployment.name, component),
        "ports": [{"name": name, "port": port, "targetPort": port, "protocol": "TCP"} for name, port in ports.items()],
    }
    if is_headless:
        spec["clusterIP"] = "None"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(deployment, deployment.child(component.value), component),
        "spec": spec,
    }


def service_account(deployment: Deployment) -> Object:
    """The identity of all pods of a deployment: it has no rights at all."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(deployment, deployment.child("pods"), None),
        "automountServiceAccountToken": False,
    }


def disruption_budget(deployment: Deployment, component: Component) -> Object:
    """Lets a drained node take one pod of a component at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(deployment, deployment.child(component.value), component),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": names.selector(deployment.name, component)}},
    }
