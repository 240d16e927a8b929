"""Conditions from what is observed."""

from typing import Any

import pytest

from dragon_operator.look.conditions import Condition, Reason, State
from dragon_operator.look.health import part_states, summary_states
from dragon_operator.look.observed import Observed
from dragon_operator.wanted.deployment import Deployment
from dragon_operator.wanted.names import Component
from tests.unit.operator import sample


def states(made: Deployment, observed: Observed) -> dict[Condition, State]:
    parts = part_states(made, observed, {})
    return {state.type: state for state in [*summary_states(made, parts, observed), *parts]}


def broken(component: Component, **status: Any) -> dict[Condition, State]:
    """All is ready but one component, whose only pod has this status."""
    made = sample.deployment()
    observed = sample.ready(sample.applied(made))
    workload = sample.workload(observed, component)
    workload["status"] = {"observedGeneration": 1, "replicas": 1}
    pods = [pod for pod in observed.pods if not pod["metadata"]["name"].startswith(workload["metadata"]["name"])]
    pods.append(sample.pod(workload, ready=False, **status))
    return states(made, Observed(children=observed.children, pods=tuple(pods)))


def test_all_is_ready() -> None:
    made = sample.deployment()
    found = states(made, sample.ready(sample.applied(made)))
    assert found[Condition.READY] == State(Condition.READY, True, Reason.ALL_READY, "devices can enrol and ask")
    assert found[Condition.PROGRESSING].is_true is False
    assert found[Condition.DEGRADED].is_true is False
    assert Condition.SUSPENDED not in found
    assert Condition.DOCUMENTS not in found


def test_nothing_is_there_yet() -> None:
    found = states(sample.deployment(), Observed())
    assert found[Condition.READY].is_true is False
    assert found[Condition.PROGRESSING].is_true is True
    assert found[Condition.DEGRADED].is_true is False


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"name": "main", "state": {"waiting": {"reason": reason, "message": message}}, **more}


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (
            {"containerStatuses": [waiting("ImagePullBackOff", "no such image")]},
            Reason.IMAGE_UNAVAILABLE,
            "no such image",
        ),
        (
            {
                "containerStatuses": [
                    waiting("CrashLoopBackOff", lastState={"terminated": {"exitCode": 1, "message": "bad setting"}})
                ]
            },
            Reason.CRASHING,
            "bad setting",
        ),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no cpu"}
                ]
            },
            Reason.UNSCHEDULABLE,
            "no cpu",
        ),
    ],
)
@pytest.mark.parametrize(
    ("component", "condition"),
    [
        (Component.MILVUS, Condition.STORE),
        (Component.BROKER, Condition.BROKER),
        (Component.CLOUD_PEER, Condition.CLOUD_PEER),
    ],
)
def test_troubles_are_named(
    component: Component, condition: Condition, status: dict[str, Any], reason: Reason, words: str
) -> None:
    found = broken(component, **status)
    assert (found[condition].is_true, found[condition].reason) == (False, reason)
    assert words in found[condition].message
    assert found[Condition.READY].reason == reason
    assert words in found[Condition.DEGRADED].message


def test_the_fetcher_says_why_there_is_no_model() -> None:
    said = {"terminated": {"exitCode": 1, "message": "models: sha256 differs"}}
    found = broken(Component.TRITON, initContainerStatuses=[{"name": "fetch-model", "state": said}])
    assert found[Condition.MODEL].reason is Reason.MODEL_UNAVAILABLE
    assert "sha256 differs" in found[Condition.MODEL].message
    assert found[Condition.DEGRADED].is_true


def test_the_old_model_serves_while_the_new_one_loads() -> None:
    before = sample.ready(sample.applied(sample.deployment()))
    other = sample.deployment({"model": {"uri": "https://models.example/n.gguf", "sha256": sample.DIGEST}})
    after = sample.applied(other, before)
    triton = sample.workload(after, Component.TRITON)
    triton["metadata"] = {**triton["metadata"], "generation": 2}
    triton["status"] = {"observedGeneration": 2, "readyReplicas": 1, "replicas": 2, "updatedReplicas": 1}
    found = states(other, after)
    assert found[Condition.TRITON].is_true is True
    assert (found[Condition.MODEL].is_true, found[Condition.MODEL].reason) == (True, Reason.MODEL_LOADING)
    assert found[Condition.PROGRESSING].is_true is True
    said = {"terminated": {"exitCode": 1, "message": "models: sha256 differs"}}
    after = sample.with_pod(
        after, sample.pod(triton, ready=False, initContainerStatuses=[{"name": "fetch-model", "state": said}])
    )
    found = states(other, after)
    assert (found[Condition.MODEL].is_true, found[Condition.MODEL].reason) == (True, Reason.MODEL_UNAVAILABLE)
    assert found[Condition.DEGRADED].is_true is True


