"""The settings of the operator. How they are loaded is `dragon_runtime.settings`'."""

from pydantic import Field

from dragon_runtime.settings import LogSettings, SettingsGroup
from dragon_runtime.settings.groups import Names, Port

IMAGE_TAG = "0.1.0"


def _image(part: str) -> str:
    return f"localhost/dragon-{part}:{IMAGE_TAG}"


class ImageSettings(SettingsGroup):
    """Images of what a deployment runs, when its spec does not name another."""

    triton: str = Field(default=_image("triton-cpu"), min_length=1, description="Triton with our models.")
    cloud_peer: str = Field(default=_image("cloud"), min_length=1, description="The cloud peer.")
    broker: str = Field(default=_image("broker"), min_length=1, description="mosquitto.")
    milvus: str = Field(default=_image("milvus"), min_length=1, description="Milvus standalone.")
    pull_policy: str = Field(
        default="IfNotPresent", pattern="^(Always|IfNotPresent|Never)$", description="When images are pulled."
    )
    pull_secrets: Names = Field(default=(), description="Secrets with credentials of the registry.")


class OperatorMetricsSettings(SettingsGroup):
    """Where metrics and health are served."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address metrics and health are served on.")
    port: Port = Field(default=9465, description="Port metrics and health are served on.")


class OperatorSettings(SettingsGroup):
    """Everything the operator can be told."""

    namespaces: Names = Field(default=(), description="Namespaces that are watched; empty: the whole cluster.")
    images: ImageSettings = Field(default=ImageSettings(), description="Images of the parts.")
    resync_seconds: float = Field(
        default=60.0, ge=1, le=3600, description="How often everything is looked at without an event."
    )
    max_writes_per_second: float = Field(
        default=50.0, gt=0, le=1000, description="Most writes of all kinds to the API server; more wait."
    )
    max_status_writes_per_second: float = Field(
        default=10.0, gt=0, le=1000, description="Most writes of the status of devices; more wait and are merged."
    )
    metrics: OperatorMetricsSettings = Field(default=OperatorMetricsSettings(), description="Metrics and health.")
    log: LogSettings = Field(default=LogSettings(), description="Logging.")
