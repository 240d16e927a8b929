"""The target distribution against the definition of the protocol's first section, computed here with plain numbers."""

import math
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dragon_core.distribution import LEVELS_PER_NAT
from dragon_core.mixture import dropped_bound, mix_contexts, publish, target_distribution
from dragon_core.types import Cut, Distribution, Published, Sampling, Weighting, WeightingRule
from dragon_core.weighting import BARE_RELEVANCE, context_relevance

SIZE = 20
ALIKE = [WeightingRule.RELEVANCE, WeightingRule.EVIDENCE, WeightingRule.CONTRAST]
EQUAL = Weighting(rule=WeightingRule.EQUAL)
QUANTISING_BOUND = 5e-4

Passage = tuple[list[float], float]
"""A context: its logits and its relevance."""


def softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    raised = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    return [value / math.fsum(raised) for value in raised]


def weighed(passage: Passage, bare: list[float], weighting: Weighting, temperature: float) -> tuple[float, list[float]]:
    """e^w and p(. | context) of the protocol's table of rules."""
    rule, beta = weighting.rule, weighting.effective_beta
    logits, relevance = passage
    given_context, without = softmax(logits), softmax(bare)
    if rule is WeightingRule.RELEVANCE:
        return math.exp(relevance / weighting.temperature), softmax(logits, temperature)
    if rule is WeightingRule.EVIDENCE:
        divergence = math.fsum(p * math.log(p / q) for p, q in zip(given_context, without, strict=True))
        return math.exp(beta * divergence), softmax(logits, temperature)
    raised = [
        p ** (1 + beta) / q**beta if p >= 0.05 * max(given_context) else 0.0
        for p, q in zip(given_context, without, strict=True)
    ]
    total = math.fsum(raised)
    weight = max(relevance, 0.01) ** weighting.gamma * total
    tempered = [(value / total) ** (1 / temperature) for value in raised]
    return weight, [value / math.fsum(tempered) for value in tempered]


def over_all_contexts(
    passages: list[Passage], bare: list[float], weighting: Weighting, temperature: float
) -> list[float]:
    """Sum of e^(w_c) p(x | c) over sum of e^(w_c)."""
    parts = [weighed(passage, bare, weighting, temperature) for passage in passages]
    total = math.fsum(weight for weight, _ in parts)
    return [math.fsum(weight * p[x] for weight, p in parts) / total for x in range(SIZE)]


def mixture_of(
    passages: list[Passage], bare: list[float], weighting: Weighting, temperature: float
) -> tuple[float, NDArray[np.float64]]:
    weight, parts = mix_contexts(
        np.array([logits for logits, _ in passages]),
        np.array(bare),
        np.array([relevance for _, relevance in passages]),
        weighting=weighting,
        sampling=Sampling(temperature=temperature),
    )
    return weight, parts.sum(axis=0)


def unquantised(passages: list[Passage], bare: list[float], weighting: Weighting, temperature: float) -> Published:
    """What a peer would publish without cut and without quantising: every token, and a weight between levels."""
    weight, mixture = mixture_of(passages, bare, weighting, temperature)
    levels = np.zeros(SIZE, dtype=np.uint16)
    distribution = Distribution(np.arange(SIZE, dtype=np.uint32), levels, mixture, dropped=0)
    return Published(cast("int", weight * LEVELS_PER_NAT), distribution)


def two_peers(
    opener: list[Passage], other: list[Passage], bare: list[float], weighting: Weighting, temperature: float
) -> NDArray[np.float64]:
    mixture = target_distribution(
        unquantised(opener, bare, weighting, temperature), unquantised(other, bare, weighting, temperature)
    )
    assert mixture.ids.tolist() == list(range(SIZE))
    return mixture.probabilities


def weightings(rules: list[WeightingRule]) -> st.SearchStrategy[Weighting]:
    """Rules with parameters of any size that makes sense, the defaults (None) among them."""
    return st.builds(
        Weighting,
        rule=st.sampled_from(rules),
        temperature=st.floats(0.05, 1.0),
        beta=st.none() | st.floats(0.0, 1.5),
        gamma=st.floats(0.0, 1.0),
    )


logits = st.lists(st.floats(-6, 6, allow_subnormal=False), min_size=SIZE, max_size=SIZE)
passages = st.tuples(logits, st.floats(-0.2, 1.0))
sides = st.lists(passages, max_size=3)
temperatures = st.sampled_from([0.5, 0.7, 1.0, 1.5])


def with_pseudo_context(side: list[Passage], bare: list[float]) -> list[Passage]:
    """A peer without a passage uses the bare prompt with the documented relevance."""
    return side or [(bare, BARE_RELEVANCE)]


