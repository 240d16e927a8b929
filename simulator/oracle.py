"""The answer computed in one place, without any protocol: what two peers together must come to."""

from dataclasses import dataclass, replace

from dragon_core.couplings.making import make_coupling
from dragon_core.messages import Fingerprint, weighting_fields
from dragon_core.types import Context, CouplingKind, Cut, Peer, Sampling, Settled, Weighting, WeightingRule
from simulator.toy_engine import END_PENALTY, TOY_VOCABULARY, ToySequences

CUT = Cut(max_published_tokens=16)


@dataclass(frozen=True, kw_only=True)
class Question:
    """Everything the answer is a function of. `contexts` are the opener's and the other's."""

    seed: int = 1
    temperature: float = 0.7
    top_k: int = 0
    min_p: float = 0.0
    top_p: float = 1.0
    rule: WeightingRule = WeightingRule.RELEVANCE
    coupling: CouplingKind = CouplingKind.SHARED_NOISE
    max_tokens: int = 30
    stop: tuple[str, ...] = ()
    num_top_logprobs: int | None = None
    end_penalty: float = END_PENALTY
    contexts: tuple[tuple[Context, ...], tuple[Context, ...]] = (
        (Context(tokens=(1, 2), relevance=0.6, document_ids=("ours",)),),
        (Context(tokens=(3,), relevance=0.5, document_ids=("p",)), Context(tokens=(4,), relevance=0.4)),
    )

    @property
    def weighting(self) -> Weighting:
        return Weighting(rule=self.rule)

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_k=self.top_k, min_p=self.min_p, top_p=self.top_p)

    @property
    def swapped(self) -> "Question":
        """The same with each end's contexts at the other end."""
        return replace(self, contexts=(self.contexts[1], self.contexts[0]))

    @property
    def fingerprint(self) -> Fingerprint:
        """What both ends say they have in common."""
        return Fingerprint(
            vocabulary="v",
            template="t",
            embedding="e",
            embedding_dimension=1,
            embedding_revision="r",
            **weighting_fields(self.weighting),
            max_published_tokens=CUT.max_published_tokens,
            nucleus=CUT.nucleus,
        )

    def sequences(self, peer: Peer, *, max_branches: int = 1) -> ToySequences:
        """A model that is given one peer's contexts."""
        return ToySequences(
            self.contexts[0 if peer is Peer.OPENER else 1],
            self.weighting,
            self.sampling,
            CUT,
            max_branches=max_branches,
            max_tokens=self.max_tokens,
            end_penalty=self.end_penalty,
        )


def oracle(question: Question, *, degraded: frozenset[int] = frozenset()) -> list[Settled]:
    """Every token with its share and log-probability; `degraded` positions take the opener's own guess.

    Nothing is settled early: what early settlement fixes must be what both frames give.
    """
    opener, other = question.sequences(Peer.OPENER), question.sequences(Peer.OTHER)
    coupling = make_coupling(
        question.coupling,
        seed=question.seed,
        temperature=question.temperature,
        num_top_logprobs=question.num_top_logprobs,
        constant_weight_levels={},
    )
    found: list[Settled] = []
    tokens: list[int] = []
    while len(tokens) < question.max_tokens and not _is_at_end(tokens, question.stop):
        position = len(tokens)
        first, second = opener.step_after(tokens).published, other.step_after(tokens).published
        if position in degraded:
            settled: Settled | None = Settled(token=coupling.guesses(position, first, 1, Peer.OPENER)[0].token)
        else:
            settled = coupling.settle(position, first, second)
        assert settled is not None
        found.append(settled)
        tokens.append(settled.token)
    return found


def oracle_tokens(question: Question, *, degraded: frozenset[int] = frozenset()) -> list[int]:
    """The tokens alone."""
    return [settled.token for settled in oracle(question, degraded=degraded)]


def oracle_text(tokens: list[int], stop: tuple[str, ...]) -> bytes:
    """What the user sees of finished `tokens`: up to the first stop string, without it."""
    text = _text(tokens)
    found = [at for string in stop if (at := text.find(string.encode())) >= 0]
    return text[: min(found, default=len(text))]


def _text(tokens: list[int]) -> bytes:
    return b"".join(TOY_VOCABULARY.token_bytes[token] for token in tokens)


def _is_at_end(tokens: list[int], stop: tuple[str, ...]) -> bool:
    is_ended = bool(tokens) and tokens[-1] in TOY_VOCABULARY.end_ids
    return is_ended or any(string.encode() in _text(tokens) for string in stop)
