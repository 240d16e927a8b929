"""The operator against a real API server: objects appear, stay as they should be, and go."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dragon_core.fleet.join_token import JoinToken
from dragon_operator.wanted import names
from dragon_runtime.certificates import CertificateAuthority
from local_cluster.control_plane import ControlPlane
from local_cluster.waiting import wait_until
from tests.control_plane.deployments import condition, has, play_kubelet, resource, wait_for
from tests.control_plane.running_operator import RunningOperator


@pytest.fixture
def operator(control_plane: ControlPlane, installed: None, namespace: str, tmp_path: Path) -> Iterator[RunningOperator]:
    """An operator that watches the test's namespace."""
    running = RunningOperator(tmp_path, control_plane.kubeconfig, namespaces=[namespace], lease_namespace=namespace)
    with running:
        yield running
    assert "Traceback" not in running.log


def test_ready_once_every_part_is(control_plane: ControlPlane, namespace: str, operator: RunningOperator) -> None:
    objects = control_plane.objects
    control_plane.apply(resource(namespace))
    wait_for(objects, namespace, "Ready", "False")
    play_kubelet(objects, namespace, lambda: has(objects, namespace, "Ready", "True", "AllReady"), "all is ready")
    ready = condition(objects, namespace, "Ready")
    found = objects.get(names.API_VERSION, names.DEPLOYMENT_KIND, "helpdesk", namespace) or {}
    assert ready["observedGeneration"] == found["metadata"]["generation"] == found["status"]["observedGeneration"]
    assert found["status"]["endpoints"]["broker"] == f"mqtts://helpdesk-broker.{namespace}.svc:8883"
    assert {c["type"] for c in found["status"]["conditions"]} == {
        "Ready", "Progressing", "Degraded", "ModelReady", "TritonReady", "VectorStoreReady", "BrokerReady",
        "CloudPeerReady",
    }  # fmt: skip
    assert "finalizers" not in found["metadata"]
    assert "annotations" not in found["metadata"] or not [
        key for key in found["metadata"]["annotations"] if key.startswith("kopf")
    ]
    wait_until(
        lambda: any(event["reason"] == "AllReady" for event in objects.find("v1", "Event", namespace)),
        "an event, which is written after the status",
    )


def test_what_is_deleted_or_changed_is_repaired_and_foreign_fields_stay(
    control_plane: ControlPlane, namespace: str, operator: RunningOperator
) -> None:
    objects = control_plane.objects
    control_plane.apply(resource(namespace))
    wait_until(lambda: objects.get("v1", "Service", "helpdesk-triton", namespace) is not None, "a service")
    objects.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "helpdesk-triton", "labels": {"theirs": "yes"}}},
        namespace=namespace,
    )
    objects.delete("v1", "Service", "helpdesk-broker", namespace)
    wait_until(lambda: objects.get("v1", "Service", "helpdesk-broker", namespace) is not None, "it is back")
    wait_until(lambda: objects.get("apps/v1", "Deployment", "helpdesk-broker", namespace) is not None, "the broker")
    changed = {"spec": {"replicas": 3}}
    objects.patch("apps/v1", "Deployment", "helpdesk-broker", namespace, changed)

    def replicas() -> Any:
        return (objects.get("apps/v1", "Deployment", "helpdesk-broker", namespace) or {})["spec"]["replicas"]

    wait_until(lambda: replicas() == 1, "the replicas are as they should be")
    objects.delete("v1", "Secret", "helpdesk-triton-tls", namespace)
    wait_until(lambda: objects.get("v1", "Secret", "helpdesk-triton-tls", namespace) is not None, "the secret is back")
    kept = objects.get("v1", "Service", "helpdesk-triton", namespace) or {}
    assert kept["metadata"]["labels"]["theirs"] == "yes"


