"""The settings of the cloud peer. `dragon_runtime.settings` loads them."""

import socket
from pathlib import Path
from typing import Annotated

import platformdirs
from pydantic import Field

from dragon_core import limits
from dragon_runtime.settings import (
    BrokerSettings,
    EmbeddingSettings,
    LogSettings,
    ModelSettings,
    PeerSettings,
    SettingsGroup,
    StoreSettings,
    TritonSettings,
)
from dragon_runtime.settings.groups import Port, TopicName, UserPath


class MetricsSettings(SettingsGroup):
    """Where metrics and health are served."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address on which metrics and health are served.")
    port: Port = Field(default=9464, description="Port on which metrics and health are served.")


class CloudModelSettings(ModelSettings):
    """The language model of an end that serves many sessions."""

    num_sequences: Annotated[int, Field(**limits.NUM_SEQUENCES.keywords())] = Field(
        default=32, description=str(ModelSettings.model_fields["num_sequences"].description)
    )


class CloudSettings(PeerSettings):
    """All settings of a cloud peer."""

    replica: TopicName = Field(
        default_factory=lambda: socket.gethostname().lower(),
        description="Name of this replica, unique in the deployment; unset: the host name.",
    )
    namespace: TopicName = Field(default="default", description="Namespace of the deployment.")
    deployment: TopicName = Field(default="dragon", description="Name of the deployment.")
    data_folder: UserPath = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("dragon-cloud", appauthor=False)),
        description="Folder for an embedded store and downloaded models.",
    )
    max_sessions: int = Field(
        default=16, ge=1, le=100_000, description="Maximum number of sessions at once; further sessions are refused."
    )
    drain_seconds: float = Field(
        default=30.0, ge=0, le=3600, description="How long running sessions may continue at shutdown."
    )
    documents: UserPath | None = Field(default=None, description="Folder of public documents to ingest at start.")
    model: CloudModelSettings = Field(default=CloudModelSettings(), description="The language model.")
    embedding: EmbeddingSettings = Field(default=EmbeddingSettings(), description="The embedding model.")
    triton: TritonSettings = Field(
        default=TritonSettings(), description="A Triton server with both models; model and embedding are not used then."
    )
    store: StoreSettings = Field(default=StoreSettings(), description="The public documents.")
    broker: BrokerSettings = Field(default=BrokerSettings(), description="The broker.")
    metrics: MetricsSettings = Field(default=MetricsSettings(), description="Metrics and health.")
    log: LogSettings = Field(default=LogSettings(), description="Logging.")

    @property
    def store_folder(self) -> Path:
        """Folder of the embedded store."""
        return self.store.folder or self.data_folder / "store"
