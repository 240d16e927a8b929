"""What goes into a session and what comes out. Events are facts; effects are what the driver must do, in order."""

import enum
from dataclasses import dataclass

from dragon_core.messages import DocumentShare, Envelope, FinishReason, Open
from dragon_core.types import Command, Peer, Settled, Step


class Fault(enum.StrEnum):
    """Why a session ended that did not end as an answer ends."""

    OURS = "ours"
    """Our engine, our store, or a request that this end cannot serve."""
    THEIRS = "theirs"
    """The other end broke the protocol, refused the session, or gave it up."""
    SILENCE = "silence"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOpened:
    """Our contexts are prefilled. `document_ids` per context name the documents of its passages."""

    constant_weight_level: int | None
    decode_seconds: float
    document_ids: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Stepped:
    """The engine answered a ticket."""

    ticket: int
    step: Step


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """Our engine is lost for this session."""

    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """A message arrived."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Refuse:
    """A frame arrived that is no message of the protocol (their fault), or our end cannot serve what was asked."""

    fault: Fault
    reason: str
    field: str = ""
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The channel lost its connection and has one again: frames may be missing."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Our user went away, or our process drains: the answer ends here."""


@dataclass(frozen=True, slots=True)
class MoveAsked:
    """The scheduler wants the other placement."""

    placement: Peer
    reason: str


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The deadline the session asked for has come."""


Event = EngineOpened | Stepped | EngineFailed | Received | Refuse | Reconnected | Cancelled | MoveAsked | TimePassed


@dataclass(frozen=True, slots=True)
class Send:
    """Put this on the channel to the peer."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class SendOpen:
    """Ask any replica for this session."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Bind:
    """From now on the peer is this replica."""

    replica: str


@dataclass(frozen=True, slots=True)
class Prepare:
    """Retrieve passages, prefill contexts, and answer with EngineOpened."""

    request: Open


@dataclass(frozen=True, slots=True)
class Run:
    """Engine commands, in order."""

    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit:
    """A final token, at the opener only. `text` may be empty while bytes are held back."""

    position: int
    settled: Settled
    text: bytes
    is_degraded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an end knows of a finished answer. Rates are None where nothing was counted.

    `opener_share` is the mean over positions at which both frames were present; `documents` are (id, share) of
    both ends as far as they may be known here.
    """

    num_tokens: int
    num_degraded: int
    num_mixed: int
    hit_rate: dict[Peer, float | None]
    num_steps: dict[Peer, int]
    num_wasted_steps: dict[Peer, int]
    max_window_used: int
    aggregator: Peer
    opener_share: float | None
    dropped_mass_mean: float | None
    dropped_mass_max: float | None
    our_documents: tuple[tuple[str, float], ...]
    their_documents: tuple[DocumentShare, ...]
    rtt_seconds: float | None
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The session is over; nothing follows. `fault` and `error` are set when it did not end as an answer ends.

    `report` is None where the session ended before any request was understood.
    """

    reason: FinishReason
    fault: Fault | None
    error: str
    report: Report | None


Effect = Send | SendOpen | Bind | Prepare | Run | Emit | Closed
