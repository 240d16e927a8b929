"""How a token is chosen from p~, and what each peer guesses it will be. Strategies of the session, without state."""

from collections.abc import Mapping
from typing import Protocol, assert_never

import numpy as np

from dragon_core.mixture import Mixture, peer_shares, sorted_by_id, target_distribution
from dragon_core.noise import Stream, gumbel, uniform
from dragon_core.types import (
    CouplingKind,
    FloatArray,
    Guess,
    IdArray,
    Peer,
    Published,
    Settled,
    TokenLogprob,
)


class Coupling(Protocol):
    """The two questions a session asks."""

    def guesses(self, position: int, published: Published, num_guesses: int, peer: Peer) -> tuple[Guess, ...]:
        """The tokens `peer` should expect to be fixed after publishing this, best first."""

    def settle(self, position: int, opener: Published | None, other: Published | None) -> Settled | None:
        """The target, or None while a frame is missing."""


def _best(ids: IdArray, scores: FloatArray, num_guesses: int, *, nat: FloatArray) -> tuple[Guess, ...]:
    """The highest scores, ties to the lowest id; `ids` ascending, gaps between `nat`, the scores in nat."""
    order = np.argsort(-scores, kind="stable")[:num_guesses]
    best = nat[order[0]]
    return tuple(Guess(int(ids[at]), float(best - nat[at])) for at in order)


def _likeliest(ids: IdArray, probabilities: FloatArray, num_guesses: int) -> tuple[Guess, ...]:
    """The highest probabilities themselves: their logarithms may tie where they do not."""
    return _best(ids, probabilities, num_guesses, nat=np.log(probabilities))


def _settled(mixture: Mixture, at: int, num_top_logprobs: int | None) -> Settled:
    probability = float(mixture.probabilities[at])
    top: tuple[TokenLogprob, ...] = ()
    if num_top_logprobs:
        order = np.argsort(-mixture.probabilities, kind="stable")[:num_top_logprobs]
        top = tuple(
            TokenLogprob(token=int(mixture.ids[i]), logprob=float(np.log(mixture.probabilities[i])))
            for i in order
            if mixture.probabilities[i] > 0
        )
    return Settled(
        token=int(mixture.ids[at]),
        opener_share=float(mixture.opener_parts[at]) / probability,
        logprob=float(np.log(probability)),
        top=top,
    )


class SharedNoise:
    """target = argmax log p~(x) + noise(token, t, x); a guess is the same with the peer's own distribution.

    An exact sample of p~ (Gumbel-max), with P(guess = target) >= (1 - TV) / (1 + TV) (Daliri et al. 2024).
    At temperature 0 there is no noise, and a frame may settle a position alone (early settlement).
    """

    def __init__(
        self,
        *,
        seed: int,
        temperature: float,
        num_top_logprobs: int | None = None,
        constant_weight_levels: Mapping[Peer, int] | None = None,
    ) -> None:
        self._seed = seed
        self._is_greedy = temperature == 0
        self._num_top_logprobs = num_top_logprobs
        weights = constant_weight_levels or {}
        self._shares: dict[Peer, float] = {}
        if self._is_greedy and num_top_logprobs is None and len(weights) == len(Peer):
            opener_share, other_share = peer_shares(weights[Peer.OPENER], weights[Peer.OTHER])
            self._shares = {Peer.OPENER: opener_share, Peer.OTHER: other_share}

    def guesses(self, position: int, published: Published, num_guesses: int, peer: Peer) -> tuple[Guess, ...]:
        """The best perturbed scores of the peer's own distribution."""
        del peer  # the noise is shared: both sides ask the same question
        ids, probabilities = sorted_by_id(published.distribution)
        if self._is_greedy:
            return _likeliest(ids, probabilities, num_guesses)
        scores = self._scores(position, ids, probabilities)
        return _best(ids, scores, num_guesses, nat=scores)

    def settle(self, position: int, opener: Published | None, other: Published | None) -> Settled | None:
        """The argmax over both frames; over one alone where the other could not change it."""
        if opener is None or other is None:
            return self._settle_early(opener, other)
        mixture = target_distribution(opener, other)
        scores = self._scores(position, mixture.ids, mixture.probabilities)
        return _settled(mixture, int(np.argmax(scores)), self._num_top_logprobs)

    def _scores(self, position: int, ids: IdArray, probabilities: FloatArray) -> FloatArray:
        if self._is_greedy:
            return probabilities
        with np.errstate(divide="ignore"):  # a side of far lower weight has tokens of probability 0 in p~
            return np.asarray(np.log(probabilities) + gumbel(self._seed, Stream.TOKEN, position, ids))

    def _settle_early(self, opener: Published | None, other: Published | None) -> Settled | None:
        """h (p(x*) - p(second)) > 1 - h: whatever the other publishes, x* stays the argmax."""
        frame, peer = (opener, Peer.OPENER) if opener is not None else (other, Peer.OTHER)
        share = self._shares.get(peer)
        if frame is None or share is None or share <= 0.5:
            return None
        ids, probabilities = sorted_by_id(frame.distribution)
        best = int(np.argmax(probabilities))
        second = float(np.delete(probabilities, best).max()) if ids.size > 1 else 0.0
        margin = share * (float(probabilities[best]) - second) - (1.0 - share)
        # Rounding of the mixture's sums must not decide: what is this close waits for the other frame.
        if margin > 1e-9:
            return Settled(token=int(ids[best]))
        return None


