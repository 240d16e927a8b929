"""The API server refuses what cannot work, says what to change, and fills in the rest."""

from typing import Any

import pytest
from kubernetes.client import ApiException

from dragon_operator.wanted import names
from local_cluster.control_plane import ControlPlane
from tests.control_plane.deployments import resource

MILVUS = {"uri": "http://milvus:19530"}
BROKER = {"host": "mqtt.example", "secretRef": {"name": "ca"}}
URL = "https://models.example/m.gguf"
BUCKET, KEY = "s3://our-models/q4/m.gguf", {"secretRef": {"name": "bucket-key"}}

CASES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("no digest", {"model": {"uri": "pvc://models/m.gguf"}}, {"model": {"uri": URL}}, "sha256 is required"),
    (
        "address of a model",
        {"model": {"uri": "hf://org/repo/m.gguf", "sha256": "a" * 64}},
        {"model": {"uri": "ftp://x/m.gguf", "sha256": "a" * 64}},
        "uri must be pvc://",
    ),
    (
        "repository of a model",
        {"model": {"uri": "oci://ghcr.example:5000/org/models", "sha256": "a" * 64}},
        {"model": {"uri": "oci://ghcr.example/models:v1", "sha256": "a" * 64}},
        "without a tag",
    ),
    (
        "file of a bucket",
        {"model": {"uri": f"{BUCKET}?endpoint=https://s3.example:9000&region=eu-north-1", "sha256": "a" * 64, **KEY}},
        {"model": {"uri": f"{BUCKET}?profile=mine", "sha256": "a" * 64, **KEY}},
        "s3://BUCKET/KEY",
    ),
    (
        "a bucket's key",
        {"model": {"uri": BUCKET, "sha256": "a" * 64, **KEY}},
        {"model": {"uri": BUCKET, "sha256": "a" * 64}},
        "secretRef is required for s3://",
    ),
    ("climbing", {}, {"model": {"uri": "pvc://models/../m.gguf"}}, "must not contain .."),
    ("digest", {}, {"model": {"uri": URL, "sha256": "xyz"}}, "spec.model.sha256"),
    ("two stores", {"milvus": {"external": MILVUS}}, {"milvus": {"managed": {}, "external": MILVUS}}, "exactly one of"),
    ("no store", {}, {"milvus": {}}, "exactly one of managed and external"),
    (
        "two brokers",
        {"broker": {"external": BROKER}},
        {"broker": {"managed": {}, "external": BROKER}},
        "exactly one of",
    ),
    ("no broker", {}, {"broker": {}}, "exactly one of managed and external"),
    (
        "a port without a service",
        {"broker": {"managed": {"service": {"type": "LoadBalancer", "nodePort": 31883}}}},
        {"broker": {"managed": {"service": {"nodePort": 31883}}}},
        "need type NodePort or LoadBalancer",
    ),
    (
        "a service on ports that nobody knows",
        {"broker": {"managed": {"service": {"type": "NodePort", "nodePort": 31883, "enrolmentNodePort": 31884}}}},
        {"broker": {"managed": {"service": {"type": "NodePort", "nodePort": 31883}}}},
        "needs nodePort and enrolmentNodePort",
    ),
    (
        "a class without a size",
        {"triton": {"cache": {"size": "1Gi", "storageClassName": "fast"}}},
        {"triton": {"cache": {"storageClassName": "fast"}}},
        "has no effect without cache.size",
    ),
    (
        "the operator's own Secret",
        {"broker": {"managed": {"tls": {"secretRef": {"name": "bad-broker-tls"}}}}},
        {"broker": {"managed": {"tls": {"secretRef": {"name": "bad-broker-tls"}}}}},
        "the operator keeps its own copy under that name",
    ),
    ("no Secret", {"broker": {"managed": {}}}, {"broker": {"managed": {"tls": {}}}}, "tls.secretRef"),
    (
        "upside down servers",
        {"triton": {"autoscaling": {"minReplicas": 2, "maxReplicas": 2}}},
        {"triton": {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}},
        "minReplicas must not be greater",
    ),
    (
        "upside down",
        {"cloudPeer": {"autoscaling": {"minReplicas": 2, "maxReplicas": 2}}},
        {"cloudPeer": {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}},
        "minReplicas must not be greater",
    ),
    (
        "beta",
        {"aggregation": {"weighting": {"rule": "Contrast", "beta": 0.5}}},
        {"aggregation": {"weighting": {"rule": "Equal", "beta": 0.5}}},
        "beta applies to the rules",
    ),
    ("range", {"aggregation": {"window": 1}}, {"aggregation": {"window": 0}}, "spec.aggregation.window"),
    ("kind", {"aggregation": {"placement": "Edge"}}, {"aggregation": {"placement": "edge"}}, "Unsupported value"),
    (
        "documents",
        {"documents": {"sources": [{"uri": "pvc://handbook/"}]}},
        {"documents": {"sources": [{"uri": "file:///etc"}]}},
        "uri must be pvc://CLAIM/PATH",
    ),
]