def test_a_replacement_that_cannot_come_up_is_told_while_the_former_serves() -> None:
    made = sample.deployment()
    observed = sample.ready(sample.applied(made))
    peers = sample.workload(observed, Component.CLOUD_PEER)
    peers["status"] |= {"replicas": 2, "updatedReplicas": 1, "readyReplicas": 1, "unavailableReplicas": 1}
    found = states(made, observed)
    assert (found[Condition.CLOUD_PEER].is_true, found[Condition.CLOUD_PEER].reason) == (True, Reason.UPDATING)
    assert found[Condition.DEGRADED].is_true is False
    stuck = {"containerStatuses": [waiting("ImagePullBackOff", "no such image")]}
    observed = sample.with_pod(observed, sample.pod(peers, ready=False, **stuck))
    found = states(made, observed)
    assert found[Condition.READY].is_true is True
    assert (found[Condition.CLOUD_PEER].is_true, found[Condition.CLOUD_PEER].reason) == (True, Reason.IMAGE_UNAVAILABLE)
    assert found[Condition.PROGRESSING].is_true is True
    assert found[Condition.DEGRADED].reason is Reason.IMAGE_UNAVAILABLE
    assert "no such image" in found[Condition.DEGRADED].message


def test_a_replacement_that_is_refused_or_has_no_volume_is_told_while_the_former_serves() -> None:
    before = sample.ready(sample.applied(sample.deployment()))
    other = sample.deployment({"model": {"uri": "pvc://nosuch/n.gguf"}})
    after = sample.applied(other, before)
    triton = sample.workload(after, Component.TRITON)
    triton["metadata"] = {**triton["metadata"], "generation": 2}
    surging = {"observedGeneration": 2, "readyReplicas": 1, "replicas": 2, "updatedReplicas": 1}
    refused = [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]
    triton["status"] = {**surging, "replicas": 1, "updatedReplicas": 0, "conditions": refused}
    found = states(other, after)
    assert (found[Condition.TRITON].is_true, found[Condition.TRITON].reason) == (True, Reason.REJECTED)
    assert "exceeded quota" in found[Condition.DEGRADED].message
    triton["status"] = surging
    said = 'persistentvolumeclaim "nosuch" not found'
    problem = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    after = sample.with_pod(after, sample.pod(triton, ready=False, conditions=[problem]))
    found = states(other, after)
    assert (found[Condition.MODEL].is_true, found[Condition.MODEL].reason) == (True, Reason.VOLUME_PENDING)
    assert found[Condition.PROGRESSING].is_true is True
    assert said in found[Condition.DEGRADED].message


def test_a_model_whose_volume_is_missing_is_not_called_loading() -> None:
    said = 'persistentvolumeclaim "nosuch" not found'
    problem = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    found = broken(Component.TRITON, conditions=[problem])
    for condition in (Condition.MODEL, Condition.TRITON):
        assert found[condition].reason is Reason.VOLUME_PENDING
        assert said in found[condition].message


@pytest.mark.parametrize(
    ("field", "component", "condition"),
    [("triton", Component.TRITON, Condition.TRITON), ("cloudPeer", Component.CLOUD_PEER, Condition.CLOUD_PEER)],
)
def test_an_autoscaled_part_wants_the_fewest_it_may_have(
    field: str, component: Component, condition: Condition
) -> None:
    made = sample.deployment({field: {"replicas": 1, "autoscaling": {"minReplicas": 3, "maxReplicas": 5}}})
    observed = sample.ready(sample.applied(made))
    status = sample.workload(observed, component)["status"]
    found = states(made, observed)
    assert (found[condition].reason, found[condition].message[:6]) == (Reason.UPDATING, "1 of 3")
    status |= {"replicas": 4, "readyReplicas": 4, "updatedReplicas": 4}
    assert states(made, observed)[condition].reason is Reason.AVAILABLE
    assert states(made, observed)[Condition.READY].is_true


def test_suspended_is_no_failure() -> None:
    made = sample.deployment({"suspend": True})
    found = states(made, sample.ready(sample.applied(made)))
    assert found[Condition.SUSPENDED].is_true
    assert found[Condition.READY].reason is Reason.SUSPENDED
    assert found[Condition.DEGRADED].is_true is False


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({}, Reason.DOCUMENTS_LOADING),
        ({"succeeded": 1}, Reason.DOCUMENTS_LOADED),
        ({"conditions": [{"type": "Failed", "status": "True"}]}, Reason.DOCUMENTS_FAILED),
    ],
)
def test_documents_do_not_unset_ready(status: dict[str, Any], reason: Reason) -> None:
    made = sample.deployment({"documents": {"sources": [{"uri": "pvc://handbook/"}]}})
    observed = sample.ready(sample.applied(made))
    job = next(obj for obj in observed.children.values() if obj["kind"] == "Job")
    job["status"] = status
    found = states(made, observed)
    assert found[Condition.DOCUMENTS].reason is reason
    assert found[Condition.READY].is_true