_DRAFT = {Peer.OPENER: Stream.DRAFT_OPENER, Peer.OTHER: Stream.DRAFT_OTHER}
_ACCEPT = {Peer.OPENER: Stream.ACCEPT_OPENER, Peer.OTHER: Stream.ACCEPT_OTHER}
_RESIDUAL = {Peer.OPENER: Stream.RESIDUAL_OPENER, Peer.OTHER: Stream.RESIDUAL_OTHER}


class IndependentDrafts:
    """The paper's coupling: each side's own draft is accepted or replaced, then a coin chooses between the two.

    A side's draft follows from its frame, the seed and its stream, so the aggregator knows it without being told.
    """

    def __init__(self, *, seed: int, temperature: float, num_top_logprobs: int | None = None) -> None:
        self._seed = seed
        self._is_greedy = temperature == 0
        self._num_top_logprobs = num_top_logprobs

    def guesses(self, position: int, published: Published, num_guesses: int, peer: Peer) -> tuple[Guess, ...]:
        """The side's draft, then its next best perturbed scores."""
        ids, probabilities = sorted_by_id(published.distribution)
        if self._is_greedy:
            return _likeliest(ids, probabilities, num_guesses)
        scores = np.log(probabilities) + gumbel(self._seed, _DRAFT[peer], position, ids)
        return _best(ids, scores, num_guesses, nat=scores)

    def settle(self, position: int, opener: Published | None, other: Published | None) -> Settled | None:
        """Both frames are needed at every position."""
        if opener is None or other is None:
            return None
        mixture = target_distribution(opener, other)
        if self._is_greedy:
            return _settled(mixture, int(np.argmax(mixture.probabilities)), self._num_top_logprobs)
        coin = uniform(self._seed, Stream.COIN, position, 0)[0]
        peer, published = (Peer.OPENER, opener) if coin < 0.5 else (Peer.OTHER, other)
        at = self._verify(position, peer, published, mixture)
        return _settled(mixture, at, self._num_top_logprobs)

    def _verify(self, position: int, peer: Peer, published: Published, mixture: Mixture) -> int:
        """Accept the draft with min(1, p~ / p_s), else draw from the residual (p~ - p_s)+ (Leviathan et al. 2023)."""
        own = np.zeros(mixture.ids.size)
        own[mixture.ids.searchsorted(published.distribution.ids)] = published.distribution.probabilities
        draft = int(mixture.ids.searchsorted(self.guesses(position, published, 1, peer)[0].token))
        accept = uniform(self._seed, _ACCEPT[peer], position, 0)[0]
        if accept * own[draft] <= mixture.probabilities[draft]:
            return draft
        residual = np.maximum(mixture.probabilities - own, 0.0)
        candidates = np.flatnonzero(residual)
        noise = gumbel(self._seed, _RESIDUAL[peer], position, mixture.ids[candidates])
        return int(candidates[np.argmax(np.log(residual[candidates]) + noise)])


def make_coupling(
    kind: CouplingKind,
    *,
    seed: int,
    temperature: float,
    num_top_logprobs: int | None,
    constant_weight_levels: Mapping[Peer, int],
) -> Coupling:
    """The strategy an Open names."""
    match kind:
        case CouplingKind.INDEPENDENT:
            return IndependentDrafts(seed=seed, temperature=temperature, num_top_logprobs=num_top_logprobs)
        case CouplingKind.SHARED_NOISE:
            return SharedNoise(
                seed=seed,
                temperature=temperature,
                num_top_logprobs=num_top_logprobs,
                constant_weight_levels=constant_weight_levels,
            )
        case _:
            assert_never(kind)
