"""Sampling parameters, applied to each context before anything is mixed, so that all after it is linear."""

import numpy as np

from dragon_core.errors import OurError
from dragon_core.types import FloatArray, Sampling


def validate(sampling: Sampling) -> None:
    """Refuse parameters out of range.

    Raises:
        OurError: names the parameter and its range.
    """
    ranges = {
        "temperature": (0.0, 10.0, sampling.temperature),
        "min_p": (0.0, 1.0, sampling.min_p),
        "top_p": (0.0, 1.0, sampling.top_p),
        "top_k": (0, 2**31, sampling.top_k),
    }
    for name, (low, high, value) in ranges.items():
        if not low <= value <= high or (name == "top_p" and value == 0):
            raise OurError(f"{name} is {value}; it must be between {low} and {high}")


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
