"""What the couplings draw is drawn from p~ and guesses from p_s: chi-square with fixed seeds. Every test is exact."""

import itertools
import math

import numpy as np
import pytest

from dragon_core.couplings.coupling import Coupling
from dragon_core.couplings.making import make_coupling
from dragon_core.distribution import cut
from dragon_core.mixture import Mixture, sorted_by_id, target_distribution
from dragon_core.noise import Stream, uniform
from dragon_core.types import CouplingKind, Cut, FloatArray, Peer, Published
from tests.unit.core.frequencies import p_value

LEAST_P_VALUE = 1e-4
NUM_DRAWS = 800
PEAKED, FLAT = 0.15, 2.0
CASES = [
    # position, vocabulary, concentrations of the opener's and the other's distribution, weight of the opener in nat
    pytest.param(0, 30, PEAKED, PEAKED, 0.0, id="peaked"),
    pytest.param(1, 12, FLAT, FLAT, 0.2, id="flat"),
    pytest.param(40, 30, FLAT, PEAKED, -1.5, id="unlike"),
    pytest.param(977, 200, PEAKED, FLAT, 2.0, id="large vocabulary"),
]


def published(seed: int, size: int, concentration: float, weight_nat: float = 0.0) -> Published:
    probabilities = np.random.default_rng(seed).dirichlet(np.full(size, concentration))
    return Published(round(weight_nat * 1024), cut(probabilities, Cut(nucleus=0.99, max_published_tokens=64)))


def frames(size: int, ours: float, theirs: float, weight_nat: float) -> tuple[Published, Published, Mixture]:
    opener, other = published(1, size, ours, weight_nat), published(2, size, theirs)
    return opener, other, target_distribution(opener, other)


def coupling_of(kind: CouplingKind, seed: int) -> Coupling:
    return make_coupling(kind, seed=seed, temperature=1.0, num_top_logprobs=None, constant_weight_levels={})


def drawn(coupling: Coupling, position: int, opener: Published, other: Published) -> int:
    settled = coupling.settle(position, opener, other)
    assert settled is not None
    return settled.token


@pytest.mark.parametrize(("position", "size", "ours", "theirs", "weight_nat"), CASES)
@pytest.mark.parametrize("kind", CouplingKind)
def test_targets_of_many_seeds_are_drawn_from_the_target_distribution(
    kind: CouplingKind, position: int, size: int, ours: float, theirs: float, weight_nat: float
) -> None:
    opener, other, mixture = frames(size, ours, theirs, weight_nat)
    tokens = [drawn(coupling_of(kind, seed), position, opener, other) for seed in range(NUM_DRAWS)]
    assert p_value(tokens, mixture.ids, mixture.probabilities) > LEAST_P_VALUE


@pytest.mark.parametrize("kind", CouplingKind)
def test_targets_of_many_positions_are_drawn_from_the_target_distribution(kind: CouplingKind) -> None:
    opener, other, mixture = frames(30, FLAT, PEAKED, 0.3)
    coupling = coupling_of(kind, 2**64 - 1)
    tokens = [drawn(coupling, position, opener, other) for position in range(NUM_DRAWS)]
    assert p_value(tokens, mixture.ids, mixture.probabilities) > LEAST_P_VALUE


@pytest.mark.parametrize("kind", CouplingKind)
def test_two_positions_of_an_answer_are_drawn_without_regard_to_each_other(kind: CouplingKind) -> None:
    opener, other, mixture = frames(4, FLAT, FLAT, 0.0)
    pairs = []
    for seed in range(NUM_DRAWS):
        coupling = coupling_of(kind, seed)
        first, second = (drawn(coupling, position, opener, other) for position in (5, 6))
        pairs.append(first * 4 + second)
    ids = np.array([first * 4 + second for first, second in itertools.product(mixture.ids.tolist(), repeat=2)])
    joint = np.outer(mixture.probabilities, mixture.probabilities).ravel()
    assert p_value(pairs, ids.astype(np.uint32), joint) > LEAST_P_VALUE


