"""The settings of the operator. `dragon_runtime.settings` loads them."""

from pydantic import Field

from dragon_runtime.settings import LogSettings, SettingsGroup
from dragon_runtime.settings.groups import Names, Port

IMAGE_TAG = "0.1.0"


def _image(part: str) -> str:
    return f"localhost/dragon-{part}:{IMAGE_TAG}"


class ImageSettings(SettingsGroup):
    """Images of the parts of a deployment, used if its spec does not name another."""

    triton: str = Field(default=_image("triton-cpu"), min_length=1, description="Image of Triton with DRAGON's models.")
    cloud_peer: str = Field(default=_image("cloud"), min_length=1, description="Image of the cloud peer.")
    broker: str = Field(default=_image("broker"), min_length=1, description="Image of mosquitto.")
    milvus: str = Field(default=_image("milvus"), min_length=1, description="Image of Milvus standalone.")
    pull_policy: str = Field(
        default="IfNotPresent", pattern="^(Always|IfNotPresent|Never)$", description="When to pull images."
    )
    pull_secrets: Names = Field(default=(), description="Secrets with credentials for the registry.")


class OperatorMetricsSettings(SettingsGroup):
    """Where metrics and health are served."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address on which metrics and health are served.")
    port: Port = Field(default=9465, description="Port on which metrics and health are served.")


class OperatorSettings(SettingsGroup):
    """All settings of the operator."""

    namespaces: Names = Field(default=(), description="Namespaces to watch; empty: the whole cluster.")
    images: ImageSettings = Field(default=ImageSettings(), description="Images of the parts.")
    resync_seconds: float = Field(
        default=60.0, ge=1, le=3600, description="How often every resource is reconciled without an event."
    )
    max_writes_per_second: float = Field(
        default=50.0,
        gt=0,
        le=1000,
        description="Maximum number of writes to the API server per second; further writes wait.",
    )
    max_status_writes_per_second: float = Field(
        default=10.0,
        gt=0,
        le=1000,
        description="Maximum number of device status writes per second; further writes wait and are merged.",
    )
    metrics: OperatorMetricsSettings = Field(default=OperatorMetricsSettings(), description="Metrics and health.")
    log: LogSettings = Field(default=LogSettings(), description="Logging.")
