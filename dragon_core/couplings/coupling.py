"""What every coupling answers, and what they share. Strategies of the session, without state."""

from typing import Protocol

import numpy as np

from dragon_core.mixture import Mixture
from dragon_core.types import (
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


def best_guesses(ids: IdArray, scores: FloatArray, num_guesses: int, *, nat: FloatArray) -> tuple[Guess, ...]:
    """The highest scores, ties to the lowest id; `ids` ascending, gaps between `nat`, the scores in nat."""
    order = np.argsort(-scores, kind="stable")[:num_guesses]
    best = nat[order[0]]
    return tuple(Guess(int(ids[at]), float(best - nat[at])) for at in order)


def likeliest_guesses(ids: IdArray, probabilities: FloatArray, num_guesses: int) -> tuple[Guess, ...]:
    """The highest probabilities themselves: their logarithms may tie where they do not."""
    return best_guesses(ids, probabilities, num_guesses, nat=np.log(probabilities))


def settled_at(mixture: Mixture, at: int, num_top_logprobs: int | None) -> Settled:
    """The token at index `at` of the mixture as the target, with as many of the likeliest as are wanted."""
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
