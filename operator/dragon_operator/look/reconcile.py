"""One reconcile of a DragonDeployment: read, plan, act, say what is. Each step can be repeated at any time."""

import datetime as dt
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dragon_core.errors import SettingsError
from dragon_operator.credentials.plan import Credentials, plan_credentials
from dragon_operator.credentials.secret import SecretMissingError
from dragon_operator.kube import Kube, RejectedError
from dragon_operator.look.conditions import Condition, Reason, State, to_status, to_time
from dragon_operator.look.health import part_states, summary_states
from dragon_operator.look.observed import Observed, Reference, observe
from dragon_operator.look.plan import Apply, plan, workload_component
from dragon_operator.look.status import is_same, make_status
from dragon_operator.metrics import OperatorMetrics
from dragon_operator.settings import OperatorSettings
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object
from dragon_operator.wanted.names import Component

logger = logging.getLogger(__name__)

CONDITION_OF = {
    Component.TRITON: Condition.TRITON,
    Component.MILVUS: Condition.STORE,
    Component.BROKER: Condition.BROKER,
    Component.CLOUD_PEER: Condition.CLOUD_PEER,
    Component.DOCUMENTS: Condition.CLOUD_PEER,
}


class FleetView(Protocol):
    """The fleet, as a reconcile of a deployment uses it."""

    async def open(self, deployment: Deployment, credentials: Credentials) -> None:
        """Have a connection to the deployment's broker."""

    async def close(self, namespace: str, name: str) -> None:
        """Have none."""

    def revoked(self, namespace: str, name: str) -> frozenset[str]:
        """Numbers of the certificates that the broker must refuse."""

    def summary(self, namespace: str, name: str) -> tuple[dict[str, Any], list[State]]:
        """Status fields about the fleet, and its condition when there is something to say."""


@dataclass(frozen=True, slots=True)
class Acted:
    """What came of a plan: what was applied, as the API server has it now, and what it would not take."""

    applied: Mapping[Reference, Object]
    problems: Mapping[Condition, State]


