"""The cloud peers: a Deployment, its settings, an optional autoscaler, and the Job that loads public documents."""

from typing import Any

import msgspec
import yaml

from dragon_operator.objects.metadata import container, disruption_budget, metadata, pod_template, secret_volume
from dragon_operator.objects.scaling import autoscalers, replicas
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object, digest
from dragon_operator.wanted.names import Component
from dragon_operator.wanted.sources import volume_path
from dragon_operator.wanted.spec import Pods

SETTINGS_FILE = "settings.yaml"
TRITON_TLS_FOLDER = f"{names.CONFIG_FOLDER}/triton-tls"
DOCUMENTS_SECONDS = 3600
DOCUMENTS_RETRIES = 3
GRACE_SECONDS = 10


def cloud_peer_objects(deployment: Deployment) -> list[Object]:
    """Everything of the cloud peers."""
    made = [
        _settings_map(deployment),
        _deployment(deployment),
        disruption_budget(deployment, Component.CLOUD_PEER),
        *autoscalers(deployment, Component.CLOUD_PEER, deployment.spec.cloud_peer),
    ]
    if deployment.spec.documents.sources and not deployment.spec.suspend:
        made.append(_documents_job(deployment))
    return made


def cloud_settings(deployment: Deployment) -> dict[str, Any]:
    """The settings file of the cloud peers; what is secret comes by the environment."""
    spec = deployment.spec
    host, port = deployment.inner_broker
    return {
        "namespace": deployment.namespace,
        "deployment": deployment.name,
        "data_folder": names.DATA_FOLDER,
        "max_sessions": spec.cloud_peer.max_sessions,
        "drain_seconds": spec.cloud_peer.drain_seconds,
        "triton": {"address": f"{deployment.host(Component.TRITON)}:{names.TRITON_PORT}", **_tls(TRITON_TLS_FOLDER)},
        "store": {
            "uri": deployment.milvus_uri,
            "tls": spec.milvus.external is not None and spec.milvus.external.tls,
        },
        "broker": {"host": host, "port": port, **_tls(names.TLS_FOLDER)},
        "metrics": {"host": "0.0.0.0", "port": names.CLOUD_PEER_PORT},  # noqa: S104 - scraped and probed from outside
        "log": {"format": "json"},
        **spec.aggregation.model_dump(mode="json", exclude_none=True),
    }


def _tls(folder: str) -> dict[str, str]:
    return {
        "ca_file": f"{folder}/ca.crt",
        "certificate_file": f"{folder}/tls.crt",
        "key_file": f"{folder}/tls.key",
    }


def _settings_map(deployment: Deployment) -> Object:
    text = yaml.safe_dump(cloud_settings(deployment), sort_keys=True)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(deployment, deployment.child("cloud-peer"), Component.CLOUD_PEER),
        "data": {SETTINGS_FILE: text},
    }


def _image(deployment: Deployment) -> str:
    return deployment.spec.cloud_peer.image or deployment.images.cloud_peer


def _environment(deployment: Deployment) -> list[Object]:
    environment: list[Object] = [
        {"name": "DRAGON_CONFIG", "value": f"{names.CONFIG_FOLDER}/settings/{SETTINGS_FILE}"},
    ]
    if (secret := deployment.milvus_secret) is not None:
        name, key = secret
        reference = {"secretKeyRef": {"name": name, "key": key}}
        environment.append({"name": "DRAGON_STORE__TOKEN", "valueFrom": reference})
    if deployment.spec.milvus.managed is not None:
        former = {"name": deployment.child("milvus"), "key": names.FORMER_TOKENS, "optional": True}
        environment.append({"name": "DRAGON_STORE__FORMER_TOKENS", "valueFrom": {"secretKeyRef": former}})
    return environment


