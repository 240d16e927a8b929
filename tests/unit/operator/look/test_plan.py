"""What is planned from a spec and what is there."""

from typing import Any

import pytest
import yaml

from cloud_peer.settings import CloudSettings
from dragon_operator.credentials.plan import plan_credentials
from dragon_operator.look.observed import Observed
from dragon_operator.look.plan import Apply, Delete, desired, plan
from dragon_operator.objects.cloud_peer import SETTINGS_FILE
from dragon_operator.wanted import names
from dragon_operator.wanted.names import Component
from tests.unit.operator import sample

EVERYTHING: dict[str, Any] = {
    "model": {
        "uri": "pvc://models/big.gguf",
        "contextLength": 8192,
        "secretRef": {"name": "hub"},
    },
    "triton": {
        "autoscaling": {"maxReplicas": 3},
        "gpu": {"count": 1},
        "cache": {"size": "20Gi", "storageClassName": "fast"},
        "resources": {"limits": {"memory": "8Gi"}},
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
    },
    "cloudPeer": {"autoscaling": {"maxReplicas": 4}},
    "documents": {"sources": [{"uri": "pvc://handbook/"}, {"uri": "https://d.example/a.zip", "sha256": sample.DIGEST}]},
    "broker": {"managed": {"hosts": ["mqtt.example"], "service": {"type": "LoadBalancer", "nodePort": 31883}}},
    "milvus": {"managed": {"storage": {"size": "5Gi", "storageClassName": "fast"}}},
}