class Reconciler:
    """Has the cluster hold what each DragonDeployment asks for."""

    def __init__(
        self,
        kube: Kube,
        settings: OperatorSettings,
        fleet: FleetView,
        metrics: OperatorMetrics,
        *,
        clock: Callable[[], dt.datetime],
    ) -> None:
        self._kube, self._settings, self._fleet, self._metrics, self._clock = kube, settings, fleet, metrics, clock

    async def reconcile(self, namespace: str, name: str) -> None:
        """Bring one deployment nearer to its spec; call it again whenever anything changed.

        Raises:
            KubeError: the API server did not answer; what was done so far stays.
        """
        obj = await self._kube.get(names.DEPLOYMENT_KIND, name, namespace)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            # What it owns goes with it.
            await self._fleet.close(namespace, name)
            return
        try:
            deployment = Deployment.from_object(obj, self._settings.images)
        except SettingsError as error:
            await self._refuse(obj, str(error))
            return
        observed = await observe(self._kube, deployment)
        problems = spec_problems(deployment, observed)
        try:
            credentials = plan_credentials(
                deployment, observed.secrets, self._clock(), revoked=self._fleet.revoked(namespace, name)
            )
        except SettingsError as error:
            problems[Condition.BROKER] = _broker_problem(error)
            await self._write(deployment, observed, problems)
            return
        if credentials.problem is not None:
            problems[Condition.BROKER] = _broker_problem(credentials.problem)
        acted = await self._act(deployment, observed, credentials)
        problems |= acted.problems
        if deployment.spec.suspend:
            await self._fleet.close(namespace, name)
        else:
            await self._fleet.open(deployment, credentials)
        await self._write(deployment, observed.after(acted.applied), problems)

    async def _act(self, deployment: Deployment, observed: Observed, credentials: Credentials) -> Acted:
        applied: dict[Reference, Object] = {}
        problems: dict[Condition, State] = {}
        for action in plan(deployment, observed, credentials.secrets):
            if not isinstance(action, Apply):
                logger.info("deleting %s %s/%s", action.kind, deployment.namespace, action.name)
                await self._kube.delete(action.kind, action.name, deployment.namespace)
                continue
            try:
                answered = await self._kube.apply(action.obj)
            except RejectedError as error:
                component = workload_component(action.obj)
                condition = Condition.TRITON if component is None else CONDITION_OF[component]
                problems[condition] = State(condition, False, Reason.REJECTED, str(error))
                self._metrics.errors.labels(names.DEPLOYMENT_KIND, Reason.REJECTED.value).inc()
            else:
                applied[names.reference(action.obj)] = answered
        return Acted(applied, problems)

    async def _write(self, deployment: Deployment, observed: Observed, problems: dict[Condition, State]) -> None:
        parts = part_states(deployment, observed, problems)
        fleet, fleet_states = self._fleet.summary(deployment.namespace, deployment.name)
        states = [*summary_states(deployment, parts, observed), *parts, *fleet_states]
        status = make_status(deployment, observed, states, fleet, now=self._clock())
        if is_same(status, deployment.status):
            return
        await self._kube.write_status(names.DEPLOYMENT_KIND, deployment.name, deployment.namespace, status)
        self._metrics.status_writes.labels(names.DEPLOYMENT_KIND).inc()
        previous = {c["type"]: c for c in deployment.status.get("conditions") or []}
        for state in states:
            if state.reason != previous.get(state.type, {}).get("reason"):
                await self._tell(deployment, state)

    async def _refuse(self, obj: Object, message: str) -> None:
        metadata = obj["metadata"]
        before = obj.get("status") or {}
        state = State(Condition.READY, False, Reason.INVALID_SPEC, message)
        generation, previous = metadata["generation"], before.get("conditions") or []
        status = {
            "observedGeneration": generation,
            "conditions": to_status([state], previous, generation=generation, now=self._clock()),
        }
        # A status that says the same is not written: its event would bring us here again.
        if not is_same(status, before):
            await self._kube.write_status(names.DEPLOYMENT_KIND, metadata["name"], metadata["namespace"], status)

    async def _tell(self, deployment: Deployment, state: State) -> None:
        is_bad = state.type != Condition.DEGRADED and state.is_true is False and state.reason not in _QUIET
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{deployment.name}.", "namespace": deployment.namespace},
            "involvedObject": {
                "apiVersion": names.API_VERSION,
                "kind": names.DEPLOYMENT_KIND,
                "name": deployment.name,
                "namespace": deployment.namespace,
                "uid": deployment.uid,
            },
            "type": "Warning" if is_bad else "Normal",
            "reason": state.reason.value,
            "message": f"{state.type}: {state.message}"[:1000],
            "source": {"component": names.FIELD_MANAGER},
            "firstTimestamp": to_time(self._clock()),
            "lastTimestamp": to_time(self._clock()),
            "count": 1,
        }
        await self._kube.create(event)


_QUIET = frozenset({Reason.STARTING, Reason.UPDATING, Reason.MODEL_LOADING, Reason.STEADY, Reason.DOCUMENTS_LOADING})


def spec_problems(deployment: Deployment, observed: Observed) -> dict[Condition, State]:
    """Objects that the spec names and that are missing or incomplete."""
    spec = deployment.spec
    problems: dict[Condition, State] = {}
    if (reference := spec.model.secret_ref) is not None:
        _check(problems, Condition.MODEL, observed, reference.name, reference.key, "spec.model.secretRef")
    if spec.milvus.external is not None and (reference := spec.milvus.external.secret_ref) is not None:
        field = "spec.milvus.external.secretRef"
        _check(problems, Condition.STORE, observed, reference.name, reference.key, field)
    return problems


def _broker_problem(error: SettingsError) -> State:
    reason = Reason.SECRET_MISSING if isinstance(error, SecretMissingError) else Reason.SECRET_INVALID
    return State(Condition.BROKER, False, reason, str(error))


def _check(
    problems: dict[Condition, State], condition: Condition, observed: Observed, name: str, key: str, field: str
) -> None:
    secret = observed.foreign_secrets.get(name)
    if secret is None:
        message = f"Secret {name} of {field} is missing: create it with the key {key}"
        problems[condition] = State(condition, False, Reason.SECRET_MISSING, message)
    elif key not in (secret.get("data") or {}):
        message = f"Secret {name} of {field} has no key {key}: add it, or name the right key"
        problems[condition] = State(condition, False, Reason.SECRET_INVALID, message)