def _mounts() -> list[Object]:
    return [
        {"name": "settings", "mountPath": f"{names.CONFIG_FOLDER}/settings", "readOnly": True},
        {"name": "tls", "mountPath": names.TLS_FOLDER, "readOnly": True},
        {"name": "triton-tls", "mountPath": TRITON_TLS_FOLDER, "readOnly": True},
        {"name": "data", "mountPath": names.DATA_FOLDER},
    ]


def _volumes(deployment: Deployment) -> list[Object]:
    return [
        {"name": "settings", "configMap": {"name": deployment.child("cloud-peer")}},
        secret_volume("tls", deployment.child("cloud-peer-tls")),
        secret_volume("triton-tls", deployment.child("triton-client-tls")),
        {"name": "data", "emptyDir": {}},
    ]


def _deployment(deployment: Deployment) -> Object:
    peer = deployment.spec.cloud_peer
    health = {"port": names.CLOUD_PEER_PORT}
    server = container(
        deployment,
        "cloud-peer",
        _image(deployment),
        peer,
        args=["run"],
        env=_environment(deployment),
        ports=[{"name": "metrics", "containerPort": names.CLOUD_PEER_PORT}],
        readinessProbe={"httpGet": {"path": "/readyz", **health}, "periodSeconds": 5, "timeoutSeconds": 5},
        livenessProbe={
            "httpGet": {"path": "/healthz", **health},
            "periodSeconds": 20,
            "timeoutSeconds": 5,
            "failureThreshold": 5,
        },
        startupProbe={
            "httpGet": {"path": "/healthz", **health},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 120,
        },
        volumeMounts=_mounts(),
    )
    made: Object = {
        **replicas(deployment, peer),
        "selector": {"matchLabels": names.selector(deployment.name, Component.CLOUD_PEER)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": pod_template(
            deployment,
            Component.CLOUD_PEER,
            peer,
            checksum=digest(cloud_settings(deployment), deployment.annotations.get(names.ROTATION)),
            containers=[server],
            volumes=_volumes(deployment),
            terminationGracePeriodSeconds=peer.drain_seconds + GRACE_SECONDS,
        ),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(deployment, deployment.child("cloud-peer"), Component.CLOUD_PEER),
        "spec": made,
    }


def documents_job_name(deployment: Deployment) -> str:
    """Changes with what is to be loaded: a Job cannot be changed."""
    sources = [msgspec.to_builtins(source) for source in deployment.spec.documents.sources]
    return deployment.child(f"documents-{digest(sources, deployment.milvus_uri)[:8]}")


def _documents_job(deployment: Deployment) -> Object:
    sources, mounts, volumes = [], _mounts(), _volumes(deployment)
    claims: dict[str, str] = {}
    for source in deployment.spec.documents.sources:
        if (path := volume_path(source.uri)) is None:
            sources.append(source.uri if source.sha256 is None else f"{source.uri}#sha256={source.sha256}")
            continue
        if path.claim not in claims:
            claims[path.claim] = volume = f"source-{len(claims)}"
            mounts.append({"name": volume, "mountPath": f"/{volume}", "readOnly": True})
            reference = {"claimName": path.claim, "readOnly": True}
            volumes.append({"name": volume, "persistentVolumeClaim": reference})
        sources.append(f"/{claims[path.claim]}/{path.path}")
    pods = Pods(
        node_selector=deployment.spec.cloud_peer.node_selector, tolerations=deployment.spec.cloud_peer.tolerations
    )
    loader = container(
        deployment,
        "documents",
        _image(deployment),
        pods,
        args=["documents", "add", *sources],
        env=_environment(deployment),
        volumeMounts=mounts,
    )
    name = documents_job_name(deployment)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(deployment, name, Component.DOCUMENTS),
        "spec": {
            "backoffLimit": DOCUMENTS_RETRIES,
            "activeDeadlineSeconds": DOCUMENTS_SECONDS,
            "template": pod_template(
                deployment,
                Component.DOCUMENTS,
                pods,
                checksum=digest(sources),
                containers=[loader],
                volumes=volumes,
                restartPolicy="Never",
            ),
        },
    }
