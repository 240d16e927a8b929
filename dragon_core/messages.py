"""What crosses between two peers: the envelope and every message of a session. Data only; bytes are `codec`'s.

Field order is the wire order (docs/protocol-session.md). Durations travel as such; no wall clock is ever sent.
"""

import enum
import hashlib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

from dragon_core import limits
from dragon_core.errors import PeerError, shown
from dragon_core.topics import NAME_PATTERN
from dragon_core.types import CouplingKind, Peer, Vocabulary, Weighting, WeightingRule

PROTOCOL_VERSION = 1
MAX_REASON_CHARACTERS, MAX_NAME_CHARACTERS = 2000, 200
MAX_MOVE_REASON_CHARACTERS = 500

UInt32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
UInt64 = Annotated[int, msgspec.Meta(ge=0)]  # MessagePack itself ends at 2^64 - 1
Weight = Annotated[int, msgspec.Meta(**limits.WEIGHT_LEVEL.keywords())]
Position = Annotated[int, msgspec.Meta(**limits.POSITION.keywords())]
Share = Annotated[int, msgspec.Meta(**limits.SHARE_LEVEL.keywords())]
Mass = Annotated[int, msgspec.Meta(**limits.MASS_LEVEL.keywords())]
Seconds = Annotated[float, msgspec.Meta(**limits.SECONDS.keywords())]
Logprob = Annotated[float, msgspec.Meta(ge=-1000, le=0.001)]  # above 0 by rounding only; the least float64 has -745
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARACTERS)]
TopicName = Annotated[str, msgspec.Meta(pattern=rf"^{NAME_PATTERN}\Z")]
Reason = Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARACTERS)]
Role = Literal["system", "user", "assistant"]
Text = Annotated[str, msgspec.Meta(max_length=2_000_000)]
StopString = Annotated[str, msgspec.Meta(**limits.STOP_CHARACTERS.lengths())]


