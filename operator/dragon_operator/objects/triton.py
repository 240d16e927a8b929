"""Triton with its models: one Deployment, its Service, and the volume that keeps a downloaded model."""

from dragon_operator.objects.metadata import container, metadata, pod_template, secret_volume, service
from dragon_operator.objects.scaling import autoscalers, replicas
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object, digest
from dragon_operator.wanted.names import Component
from dragon_operator.wanted.sources import VolumePath, volume_path

MODELS_FOLDER = "/opt/models"
REPOSITORY_FOLDER = "/repository"
SOURCE_FOLDER = "/source"
TOKEN_FOLDER = "/etc/dragon/token"  # noqa: S105 - a folder
SHARED_MEMORY = "1Gi"
LAYERS_ON_GPU = 10_000
"""More than any model has: all of them."""

FETCH = "fetch-model"
"""The init container that brings the model; its last words are the reason of `ModelReady`."""


def triton_objects(deployment: Deployment) -> list[Object]:
    """Everything of Triton."""
    made = [
        _deployment(deployment),
        service(deployment, Component.TRITON, {"grpc": names.TRITON_PORT, "metrics": names.TRITON_METRICS_PORT}),
        *autoscalers(deployment, Component.TRITON, deployment.spec.triton),
    ]
    if deployment.spec.triton.cache.size is not None:
        made.append(_cache(deployment))
    return made


def model_checksum(deployment: Deployment) -> str:
    """Changes when pods must load another model, or the same one otherwise."""
    spec = deployment.spec
    return digest(spec.model.uri, spec.model.sha256, _parameters(deployment))


def _parameters(deployment: Deployment) -> dict[str, int]:
    spec = deployment.spec
    return {
        "context_length": spec.model.context_length,
        "num_sequences": spec.model.num_sequences,
        "num_threads": spec.triton.num_threads or 0,
        "num_gpu_layers": LAYERS_ON_GPU if spec.triton.gpu.count else 0,
    }


def _deployment(deployment: Deployment) -> Object:
    triton = deployment.spec.triton
    template = pod_template(
        deployment,
        Component.TRITON,
        triton,
        checksum=model_checksum(deployment),
        initContainers=[_fetch(deployment), _repository(deployment)],
        containers=[_server(deployment)],
        volumes=[*_model_volumes(deployment), *_volumes(deployment)],
        terminationGracePeriodSeconds=30,
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(deployment, deployment.child("triton"), Component.TRITON),
        "spec": {
            **replicas(deployment, triton),
            # The new model is loaded before the old one goes.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "progressDeadlineSeconds": 1800,
            "selector": {"matchLabels": names.selector(deployment.name, Component.TRITON)},
            "template": template,
        },
    }


def _image(deployment: Deployment) -> str:
    return deployment.spec.triton.image or deployment.images.triton


