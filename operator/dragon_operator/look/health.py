"""Derives conditions from observations: which part is ready, and if not, why and what to do. Pure."""

from collections.abc import Iterator

from dragon_operator.look.conditions import PARTS, Condition, Reason, State
from dragon_operator.look.observed import Observed
from dragon_operator.objects.cloud_peer import documents_job_name
from dragon_operator.objects.triton import FETCH, model_checksum
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object
from dragon_operator.wanted.names import Component

IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
MAX_MESSAGE = 500


def part_states(deployment: Deployment, observed: Observed, problems: dict[Condition, State]) -> list[State]:
    """One state per part; `problems` are known before anything was started and win."""
    states = {
        Condition.MODEL: _model(deployment, observed),
        Condition.TRITON: _workload(
            deployment,
            observed,
            Condition.TRITON,
            "Deployment",
            Component.TRITON,
            deployment.spec.triton.least_replicas,
        ),
        Condition.STORE: _store(deployment, observed),
        Condition.BROKER: _broker(deployment, observed),
        Condition.CLOUD_PEER: _cloud_peer(deployment, observed),
    }
    return [problems.get(part, states[part]) for part in PARTS]


def summary_states(deployment: Deployment, parts: list[State], observed: Observed) -> list[State]:
    """Ready and the other summary conditions."""
    failing = [state for state in parts if not state.is_true]
    spec = deployment.spec
    states = []
    if spec.suspend:
        message = "spec.suspend is true: no server runs; volumes and credentials are kept. Set it to false to resume."
        states.append(State(Condition.READY, False, Reason.SUSPENDED, message))
        states.append(State(Condition.SUSPENDED, True, Reason.SUSPENDED, message))
    elif failing:
        message = "; ".join(f"{state.type}: {state.message}" for state in failing)
        first = failing[0]
        states.append(State(Condition.READY, False, first.reason, message[: 4 * MAX_MESSAGE]))
    else:
        states.append(State(Condition.READY, True, Reason.ALL_READY, "devices can enrol and ask"))
    moving = [state for state in parts if state.reason in _MOVING or _is_stuck(state)]
    if moving and not spec.suspend:
        message = "; ".join(f"{state.type}: {state.message}" for state in moving)
        states.append(State(Condition.PROGRESSING, True, moving[0].reason, message[: 4 * MAX_MESSAGE]))
    else:
        states.append(State(Condition.PROGRESSING, False, Reason.STEADY, "nothing is being changed"))
    broken = [state for state in parts if _is_stuck(state) or (not state.is_true and state.reason not in _MOVING)]
    if broken and not spec.suspend:
        message = "; ".join(f"{state.type}: {state.message}" for state in broken)
        states.append(State(Condition.DEGRADED, True, broken[0].reason, message[: 4 * MAX_MESSAGE]))
    else:
        states.append(State(Condition.DEGRADED, False, Reason.STEADY, "nothing is broken"))
    if spec.documents.sources:
        states.append(_documents(deployment, observed))
    return states


_MOVING = frozenset({Reason.STARTING, Reason.UPDATING, Reason.MODEL_LOADING, Reason.VOLUME_PENDING})
_STEADY = frozenset({Reason.AVAILABLE, Reason.EXTERNAL, Reason.MODEL_LOADED})


def _is_stuck(state: State) -> bool:
    """Whether a part that serves is being replaced by one that cannot come up."""
    moves = state.reason in _MOVING and state.reason is not Reason.VOLUME_PENDING
    return bool(state.is_true) and not moves and state.reason not in _STEADY


def _model(deployment: Deployment, observed: Observed) -> State:
    """Ready while a server with this very model can produce a token."""
    condition = Condition.MODEL
    wanted = model_checksum(deployment)
    all_pods = observed.pods_of(Component.TRITON)
    pods = [pod for pod in all_pods if (pod["metadata"].get("annotations") or {}).get(names.CHECKSUM) == wanted]
    uri = deployment.spec.model.uri
    if any(_is_ready(pod) for pod in pods):
        return State(condition, True, Reason.MODEL_LOADED, f"{uri} is loaded")
    is_served = any(_is_ready(pod) for pod in all_pods)
    former = "the former model keeps serving; " if is_served else ""
    if (words := _fetch_failure(pods)) is not None:
        return State(condition, is_served, Reason.MODEL_UNAVAILABLE, f"{former}{words}")
    if deployment.spec.suspend:
        return State(condition, False, Reason.SUSPENDED, "suspended")
    if deployment.spec.triton.least_replicas == 0:
        return State(condition, False, Reason.NO_REPLICAS, "no Triton server runs")
    for reason, words in _troubles(pods):
        return State(condition, is_served, reason, f"{former}{uri} cannot be loaded: {words}")
    return State(condition, is_served, Reason.MODEL_LOADING, f"{former}{uri} is being downloaded or loaded")


def _fetch_failure(pods: list[Object]) -> str | None:
    """The last output of the container that fetches the model."""
    for pod in pods:
        for status in (pod.get("status") or {}).get("initContainerStatuses") or []:
            if status["name"] != FETCH:
                continue
            for state in (status.get("state") or {}, status.get("lastState") or {}):
                ended = state.get("terminated") or {}
                if ended.get("exitCode"):
                    return str(ended.get("message") or f"exit code {ended['exitCode']}").strip()[-MAX_MESSAGE:]
    return None


