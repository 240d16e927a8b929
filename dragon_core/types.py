"""The plain values that the core's modules hand to each other. Data only; the functions on them live elsewhere."""

import enum
from dataclasses import dataclass, field
from typing import Annotated, NewType

import msgspec
import numpy as np
from numpy.typing import NDArray

from dragon_core import limits

TokenId = NewType("TokenId", int)
FrameId = NewType("FrameId", int)
BranchId = NewType("BranchId", int)

FloatArray = NDArray[np.float64]
IdArray = NDArray[np.uint32]
LevelArray = NDArray[np.uint16]

GREEDY_PUBLISHED_TOKENS = 16
"""Most tokens of a published distribution at temperature 0."""


class Peer(enum.StrEnum):
    """One of the two ends of a session. The opener has the user."""

    OPENER = "opener"
    OTHER = "other"

    @property
    def opposite(self) -> "Peer":
        return Peer.OTHER if self is Peer.OPENER else Peer.OPENER


class WeightingRule(enum.StrEnum):
    """How the weight of a context comes about (docs/protocol.md, weighting rules)."""

    RELEVANCE = "relevance"
    EQUAL = "equal"
    EVIDENCE = "evidence"
    CONTRAST = "contrast"

    @property
    def needs_bare_prompt(self) -> bool:
        return self in (WeightingRule.EVIDENCE, WeightingRule.CONTRAST)

    @property
    def is_constant(self) -> bool:
        """Whether the weight of a peer is the same at every position."""
        return self in (WeightingRule.RELEVANCE, WeightingRule.EQUAL)


class CouplingKind(enum.StrEnum):
    """How a token is chosen from the target distribution, and what each peer guesses."""

    SHARED_NOISE = "shared_noise"
    INDEPENDENT = "independent"


class Weighting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A weighting rule with its parameters: `temperature` is tau of relevance, `beta` and `gamma` of the others.

    `beta` None: the rule's own. The bounds are checked where one is decoded.
    """

    rule: WeightingRule = WeightingRule.EVIDENCE
    temperature: Annotated[float, msgspec.Meta(**limits.WEIGHTING_TEMPERATURE.keywords())] = 0.1
    beta: Annotated[float, msgspec.Meta(**limits.WEIGHTING_BETA.keywords())] | None = None
    gamma: Annotated[float, msgspec.Meta(**limits.WEIGHTING_GAMMA.keywords())] = 0.5

    @property
    def effective_beta(self) -> float:
        """`beta`, or the rule's default: 0.5 for evidence, 0.25 for contrast (docs/benchmarks.md, weighting rules)."""
        if self.beta is not None:
            return self.beta
        return 0.25 if self.rule is WeightingRule.CONTRAST else 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling parameters, applied to each context in this order. Temperature 0 ignores the other three."""

    temperature: float = 0.7
    top_k: int = 0
    min_p: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What a published distribution keeps: the smallest nucleus, at most `max_published_tokens` tokens."""

    nucleus: float = 0.99
    max_published_tokens: int = 64

    def at_temperature(self, temperature: float) -> "Cut":
        """The cut of an answer: the argmax of the mixture needs fewer tokens than a sample does."""
        if temperature > 0:
            return self
        return Cut(nucleus=self.nucleus, max_published_tokens=min(self.max_published_tokens, GREEDY_PUBLISHED_TOKENS))


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:  # noqa: PLW1641 - compared in tests, never a key
    """A published distribution in its decoded form: what both ends compute with.

    `ids` (n,) uint32 token ids and `levels` (n,) uint16 negative log-probabilities in 1/1024 nat, sorted by
    level, then id; `probabilities` (n,) float64 sums to 1; `dropped` counts 1/65535 of the mass that was cut.
    """

    ids: IdArray
    levels: LevelArray
    probabilities: FloatArray
    dropped: int

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Distribution):
            return NotImplemented
        return (
            self.dropped == other.dropped
            and np.array_equal(self.ids, other.ids)
            and np.array_equal(self.levels, other.levels)
        )


@dataclass(frozen=True, slots=True)
class Published:
    """A peer's distribution with its weight, in 1/1024 nat as on the wire (`weight_level / 1024` nat)."""

    weight_level: int
    distribution: Distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What one engine sequence is prompted with: token ids, and the relevance of its passages.

    `document_ids` name the documents its passages come from (attribution only, never sent by the opener).
    """

    tokens: tuple[int, ...]
    relevance: float
    document_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The tokens of a language model: `token_bytes[i]` is what token i prints; special tokens print nothing."""

    token_bytes: tuple[bytes, ...]
    special_ids: frozenset[int]
    end_ids: frozenset[int]

    def __len__(self) -> int:
        return len(self.token_bytes)


@dataclass(frozen=True, slots=True)
class Guess:
    """A token a peer expects to be the target; `gap` is how far (nat) its score lies below the best one's."""

    token: int
    gap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """One of the likeliest tokens of the target distribution."""

    token: int
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A fixed token. `opener_share` and `logprob` are None where it was settled early from one frame."""

    token: int
    opener_share: float | None = None
    logprob: float | None = None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An engine's answer to one feed: the published distribution after it.

    `context_shares` (contexts, n): the part each context had in each published token; columns sum to 1.
    """

    published: Published
    context_shares: NDArray[np.float32] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Feed:
    """Append `tokens` to `branch` and answer `ticket` with the distribution after them.

    No tokens: the distribution after the prompt; only while the branch is empty.
    """

    ticket: int
    branch: BranchId
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fork:
    """Make `branch` a copy of `source` as it stands after the commands before this one."""

    source: BranchId
    branch: BranchId


@dataclass(frozen=True, slots=True)
class Rollback:
    """Drop every token of `branch` at or after `position`; its feeds not yet run are never run or answered."""

    branch: BranchId
    position: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Free the sequences of `branch`; its unanswered tickets stay unanswered."""

    branch: BranchId


Command = Feed | Fork | Rollback | Drop
