"""Plans actions that bring the cluster to a spec: `plan` compares and returns actions; nothing is done here."""

from dataclasses import dataclass

from dragon_operator.look.observed import Observed
from dragon_operator.objects.broker import broker_objects
from dragon_operator.objects.cloud_peer import cloud_peer_objects
from dragon_operator.objects.metadata import service_account
from dragon_operator.objects.milvus import milvus_objects
from dragon_operator.objects.network import network_policies
from dragon_operator.objects.triton import triton_objects
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object, digest
from dragon_operator.wanted.names import Component

KEPT_KINDS = frozenset({"PersistentVolumeClaim", "Secret"})
"""Never deleted by a plan: data and credentials go with the deployment, or by a person's hand."""


@dataclass(frozen=True)
class Apply:
    """Have this object as it is here."""

    obj: Object


@dataclass(frozen=True)
class Delete:
    """Have no such object."""

    kind: str
    name: str


Action = Apply | Delete


def plan(deployment: Deployment, observed: Observed, secrets: dict[str, Object]) -> list[Action]:
    """Actions in order. `secrets` by name are all credentials there are; those not observed as such are applied."""
    known = {name: observed.get("Secret", name) for name in secrets}
    actions: list[Action] = [Apply(secret) for name, secret in secrets.items() if secret != known[name]]
    wanted = [stamped(obj, secrets) for obj in desired(deployment)]
    # A Job cannot be changed: one that is there stays as it was made.
    actions += [Apply(obj) for obj in wanted if obj["kind"] != "Job" or observed.get(*names.reference(obj)) is None]
    kept = {names.reference(obj) for obj in wanted}
    actions += [
        Delete(kind, name)
        for (kind, name), obj in sorted(observed.children.items())
        if (kind, name) not in kept and kind not in KEPT_KINDS and _is_owned(obj, deployment)
    ]
    return actions


def desired(deployment: Deployment) -> list[Object]:
    """Every object that the spec asks for, credentials excepted: what is read comes before who reads it."""
    return [
        service_account(deployment),
        *network_policies(deployment),
        *milvus_objects(deployment),
        *broker_objects(deployment),
        *triton_objects(deployment),
        *cloud_peer_objects(deployment),
    ]


def stamped(obj: Object, secrets: dict[str, Object]) -> Object:
    """Mark a workload's pods with the certificates they read at start: a new certificate replaces the pods."""
    template = obj.get("spec", {}).get("template")
    if template is None:
        return obj
    mounted = [volume["secret"]["secretName"] for volume in template["spec"]["volumes"] if "secret" in volume]
    certificates = [
        secrets[name]["data"].get(key) for name in mounted if name in secrets for key in ("tls.crt", "ca.crt")
    ]
    if not certificates:
        return obj
    metadata = template["metadata"]
    annotations = {**metadata["annotations"], f"{names.CHECKSUM}-certificates": digest(certificates)}
    template = {**template, "metadata": {**metadata, "annotations": annotations}}
    return {**obj, "spec": {**obj["spec"], "template": template}}


def _is_owned(obj: Object, deployment: Deployment) -> bool:
    return any(owner["uid"] == deployment.uid for owner in obj["metadata"].get("ownerReferences") or [])


def workload_component(obj: Object) -> Component | None:
    """The component an object belongs to."""
    value = obj["metadata"]["labels"].get(names.COMPONENT)
    return None if value is None else Component(value)