@settings(max_examples=60, deadline=None)
@given(sides, sides, logits, weightings(ALIKE), temperatures)
def test_two_peers_make_the_mixture_over_all_contexts(
    opener: list[Passage], other: list[Passage], bare: list[float], weighting: Weighting, temperature: float
) -> None:
    opener, other = with_pseudo_context(opener, bare), with_pseudo_context(other, bare)
    expected = over_all_contexts(opener + other, bare, weighting, temperature)
    np.testing.assert_allclose(two_peers(opener, other, bare, weighting, temperature), expected, rtol=0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(passages, min_size=2, max_size=5),
    st.permutations(range(5)),
    st.integers(1, 4),
    logits,
    weightings(ALIKE),
)
def test_it_does_not_matter_which_side_holds_a_context(
    held: list[Passage], order: list[int], num_ours: int, bare: list[float], weighting: Weighting
) -> None:
    shuffled = [held[at] for at in order if at < len(held)]
    num_ours = min(num_ours, len(held) - 1)
    first = two_peers(held[:1], held[1:], bare, weighting, 0.7)
    second = two_peers(shuffled[:num_ours], shuffled[num_ours:], bare, weighting, 0.7)
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(sides, sides, logits, temperatures)
def test_with_equal_weights_every_peer_counts_the_same(
    opener: list[Passage], other: list[Passage], bare: list[float], temperature: float
) -> None:
    opener, other = with_pseudo_context(opener, bare), with_pseudo_context(other, bare)
    by_peer = [[softmax(logits, temperature) for logits, _ in side] for side in (opener, other)]
    expected = [sum(math.fsum(p[x] for p in side) / len(side) for side in by_peer) / 2 for x in range(SIZE)]
    mixed = two_peers(opener, other, bare, EQUAL, temperature)
    np.testing.assert_allclose(mixed, expected, rtol=0, atol=1e-9)


def test_with_equal_weights_it_matters_which_side_holds_a_context() -> None:
    sure: list[Passage] = [([8.0 if x == at else 0.0 for x in range(SIZE)], 0.5) for at in range(3)]
    bare = [0.0] * SIZE
    one_to_two = two_peers(sure[:1], sure[1:], bare, EQUAL, 1.0)
    two_to_one = two_peers(sure[:2], sure[2:], bare, EQUAL, 1.0)
    assert one_to_two[0] == pytest.approx(2 * one_to_two[1], rel=0.02)
    assert two_to_one[2] == pytest.approx(2 * two_to_one[0], rel=0.02)


@pytest.mark.parametrize(("rule", "num_tokens"), [(WeightingRule.CONTRAST, 3), (WeightingRule.EVIDENCE, SIZE)])
def test_contrast_alone_leaves_out_implausible_tokens(rule: WeightingRule, num_tokens: int) -> None:
    """At the plausibility limit of 0.05 of the best: tokens at 1, 0.5, 0.06 and 0.04 of it."""
    logits = [math.log(part) for part in (1.0, 0.5, 0.06, 0.04)] + [-9.0] * (SIZE - 4)
    _, mixture = mixture_of([(logits, 0.5)], [0.0] * SIZE, Weighting(rule=rule), 1.0)
    assert np.count_nonzero(mixture) == num_tokens


@given(st.lists(st.floats(-0.2, 1.0), min_size=1, max_size=5), st.sampled_from([0.05, 0.1, 0.5]))
def test_a_context_of_several_passages_weighs_as_much_as_they_do(relevances: list[float], tau: float) -> None:
    expected = math.fsum(math.exp(relevance / tau) for relevance in relevances)
    assert math.exp(context_relevance(relevances, tau) / tau) == pytest.approx(expected, rel=1e-9)


cuts = st.builds(Cut, nucleus=st.floats(0.3, 1.0), max_published_tokens=st.integers(1, SIZE))


@settings(max_examples=100, deadline=None)
@given(sides, sides, logits, weightings(list(WeightingRule)), temperatures, cuts)
def test_cutting_and_quantising_move_no_more_mass_than_published(
    opener: list[Passage],
    other: list[Passage],
    bare: list[float],
    weighting: Weighting,
    temperature: float,
    cut: Cut,
) -> None:
    opener, other = with_pseudo_context(opener, bare), with_pseudo_context(other, bare)
    published = [
        publish(
            np.array([logits for logits, _ in side]),
            np.array(bare),
            np.array([relevance for _, relevance in side]),
            weighting=weighting,
            sampling=Sampling(temperature=temperature),
            cut=cut,
        ).published
        for side in (opener, other)
    ]
    mixture = target_distribution(*published)
    cut_away = np.zeros(SIZE)
    cut_away[mixture.ids] = mixture.probabilities
    uncut = two_peers(opener, other, bare, weighting, temperature)
    variation = 0.5 * float(np.abs(cut_away - uncut).sum())
    assert variation <= dropped_bound(*published) + QUANTISING_BOUND