@pytest.mark.parametrize(("peer", "concentration"), [(Peer.OPENER, PEAKED), (Peer.OTHER, FLAT)])
@pytest.mark.parametrize("kind", CouplingKind)
def test_guesses_are_drawn_from_the_peers_own_distribution(
    kind: CouplingKind, peer: Peer, concentration: float
) -> None:
    own = published(7, 30, concentration)
    tokens = [coupling_of(kind, seed).guesses(3, own, 1, peer)[0].token for seed in range(NUM_DRAWS)]
    ids, probabilities = sorted_by_id(own.distribution)
    assert p_value(tokens, ids, probabilities) > LEAST_P_VALUE


@pytest.mark.parametrize(("position", "size", "ours", "theirs", "weight_nat"), CASES)
def test_with_shared_noise_a_guess_comes_true_as_often_as_promised(
    position: int, size: int, ours: float, theirs: float, weight_nat: float
) -> None:
    opener, other, mixture = frames(size, ours, theirs, weight_nat)
    hits = {Peer.OPENER: 0, Peer.OTHER: 0}
    for seed in range(NUM_DRAWS):
        coupling = coupling_of(CouplingKind.SHARED_NOISE, seed)
        target = drawn(coupling, position, opener, other)
        for peer, own in ((Peer.OPENER, opener), (Peer.OTHER, other)):
            hits[peer] += coupling.guesses(position, own, 1, peer)[0].token == target
    for peer, own in ((Peer.OPENER, opener), (Peer.OTHER, other)):
        variation = total_variation(own, mixture)
        least = (1 - variation) / (1 + variation)
        assert hits[peer] / NUM_DRAWS >= least - 4 * math.sqrt(least * (1 - least) / NUM_DRAWS)
        # No way of coupling is right more often than this.
        assert hits[peer] / NUM_DRAWS <= 1 - variation + 4 * math.sqrt(variation * (1 - variation) / NUM_DRAWS)


def total_variation(own: Published, mixture: Mixture) -> float:
    return 0.5 * float(np.abs(own_probabilities(own, mixture) - mixture.probabilities).sum())


def own_probabilities(own: Published, mixture: Mixture) -> FloatArray:
    """p_s over the tokens of p~."""
    probabilities = np.zeros(mixture.ids.size)
    probabilities[mixture.ids.searchsorted(own.distribution.ids)] = own.distribution.probabilities
    return probabilities


@pytest.mark.parametrize("side", Peer)
def test_an_independent_draft_is_kept_with_one_minus_tv_or_drawn_from_the_residual(side: Peer) -> None:
    """The coin says whose draft counts. One that is refused lies above p~, so the residual never draws it again."""
    opener, other, mixture = frames(30, FLAT, PEAKED, 0.5)
    own = opener if side is Peer.OPENER else other
    num_kept = 0
    replaced: list[int] = []
    for seed in range(2 * NUM_DRAWS):
        if bool(uniform(seed, Stream.COIN, 0, 0)[0] < 0.5) is not (side is Peer.OPENER):
            continue
        coupling = coupling_of(CouplingKind.INDEPENDENT, seed)
        draft, token = coupling.guesses(0, own, 1, side)[0].token, drawn(coupling, 0, opener, other)
        if token == draft:
            num_kept += 1
        else:
            replaced.append(token)
    num_draws, kept = num_kept + len(replaced), 1 - total_variation(own, mixture)
    assert abs(num_kept / num_draws - kept) < 4 * math.sqrt(kept * (1 - kept) / num_draws)
    residual = np.maximum(mixture.probabilities - own_probabilities(own, mixture), 0.0)
    above = np.flatnonzero(residual)
    assert p_value(replaced, mixture.ids[above], residual[above]) > LEAST_P_VALUE


@pytest.mark.parametrize("kind", CouplingKind)
def test_frequencies_that_are_a_little_off_would_be_noticed(kind: CouplingKind) -> None:
    opener, other, mixture = frames(30, FLAT, PEAKED, -1.5)
    tokens = [drawn(coupling_of(kind, seed), 0, opener, other) for seed in range(NUM_DRAWS)]
    ids, probabilities = mixture.ids, np.sqrt(mixture.probabilities)
    assert p_value(tokens, ids, probabilities / probabilities.sum()) < LEAST_P_VALUE
    assert p_value([int(ids[0])] * NUM_DRAWS, ids, mixture.probabilities) < LEAST_P_VALUE
