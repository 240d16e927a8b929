"""The groups of settings that both ends share. Values and their limits only; where they come from is `loading`'s.

Names are those of the resource and the chart in snake case: one setting has one name everywhere.
"""

import enum
import ipaddress
import math
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from dragon_core import limits
from dragon_core.errors import SettingsError
from dragon_core.topics import NAME_PATTERN
from dragon_core.types import CouplingKind, Cut, Peer, Weighting, WeightingRule


class SettingsGroup(BaseModel):
    """Root of all groups: frozen and closed; a value in an error message is never repeated by pydantic itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)


class PlacementChoice(enum.StrEnum):
    """Which end aggregates: computed from measurements, or kept at one."""

    AUTO = "auto"
    EDGE = "edge"
    CLOUD = "cloud"

    @property
    def pinned(self) -> Peer | None:
        """The peer that always aggregates, or None for auto. The edge is the one with the user."""
        return {PlacementChoice.EDGE: Peer.OPENER, PlacementChoice.CLOUD: Peer.OTHER}.get(self)


class LogLevel(enum.StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    """How a log line looks."""

    TEXT = "text"
    JSON = "json"


def _expanded(value: object) -> object:
    """`~` in a path means the home folder, in files and in the environment as well as in a shell."""
    if value == "":
        raise ValueError("a path must not be empty")
    return Path(value).expanduser() if isinstance(value, str | Path) else value


def _split(value: object) -> object:
    """Lists are written `a,b` in the environment and in flags."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


