"""A managed Milvus standalone server: a StatefulSet with its volume, and its Service."""

from dragon_operator.objects.metadata import container, metadata, pod_template, service
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object, digest
from dragon_operator.wanted.names import Component
from dragon_operator.wanted.spec import ManagedMilvus

MILVUS_FOLDER = "/var/lib/milvus"
SETTLE_SECONDS = 10


def milvus_objects(deployment: Deployment) -> list[Object]:
    """Everything of a managed store; nothing for an external one."""
    managed = deployment.spec.milvus.managed
    if managed is None:
        return []
    ports = {"grpc": names.MILVUS_PORT, "metrics": names.MILVUS_HEALTH_PORT}
    return [_stateful_set(deployment, managed), service(deployment, Component.MILVUS, ports)]


def _stateful_set(deployment: Deployment, managed: ManagedMilvus) -> Object:
    probe = {"httpGet": {"path": "/healthz", "port": names.MILVUS_HEALTH_PORT}, "timeoutSeconds": 5}
    image = managed.image or deployment.images.milvus
    server = container(
        deployment,
        "milvus",
        image,
        managed,
        args=["milvus", "run", "standalone"],
        env=[
            {"name": "ETCD_USE_EMBED", "value": "true"},
            {"name": "ETCD_DATA_DIR", "value": f"{MILVUS_FOLDER}/etcd"},
            {"name": "COMMON_STORAGETYPE", "value": "local"},
            {"name": "COMMON_SECURITY_AUTHORIZATIONENABLED", "value": "true"},
            # Its HTTP API asks for no password.
            {"name": "PROXY_HTTP_ENABLED", "value": "false"},
            {
                "name": "COMMON_SECURITY_DEFAULTROOTPASSWORD",
                "valueFrom": {"secretKeyRef": {"name": deployment.child("milvus"), "key": "password"}},
            },
        ],
        ports=[
            {"name": "grpc", "containerPort": names.MILVUS_PORT},
            {"name": "metrics", "containerPort": names.MILVUS_HEALTH_PORT},
        ],
        startupProbe={**probe, "periodSeconds": 5, "failureThreshold": 60},
        readinessProbe={**probe, "periodSeconds": 10},
        livenessProbe={**probe, "periodSeconds": 30, "failureThreshold": 5},
        volumeMounts=[{"name": "data", "mountPath": MILVUS_FOLDER}],
    )
    when_deleted = deployment.spec.deletion_policy
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(deployment, deployment.child("milvus"), Component.MILVUS),
        "spec": {
            "replicas": 0 if deployment.spec.suspend else 1,
            "serviceName": deployment.child("milvus"),
            "selector": {"matchLabels": names.selector(deployment.name, Component.MILVUS)},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": when_deleted, "whenScaled": "Retain"},
            "template": pod_template(
                deployment,
                Component.MILVUS,
                managed,
                checksum=digest(image),
                containers=[server],
                volumes=[],
                # It ignores SIGTERM for minutes, and recovers from being killed.
                terminationGracePeriodSeconds=SETTLE_SECONDS,
            ),
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": _claim(managed)}],
        },
    }


def _claim(managed: ManagedMilvus) -> Object:
    claim: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": managed.storage.size}},
    }
    if managed.storage.storage_class_name is not None:
        claim["storageClassName"] = managed.storage.storage_class_name
    return claim