def _fetch(deployment: Deployment) -> Object:
    model = deployment.spec.model
    source = volume_path(model.uri)
    command = ["python", "-m", "dragon_runtime.models", "--folder", MODELS_FOLDER]
    mounts: list[Object] = [{"name": "models", "mountPath": MODELS_FOLDER}]
    if source is None:
        command += ["--url", model.uri]
    else:
        command += ["--path", f"{SOURCE_FOLDER}/{source.path}"]
        mounts.append({"name": "source", "mountPath": SOURCE_FOLDER, "readOnly": True})
    if model.sha256 is not None:
        command += ["--sha256", model.sha256]
    if model.secret_ref is not None:
        command += ["--token-file", f"{TOKEN_FOLDER}/{model.secret_ref.key}"]
        mounts.append({"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True})
    return container(
        deployment, FETCH, _image(deployment), deployment.spec.triton, command=command, volumeMounts=mounts
    )


def _repository(deployment: Deployment) -> Object:
    parameters = [f"{name}={value}" for name, value in _parameters(deployment).items()]
    return container(
        deployment,
        "write-repository",
        _image(deployment),
        deployment.spec.triton,
        command=["triton-repository", REPOSITORY_FOLDER, "causal_lm", *parameters],
        volumeMounts=[{"name": "repository", "mountPath": REPOSITORY_FOLDER}],
    )


def _server(deployment: Deployment) -> Object:
    triton = deployment.spec.triton
    limits = dict(triton.resources.limits)
    requests = dict(triton.resources.requests)
    if triton.gpu.count:
        limits[triton.gpu.resource_name] = triton.gpu.count
    resources = {key: values for key, values in (("requests", requests), ("limits", limits)) if values}
    probe = {"exec": {"command": ["triton-probe"]}, "timeoutSeconds": 20}
    mounts = [
        {"name": "models", "mountPath": MODELS_FOLDER, "readOnly": True},
        {"name": "repository", "mountPath": REPOSITORY_FOLDER, "readOnly": True},
        {"name": "tls", "mountPath": names.TLS_FOLDER, "readOnly": True},
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - a volume of the pod's own
    ]
    source = volume_path(deployment.spec.model.uri)
    if source is not None:
        mounts.append({"name": "source", "mountPath": SOURCE_FOLDER, "readOnly": True})
    return container(
        deployment,
        "triton",
        _image(deployment),
        triton,
        command=[
            "tritonserver",
            f"--model-repository={REPOSITORY_FOLDER}",
            "--model-control-mode=explicit",
            "--load-model=causal_lm",
            "--load-model=embedder",
            "--http-address=127.0.0.1",
            # It follows that of HTTP else.
            "--metrics-address=0.0.0.0",
            f"--grpc-port={names.TRITON_PORT}",
            f"--metrics-port={names.TRITON_METRICS_PORT}",
            "--grpc-use-ssl=true",
            "--grpc-use-ssl-mutual=true",
            f"--grpc-server-cert={names.TLS_FOLDER}/tls.crt",
            f"--grpc-server-key={names.TLS_FOLDER}/tls.key",
            f"--grpc-root-cert={names.TLS_FOLDER}/ca.crt",
        ],
        ports=[
            {"name": "grpc", "containerPort": names.TRITON_PORT},
            {"name": "metrics", "containerPort": names.TRITON_METRICS_PORT},
        ],
        # A large model takes its time to load; after that a server that cannot produce a token is restarted.
        startupProbe={**probe, "periodSeconds": 5, "failureThreshold": 240},
        readinessProbe={**probe, "periodSeconds": 10, "failureThreshold": 2},
        livenessProbe={**probe, "periodSeconds": 30, "failureThreshold": 4},
        resources=resources,
        volumeMounts=mounts,
    )


def _model_volumes(deployment: Deployment) -> list[Object]:
    is_kept = deployment.spec.triton.cache.size is not None
    claim = {"persistentVolumeClaim": {"claimName": deployment.child("models")}}
    volumes: list[Object] = [{"name": "models", **(claim if is_kept else {"emptyDir": {}})}]
    source: VolumePath | None = volume_path(deployment.spec.model.uri)
    if source is not None:
        volumes.append({"name": "source", "persistentVolumeClaim": {"claimName": source.claim, "readOnly": True}})
    if deployment.spec.model.secret_ref is not None:
        volumes.append(secret_volume("token", deployment.spec.model.secret_ref.name))
    return volumes


def _volumes(deployment: Deployment) -> list[Object]:
    return [
        {"name": "repository", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}},
        secret_volume("tls", deployment.child("triton-tls")),
    ]


def _cache(deployment: Deployment) -> Object:
    cache = deployment.spec.triton.cache
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": cache.size}}}
    if cache.storage_class_name is not None:
        spec["storageClassName"] = cache.storage_class_name
    is_owned = deployment.spec.deletion_policy == "Delete"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(deployment, deployment.child("models"), Component.TRITON, is_owned=is_owned),
        "spec": spec,
    }
