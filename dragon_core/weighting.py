"""How much each context weighs: relevance, equal, evidence and contrast, in log space, before filters and cut."""

import math
from collections.abc import Sequence
from typing import assert_never

import numpy as np

from dragon_core.errors import OurError
from dragon_core.types import FloatArray, Weighting, WeightingRule

BARE_RELEVANCE = 0.2
"""Relevance of the pseudo-context of a peer without passages: what unrelated text scores with the bundled embedding."""
MIN_CONTRAST_RELEVANCE = 0.01
CONTRAST_PLAUSIBILITY = 0.05


def log_sum_exp(values: FloatArray) -> float:
    """log(sum(exp(values))) without overflow."""
    top = float(values.max())
    return top + math.log(float(np.exp(values - top).sum()))


def context_relevance(relevances: Sequence[float], temperature: float) -> float:
    """Relevance of a context of several passages: tau * logsumexp(r / tau)."""
    return temperature * log_sum_exp(np.asarray(relevances, dtype=np.float64) / temperature)


def constant_weights(relevances: FloatArray, weighting: Weighting) -> FloatArray | None:
    """Weights (C,) that do not depend on the position, or None for the other rules."""
    match weighting.rule:
        case WeightingRule.RELEVANCE:
            return relevances / weighting.temperature
        case WeightingRule.EQUAL:
            return np.full(relevances.shape, -math.log(relevances.size))
        case WeightingRule.EVIDENCE | WeightingRule.CONTRAST:
            return None
        case _:
            assert_never(weighting.rule)


def constant_weight(relevances: FloatArray, weighting: Weighting) -> float | None:
    """The peer's weight in nat when the rule keeps it constant, else None."""
    weights = constant_weights(np.asarray(relevances, dtype=np.float64), weighting)
    return None if weights is None else log_sum_exp(weights)


def evidence(log_probabilities: FloatArray, bare: FloatArray) -> FloatArray:
    """KL(p(. given c) to p0) per context (C,): how much a context changes what the model would say."""
    probabilities = np.exp(log_probabilities)
    with np.errstate(invalid="ignore"):
        terms = probabilities * (log_probabilities - bare)
    return np.asarray(np.where(probabilities > 0, terms, 0.0).sum(axis=-1))


def contrast(log_probabilities: FloatArray, bare: FloatArray, beta: float) -> tuple[FloatArray, FloatArray]:
    """Context-aware decoding: log of p^(1+beta) / p0^beta over plausible tokens (C, V), normalised, and log Z (C,)."""
    plausible = log_probabilities >= log_probabilities.max(axis=-1, keepdims=True) + math.log(CONTRAST_PLAUSIBILITY)
    with np.errstate(invalid="ignore"):
        raised = np.where(plausible, (1 + beta) * log_probabilities - beta * bare, -np.inf)
    log_z = np.array([log_sum_exp(row) for row in raised])
    return raised - log_z[:, None], log_z


def weigh(
    log_probabilities: FloatArray, bare: FloatArray | None, relevances: FloatArray, weighting: Weighting
) -> tuple[FloatArray, FloatArray]:
    """Weights (C,) and the distributions the rule mixes (C, V), from full distributions at temperature 1.

    Raises:
        OurError: a rule that compares with the bare prompt, without it.
    """
    weights = constant_weights(relevances, weighting)
    if weights is not None:
        return weights, log_probabilities
    if bare is None:
        raise OurError(f"the weighting rule {weighting.rule} needs the bare prompt's distribution")
    match weighting.rule:
        case WeightingRule.EVIDENCE:
            return weighting.effective_beta * evidence(log_probabilities, bare), log_probabilities
        case WeightingRule.CONTRAST:
            contrasted, log_z = contrast(log_probabilities, bare, weighting.effective_beta)
            return weighting.gamma * np.log(np.maximum(relevances, MIN_CONTRAST_RELEVANCE)) + log_z, contrasted
        case WeightingRule.RELEVANCE | WeightingRule.EQUAL:
            raise OurError(f"the weighting rule {weighting.rule} has constant weights")
        case _:
            assert_never(weighting.rule)