def _store(deployment: Deployment, observed: Observed) -> State:
    external = deployment.spec.milvus.external
    if external is not None:
        return State(Condition.STORE, True, Reason.EXTERNAL, f"{external.uri} is external; not monitored")
    return _workload(deployment, observed, Condition.STORE, "StatefulSet", Component.MILVUS, 1)


def _broker(deployment: Deployment, observed: Observed) -> State:
    external = deployment.spec.broker.external
    if external is not None:
        message = f"{external.host}:{external.port} is external; not monitored"
        return State(Condition.BROKER, True, Reason.EXTERNAL, message)
    return _workload(deployment, observed, Condition.BROKER, "Deployment", Component.BROKER, 1)


def _cloud_peer(deployment: Deployment, observed: Observed) -> State:
    wanted = deployment.spec.cloud_peer.least_replicas
    if wanted == 0:
        message = "spec.cloudPeer.replicas is 0: devices answer alone; set it to 1 or more"
        return State(Condition.CLOUD_PEER, False, Reason.NO_REPLICAS, message)
    return _workload(deployment, observed, Condition.CLOUD_PEER, "Deployment", Component.CLOUD_PEER, wanted)


def _workload(
    deployment: Deployment, observed: Observed, condition: Condition, kind: str, component: Component, wanted: int
) -> State:
    """A Deployment or StatefulSet: ready while one of its pods is; otherwise says why none is."""
    name = deployment.child(component.value)
    workload = observed.get(kind, name)
    if deployment.spec.suspend:
        return State(condition, False, Reason.SUSPENDED, "suspended")
    if workload is None:
        return State(condition, False, Reason.STARTING, f"{kind} {name} is being created")
    status = workload.get("status") or {}
    num_ready = status.get("readyReplicas") or 0
    is_current = status.get("observedGeneration") == workload["metadata"].get("generation")
    num_updated = status.get("updatedReplicas") or 0
    counts = f"{num_ready} of {wanted} ready"
    num_others = max((status.get("replicas") or 0) - num_updated, status.get("unavailableReplicas") or 0)
    if num_ready and is_current and num_updated >= wanted and num_ready >= wanted and num_others <= 0:
        return State(condition, True, Reason.AVAILABLE, counts)
    for reason, message in _troubles(observed.pods_of(component)):
        return State(condition, num_ready > 0, reason, f"{counts}; {message}" if num_ready else message)
    for problem in status.get("conditions") or []:
        if problem["type"] == "ReplicaFailure" and problem["status"] == "True":
            return State(condition, num_ready > 0, Reason.REJECTED, str(problem.get("message"))[:MAX_MESSAGE])
    if num_ready:
        return State(condition, True, Reason.UPDATING, f"{counts}; the others are being started or replaced")
    return State(condition, False, Reason.STARTING, counts)


def _troubles(pods: list[Object]) -> Iterator[tuple[Reason, str]]:
    """The reasons why pods are not ready."""
    for pod in pods:
        name = pod["metadata"]["name"]
        status = pod.get("status") or {}
        for condition in status.get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
                message = str(condition.get("message"))[:MAX_MESSAGE]
                is_volume = "persistentvolumeclaim" in message.lower()
                reason = Reason.VOLUME_PENDING if is_volume else Reason.UNSCHEDULABLE
                yield reason, f"pod {name}: {message}"
        for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            waiting = (container.get("state") or {}).get("waiting") or {}
            ended = (container.get("lastState") or {}).get("terminated") or {}
            if waiting.get("reason") in IMAGE_REASONS:
                yield Reason.IMAGE_UNAVAILABLE, f"pod {name}: {waiting.get('message')}"[:MAX_MESSAGE]
            elif waiting.get("reason") == "CrashLoopBackOff":
                words = str(ended.get("message") or f"exit code {ended.get('exitCode')}").strip()
                yield Reason.CRASHING, f"pod {name}, {container['name']}: {words[-MAX_MESSAGE:]}"


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _documents(deployment: Deployment, observed: Observed) -> State:
    condition = Condition.DOCUMENTS
    job = observed.get("Job", documents_job_name(deployment))
    status = (job or {}).get("status") or {}
    if status.get("succeeded"):
        return State(condition, True, Reason.DOCUMENTS_LOADED, f"{len(deployment.spec.documents.sources)} sources")
    if any(c["type"] == "Failed" and c["status"] == "True" for c in status.get("conditions") or []):
        words = [
            str(((s.get("state") or {}).get("terminated") or {}).get("message") or "").strip()
            for pod in observed.pods_of(Component.DOCUMENTS)
            for s in (pod.get("status") or {}).get("containerStatuses") or []
        ]
        reason = next((word for word in words if word), "see the logs of the Job's pods")
        message = f"{reason[-MAX_MESSAGE:]}; correct spec.documents, or delete the Job to try again"
        return State(condition, False, Reason.DOCUMENTS_FAILED, message)
    if deployment.spec.suspend:
        return State(condition, False, Reason.SUSPENDED, "suspended")
    return State(condition, False, Reason.DOCUMENTS_LOADING, "the Job has not finished yet")
