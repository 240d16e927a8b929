"""The specs of both resources as Python sees them. The API server has checked and defaulted them (crds/)."""

from typing import Any, Literal, TypeVar

import msgspec

from dragon_core.errors import SettingsError
from dragon_runtime.settings import ProtocolSettings
from dragon_runtime.settings.spellings import protocol_settings

Quantities = dict[str, str | int]
Kept = Literal["Retain", "Delete"]
Parsed = TypeVar("Parsed")


class Part(msgspec.Struct, frozen=True, rename="camel"):
    """Root of all groups of a spec: fields are camelCase outside."""


class SecretKey(Part, frozen=True, rename="camel"):
    """One key of a Secret."""

    name: str
    key: str = "token"


class SecretName(Part, frozen=True, rename="camel"):
    """A Secret."""

    name: str


class Model(Part, frozen=True, rename="camel"):
    """The language model of the cloud's end."""

    uri: str
    sha256: str | None = None
    context_length: int = 2048
    num_sequences: int = 32
    secret_ref: SecretKey | None = None


class Resources(Part, frozen=True, rename="camel"):
    """Requests and limits of a container."""

    requests: Quantities = {}
    limits: Quantities = {}


class Gpu(Part, frozen=True, rename="camel"):
    """GPUs of a server."""

    count: int = 0
    resource_name: str = "nvidia.com/gpu"


class Cache(Part, frozen=True, rename="camel"):
    """Volume for downloaded models."""

    size: str | None = None
    storage_class_name: str | None = None


class Pods(Part, frozen=True, rename="camel"):
    """Placement and resources of pods; `image` unset: the operator's default."""

    image: str | None = None
    resources: Resources = Resources()
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []


class Autoscaling(Part, frozen=True, rename="camel"):
    """Scales pods by their use of the processor."""

    max_replicas: int
    min_replicas: int = 1
    target_cpu_percent: int = 70


class ScaledPods(Pods, frozen=True, rename="camel"):
    """Pods of which there may be several: a given number, or one that an autoscaler writes."""

    replicas: int = 1
    autoscaling: Autoscaling | None = None

    @property
    def least_replicas(self) -> int:
        """Minimum number of replicas."""
        return self.replicas if self.autoscaling is None else self.autoscaling.min_replicas


class Triton(ScaledPods, frozen=True, rename="camel"):
    """The Triton server."""

    num_threads: int | None = None
    gpu: Gpu = Gpu()
    cache: Cache = Cache()


class Storage(Part, frozen=True, rename="camel"):
    """A volume."""

    size: str = "20Gi"
    storage_class_name: str | None = None


class ManagedMilvus(Pods, frozen=True, rename="camel"):
    """A Milvus standalone server."""

    storage: Storage = Storage()


class ExternalMilvus(Part, frozen=True, rename="camel"):
    """A Milvus server that exists."""

    uri: str
    secret_ref: SecretKey | None = None
    tls: bool = False


class Milvus(Part, frozen=True, rename="camel"):
    """The store: exactly one of both."""

    managed: ManagedMilvus | None = None
    external: ExternalMilvus | None = None


class BrokerService(Part, frozen=True, rename="camel"):
    """How devices outside the cluster reach the broker."""

    type: str = "ClusterIP"
    node_port: int | None = None
    enrolment_node_port: int | None = None
    annotations: dict[str, str] = {}


class BrokerTls(Part, frozen=True, rename="camel"):
    """Whose certificate the broker shows."""

    secret_ref: SecretName


class ManagedBroker(Pods, frozen=True, rename="camel"):
    """A mosquitto broker; `tls` unset: its certificate is issued by the operator."""

    hosts: list[str] = []
    service: BrokerService = BrokerService()
    tls: BrokerTls | None = None


class ExternalBroker(Part, frozen=True, rename="camel"):
    """A broker that exists, and the authority that it accepts clients of."""

    host: str
    secret_ref: SecretName
    port: int = 8883
    enrolment_port: int = 8884


class Broker(Part, frozen=True, rename="camel"):
    """The broker: exactly one of both."""

    managed: ManagedBroker | None = None
    external: ExternalBroker | None = None


class CloudPeer(ScaledPods, frozen=True, rename="camel"):
    """The ends that answer together with devices."""

    max_sessions: int = 16
    drain_seconds: int = 30


class Source(Part, frozen=True, rename="camel"):
    """A file, a folder or an archive with public documents."""

    uri: str
    sha256: str | None = None


class Documents(Part, frozen=True, rename="camel"):
    """Public documents to load."""

    sources: list[Source] = []


class DeviceModel(Part, frozen=True, rename="camel"):
    """The language model of a device."""

    url: str
    sha256: str


class Sampling(Part, frozen=True, rename="camel"):
    """Used when a request does not say."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None


class DeviceConfiguration(Part, frozen=True, rename="camel"):
    """Configuration of a device; None: its own."""

    window: int | None = None
    branches: int | None = None
    placement: str | None = None
    log_level: str | None = None
    model: DeviceModel | None = None
    sampling: Sampling | None = None


class Devices(Part, frozen=True, rename="camel"):
    """Settings for all devices of a deployment."""

    heartbeat_seconds: int = 15
    certificate_days: int = 90
    defaults: DeviceConfiguration = DeviceConfiguration()


class NetworkPolicies(Part, frozen=True, rename="camel"):
    """Whether network policies are made."""

    enabled: bool = True


class DeploymentSpec(Part, frozen=True, rename="camel"):
    """Spec of a DragonDeployment."""

    model: Model
    milvus: Milvus
    broker: Broker
    triton: Triton = Triton()
    cloud_peer: CloudPeer = CloudPeer()
    aggregation: ProtocolSettings = ProtocolSettings()
    documents: Documents = Documents()
    devices: Devices = Devices()
    network_policy: NetworkPolicies = NetworkPolicies()
    suspend: bool = False
    deletion_policy: Kept = "Retain"


class DeviceSpec(Part, frozen=True, rename="camel"):
    """Spec of an EdgeDevice."""

    deployment: str
    revoked: bool = False
    join_token_minutes: int = 1440
    join_token_generation: int = 1
    configuration: DeviceConfiguration = DeviceConfiguration()


def parse_deployment(spec: dict[str, Any]) -> DeploymentSpec:
    """The spec of a DragonDeployment.

    Raises:
        SettingsError: it does not fit; happens only with an older CRD than this operator's.
    """
    return _parse(spec, DeploymentSpec)


def parse_device(spec: dict[str, Any]) -> DeviceSpec:
    """The spec of an EdgeDevice.

    Raises:
        SettingsError: it does not fit; happens only with an older CRD than this operator's.
    """
    return _parse(spec, DeviceSpec)


def _parse(spec: dict[str, Any], cls: type[Parsed]) -> Parsed:
    try:
        return msgspec.convert(spec, cls, dec_hook=_aggregation)
    except msgspec.ValidationError as error:
        raise SettingsError(f"spec: {error}; is the CRD of the operator's version installed?") from error


def _aggregation(cls: type, value: Any) -> ProtocolSettings:
    """`spec.aggregation`: the one part that is settings of both ends, and not the operator's own."""
    if cls is not ProtocolSettings:
        raise NotImplementedError(cls)
    try:
        return protocol_settings(value)
    except SettingsError as error:
        raise ValueError(str(error)) from error
