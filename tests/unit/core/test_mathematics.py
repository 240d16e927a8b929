"""The mathematics against known answers, an independent reference and the frequencies it must produce."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragon_core.coupling import Coupling, IndependentDrafts, SharedNoise
from dragon_core.distribution import cut, pack, unpack
from dragon_core.errors import PeerError
from dragon_core.mixture import mix_contexts, target_distribution
from dragon_core.noise import philox
from dragon_core.types import Cut, Peer, Published, Sampling, Weighting, WeightingRule

VOCABULARY = 30


def published(seed: int, weight_level: int = 0) -> Published:
    probabilities = np.random.default_rng(seed).dirichlet(np.full(VOCABULARY, 0.3))
    return Published(weight_level, cut(probabilities, Cut()))


def test_philox_gives_the_known_answers() -> None:
    zeros = philox(np.zeros((4, 1), dtype=np.uint64), (0, 0))
    assert [int(word) for word in zeros[:, 0]] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    counter = np.array([[0x243F6A88], [0x85A308D3], [0x13198A2E], [0x03707344]], dtype=np.uint64)
    pi = philox(counter, (0xA4093822, 0x299F31D0))
    assert [int(word) for word in pi[:, 0]] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@pytest.mark.parametrize("rule", [WeightingRule.RELEVANCE, WeightingRule.EVIDENCE, WeightingRule.CONTRAST])
def test_it_does_not_matter_which_side_holds_a_context(rule: WeightingRule) -> None:
    rng = np.random.default_rng(1)
    logits, bare = rng.normal(size=(4, VOCABULARY)) * 3, rng.normal(size=VOCABULARY)
    relevances = np.array([0.2, 0.9, 0.5, 0.4])

    def mixture_of(sides: list[list[int]]) -> np.ndarray:
        total, norm = np.zeros(VOCABULARY), 0.0
        for held in sides:
            weight, parts = mix_contexts(
                logits[held], bare, relevances[held], weighting=Weighting(rule=rule), sampling=Sampling(temperature=1)
            )
            total, norm = total + math.exp(weight) * parts.sum(axis=0), norm + math.exp(weight)
        return total / norm

    np.testing.assert_allclose(mixture_of([[0, 1], [2, 3]]), mixture_of([[3, 0, 2], [1]]), atol=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 20))
def test_a_packed_distribution_decodes_to_itself(seed: int, max_tokens: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.full(VOCABULARY, 0.1))
    made = cut(probabilities, Cut(max_published_tokens=max_tokens))
    assert unpack(pack(made), dropped=made.dropped, vocabulary_size=VOCABULARY, max_tokens=max_tokens) == made


@given(st.binary(max_size=80))
def test_hostile_bytes_are_refused_or_valid(body: bytes) -> None:
    try:
        made = unpack(body, dropped=0, vocabulary_size=VOCABULARY, max_tokens=16)
    except PeerError:
        return
    assert 1 <= made.ids.size <= 16
    assert math.isclose(made.probabilities.sum(), 1.0)


@pytest.mark.parametrize("kind", [SharedNoise, IndependentDrafts])
def test_sampled_frequencies_match_the_target_distribution(kind: type[SharedNoise] | type[IndependentDrafts]) -> None:
    opener, other = published(3, 200), published(4)
    mixture = target_distribution(opener, other)
    num_samples = 4000
    coupling: Coupling
    counts = dict.fromkeys(mixture.ids.tolist(), 0)
    for seed in range(num_samples):
        coupling = kind(seed=seed, temperature=1.0)
        settled = coupling.settle(0, opener, other)
        assert settled is not None
        counts[settled.token] += 1
    expected = mixture.probabilities * num_samples
    observed = np.array([counts[token] for token in mixture.ids.tolist()])
    often = expected >= 5
    statistic = float(((observed - expected) ** 2 / expected)[often].sum())
    degrees = int(often.sum())
    assert statistic < degrees + 5 * math.sqrt(2 * degrees)


@given(st.integers(0, 500), st.integers(0, 500))
def test_a_position_settled_early_is_settled_the_same_with_any_other_frame(seed: int, other_seed: int) -> None:
    weights = {Peer.OPENER: 2048, Peer.OTHER: 0}
    coupling = SharedNoise(seed=0, temperature=0.0, constant_weight_levels=weights)
    opener = published(seed, weights[Peer.OPENER])
    early = coupling.settle(0, opener, None)
    full = coupling.settle(0, opener, published(other_seed))
    assert full is not None
    assert early is None or early.token == full.token