UserPath = Annotated[Path, BeforeValidator(_expanded)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Port = Annotated[int, Field(**limits.PORT.keywords())]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
TopicName = Annotated[str, Field(min_length=1, max_length=63, pattern=f"^{NAME_PATTERN}$")]


class WeightingSettings(SettingsGroup):
    """How the weight of a context comes about (docs/protocol.md)."""

    rule: WeightingRule = Field(
        default=WeightingRule.EVIDENCE, description="Weighting rule; must be the same at both ends."
    )
    temperature: Annotated[float, Field(**limits.WEIGHTING_TEMPERATURE.keywords())] = Field(
        default=0.1, description="Temperature (tau) of the relevance rule."
    )
    beta: Annotated[float, Field(**limits.WEIGHTING_BETA.keywords())] | None = Field(
        default=None, description="Beta of the rules evidence (default 0.5) and contrast (default 0.25)."
    )
    gamma: Annotated[float, Field(**limits.WEIGHTING_GAMMA.keywords())] = Field(
        default=0.5, description="Gamma of the contrast rule."
    )

    def to_weighting(self) -> Weighting:
        """The core's value of the same name."""
        return Weighting(**self.model_dump())


class ProtocolSettings(SettingsGroup):
    """What an answer is computed with. Both ends must agree on weighting, `max_published_tokens` and `nucleus`."""

    window: Annotated[int, Field(**limits.WINDOW.keywords())] = Field(
        default=32, description="Maximum number of positions published past the last target; 1: in step."
    )
    branches: Annotated[int, Field(**limits.BRANCHES.keywords())] = Field(
        default=2, description="Number of alternative drafts followed at once."
    )
    max_published_tokens: Annotated[int, Field(**limits.MAX_PUBLISHED_TOKENS.keywords())] = Field(
        default=64, description="Maximum number of tokens in a published distribution."
    )
    nucleus: Annotated[float, Field(**limits.NUCLEUS.keywords())] = Field(
        default=0.99, description="Minimum probability mass that a published distribution keeps."
    )
    weighting: WeightingSettings = Field(default=WeightingSettings(), description="How contexts are weighted.")
    coupling: CouplingKind = Field(default=CouplingKind.SHARED_NOISE, description="How tokens are chosen and drafted.")
    placement: PlacementChoice = Field(
        default=PlacementChoice.AUTO,
        description="End that aggregates; at the edge, every distribution also stays on the device.",
    )
    num_passages: Annotated[int, Field(**limits.NUM_PASSAGES.keywords())] = Field(
        default=2, description="Passages retrieved at each end for one answer."
    )
    passages_per_context: Annotated[int, Field(**limits.PASSAGES_PER_CONTEXT.keywords())] = Field(
        default=2, description="Passages in the prompt of one context."
    )

    @property
    def cut(self) -> Cut:
        """What a published distribution keeps."""
        return Cut(nucleus=self.nucleus, max_published_tokens=self.max_published_tokens)

    @property
    def max_contexts(self) -> int:
        """Contexts an answer has at most: without a passage there is one, of the bare prompt."""
        return max(1, math.ceil(self.num_passages / self.passages_per_context))


class ModelSettings(SettingsGroup):
    """The language model of this end."""

    path: UserPath | None = Field(
        default=None, description="GGUF file on this machine. If path and url are unset, the bundled model is used."
    )
    url: str | None = Field(
        default=None,
        pattern=r"^(https?|oci)://",
        description="Location to fetch the GGUF file from, once: an address or oci://HOST/REPOSITORY; needs sha256.",
    )
    sha256: Sha256 | None = Field(default=None, description="Digest of the file, checked before the file is loaded.")
    context_length: Annotated[int, Field(**limits.CONTEXT_LENGTH.keywords())] = Field(
        default=2048, description="Tokens in one sequence, prompt and answer together."
    )
    num_threads: Annotated[int, Field(**limits.NUM_THREADS.keywords())] | None = Field(
        default=None, description="Threads per decode; unset: the cores of this machine minus one."
    )
    num_sequences: Annotated[int, Field(**limits.NUM_SEQUENCES.keywords())] = Field(
        default=8,
        description="Sequences for all sessions together; a session needs (contexts + bare prompt) x branches.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.path is not None and self.url is not None:
            raise ValueError("set path or url, not both")
        if self.url is not None and self.sha256 is None:
            raise ValueError("a model from a url needs its sha256")
        return self


class EmbeddingSettings(SettingsGroup):
    """The embedding model; both ends must have the same."""

    uri: str = Field(
        default="bundled://all-minilm-l6-v2", min_length=1, description="`bundled://NAME`, or the path of a GGUF file."
    )


class StoreSettings(SettingsGroup):
    """Where this end keeps its documents: a folder of its own, or a Milvus server."""

    folder: UserPath | None = Field(
        default=None,
        description="Folder of an embedded store. If folder and uri are unset, the store is in data_folder.",
    )
    uri: str | None = Field(default=None, pattern=r"^https?://", description="Address of a Milvus server.")
    token: SecretStr | None = Field(default=None, description="`user:password` of the Milvus server.")
    former_tokens: SecretStr | None = Field(
        default=None,
        description="Former tokens, one per line. A server that still accepts one gets the password of `token`.",
    )
    tls: bool = Field(default=False, description="Whether to connect to the server over TLS.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.folder is not None and self.uri is not None:
            raise ValueError("set folder or uri, not both")
        if self.uri is None and (self.token is not None or self.former_tokens is not None or self.tls):
            raise ValueError("token, former_tokens and tls are for a server: set uri")
        if self.former_tokens is not None and self.token is None:
            raise ValueError("former_tokens are for a token that was rotated: set token")
        return self


def _require_whole_identity(certificate_file: Path | None, key_file: Path | None, ca_file: Path | None) -> None:
    if (certificate_file is None) != (key_file is None):
        raise ValueError("certificate_file and key_file belong together: set both or neither")
    if certificate_file is not None and ca_file is None:
        raise ValueError("a client certificate is only used over TLS: set ca_file too")


class BrokerSettings(SettingsGroup):
    """The MQTT broker between the two ends."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Name or address of the broker.")
    port: Port = Field(default=1883, description="Port of the broker; 8883 is usual with TLS.")
    ca_file: UserPath | None = Field(
        default=None, description="PEM file of the authority to trust. If set, TLS is used."
    )
    certificate_file: UserPath | None = Field(default=None, description="PEM certificate of this end, for mutual TLS.")
    key_file: UserPath | None = Field(default=None, description="PEM key of that certificate.")
    username: str | None = Field(default=None, min_length=1, description="User name at the broker.")
    password_file: UserPath | None = Field(default=None, description="File that holds the password.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _require_whole_identity(self.certificate_file, self.key_file, self.ca_file)
        if self.password_file is not None and self.username is None:
            raise ValueError("a password needs a username")
        return self

    @property
    def uses_tls(self) -> bool:
        return self.ca_file is not None

    def password(self) -> SecretStr | None:
        """The password, read now, so that a rotated one is used at the next connect.

        Raises:
            SettingsError: the file cannot be read or is empty.
        """
        return None if self.password_file is None else read_secret(self.password_file, key="broker.password_file")


class TritonSettings(SettingsGroup):
    """A Triton server that hosts the language model and the embedding model, instead of this process."""

    address: str | None = Field(
        default=None,
        pattern=r"^[^/\s]+:[0-9]+$",
        description="`host:port` of Triton's gRPC service; unset: Triton is not used.",
    )
    ca_file: UserPath | None = Field(
        default=None, description="PEM file of the authority to trust. If set, TLS is used."
    )
    certificate_file: UserPath | None = Field(default=None, description="PEM certificate of this end, for mutual TLS.")
    key_file: UserPath | None = Field(default=None, description="PEM key of that certificate.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _require_whole_identity(self.certificate_file, self.key_file, self.ca_file)
        return self

    @property
    def uses_tls(self) -> bool:
        return self.ca_file is not None


class LogSettings(SettingsGroup):
    """What is logged, and how."""

    level: LogLevel = Field(default=LogLevel.INFO, description="Least severe level that is logged.")
    format: LogFormat = Field(
        default=LogFormat.TEXT, description="`text`: readable lines; `json`: one JSON object per line."
    )

    @field_validator("level", "format", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


def read_secret(path: Path, *, key: str) -> SecretStr:
    """The content of a secret file without the white space around it; `key` names the setting in errors.

    Raises:
        SettingsError: the file cannot be read or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{key}: cannot read {path}: {error}") from error
    if not text:
        raise SettingsError(f"{key}: {path} is empty")
    return SecretStr(text)


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine only: localhost, 127.0.0.0/8, ::1 (brackets allowed)."""
    bare = host.removeprefix("[").removesuffix("]").lower().rstrip(".")
    if bare == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def may_carry_secrets(scheme: str, host: str) -> bool:
    """Whether nobody on the way can read what is sent there: over TLS, or on this machine."""
    return scheme == "https" or is_loopback(host)
