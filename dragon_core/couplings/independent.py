"""The coupling of the DRAGON paper (arXiv 2504.11197), for comparison: drafts of each side, verified one by one."""

import numpy as np

from dragon_core.couplings.coupling import best_guesses, likeliest_guesses, settled_at
from dragon_core.mixture import Mixture, sorted_by_id, target_distribution
from dragon_core.noise import Stream, gumbel, uniform
from dragon_core.types import Guess, Peer, Published, Settled

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
            return likeliest_guesses(ids, probabilities, num_guesses)
        scores = np.log(probabilities) + gumbel(self._seed, _DRAFT[peer], position, ids)
        return best_guesses(ids, scores, num_guesses, nat=scores)

    def settle(self, position: int, opener: Published | None, other: Published | None) -> Settled | None:
        """Both frames are needed at every position."""
        if opener is None or other is None:
            return None
        mixture = target_distribution(opener, other)
        if self._is_greedy:
            return settled_at(mixture, int(np.argmax(mixture.probabilities)), self._num_top_logprobs)
        coin = uniform(self._seed, Stream.COIN, position, 0)[0]
        peer, published = (Peer.OPENER, opener) if coin < 0.5 else (Peer.OTHER, other)
        at = self._verify(position, peer, published, mixture)
        return settled_at(mixture, at, self._num_top_logprobs)

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
