"""A DragonDeployment, a device of it, and what a cluster would hold of them, as data."""

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from dragon_operator.credentials.plan import plan_credentials
from dragon_operator.devices.device import Device
from dragon_operator.look.observed import Observed
from dragon_operator.look.plan import Apply, plan
from dragon_operator.settings import ImageSettings
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment
from dragon_operator.wanted.names import Component

CRDS = Path(__file__).resolve().parents[3] / "crds"
NOW = dt.datetime.now(dt.UTC)
DIGEST = "0" * 64

MINIMAL: dict[str, Any] = {
    "model": {"uri": "https://models.example/m.gguf", "sha256": DIGEST},
    "milvus": {"managed": {}},
    "broker": {"managed": {}},
}


def crd(plural: str) -> dict[str, Any]:
    """A CRD as the file has it."""
    return dict(yaml.safe_load((CRDS / f"{plural}.yaml").read_text()))


def schema(plural: str) -> dict[str, Any]:
    """Its schema."""
    return dict(crd(plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


def resource(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """A DragonDeployment called helpdesk."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.DEPLOYMENT_KIND,
        "metadata": {"name": "helpdesk", "namespace": "support", "uid": "u1", "generation": 3, **metadata},
        "spec": {**MINIMAL, **(spec or {})},
    }


def deployment(spec: dict[str, Any] | None = None, **metadata: Any) -> Deployment:
    """The same as the operator sees it."""
    return Deployment.from_object(resource(spec, **metadata), ImageSettings())


def device(spec: dict[str, Any] | None = None, *, uid: str = "d1") -> Device:
    """An EdgeDevice called kiosk."""
    metadata = {"name": "kiosk", "namespace": "support", "uid": uid, "generation": 1}
    return Device.from_object({"metadata": metadata, "spec": {"deployment": "helpdesk", **(spec or {})}})


def applied(made: Deployment, before: Observed | None = None) -> Observed:
    """What the cluster holds after everything was applied to what it held before."""
    observed = before or Observed()
    secrets = plan_credentials(made, observed.secrets, NOW).secrets
    children = dict(observed.children)
    for action in plan(made, observed, secrets):
        if isinstance(action, Apply):
            children[names.reference(action.obj)] = action.obj
        else:
            del children[action.kind, action.name]
    return Observed(children=children, pods=observed.pods, foreign_secrets=observed.foreign_secrets)


def ready(observed: Observed) -> Observed:
    """The same with every workload's pods ready."""
    children, pods = {}, []
    for key, obj in observed.children.items():
        made = obj
        if obj["kind"] in {"Deployment", "StatefulSet"}:
            replicas = obj["spec"].get("replicas", 1)
            made = {
                **obj,
                "metadata": {**obj["metadata"], "generation": 1},
                "status": {
                    "observedGeneration": 1,
                    "replicas": replicas,
                    "readyReplicas": replicas,
                    "updatedReplicas": replicas,
                },
            }
            pods += [pod(made, ready=True) for _ in range(replicas)]
        children[key] = made
    return Observed(children=children, pods=tuple(pods), foreign_secrets=observed.foreign_secrets)


def with_pod(observed: Observed, made: dict[str, Any]) -> Observed:
    """The same with one more pod."""
    return replace(observed, pods=(*observed.pods, made))


def without(observed: Observed, kind: str, name: str) -> Observed:
    """The same without a child."""
    return replace(observed, children={key: obj for key, obj in observed.children.items() if key != (kind, name)})


def pod(workload: dict[str, Any], *, ready: bool, **status: Any) -> dict[str, Any]:
    """A pod of a workload."""
    template = workload["spec"]["template"]["metadata"]
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "kind": "Pod",
        "metadata": {"name": f"{workload['metadata']['name']}-x", **template},
        "status": {"conditions": conditions, **status},
    }


def workload(observed: Observed, component: Component) -> dict[str, Any]:
    """The Deployment or StatefulSet of a component."""
    kind = "StatefulSet" if component is Component.MILVUS else "Deployment"
    found = observed.get(kind, f"helpdesk-{component}")
    assert found is not None
    return found