@pytest.fixture(autouse=True)
def _installed(installed: None) -> None:
    """The CRDs are there."""


@pytest.mark.parametrize(
    ("accepted", "refused", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_rules(
    control_plane: ControlPlane, namespace: str, accepted: dict[str, Any], refused: dict[str, Any], words: str
) -> None:
    control_plane.apply(resource(namespace, "good", **accepted))
    with pytest.raises(ApiException) as error:
        control_plane.apply(resource(namespace, "bad", **refused))
    assert words in str(error.value.body)


@pytest.mark.parametrize(
    ("name", "words"),
    [("a" * 41, "more than 40 characters"), ("0a", "begin with a letter"), ("a.b", "Services are named after it")],
)
def test_names(control_plane: ControlPlane, namespace: str, name: str, words: str) -> None:
    control_plane.apply(resource(namespace, "a" * 40))
    with pytest.raises(ApiException) as error:
        control_plane.apply(resource(namespace, name))
    assert words in str(error.value.body)


def test_storage_stays_as_it_was_made(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.apply(resource(namespace))
    control_plane.apply(resource(namespace, milvus={"managed": {"resources": {"limits": {"memory": "1Gi"}}}}))
    with pytest.raises(ApiException) as error:
        control_plane.apply(resource(namespace, milvus={"managed": {"storage": {"size": "1Gi"}}}))
    assert "storage cannot be changed" in str(error.value.body)


def test_defaults_are_filled_in(control_plane: ControlPlane, namespace: str) -> None:
    [made] = control_plane.apply(resource(namespace))
    spec = made["spec"]
    assert spec["aggregation"]["coupling"] == "SharedNoise"
    assert spec["aggregation"]["weighting"]["rule"] == "Evidence"
    assert spec["milvus"]["managed"]["storage"]["size"] == "20Gi"
    assert spec["deletionPolicy"] == "Retain"
    assert spec["devices"]["heartbeatSeconds"] == 15
    assert spec["cloudPeer"]["replicas"] == 1
    [made] = control_plane.apply(resource(namespace, triton={"autoscaling": {"maxReplicas": 3}}))
    scaled = {"minReplicas": 1, "maxReplicas": 3, "targetCpuPercent": 70}
    assert made["spec"]["triton"]["autoscaling"] == scaled


def device(namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.DEVICE_KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"deployment": "helpdesk", **spec},
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [("operator", "must not be operator"), ("join-me", "nor begin with join-"), ("d" * 59, "more than 58 characters")],
)
def test_names_of_devices(control_plane: ControlPlane, namespace: str, name: str, words: str) -> None:
    control_plane.apply(device(namespace, "d" * 58))
    with pytest.raises(ApiException) as error:
        control_plane.apply(device(namespace, name))
    assert words in str(error.value.body)


def test_a_device_stays_with_its_deployment(control_plane: ControlPlane, namespace: str) -> None:
    [made] = control_plane.apply(device(namespace, "kiosk", configuration={"window": 4}))
    assert (made["spec"]["joinTokenMinutes"], made["spec"]["revoked"]) == (1440, False)
    with pytest.raises(ApiException) as error:
        control_plane.apply(device(namespace, "kiosk", deployment="other"))
    assert "deployment cannot be changed" in str(error.value.body)
