"""Both peers draw a position's token with the same noise: an exact sample of p~ that each can guess well."""

from collections.abc import Mapping

import numpy as np

from dragon_core.couplings.coupling import best_guesses, likeliest_guesses, settled_at
from dragon_core.mixture import peer_shares, sorted_by_id, target_distribution
from dragon_core.noise import Stream, gumbel
from dragon_core.types import FloatArray, Guess, IdArray, Peer, Published, Settled


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
            return likeliest_guesses(ids, probabilities, num_guesses)
        scores = self._scores(position, ids, probabilities)
        return best_guesses(ids, scores, num_guesses, nat=scores)

    def settle(self, position: int, opener: Published | None, other: Published | None) -> Settled | None:
        """The argmax over both frames; over one alone where the other could not change it."""
        if opener is None or other is None:
            return self._settle_early(opener, other)
        mixture = target_distribution(opener, other)
        scores = self._scores(position, mixture.ids, mixture.probabilities)
        return settled_at(mixture, int(np.argmax(scores)), self._num_top_logprobs)

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