def test_scaled_by_hand_and_left_to_an_autoscaler(
    control_plane: ControlPlane, namespace: str, operator: RunningOperator
) -> None:
    objects = control_plane.objects
    control_plane.apply(resource(namespace))

    def peers() -> dict[str, Any]:
        return objects.get("apps/v1", "Deployment", "helpdesk-cloud-peer", namespace) or {}

    wait_until(lambda: bool(peers()), "cloud peers")
    objects.scale(names.API_VERSION, names.DEPLOYMENT_KIND, "helpdesk", namespace, replicas=3)
    wait_until(lambda: peers()["spec"]["replicas"] == 3, "three of them")
    objects.patch(
        names.API_VERSION,
        names.DEPLOYMENT_KIND,
        "helpdesk",
        namespace,
        {"spec": {"cloudPeer": {"autoscaling": {"maxReplicas": 5}}}},
    )
    scaler = ("autoscaling/v2", "HorizontalPodAutoscaler", "helpdesk-cloud-peer", namespace)
    wait_until(lambda: objects.get(*scaler) is not None, "an autoscaler")
    objects.patch("apps/v1", "Deployment", "helpdesk-cloud-peer", namespace, {"spec": {"replicas": 4}})
    generation = peers()["metadata"]["generation"]
    objects.patch(
        names.API_VERSION, names.DEPLOYMENT_KIND, "helpdesk", namespace, {"spec": {"cloudPeer": {"maxSessions": 7}}}
    )
    wait_until(lambda: peers()["metadata"]["generation"] > generation, "the change arrived")
    assert peers()["spec"]["replicas"] == 4
    objects.patch(
        names.API_VERSION, names.DEPLOYMENT_KIND, "helpdesk", namespace, {"spec": {"cloudPeer": {"autoscaling": None}}}
    )
    wait_until(lambda: objects.get(*scaler) is None, "the autoscaler is gone")


def test_triton_is_left_to_its_autoscaler_until_it_goes(
    control_plane: ControlPlane, namespace: str, operator: RunningOperator
) -> None:
    objects = control_plane.objects
    autoscaled = {"replicas": 2, "autoscaling": {"minReplicas": 3, "maxReplicas": 5}}
    control_plane.apply(resource(namespace, triton=autoscaled))

    def triton() -> dict[str, Any]:
        return objects.get("apps/v1", "Deployment", "helpdesk-triton", namespace) or {}

    scaler = ("autoscaling/v2", "HorizontalPodAutoscaler", "helpdesk-triton", namespace)
    wait_until(lambda: objects.get(*scaler) is not None and bool(triton()), "Triton and an autoscaler")
    play_kubelet(objects, namespace, lambda: has(objects, namespace, "TritonReady", "True", "Available"), "all servers")
    assert "3 ready" in condition(objects, namespace, "TritonReady")["message"]
    objects.patch("apps/v1", "Deployment", "helpdesk-triton", namespace, {"spec": {"replicas": 4}})
    generation = triton()["metadata"]["generation"]
    control_plane.apply(resource(namespace, triton={**autoscaled, "numThreads": 2}))
    wait_until(lambda: triton()["metadata"]["generation"] > generation, "the change arrived")
    assert triton()["spec"]["replicas"] == 4
    control_plane.apply(resource(namespace, triton={"replicas": 2}))
    wait_until(lambda: objects.get(*scaler) is None, "the autoscaler is gone")
    wait_until(lambda: triton()["spec"]["replicas"] == 2, "the number of the spec")


def test_suspended_and_on_again(control_plane: ControlPlane, namespace: str, operator: RunningOperator) -> None:
    objects = control_plane.objects
    control_plane.apply(resource(namespace, suspend=True))
    wait_for(objects, namespace, "Suspended", "True")
    triton = objects.get("apps/v1", "Deployment", "helpdesk-triton", namespace) or {}
    assert triton["spec"]["replicas"] == 0
    control_plane.apply(resource(namespace, suspend=False))
    wait_until(
        lambda: (objects.get("apps/v1", "Deployment", "helpdesk-triton", namespace) or {})["spec"]["replicas"] == 1,
        "it runs",
    )
    wait_until(lambda: not condition(objects, namespace, "Suspended"), "the condition is gone")


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_deleting_leaves_what_the_policy_keeps(
    control_plane: ControlPlane, namespace: str, operator: RunningOperator, policy: str
) -> None:
    objects = control_plane.objects
    cached = {"cache": {"size": "1Gi"}}
    control_plane.apply(resource(namespace, triton=cached, deletionPolicy=policy))
    claim = ("v1", "PersistentVolumeClaim", "helpdesk-models", namespace)
    wait_until(lambda: objects.get(*claim) is not None, "a volume")
    wait_until(lambda: bool(condition(objects, namespace, "Ready")), "a status")
    operator.kill()
    objects.delete(names.API_VERSION, names.DEPLOYMENT_KIND, "helpdesk", namespace)

    def left() -> set[tuple[str, str]]:
        kinds = [
            ("v1", "Secret"), ("v1", "ConfigMap"), ("v1", "Service"), ("v1", "ServiceAccount"),
            ("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"),
            ("networking.k8s.io/v1", "NetworkPolicy"), ("policy/v1", "PodDisruptionBudget"),
        ]  # fmt: skip
        selector = f"{names.MANAGED_BY}={names.FIELD_MANAGER}"
        return {
            (kind, obj["metadata"]["name"])
            for version, kind in kinds
            for obj in objects.find(version, kind, namespace, label_selector=selector)
        }

    wait_until(lambda: not left(), "everything is collected, without the operator")
    if policy == "Retain":
        assert objects.get(*claim) is not None
    else:
        # Nobody mounts it, so protection lets it go.
        wait_until(lambda: objects.get(*claim) is None, "the volume is gone too")


