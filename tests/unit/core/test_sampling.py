"""Sampling parameters against a reference that takes them one after the other, on plain lists."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dragon_core.sampling import filtered, log_softmax
from dragon_core.types import Sampling

CLOSE = 1e-9
"""Nearer than this to a threshold, or to each other, rounding decides."""


def reference(log_probabilities: list[float], sampling: Sampling) -> list[float]:
    """Temperature, then top_k, then min_p, then top_p over what is left; ties are kept from the lowest id on."""
    best = max(log_probabilities)
    raised = [math.exp((value - best) / sampling.temperature) for value in log_probabilities]
    tempered = [value / math.fsum(raised) for value in raised]
    kept = sorted(range(len(tempered)), key=lambda token: (-tempered[token], token))
    gaps = [abs(log_probabilities[one] - log_probabilities[next_one]) for one, next_one in pairwise(kept)]
    assume(all(gap == 0 or gap > CLOSE for gap in gaps))
    if sampling.top_k > 0:
        kept = kept[: sampling.top_k]
    least = sampling.min_p * tempered[kept[0]]
    assume(all(abs(tempered[token] - least) > CLOSE for token in kept))
    kept = [token for token in kept if tempered[token] >= least]
    left = math.fsum(tempered[token] for token in kept)
    mass, nucleus = 0.0, []
    for token in kept:
        nucleus.append(token)
        mass += tempered[token] / left
        assume(abs(mass - sampling.top_p) > CLOSE or sampling.top_p == 1.0)
        if mass >= sampling.top_p:
            break
    nucleus = kept if sampling.top_p == 1.0 else nucleus
    total = math.fsum(tempered[token] for token in nucleus)
    return [tempered[token] / total if token in nucleus else 0.0 for token in range(len(tempered))]


def log_probabilities(parts: list[float]) -> NDArray[np.float64]:
    """Rows (1, V) from weights."""
    return log_softmax(np.log(np.array([parts])))


rows = st.lists(st.floats(-8, 8, allow_subnormal=False) | st.integers(-2, 2).map(float), min_size=1, max_size=16)
parameters = st.builds(
    Sampling,
    temperature=st.floats(0.1, 3.0),
    top_k=st.integers(0, 20),
    min_p=st.just(0.0) | st.floats(0.001, 1.0),
    top_p=st.just(1.0) | st.floats(0.01, 1.0),
)


@settings(max_examples=300, deadline=None)
@given(rows, parameters)
def test_the_filters_are_the_references(logits: list[float], sampling: Sampling) -> None:
    logged = log_softmax(np.array([logits]))
    expected = reference(logged[0].tolist(), sampling)
    found = filtered(logged, sampling)[0]
    assert np.flatnonzero(found).tolist() == [token for token, p in enumerate(expected) if p > 0]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@given(st.lists(rows, min_size=2, max_size=4), parameters)
def test_every_context_is_filtered_by_itself(contexts: list[list[float]], sampling: Sampling) -> None:
    size = min(len(logits) for logits in contexts)
    logged = log_softmax(np.array([logits[:size] for logits in contexts]))
    together = filtered(logged, sampling)
    for row, alone in zip(together, logged, strict=True):
        np.testing.assert_array_equal(row, filtered(alone[None], sampling)[0])


@pytest.mark.parametrize(
    ("parts", "sampling", "kept"),
    [
        # Temperature before min_p: 0.2 is a fifth of the best, and 0.2^(1/2) nearly half of it.
        ([0.7, 0.2, 0.1], Sampling(temperature=2.0, min_p=0.4), [0, 1]),
        # top_k before top_p: of the two that are left, the first has 0.8 of the mass, though only 0.4 of all.
        ([0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], Sampling(temperature=1.0, top_k=2, top_p=0.75), [0]),
        # min_p before top_p: with the tail gone the first has 0.6 of the mass, enough for a nucleus of 0.55.
        ([0.45, 0.3] + [0.025] * 10, Sampling(temperature=1.0, min_p=0.5, top_p=0.55), [0]),
    ],
)
def test_the_order_of_the_parameters_shows(parts: list[float], sampling: Sampling, kept: list[int]) -> None:
    assert np.flatnonzero(filtered(log_probabilities(parts), sampling)[0]).tolist() == kept


@given(rows, parameters)
def test_temperature_zero_ignores_the_other_parameters(logits: list[float], sampling: Sampling) -> None:
    logged = log_softmax(np.array([logits]))
    found = filtered(logged, replace(sampling, temperature=0.0))
    np.testing.assert_allclose(found, np.exp(logged), rtol=1e-12)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(temperature=1.0, top_k=2), [1, 2]),
        (Sampling(temperature=1.0, top_p=0.5), [1, 2]),
        (Sampling(temperature=1.0, min_p=1.0), [1, 2, 4]),
    ],
)
def test_of_equal_tokens_the_lowest_ids_are_kept_but_min_p_keeps_all(sampling: Sampling, kept: list[int]) -> None:
    parts = [0.05, 0.3, 0.3, 0.05, 0.3]
    assert np.flatnonzero(filtered(log_probabilities(parts), sampling)[0]).tolist() == kept


def test_a_token_that_a_rule_has_ruled_out_stays_out() -> None:
    logged = np.array([[-np.inf, math.log(0.6), math.log(0.4)]])
    for sampling in (Sampling(temperature=0.0), Sampling(temperature=0.7), Sampling(temperature=0.7, top_p=0.999)):
        assert filtered(logged, sampling)[0, 0] == 0.0


@given(rows, st.sampled_from([1e-308, 1e-300, 1e-12, 1e-3]))
def test_the_smallest_temperatures_choose_the_best_token(logits: list[float], temperature: float) -> None:
    logged = log_softmax(np.array([logits]))
    assume(np.diff(np.sort(logged[0]))[-1:].sum() > 0.05 or len(logits) == 1)
    found = filtered(logged, Sampling(temperature=temperature))[0]
    assert found[logged[0].argmax()] == pytest.approx(1.0)
    assert found.sum() == pytest.approx(1.0)