def kinds(objects: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {names.reference(obj) for obj in objects}


def test_a_minimal_spec_has_every_part() -> None:
    made = kinds(desired(sample.deployment()))
    assert made >= {
        ("Deployment", "helpdesk-triton"),
        ("StatefulSet", "helpdesk-milvus"),
        ("Deployment", "helpdesk-broker"),
        ("Deployment", "helpdesk-cloud-peer"),
        ("ServiceAccount", "helpdesk-pods"),
        ("NetworkPolicy", "helpdesk-broker"),
        ("PodDisruptionBudget", "helpdesk-cloud-peer"),
    }
    assert not {kind for kind, _ in made} & {"HorizontalPodAutoscaler", "Job", "PersistentVolumeClaim"}


@pytest.mark.parametrize("spec", [{}, EVERYTHING])
def test_pods_are_locked_down(spec: dict[str, Any]) -> None:
    for obj in desired(sample.deployment(spec)):
        template = obj.get("spec", {}).get("template")
        if template is None:
            continue
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            claims = [claim["metadata"] for claim in obj["spec"].get("volumeClaimTemplates", [])]
            names_of_volumes = {volume["name"] for volume in (*pod["volumes"], *claims)}
            assert {mount["name"] for mount in container["volumeMounts"]} <= names_of_volumes


@pytest.mark.parametrize("spec", [{}, EVERYTHING])
def test_everything_is_owned_but_data(spec: dict[str, Any]) -> None:
    for obj in desired(sample.deployment(spec)):
        is_data = obj["kind"] == "PersistentVolumeClaim"
        assert bool(obj["metadata"].get("ownerReferences")) is not is_data, names.reference(obj)


def test_data_goes_when_asked() -> None:
    objects = desired(sample.deployment({**EVERYTHING, "deletionPolicy": "Delete"}))
    assert all(obj["metadata"].get("ownerReferences") for obj in objects)
    milvus = next(obj for obj in objects if obj["kind"] == "StatefulSet")
    assert milvus["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"


@pytest.mark.parametrize("spec", [{}, EVERYTHING])
def test_cloud_peers_accept_their_settings(spec: dict[str, Any]) -> None:
    settings = next(
        obj for obj in desired(sample.deployment(spec)) if names.reference(obj) == ("ConfigMap", "helpdesk-cloud-peer")
    )
    loaded = CloudSettings.model_validate(yaml.safe_load(settings["data"][SETTINGS_FILE]))
    assert loaded.triton.address == "helpdesk-triton.support.svc:8001"
    assert (loaded.broker.host, loaded.broker.port) == ("helpdesk-broker.support.svc", 8883)
    assert loaded.store.uri == "http://helpdesk-milvus.support.svc:19530"


def test_a_second_plan_changes_nothing_but_applies_again() -> None:
    made = sample.deployment(EVERYTHING)
    observed = sample.applied(made)
    secrets = plan_credentials(made, observed.secrets, sample.NOW).secrets
    again = plan(made, observed, secrets)
    assert not [action for action in again if isinstance(action, Delete)]
    assert not [action for action in again if isinstance(action, Apply) and action.obj["kind"] == "Secret"]
    for action in again:
        assert isinstance(action, Apply)
        assert action.obj == observed.get(*names.reference(action.obj))


@pytest.mark.parametrize(
    ("spec", "gone"),
    [
        ({"cloudPeer": {}}, ("HorizontalPodAutoscaler", "helpdesk-cloud-peer")),
        ({"triton": {}}, ("HorizontalPodAutoscaler", "helpdesk-triton")),
        ({"networkPolicy": {"enabled": False}}, ("NetworkPolicy", "helpdesk-triton")),
        ({"milvus": {"external": {"uri": "http://milvus:19530"}}}, ("StatefulSet", "helpdesk-milvus")),
    ],
)
def test_what_is_not_wanted_any_more_is_deleted(spec: dict[str, Any], gone: tuple[str, str]) -> None:
    observed = sample.applied(sample.deployment(EVERYTHING))
    made = sample.deployment({**EVERYTHING, **spec})
    secrets = plan_credentials(made, observed.secrets, sample.NOW).secrets
    deleted = {(action.kind, action.name) for action in plan(made, observed, secrets) if isinstance(action, Delete)}
    assert gone in deleted
    assert not {kind for kind, _ in deleted} & {"Secret", "PersistentVolumeClaim"}


def test_changed_documents_make_another_job() -> None:
    observed = sample.applied(sample.deployment(EVERYTHING))
    made = sample.deployment({**EVERYTHING, "documents": {"sources": [{"uri": "pvc://handbook/new"}]}})
    secrets = plan_credentials(made, observed.secrets, sample.NOW).secrets
    actions = plan(made, observed, secrets)
    jobs = [
        action.obj["metadata"]["name"]
        for action in actions
        if isinstance(action, Apply) and action.obj["kind"] == "Job"
    ]
    assert len(jobs) == 1
    assert [action.kind for action in actions if isinstance(action, Delete)] == ["Job"]
    assert (action := next(a for a in actions if isinstance(a, Delete))).name != jobs[0], action


def test_what_others_made_is_left_alone() -> None:
    made = sample.deployment()
    observed = sample.applied(made)
    foreign = {"kind": "ConfigMap", "metadata": {"name": "theirs", "labels": {}, "ownerReferences": [{"uid": "u2"}]}}
    observed = observed.after({("ConfigMap", "theirs"): foreign})
    secrets = plan_credentials(made, observed.secrets, sample.NOW).secrets
    assert not [action for action in plan(made, observed, secrets) if isinstance(action, Delete)]


@pytest.mark.parametrize(("field", "name"), [("cloudPeer", "helpdesk-cloud-peer"), ("triton", "helpdesk-triton")])
def test_an_autoscaled_deployment_has_no_replicas(field: str, name: str) -> None:
    objects = desired(sample.deployment({field: {"autoscaling": {"maxReplicas": 4}, "replicas": 2}}))
    replicas = {obj["metadata"]["name"]: obj["spec"].get("replicas") for obj in objects if obj["kind"] == "Deployment"}
    assert [key for key, value in replicas.items() if value is None] == [name]
    [scaler] = [obj for obj in objects if obj["kind"] == "HorizontalPodAutoscaler"]
    assert scaler["metadata"]["name"] == scaler["spec"]["scaleTargetRef"]["name"] == name
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (1, 4)
    assert scaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 70


def test_suspended_servers_do_not_run() -> None:
    objects = desired(sample.deployment({**EVERYTHING, "suspend": True}))
    replicas = [obj["spec"]["replicas"] for obj in objects if obj["kind"] in {"Deployment", "StatefulSet"}]
    assert replicas == [0, 0, 0, 0]
    assert not [obj for obj in objects if obj["kind"] in {"HorizontalPodAutoscaler", "Job"}]


def checksums(component: Component, spec: dict[str, Any], observed: Observed | None = None) -> dict[str, str]:
    found = sample.applied(sample.deployment(spec), observed)
    annotations = sample.workload(found, component)["spec"]["template"]["metadata"]["annotations"]
    return dict(annotations)


def test_another_model_makes_new_triton_pods_and_no_others() -> None:
    first = sample.applied(sample.deployment())
    other = {"model": {"uri": "https://models.example/n.gguf", "sha256": sample.DIGEST}}
    for component in (Component.TRITON, Component.BROKER, Component.MILVUS, Component.CLOUD_PEER):
        same = checksums(component, {}, first) == checksums(component, other, first)
        assert same is (component is not Component.TRITON), component


def test_a_job_that_is_there_stays_as_it_was_made() -> None:
    observed = sample.applied(sample.deployment(EVERYTHING))
    made = sample.deployment(EVERYTHING, annotations={names.ROTATION: "today"})
    secrets = plan_credentials(made, observed.secrets, sample.NOW).secrets
    kinds_applied = {action.obj["kind"] for action in plan(made, observed, secrets) if isinstance(action, Apply)}
    assert "Deployment" in kinds_applied
    assert "Job" not in kinds_applied


def test_only_the_broker_is_open_to_all() -> None:
    policies = {
        obj["metadata"]["name"]: obj["spec"] for obj in desired(sample.deployment()) if obj["kind"] == "NetworkPolicy"
    }
    open_ports = {
        name: [port["port"] for rule in spec["ingress"] if "from" not in rule for port in rule["ports"]]
        for name, spec in policies.items()
    }
    assert open_ports == {
        "helpdesk-broker": [8883, 8884],
        "helpdesk-triton": [8002],
        "helpdesk-milvus": [9091],
        "helpdesk-cloud-peer": [9464],
    }
