"""A DragonDeployment with everything that the builders of its objects need."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dragon_operator.settings import ImageSettings
from dragon_operator.wanted import names
from dragon_operator.wanted.names import Component
from dragon_operator.wanted.spec import DeploymentSpec, parse_deployment

Object = dict[str, Any]
"""A Kubernetes object."""


@dataclass(frozen=True)
class Deployment:
    """One DragonDeployment as it was read."""

    name: str
    namespace: str
    uid: str
    generation: int
    annotations: dict[str, str]
    status: dict[str, Any]
    spec: DeploymentSpec
    images: ImageSettings

    @classmethod
    def from_object(cls, obj: Object, images: ImageSettings) -> "Deployment":
        """Raises:
        SettingsError: the spec is invalid.
        """
        metadata = obj["metadata"]
        return cls(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            generation=metadata["generation"],
            annotations=metadata.get("annotations") or {},
            status=obj.get("status") or {},
            spec=parse_deployment(obj["spec"]),
            images=images,
        )

    def child(self, part: str) -> str:
        """Name of an object of this deployment."""
        return names.child(self.name, part)

    def host(self, component: Component) -> str:
        """Name of a component's Service inside the cluster."""
        return names.host(self.name, self.namespace, component)

    @cached_property
    def owner(self) -> Object:
        """The reference by which what is made goes when the deployment goes."""
        return names.owner(names.DEPLOYMENT_KIND, self.name, self.uid)

    @property
    def broker_host(self) -> str:
        """Host by which devices reach the broker."""
        if self.spec.broker.external is not None:
            return self.spec.broker.external.host
        hosts = self.spec.broker.managed.hosts if self.spec.broker.managed is not None else []
        return hosts[0] if hosts else self.host(Component.BROKER)

    @property
    def inner_broker(self) -> tuple[str, int]:
        """Host and port by which the cluster reaches the broker."""
        external = self.spec.broker.external
        return (self.host(Component.BROKER), names.BROKER_PORT) if external is None else (external.host, external.port)

    @property
    def outer_ports(self) -> tuple[int, int]:
        """The ports devices use: with a certificate, and to enrol."""
        if self.spec.broker.external is not None:
            return self.spec.broker.external.port, self.spec.broker.external.enrolment_port
        service = self.spec.broker.managed.service if self.spec.broker.managed is not None else None
        if service is None or service.type != "NodePort":
            return names.BROKER_PORT, names.ENROLMENT_PORT
        return service.node_port or names.BROKER_PORT, service.enrolment_node_port or names.ENROLMENT_PORT

    @property
    def milvus_uri(self) -> str:
        """Address of the store."""
        external = self.spec.milvus.external
        return f"http://{self.host(Component.MILVUS)}:{names.MILVUS_PORT}" if external is None else external.uri

    @property
    def milvus_secret(self) -> tuple[str, str] | None:
        """Secret and key with the store's credentials."""
        if self.spec.milvus.external is None:
            return self.child("milvus"), "token"
        reference = self.spec.milvus.external.secret_ref
        return None if reference is None else (reference.name, reference.key)


def digest(*parts: object) -> str:
    """A short digest of plain values, for names and checksums that change when they do."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
