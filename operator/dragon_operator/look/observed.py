"""The objects of one deployment in the cluster, as read at one moment."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dragon_operator.credentials.secret import KnownSecrets
from dragon_operator.kube import Kube
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object
from dragon_operator.wanted.names import Component

CHILD_KINDS = (
    "ConfigMap",
    "Deployment",
    "HorizontalPodAutoscaler",
    "Job",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "Secret",
    "Service",
    "ServiceAccount",
    "StatefulSet",
)
"""Kinds that a deployment has children of."""


Reference = tuple[str, str]
"""(kind, name) of an object."""


@dataclass(frozen=True)
class Observed:
    """Children by (kind, name), and the pods."""

    children: Mapping[Reference, Object] = field(default_factory=dict)
    pods: tuple[Object, ...] = ()
    foreign_secrets: Mapping[str, Object | None] = field(default_factory=dict)
    """Secrets that the spec names and the operator does not create; None: missing."""

    @property
    def secrets(self) -> KnownSecrets:
        """The Secrets among all that."""
        own = {name: obj for (kind, name), obj in self.children.items() if kind == "Secret"}
        return KnownSecrets(own=own, foreign=self.foreign_secrets)

    def get(self, kind: str, name: str) -> Object | None:
        """A child, or None."""
        return self.children.get((kind, name))

    def pods_of(self, component: Component) -> list[Object]:
        """The pods of one component, those on their way out excepted."""
        return [
            pod
            for pod in self.pods
            if pod["metadata"]["labels"].get(names.COMPONENT) == component
            and not pod["metadata"].get("deletionTimestamp")
        ]

    def after(self, applied: Mapping[Reference, Object]) -> "Observed":
        """The same with what the API server answered when children were applied."""
        return replace(self, children={**self.children, **applied})


async def observe(kube: Kube, deployment: Deployment) -> Observed:
    """Read all there is of a deployment."""
    labels = {names.INSTANCE: deployment.name, names.MANAGED_BY: names.FIELD_MANAGER}
    asked = [kube.list(kind, deployment.namespace, labels=labels) for kind in CHILD_KINDS]
    *lists, pods = await asyncio.gather(*asked, kube.list("Pod", deployment.namespace, labels=labels))
    children = {names.reference(obj): obj for found in lists for obj in found}
    foreign = foreign_secret_names(deployment)
    secrets = await asyncio.gather(*(kube.get("Secret", name, deployment.namespace) for name in foreign))
    return Observed(children=children, pods=tuple(pods), foreign_secrets=dict(zip(foreign, secrets, strict=True)))


def foreign_secret_names(deployment: Deployment) -> list[str]:
    """The Secrets that the spec names."""
    spec = deployment.spec
    found = []
    if spec.model.secret_ref is not None:
        found.append(spec.model.secret_ref.name)
    if spec.milvus.external is not None and spec.milvus.external.secret_ref is not None:
        found.append(spec.milvus.external.secret_ref.name)
    if spec.broker.external is not None:
        found.append(spec.broker.external.secret_ref.name)
    if spec.broker.managed is not None and spec.broker.managed.tls is not None:
        found.append(spec.broker.managed.tls.secret_ref.name)
    return sorted(set(found))