def test_another_model_is_loaded_before_the_old_one_goes(
    control_plane: ControlPlane, namespace: str, operator: RunningOperator
) -> None:
    objects = control_plane.objects
    control_plane.apply(resource(namespace))
    play_kubelet(objects, namespace, lambda: has(objects, namespace, "Ready", "True"), "all is ready")
    control_plane.apply(resource(namespace, model={"uri": "https://models.example/n.gguf", "sha256": "1" * 64}))
    loading = wait_for(objects, namespace, "ModelReady", "True", "ModelLoading")
    assert "n.gguf" in loading["message"]
    assert has(objects, namespace, "Ready", "True")
    strategy = (objects.get("apps/v1", "Deployment", "helpdesk-triton", namespace) or {})["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    play_kubelet(
        objects, namespace, lambda: has(objects, namespace, "ModelReady", "True", "ModelLoaded"), "the new one"
    )
    assert has(objects, namespace, "Ready", "True")


def test_a_missing_secret_is_named_and_noticed_when_it_comes(
    control_plane: ControlPlane, namespace: str, operator: RunningOperator
) -> None:
    objects = control_plane.objects
    broker = {"external": {"host": "mqtt.example", "secretRef": {"name": "theirs"}}}
    control_plane.apply(resource(namespace, broker=broker))
    missing = wait_for(objects, namespace, "BrokerReady", "False", "SecretMissing")
    assert "theirs" in missing["message"]