class FinishReason(enum.StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Root of all messages; each is an array that starts with its tag."""


def _show(message: msgspec.Struct, **max_characters: int) -> None:
    """Make texts of a message safe to show, whoever wrote them: this is where they come in, and go out."""
    for name, most in max_characters.items():
        msgspec.structs.force_setattr(message, name, shown(getattr(message, name), max_characters=most))


class Fingerprint(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """What two peers must have in common, compared field by field."""

    vocabulary: Name
    template: Name
    embedding: Name
    embedding_dimension: UInt32
    embedding_revision: Name
    weighting_rule: WeightingRule
    weighting_temperature: float
    weighting_beta: float
    weighting_gamma: float
    max_published_tokens: UInt32
    nucleus: float

    def difference(self, theirs: "Fingerprint") -> tuple[str, object, object] | None:
        """The first field that differs with both values, or None."""
        for name in self.__struct_fields__:
            ours_value, theirs_value = getattr(self, name), getattr(theirs, name)
            if ours_value != theirs_value:
                return name, ours_value, theirs_value
        return None


def weighting_fields(weighting: Weighting) -> dict[str, Any]:
    """What a fingerprint holds of a weighting rule. Beta is the one in use: an unset one equals the rule's own."""
    fields = msgspec.structs.asdict(weighting) | {"beta": weighting.effective_beta}
    return {f"weighting_{name}": value for name, value in fields.items()}


class ChatMessage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One turn of the conversation."""

    role: Role
    content: Text


class Open(Message, frozen=True, tag=1, kw_only=True):
    """The opener asks for a session. `settled` is empty but when a replica is replaced in an answer that has not ended.

    `placement` None lets both ends compute it from the two Ready messages; a given one is kept.
    """

    version: UInt32
    fingerprint: Fingerprint
    messages: Annotated[tuple[ChatMessage, ...], msgspec.Meta(min_length=1, max_length=1000)]
    temperature: Annotated[float, msgspec.Meta(**limits.TEMPERATURE.keywords())]
    top_k: UInt32
    min_p: Annotated[float, msgspec.Meta(**limits.MIN_P.keywords())]
    top_p: Annotated[float, msgspec.Meta(**limits.TOP_P.keywords())]
    seed: UInt64
    max_tokens: Annotated[int, msgspec.Meta(**limits.MAX_TOKENS.keywords())]
    stop: Annotated[tuple[StopString, ...], msgspec.Meta(**limits.NUM_STOPS.lengths())]
    coupling: CouplingKind
    window: Annotated[int, msgspec.Meta(**limits.WINDOW.keywords())]
    branches: Annotated[int, msgspec.Meta(**limits.BRANCHES.keywords())]
    placement: Peer | None
    num_top_logprobs: Annotated[int, msgspec.Meta(**limits.NUM_TOP_LOGPROBS.keywords())] | None
    deadline_seconds: Seconds
    settled: Annotated[tuple[UInt32, ...], msgspec.Meta(**limits.SETTLED_TOKENS.lengths())] = ()


class Accepted(Message, frozen=True, tag=2, kw_only=True):
    """A replica took the session and will be Ready within the prefill deadline."""

    replica: TopicName
    prefill_deadline_seconds: Seconds


class Refused(Message, frozen=True, tag=3, kw_only=True):
    """No session: `field` names what did not fit; `retry_after_seconds` is None when trying again is no use."""

    reason: Reason
    field: Name = ""
    retry_after_seconds: Seconds | None = None

    def __post_init__(self) -> None:
        _show(self, reason=MAX_REASON_CHARACTERS, field=MAX_NAME_CHARACTERS)


class Ready(Message, frozen=True, tag=4, kw_only=True):
    """The sender's contexts are prefilled. The opener adds the round trip that placement is computed with."""

    num_contexts: UInt32
    constant_weight_level: Weight | None
    decode_seconds: Seconds
    rtt_seconds: Seconds | None = None


class Draft(Message, frozen=True, tag=5):
    """A frame: a revocable guess (`via` at the parent's position) and the distribution at `position` after it.

    Without parent its context is all targets before `position`. `weight_level` is absent where Ready gave it.
    """

    id: UInt32
    parent: UInt32 | None
    via: UInt32 | None
    position: Position
    weight_level: Weight | None
    dropped: Mass
    distribution: Annotated[bytes, msgspec.Meta(max_length=16_384)]


class TopToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One likely token with its log-probability in p~."""

    token: UInt32
    logprob: Logprob


class TargetDetail(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is known of a token that was settled from both frames: the opener's share in 1/1000."""

    opener_share: Share
    logprob_level: Annotated[int, msgspec.Meta(ge=0, le=2**31)]
    dropped: Mass
    top: Annotated[tuple[TopToken, ...], msgspec.Meta(max_length=20)] = ()


class Target(Message, frozen=True, tag=6):
    """Fixed tokens from `position` on. A detail is None where the token was settled early or degraded."""

    position: Position
    tokens: Annotated[tuple[UInt32, ...], msgspec.Meta(**limits.TARGET_TOKENS.lengths())]
    details: Annotated[tuple[TargetDetail | None, ...], msgspec.Meta(max_length=int(limits.TARGET_TOKENS.high))]


class MoveRequest(Message, frozen=True, tag=7):
    """Asks the aggregator to hand over to `placement`."""

    placement: Peer
    reason: Annotated[str, msgspec.Meta(max_length=MAX_MOVE_REASON_CHARACTERS)]

    def __post_init__(self) -> None:
        _show(self, reason=MAX_MOVE_REASON_CHARACTERS)


class Handover(Message, frozen=True, tag=8):
    """The aggregator gives the authority away, with the first of its own live frames from `position` on."""

    position: Position
    drafts: Annotated[tuple[Draft, ...], msgspec.Meta(**limits.HANDED_DRAFTS.lengths())]


class Resume(Message, frozen=True, tag=9, kw_only=True):
    """What the sender holds; the other resends what follows. `aggregator` is None before placement.

    `last_sequence` is the last one received: it tells the opener whether its Handover is still on its way.
    `term_position` is where the sender's term began: what an older term fixed at or after it is void.
    `mix_position` is the first position at which the opener wants frames again after a takeover.
    """

    next_position: Position
    last_sequence: UInt64
    aggregator: Peer | None
    term_position: Position = 0
    mix_position: Position | None = None


class DocumentShare(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A public document and the share it had in the answer, in 1/1000."""

    document_id: Name
    share: Share

    def __post_init__(self) -> None:
        _show(self, document_id=MAX_NAME_CHARACTERS)


class Counters(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """One peer's counts over an answer; positions are those at which its own frame was made in time."""

    num_positions: UInt32 = 0
    num_hits: UInt32 = 0
    num_steps: UInt32 = 0
    num_wasted_steps: UInt32 = 0
    max_window_used: UInt32 = 0


class Finish(Message, frozen=True, tag=10, kw_only=True):
    """The sender's end of the answer. `documents` are the other peer's; the opener never names its own."""

    reason: FinishReason
    counters: Counters
    documents: Annotated[tuple[DocumentShare, ...], msgspec.Meta(**limits.NAMED_DOCUMENTS.lengths())] = ()


class Failure(Message, frozen=True, tag=11, kw_only=True):
    """The sender gives the session up."""

    reason: Reason
    field: Name = ""

    def __post_init__(self) -> None:
        _show(self, reason=MAX_REASON_CHARACTERS, field=MAX_NAME_CHARACTERS)


class Probe(Message, frozen=True, tag=12):
    """Nothing but its envelope: measures an idle link."""


AnyMessage = (
    Open | Accepted | Refused | Ready | Draft | Target | MoveRequest | Handover | Resume | Finish | Failure | Probe
)


class Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One frame on a channel: authority, order, time, and the message.

    `sent_ms` is the sender's monotonic clock; `echo_ms` the last `sent_ms` it received, `hold_ms` ago.
    """

    term: UInt32
    sequence: UInt64
    sent_ms: UInt64
    echo_ms: UInt64 | None
    hold_ms: UInt32
    message: AnyMessage


def vocabulary_fingerprint(vocabulary: Vocabulary) -> str:
    """SHA-256 over every token's bytes and the special and end ids: equal for equal vocabularies."""
    digest = hashlib.sha256()
    for token in vocabulary.token_bytes:
        digest.update(len(token).to_bytes(4, "little"))
        digest.update(token)
    for ids in (vocabulary.special_ids, vocabulary.end_ids):
        digest.update(repr(sorted(ids)).encode())
    return digest.hexdigest()


def require_known(vocabulary: Vocabulary, tokens: Iterable[int], *, field: str) -> None:
    """Refuse token ids that the vocabulary does not have.

    Raises:
        PeerError: names the largest one and `field`.
    """
    largest = max(tokens, default=0)
    if largest >= len(vocabulary):
        raise PeerError(f"token {largest} is beyond the vocabulary of {len(vocabulary)}", field=field)


def require_same(ours: Fingerprint, theirs: Fingerprint) -> None:
    """Refuse a peer that computes something else.

    Raises:
        PeerError: names the field and both values.
    """
    if (found := ours.difference(theirs)) is not None:
        field, our_value, their_value = found
        raise PeerError(
            f"the two ends differ in {field}: here {our_value}, there {their_value}; "
            "run both with the same model vocabulary, template, embedding model and settings",
            field=f"fingerprint.{field}",
        )
