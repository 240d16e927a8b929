"""DragonDeployments in a real API server, and the kubelet's part played by hand: there are no nodes."""

import base64
import contextlib
import datetime as dt
from collections.abc import Callable
from typing import Any

import yaml
from kubernetes.client import ApiException
from kubernetes.dynamic.exceptions import NotFoundError

from dragon_operator.kube import Kube
from dragon_operator.look.reconcile import Reconciler
from dragon_operator.metrics import OperatorMetrics
from dragon_operator.settings import OperatorSettings
from dragon_operator.wanted import names
from local_cluster.objects import Objects
from local_cluster.waiting import wait_until
from tests.control_plane.running_operator import CRDS
from tests.fakes.fleet_view import NoFleet
from tests.servers.fleet_broker import FleetBroker

DIGEST = "0" * 64
SPEC: dict[str, Any] = {
    "model": {"uri": "https://models.example/m.gguf", "sha256": DIGEST},
    "milvus": {"managed": {}},
    "broker": {"managed": {}},
}


WRITES_PER_SECOND = 1000.0


def reconciler(kube: Kube) -> Reconciler:
    """What the operator does with deployments, without its devices."""
    return Reconciler(kube, OperatorSettings(), NoFleet(), OperatorMetrics(), clock=lambda: dt.datetime.now(dt.UTC))


def resource(namespace: str, name: str = "helpdesk", **spec: Any) -> dict[str, Any]:
    """A DragonDeployment."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.DEPLOYMENT_KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**SPEC, **spec},
    }


def deploy_beside(objects: Objects, broker: FleetBroker, namespace: str, **spec: Any) -> None:
    """Have a DragonDeployment whose broker is this one, outside."""
    values = {"tls.crt": broker.authority.certificate, "tls.key": broker.authority.private_key}
    objects.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "theirs", "namespace": namespace},
            "data": {key: base64.b64encode(value).decode() for key, value in values.items()},
        }
    )
    external = {
        "host": "localhost",
        "port": broker.port,
        "enrolmentPort": broker.enrolment_port,
        "secretRef": {"name": "theirs"},
    }
    objects.apply(resource(namespace, broker={"external": external}, **spec))


def older_definition_of(plural: str, field: str) -> dict[str, Any]:
    """The definition of a resource that takes anything in a field of `spec`."""
    definition: dict[str, Any] = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    spec[field] = {"description": spec[field]["description"], "x-kubernetes-preserve-unknown-fields": True}
    return definition


def apply_once_let_in(objects: Objects, obj: dict[str, Any]) -> None:
    """Apply what only a definition lets in that the API server may not have heard of yet."""

    def is_let_in() -> bool:
        try:
            objects.apply(obj)
        except ApiException:
            return False
        return True

    wait_until(is_let_in, "it is let in", seconds=30)


def condition(objects: Objects, namespace: str, kind: str, name: str = "helpdesk") -> dict[str, Any]:
    """A condition of a DragonDeployment; empty when there is none."""
    found = objects.get(names.API_VERSION, names.DEPLOYMENT_KIND, name, namespace) or {}
    conditions = (found.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind), {})


def has(objects: Objects, namespace: str, kind: str, status: str, reason: str | None = None) -> bool:
    """Whether a condition is so."""
    found = condition(objects, namespace, kind)
    return found.get("status") == status and reason in {None, found.get("reason")}


def wait_for(objects: Objects, namespace: str, kind: str, status: str, reason: str | None = None) -> dict[str, Any]:
    """A condition once it is so."""
    wait_until(lambda: has(objects, namespace, kind, status, reason), f"{kind} is {status} ({reason})", seconds=80)
    return condition(objects, namespace, kind)


def play_kubelet(objects: Objects, namespace: str, is_so: Callable[[], bool], what: str) -> None:
    """Have every pod that the controllers make ready, until it is so."""

    def make_ready() -> bool:
        for pod in objects.find("v1", "Pod", namespace, label_selector=f"{names.MANAGED_BY}={names.FIELD_MANAGER}"):
            conditions = (pod.get("status") or {}).get("conditions") or []
            if not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                ready = {"type": "Ready", "status": "True", "lastTransitionTime": now}
                status = {"phase": "Running", "conditions": [ready]}
                # It may be gone meanwhile: a rolling update takes old ones away.
                with contextlib.suppress(NotFoundError):
                    objects.write_status("v1", "Pod", pod["metadata"]["name"], namespace, status)
        return is_so()

    wait_until(make_ready, what, seconds=80)