def test_a_given_certificate_of_the_broker_is_noticed_used_and_renewed(
    control_plane: ControlPlane, namespace: str, operator: RunningOperator
) -> None:
    objects = control_plane.objects
    theirs = CertificateAuthority.create("theirs")

    def give(*hosts: str) -> bytes:
        """Write the Secret as cert-manager does."""
        issued = theirs.issue_server("broker", hosts=hosts)
        values = {"tls.crt": issued.certificate, "tls.key": issued.key or b"", "ca.crt": theirs.certificate}
        objects.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "mqtt-tls", "namespace": namespace},
                "type": "kubernetes.io/tls",
                "data": {key: base64.b64encode(value).decode() for key, value in values.items()},
            }
        )
        return issued.certificate

    def value(secret: str, key: str) -> bytes:
        found = objects.get("v1", "Secret", secret, namespace) or {}
        return base64.b64decode((found.get("data") or {}).get(key, ""))

    def checksum() -> str:
        found = objects.get("apps/v1", "Deployment", "helpdesk-broker", namespace) or {}
        annotations = found["spec"]["template"]["metadata"]["annotations"]
        return str(annotations[f"{names.CHECKSUM}-certificates"])

    managed = {"hosts": ["mqtt.example"], "tls": {"secretRef": {"name": "mqtt-tls"}}}
    control_plane.apply(resource(namespace, broker={"managed": managed}))
    missing = wait_for(objects, namespace, "BrokerReady", "False", "SecretMissing")
    assert "mqtt-tls" in missing["message"]
    inner = f"helpdesk-broker.{namespace}.svc"
    give(inner)
    invalid = wait_for(objects, namespace, "BrokerReady", "False", "SecretInvalid")
    assert "mqtt.example: Hostname mismatch" in invalid["message"]

    first = give(inner, "mqtt.example")
    wait_until(lambda: value("helpdesk-broker-tls", "tls.crt") == first, "the broker has it")
    play_kubelet(objects, namespace, lambda: has(objects, namespace, "Ready", "True"), "all is ready")
    assert value("helpdesk-broker-tls", "ca.crt") == value("helpdesk-ca", "tls.crt") != theirs.certificate
    assert value("helpdesk-cloud-peer-tls", "ca.crt") == value("helpdesk-operator-tls", "ca.crt") == theirs.certificate
    objects.apply(
        {
            "apiVersion": names.API_VERSION,
            "kind": names.DEVICE_KIND,
            "metadata": {"name": "kiosk", "namespace": namespace},
            "spec": {"deployment": "helpdesk"},
        }
    )
    wait_until(lambda: bool(value("kiosk-join", "token")), "a join token")
    assert JoinToken.decode(value("kiosk-join", "token").decode()).ca == theirs.certificate.decode()

    before = checksum()
    second = give(inner, "mqtt.example")
    wait_until(lambda: checksum() != before, "the broker is started anew with the renewed one")
    assert value("helpdesk-broker-tls", "tls.crt") == second
    before = checksum()
    objects.delete("v1", "Secret", "mqtt-tls", namespace)
    wait_for(objects, namespace, "BrokerReady", "False", "SecretMissing")
    assert value("helpdesk-broker-tls", "tls.crt") == second
    assert checksum() == before

    control_plane.apply(resource(namespace, broker={"managed": {"hosts": ["mqtt.example"]}}))
    own = value("helpdesk-ca", "tls.crt")
    wait_until(lambda: value("helpdesk-cloud-peer-tls", "ca.crt") == own, "the operator's own authority again")
    wait_until(
        lambda: JoinToken.decode(value("kiosk-join", "token").decode()).ca == own.decode(), "an open token follows"
    )
    assert not value("helpdesk-broker-tls", "server-ca.crt")
    play_kubelet(objects, namespace, lambda: has(objects, namespace, "Ready", "True"), "all is ready again")

    def address() -> tuple[str, int, int]:
        token = JoinToken.decode(value("kiosk-join", "token").decode())
        return token.broker_host, token.broker_port, token.enrolment_port

    secret = JoinToken.decode(value("kiosk-join", "token").decode()).secret
    assert address() == ("mqtt.example", 8883, 8884)
    balanced = {"type": "LoadBalancer", "nodePort": 31883, "enrolmentNodePort": 31884}
    for service, expected in (
        (balanced, ("other.example", 8883, 8884)),
        ({**balanced, "type": "NodePort"}, ("other.example", 31883, 31884)),
    ):
        control_plane.apply(resource(namespace, broker={"managed": {"hosts": ["other.example"], "service": service}}))
        wait_until(lambda expected=expected: address() == expected, "an open token has the broker's address")  # type: ignore[misc]
    assert JoinToken.decode(value("kiosk-join", "token").decode()).secret == secret


def test_other_certificates_do_not_change_the_job_that_loads_documents(
    control_plane: ControlPlane, namespace: str, operator: RunningOperator
) -> None:
    objects = control_plane.objects
    documents = {"sources": [{"uri": "pvc://handbook/"}]}
    control_plane.apply(resource(namespace, documents=documents))
    wait_until(lambda: bool(objects.find("batch/v1", "Job", namespace)), "a Job")
    wait_until(lambda: bool(condition(objects, namespace, "Ready")), "a status")
    made = resource(namespace, documents=documents, cloudPeer={"maxSessions": 7})
    made["metadata"]["annotations"] = {names.ROTATION: "today"}
    [changed] = control_plane.apply(made)

    def has_seen_it() -> bool:
        found = objects.get(names.API_VERSION, names.DEPLOYMENT_KIND, "helpdesk", namespace) or {}
        return bool(found["status"]["observedGeneration"] == changed["metadata"]["generation"])

    wait_until(has_seen_it, "the operator has seen the change")
    assert condition(objects, namespace, "CloudPeerReady")["reason"] != "Rejected"


def test_stops_cleanly(control_plane: ControlPlane, namespace: str, operator: RunningOperator) -> None:
    control_plane.apply(resource(namespace))
    wait_until(lambda: bool(condition(control_plane.objects, namespace, "Ready")), "a status")
    assert operator.stop() == 0
