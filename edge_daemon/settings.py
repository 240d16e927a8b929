"""The settings of the edge daemon. `dragon_runtime.settings` loads them."""

from pathlib import Path
from typing import Annotated, Any, Self

import platformdirs
from pydantic import Field, SecretStr, model_validator

from dragon_core import limits
from dragon_core.errors import OurError, SettingsError
from dragon_runtime.settings import (
    BrokerSettings,
    EmbeddingSettings,
    LogSettings,
    ModelSettings,
    PeerSettings,
    SettingsGroup,
    StoreSettings,
    is_loopback,
    read_secret,
)
from dragon_runtime.settings.groups import Names, Port, TopicName, UserPath
from edge_daemon.identity import IdentityStore

MIN_API_KEY_LENGTH = 16

MIB = 1024 * 1024


def default_data_folder() -> Path:
    """Default folder for the device's own data."""
    return Path(platformdirs.user_data_dir("dragon-edge", appauthor=False))


class ApiSettings(SettingsGroup):
    """The HTTP API on the device."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on; any address except loopback requires a key.",
    )
    port: Port = Field(default=8642, description="Port to listen on.")
    api_key_file: UserPath | None = Field(default=None, description="File with the key that requests must carry.")
    allowed_hosts: Names = Field(
        default=(), description="Host names accepted in requests, in addition to loopback names."
    )
    allowed_origins: Names = Field(
        default=(), description="Origins of web pages that may call the API, as `https://host:port`."
    )
    max_document_bytes: int = Field(
        default=32 * MIB, ge=1, le=1024 * MIB, description="Maximum size of a document, in bytes."
    )
    max_request_bytes: int = Field(
        default=4 * MIB, ge=1024, le=1024 * MIB, description="Maximum size of any other request, in bytes."
    )
    default_max_tokens: Annotated[int, Field(**limits.MAX_TOKENS.keywords())] = Field(
        default=512, description="Maximum length of an answer, in tokens, if the request sets no limit."
    )

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if not is_loopback(self.host) and self.api_key_file is None:
            raise ValueError(
                f"host {self.host} is reachable from other machines: set api_key_file, or listen on 127.0.0.1"
            )
        for origin in self.allowed_origins:
            if "://" not in origin or origin.endswith("/"):
                raise ValueError(f"allowed_origins: {origin!r} is not an origin; write it as https://host:port")
        return self

    def api_key(self) -> SecretStr | None:
        """The key that requests must carry, or None when none is asked for.

        Raises:
            SettingsError: the file cannot be read, or the key is too short to withstand guessing.
        """
        if self.api_key_file is None:
            return None
        key = read_secret(self.api_key_file, key="api.api_key_file")
        if len(key.get_secret_value()) < MIN_API_KEY_LENGTH:
            raise SettingsError(
                f"api.api_key_file: the key in {self.api_key_file} has {len(key.get_secret_value())} characters; "
                f"it needs at least {MIN_API_KEY_LENGTH}"
            )
        return key


class SamplingSettings(SettingsGroup):
    """How tokens are chosen if a request does not say."""

    temperature: Annotated[float, Field(**limits.ASKED_TEMPERATURE.keywords())] = Field(
        default=0.7, description="Sampling temperature; 0 always takes the most likely token."
    )
    top_p: Annotated[float, Field(**limits.TOP_P.keywords())] = Field(
        default=1.0, description="Probability mass to sample from."
    )


class EdgeSettings(PeerSettings):
    """All settings of the edge daemon. Without `device`, device and broker come from the enrolled identity."""

    device: TopicName = Field(description="Name of this device at the broker.")
    namespace: TopicName = Field(default="default", description="Namespace of the deployment the device belongs to.")
    deployment: TopicName = Field(default="dragon", description="Name of the deployment the device belongs to.")
    data_folder: UserPath = Field(
        default_factory=default_data_folder,
        description="Folder for the device's documents, identity and applied configuration.",
    )
    model: ModelSettings = Field(default=ModelSettings(), description="The language model.")
    embedding: EmbeddingSettings = Field(default=EmbeddingSettings(), description="The embedding model.")
    store: StoreSettings = Field(default=StoreSettings(), description="The private documents.")
    broker: BrokerSettings = Field(default=BrokerSettings(), description="The broker.")
    api: ApiSettings = Field(default=ApiSettings(), description="The HTTP API.")
    sampling: SamplingSettings = Field(default=SamplingSettings(), description="How tokens are chosen.")
    log: LogSettings = Field(default=LogSettings(), description="Logging.")

    @model_validator(mode="before")
    @classmethod
    def _enrolled(cls, given: Any) -> Any:
        """Fill in what `dragon-edge join` stored in the data folder; explicitly given keys win one by one."""
        if not isinstance(given, dict) or "device" in given:
            return given
        folder = given.get("data_folder") or default_data_folder()
        try:
            identity = IdentityStore(Path(folder).expanduser()).load()
        except TypeError:
            return given  # no path: what checks it says so
        except OurError as error:
            raise ValueError(str(error)) from error
        if identity is None:
            raise ValueError("this device is not enrolled: run `dragon-edge join TOKEN`, or set device and broker")
        membership = identity.membership
        broker = {
            "host": membership.broker_host,
            "port": membership.broker_port,
            "ca_file": identity.ca_file,
            "certificate_file": identity.certificate_file,
            "key_file": identity.key_file,
        }
        own = {
            "device": membership.device,
            "namespace": membership.namespace,
            "deployment": membership.deployment,
        }
        explicit = given.get("broker", {})
        return {**own, **given, "broker": {**broker, **explicit} if isinstance(explicit, dict) else explicit}

    @property
    def store_folder(self) -> Path:
        """Folder of the embedded store."""
        return self.store.folder or self.data_folder / "store"
