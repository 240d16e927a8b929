"""Mixing: contexts into what a peer publishes, and two published distributions into the target distribution p~."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dragon_core.distribution import cut as cut_distribution
from dragon_core.distribution import dropped_mass, quantise_weight, weight_nat
from dragon_core.sampling import filtered, log_softmax
from dragon_core.types import Cut, Distribution, FloatArray, IdArray, Published, Sampling, Step, Weighting
from dragon_core.weighting import log_sum_exp, weigh


def mix_contexts(
    logits: NDArray[np.floating],
    bare_logits: NDArray[np.floating] | None,
    relevances: FloatArray,
    *,
    weighting: Weighting,
    sampling: Sampling,
) -> tuple[float, FloatArray]:
    """The peer's weight in nat and its contexts' parts (C, V) of its distribution: they sum to 1 over both axes."""
    scores = logits.astype(np.float64)
    if not weighting.rule.is_constant:  # a constant weight does not look at them, and sampling normalises
        scores = log_softmax(scores)
    bare = None if bare_logits is None else log_softmax(bare_logits.astype(np.float64))
    weights, mixed = weigh(scores, bare, np.asarray(relevances, dtype=np.float64), weighting)
    weight = log_sum_exp(weights)
    parts = filtered(mixed, sampling)
    if weights.size > 1:
        parts = parts * np.exp(weights - weight)[:, None]
    return weight, parts


def publish(
    logits: NDArray[np.floating],
    bare_logits: NDArray[np.floating] | None,
    relevances: FloatArray,
    *,
    weighting: Weighting,
    sampling: Sampling,
    cut: Cut,
) -> Step:
    """Everything an engine does beside its model: mix logits (C, V) over contexts, cut and quantise."""
    weight, parts = mix_contexts(logits, bare_logits, relevances, weighting=weighting, sampling=sampling)
    mixture = parts[0] if parts.shape[0] == 1 else parts.sum(axis=0)
    distribution = cut_distribution(mixture, cut)
    columns = parts[:, distribution.ids]
    shares = (columns / columns.sum(axis=0)).astype(np.float32)
    return Step(published=Published(quantise_weight(weight), distribution), context_shares=shares)


def peer_shares(opener_weight_level: int, other_weight_level: int) -> tuple[float, float]:
    """softmax over the two peers' weights: opener, other."""
    difference = weight_nat(other_weight_level) - weight_nat(opener_weight_level)
    smaller = math.exp(-abs(difference))
    larger_share, smaller_share = 1.0 / (1.0 + smaller), smaller / (1.0 + smaller)
    return (smaller_share, larger_share) if difference > 0 else (larger_share, smaller_share)


@dataclass(frozen=True, slots=True)
class Mixture:
    """p~ over the tokens either peer published: `ids` ascending, `probabilities`, and the opener's part of each."""

    ids: IdArray
    probabilities: FloatArray
    opener_parts: FloatArray


def target_distribution(opener: Published, other: Published) -> Mixture:
    """p~: contributions are added in peer order, opener first (section 1)."""
    opener_share, other_share = peer_shares(opener.weight_level, other.weight_level)
    first, second = opener.distribution, other.distribution
    ids = _union(first.ids, second.ids)
    opener_parts = np.zeros(ids.size)
    opener_parts[ids.searchsorted(first.ids)] = opener_share * first.probabilities
    probabilities = opener_parts.copy()
    probabilities[ids.searchsorted(second.ids)] += other_share * second.probabilities
    return Mixture(ids, probabilities, opener_parts)


def _union(first: IdArray, second: IdArray) -> IdArray:
    """Ids of either, ascending."""
    both = np.concatenate((first, second))
    both.sort()
    is_new = np.empty(both.size, dtype=bool)
    is_new[0] = True
    np.not_equal(both[1:], both[:-1], out=is_new[1:])
    return both[is_new]


def dropped_bound(opener: Published, other: Published) -> float:
    """Bound of the total variation that cutting put between p~ and the uncut mixture (quantising adds 5e-4)."""
    opener_share, other_share = peer_shares(opener.weight_level, other.weight_level)
    return opener_share * dropped_mass(opener.distribution) + other_share * dropped_mass(other.distribution)


def sorted_by_id(distribution: Distribution) -> tuple[IdArray, FloatArray]:
    """Ids ascending with their probabilities."""
    order = np.argsort(distribution.ids)
    return distribution.ids[order], distribution.probabilities[order]
