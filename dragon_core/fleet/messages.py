"""What a device and the operator tell each other: presence, twin, link, enrolment (docs/protocol-fleet.md). Pure.

JSON on the wire: these messages are few, some are retained, and people read them. The times in them are Unix seconds.
"""

import enum
import hashlib
from typing import Annotated, Literal, TypeVar

import msgspec

from dragon_core import limits
from dragon_core.errors import PeerError, shown
from dragon_core.types import CouplingKind, Weighting

FLEET_VERSION = 1
MAX_MESSAGE_BYTES = 16 * 1024
"""A certificate with its authority's is the largest of them and has about 2,000 bytes."""

MAX_TEXT_CHARACTERS, MAX_SHORT_CHARACTERS = 500, 128
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT_CHARACTERS)]
Short = Annotated[str, msgspec.Meta(max_length=MAX_SHORT_CHARACTERS)]
MAX_PEM_CHARACTERS = 8192
Pem = Annotated[str, msgspec.Meta(max_length=MAX_PEM_CHARACTERS)]
Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(**limits.SECONDS.keywords())]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Nonce = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Version = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{16})?\Z")]
Side = Literal["edge", "cloud"]


def _show(message: msgspec.Struct, **max_characters: int) -> None:
    """Make texts of a message safe to show, whoever wrote them: this is where they come in, and go out."""
    for name, most in max_characters.items():
        msgspec.structs.force_setattr(message, name, shown(getattr(message, name), max_characters=most))


class SamplingDefaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Used when a request does not say."""

    temperature: Annotated[float, msgspec.Meta(**limits.ASKED_TEMPERATURE.keywords())] | None = None
    top_p: Annotated[float, msgspec.Meta(**limits.TOP_P.keywords())] | None = None
    max_tokens: Annotated[int, msgspec.Meta(**limits.MAX_TOKENS.keywords())] | None = None


class DeviceModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A GGUF file and its digest."""

    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^/\s]+/.+\Z", max_length=2048)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Aggregation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an answer is computed with at both ends: with other values than the cloud peers' a device is refused."""

    coupling: CouplingKind
    weighting: Weighting
    max_published_tokens: Annotated[int, msgspec.Meta(**limits.MAX_PUBLISHED_TOKENS.keywords())]
    nucleus: Annotated[float, msgspec.Meta(**limits.NUCLEUS.keywords())]
    num_passages: Annotated[int, msgspec.Meta(**limits.NUM_PASSAGES.keywords())]
    passages_per_context: Annotated[int, msgspec.Meta(**limits.PASSAGES_PER_CONTEXT.keywords())]


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What is wanted of a device; None leaves a thing to the device's own settings."""

    aggregation: Aggregation | None = None
    window: Annotated[int, msgspec.Meta(**limits.WINDOW.keywords())] | None = None
    branches: Annotated[int, msgspec.Meta(**limits.BRANCHES.keywords())] | None = None
    placement: Literal["auto", "edge", "cloud"] | None = None
    model: DeviceModel | None = None
    sampling: SamplingDefaults | None = None
    log_level: Literal["debug", "info", "warning", "error"] | None = None


class PresenceEvent(enum.Enum):
    """Why presence changed. `LOST` is the broker's word: the device did not say goodbye."""

    BIRTH = "birth"
    STOPPED = "stopped"
    LOST = "lost"


class Presence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Birth or death of a daemon. `session` is drawn at its start: a death of another session than the last is old."""

    version: int = FLEET_VERSION
    session: Nonce
    event: PresenceEvent


class Desired(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The configuration wanted of a device. `configuration_version` names its content."""

    version: int = FLEET_VERSION
    configuration_version: Version
    heartbeat_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=3600)]
    configuration: Configuration


