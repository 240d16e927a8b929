"""Sampling parameters, applied to each context before anything is mixed, so that all after it is linear."""

import numpy as np

from dragon_core.types import FloatArray, Sampling


def log_softmax(logits: FloatArray) -> FloatArray:
    """Row-wise log-softmax (C, V); -inf stays -inf."""
    shifted: FloatArray = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def filtered(log_probabilities: FloatArray, sampling: Sampling) -> FloatArray:
    """Probabilities (C, V) after temperature, top_k, min_p and top_p, in this order, row by row.

    Rows need not be normalised: logits give the same. Temperature 0 ignores the other three: the argmax is taken of
    the mixture at temperature 1.
    """
    shifted = log_probabilities - log_probabilities.max(axis=-1, keepdims=True)
    if sampling.temperature not in (0, 1):
        with np.errstate(over="ignore"):  # at the smallest temperatures all but the best are -inf
            shifted /= sampling.temperature
    probabilities = np.exp(shifted, out=shifted)
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    if sampling.temperature > 0 and (sampling.top_k or sampling.min_p > 0 or sampling.top_p < 1):
        for row in probabilities:
            _filter(row, sampling)
    return np.asarray(probabilities)


def _filter(row: FloatArray, sampling: Sampling) -> None:
    """Zero what the filters remove and renormalise, in place. Ties are kept in order of token id."""
    order = np.lexsort((np.arange(row.size), -row))
    num_kept = row.size
    if sampling.top_k:
        num_kept = min(num_kept, sampling.top_k)
    if sampling.min_p > 0:
        num_kept = min(num_kept, int(np.count_nonzero(row >= sampling.min_p * row[order[0]])))
    if sampling.top_p < 1:
        kept = row[order[:num_kept]]
        mass = np.cumsum(kept) / kept.sum()
        num_kept = min(num_kept, int(np.searchsorted(mass, sampling.top_p)) + 1)
    row[order[num_kept:]] = 0.0
    row /= row.sum()
