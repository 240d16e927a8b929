"""Whether counts can have come from probabilities: Pearson's chi-square with rare cells put together."""

from collections import Counter

import numpy as np
from scipy.stats import chisquare

from dragon_core.types import FloatArray, IdArray

LEAST_EXPECTED = 8.0
"""Cells that expect fewer are pooled: the statistic is not chi-square distributed on them."""


def p_value(tokens: list[int], ids: IdArray, probabilities: FloatArray) -> float:
    """How likely counts as far off as these are, if `tokens` were drawn with these probabilities.

    A token that is none of `ids` is an AssertionError.
    """
    counts = Counter(tokens)
    assert set(counts) <= set(ids.tolist()), "a token was drawn that has no probability"
    observed = np.array([counts[token] for token in ids.tolist()], dtype=np.float64)
    expected = probabilities / probabilities.sum() * len(tokens)
    order = np.argsort(expected)
    num_pooled = int(np.searchsorted(np.cumsum(expected[order]), LEAST_EXPECTED)) + 1
    pooled, kept = order[:num_pooled], order[num_pooled:]
    assert kept.size >= 2, "too few draws to tell anything"
    found = chisquare(
        np.append(observed[kept], observed[pooled].sum()), np.append(expected[kept], expected[pooled].sum())
    )
    return float(found.pvalue)