class Reported(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a device made of it, and what it is. A version is empty where there is none, `certificate_expires` 0."""

    version: int = FLEET_VERSION
    session: Nonce
    observed: Version
    applied: Version
    error: Text = ""
    needs_restart: bool = False
    daemon_version: Short
    model: Short
    vocabulary: Short
    certificate_serial: Short = ""
    certificate_expires: Count = 0

    def __post_init__(self) -> None:
        short = ("daemon_version", "model", "vocabulary", "certificate_serial")
        _show(self, error=MAX_TEXT_CHARACTERS, **dict.fromkeys(short, MAX_SHORT_CHARACTERS))


class LinkReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The heartbeat: what a device measured, None where nothing was. Counts are since the daemon's start."""

    version: int = FLEET_VERSION
    session: Nonce
    sequence: Count
    rtt_seconds: Seconds | None = None
    jitter_seconds: Seconds | None = None
    loss: Rate | None = None
    placement: Side | None = None
    placement_reason: Short = ""
    hit_rate: Rate | None = None
    answers: Count = 0
    tokens: Count = 0
    degraded_answers: Count = 0

    def __post_init__(self) -> None:
        _show(self, placement_reason=MAX_SHORT_CHARACTERS)


class CertificateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A device asks for a certificate. Sent again with the same nonce and key it gets the same answer."""

    version: int = FLEET_VERSION
    nonce: Nonce
    csr: Pem


class Refusal(enum.Enum):
    """Why no certificate was issued."""

    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a reason
    TOKEN_USED = "token_used"  # noqa: S105 - a reason
    NOT_WANTED = "not_wanted"
    REVOKED = "revoked"
    BAD_REQUEST = "bad_request"
    TRY_AGAIN = "try_again"


class CertificateResponse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The certificate and the authority to trust, or why there is none. `time` is the operator's clock."""

    version: int = FLEET_VERSION
    nonce: Nonce
    time: Count
    certificate: Pem = ""
    ca: Pem = ""
    refusal: Refusal | None = None
    reason: Text = ""
    request_digest: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Of the request that was answered."""
    token_digest: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Of the secret it was answered for; empty for a renewal."""

    def __post_init__(self) -> None:
        _show(self, reason=MAX_TEXT_CHARACTERS)


Message = Presence | Desired | Reported | LinkReport | CertificateRequest | CertificateResponse
Decoded = TypeVar("Decoded", Presence, Desired, Reported, LinkReport, CertificateRequest, CertificateResponse)

_encoder = msgspec.json.Encoder(order="sorted")


class _Versioned(msgspec.Struct, frozen=True):
    version: int


def encode(message: Message) -> bytes:
    """The payload of a message."""
    return _encoder.encode(message)


def decode(payload: bytes, kind: type[Decoded]) -> Decoded:
    """The message of a payload.

    Raises:
        PeerError: too large, no JSON, of another version, or a message that does not fit its type.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise PeerError(f"a message of {len(payload)} bytes; at most {MAX_MESSAGE_BYTES} are accepted", field="payload")
    try:
        version = msgspec.json.decode(payload, type=_Versioned).version
        if version != FLEET_VERSION:
            raise PeerError(f"a message of version {version}; this end understands {FLEET_VERSION}", field="version")
        return msgspec.json.decode(payload, type=kind)
    except msgspec.MsgspecError as error:
        raise PeerError(f"a message does not fit: {str(error)[:500]}", field="payload") from error
    except (RecursionError, UnicodeDecodeError) as error:
        raise PeerError(f"a message is no JSON: {type(error).__name__}", field="payload") from error


def configuration_version(configuration: Configuration, *, heartbeat_seconds: float) -> str:
    """The name of a configuration's content: equal for equal ones, whoever computes it."""
    content = _encoder.encode([configuration, float(heartbeat_seconds)])
    return hashlib.sha256(content).hexdigest()[:16]


def secret_digest(secret: str) -> str:
    """Tells one token's secret from another's without giving it away: a secret is random and long."""
    return hashlib.sha256(b"dragon join secret\0" + secret.encode()).hexdigest()[:32]


def request_digest(request: CertificateRequest) -> str:
    """Tells one request from another."""
    return hashlib.sha256(f"{request.nonce}\0{request.csr}".encode()).hexdigest()
