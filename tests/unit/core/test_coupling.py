"""What a coupling settles and guesses, position by position: early settlement, ties, and extreme weights."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragon_core.couplings.coupling import Coupling
from dragon_core.couplings.making import make_coupling
from dragon_core.couplings.shared_noise import SharedNoise
from dragon_core.distribution import MAX_WEIGHT_NAT, cut
from dragon_core.mixture import target_distribution
from dragon_core.types import CouplingKind, Cut, Peer, Published

SIZE = 24
UNCUT = Cut(nucleus=1.0, max_published_tokens=SIZE)


def made(parts: list[float], weight_level: int = 0) -> Published:
    return Published(weight_level, cut(np.array(parts) / sum(parts), UNCUT))


def random_frame(seed: int, weight_level: int, concentration: float = 0.1) -> Published:
    parts = np.random.default_rng(seed).dirichlet(np.full(SIZE, concentration))
    return made(parts.tolist(), weight_level)


def certain_frame(token: int, weight_level: int) -> Published:
    return made([1.0 if at == token else 0.0 for at in range(SIZE)], weight_level)


def greedy(weights: dict[Peer, int], num_top_logprobs: int | None = None, temperature: float = 0.0) -> SharedNoise:
    return SharedNoise(
        seed=1, temperature=temperature, num_top_logprobs=num_top_logprobs, constant_weight_levels=weights
    )


def settle(coupling: Coupling, peer: Peer, ours: Published, theirs: Published | None) -> int | None:
    """The token fixed at 0 by `peer`, who holds `ours`."""
    opener, other = (ours, theirs) if peer is Peer.OPENER else (theirs, ours)
    settled = coupling.settle(0, opener, other)
    return None if settled is None else settled.token


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 3000), st.sampled_from(Peer))
def test_what_is_settled_early_no_frame_of_the_other_could_change(seed: int, gap: int, peer: Peer) -> None:
    weights = {peer: gap, peer.opposite: 0}
    coupling, ours = greedy(weights), random_frame(seed, gap)
    early = settle(coupling, peer, ours, None)
    if early is None:
        return
    for token in range(SIZE):  # the frames that favour one token most are the worst there are
        assert settle(coupling, peer, ours, certain_frame(token, 0)) == early
    assert settle(coupling, peer, ours, random_frame(seed + 1, 0)) == early


def test_a_position_is_settled_early_as_soon_as_it_is_certain() -> None:
    """h (p(x*) - p(second)) > 1 - h with h = 3/4: a margin above one third."""
    weight = round(math.log(3) * 1024)
    coupling = greedy({Peer.OPENER: weight, Peer.OTHER: 0})
    assert settle(coupling, Peer.OPENER, made([0.30, 0.65, 0.05], weight), None) == 1
    assert settle(coupling, Peer.OPENER, made([0.34, 0.66], weight), None) is None
    assert settle(coupling, Peer.OPENER, made([0.32, 0.66, 0.02], weight), None) == 1


def test_the_lighter_side_settles_nothing_early() -> None:
    sure = certain_frame(3, 0)
    for other_weight in (0, 1, 5000):
        coupling = greedy({Peer.OPENER: 0, Peer.OTHER: other_weight})
        assert settle(coupling, Peer.OPENER, sure, None) is None


@pytest.mark.parametrize(
    "coupling",
    [
        pytest.param(greedy({Peer.OPENER: 9000, Peer.OTHER: 0}, temperature=0.7), id="temperature above 0"),
        pytest.param(greedy({Peer.OPENER: 9000, Peer.OTHER: 0}, temperature=1e-6), id="temperature just above 0"),
        pytest.param(greedy({Peer.OPENER: 9000, Peer.OTHER: 0}, num_top_logprobs=0), id="logprobs asked"),
        pytest.param(greedy({Peer.OPENER: 9000, Peer.OTHER: 0}, num_top_logprobs=5), id="top logprobs asked"),
        pytest.param(greedy({Peer.OPENER: 9000}), id="the other's weight unknown"),
        pytest.param(greedy({Peer.OTHER: 0}), id="our weight unknown"),
        pytest.param(greedy({}), id="no weight constant"),
        pytest.param(
            make_coupling(
                CouplingKind.INDEPENDENT,
                seed=1,
                temperature=0.0,
                num_top_logprobs=None,
                constant_weight_levels={Peer.OPENER: 9000, Peer.OTHER: 0},
            ),
            id="independent drafts",
        ),
    ],
)
def test_nothing_is_settled_early_without_its_conditions(coupling: Coupling) -> None:
    sure = certain_frame(3, 9000)
    assert coupling.settle(0, sure, None) is None
    assert coupling.settle(0, None, None) is None
    settled = coupling.settle(0, sure, random_frame(1, 0))
    assert settled is not None
    assert settled.logprob is not None
    # And under its conditions the same frame is enough.
    early = greedy({Peer.OPENER: 9000, Peer.OTHER: 0}).settle(0, sure, None)
    assert early is not None
    assert (early.token, early.logprob, early.opener_share) == (3, None, None)


@pytest.mark.parametrize("kind", CouplingKind)
def test_of_equal_tokens_the_lowest_id_is_taken(kind: CouplingKind) -> None:
    coupling = make_coupling(kind, seed=1, temperature=0.0, num_top_logprobs=2, constant_weight_levels={})
    opener, other = made([0.1, 0.2, 0.5, 0.2]), made([0.1, 0.2, 0.2, 0.5])
    settled = coupling.settle(0, opener, other)
    assert settled is not None
    assert settled.token == 2
    assert [top.token for top in settled.top] == [2, 3]
    assert settled.top[0].logprob == settled.top[1].logprob == settled.logprob
    level = made([1.0] * 5)
    for peer in Peer:
        assert [guess.token for guess in coupling.guesses(0, level, 3, peer)] == [0, 1, 2]


@given(st.permutations(range(6)))
def test_ties_do_not_depend_on_the_order_tokens_are_published_in(order: list[int]) -> None:
    parts = [0.1, 0.3, 0.1, 0.3, 0.1, 0.1]
    whole = made(parts)
    distribution = whole.distribution
    at = np.array(order)
    shuffled = dataclasses.replace(
        distribution,
        ids=distribution.ids[at],
        levels=distribution.levels[at],
        probabilities=distribution.probabilities[at],
    )
    coupling = greedy({})
    assert settle(coupling, Peer.OPENER, Published(0, shuffled), whole) == 1
    assert [guess.token for guess in coupling.guesses(0, Published(0, shuffled), 6, Peer.OPENER)] == [1, 3, 0, 2, 4, 5]


@pytest.mark.parametrize("kind", CouplingKind)
@given(st.integers(0, 2**64 - 1), st.integers(1, 8), st.sampled_from([0.0, 0.7]))
def test_guesses_are_distinct_and_their_gaps_grow(
    kind: CouplingKind, seed: int, num_guesses: int, temperature: float
) -> None:
    coupling = make_coupling(kind, seed=seed, temperature=temperature, num_top_logprobs=None, constant_weight_levels={})
    guesses = coupling.guesses(4, random_frame(seed % 100, 0, 1.0), num_guesses, Peer.OTHER)
    assert len({guess.token for guess in guesses}) == num_guesses
    assert guesses[0].gap == 0
    assert [guess.gap for guess in guesses] == sorted(guess.gap for guess in guesses)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("kind", CouplingKind)
@pytest.mark.parametrize("heavy", Peer)
def test_a_side_that_weighs_nothing_is_not_heard(kind: CouplingKind, temperature: float, heavy: Peer) -> None:
    """Weights as far apart as the protocol allows: the lighter side's tokens have probability 0 in p~."""
    extreme = round(MAX_WEIGHT_NAT * 1024)
    opener = made([0.5, 0.5, 0.0, 0.0], extreme if heavy is Peer.OPENER else -extreme)
    other = made([0.0, 0.0, 0.5, 0.5], extreme if heavy is Peer.OTHER else -extreme)
    for seed in range(20):
        coupling = make_coupling(
            kind, seed=seed, temperature=temperature, num_top_logprobs=4, constant_weight_levels={}
        )
        settled = coupling.settle(0, opener, other)
        assert settled is not None
        assert settled.token in ((0, 1) if heavy is Peer.OPENER else (2, 3))
        assert settled.opener_share == (1.0 if heavy is Peer.OPENER else 0.0)
        assert settled.logprob == pytest.approx(math.log(0.5))
        assert all(math.isfinite(top.logprob) for top in settled.top)


@given(st.integers(0, 10_000), st.integers(-4000, 4000), st.integers(0, 20))
def test_the_likeliest_tokens_come_with_their_log_probabilities(seed: int, weight: int, num_top: int) -> None:
    opener, other = random_frame(seed, weight, 0.5), random_frame(seed + 1, 0, 0.5)
    mixture = target_distribution(opener, other)
    by_token = dict(zip(mixture.ids.tolist(), mixture.probabilities.tolist(), strict=True))
    settled = greedy({}, num_top_logprobs=num_top, temperature=1.0).settle(seed, opener, other)
    assert settled is not None
    assert settled.logprob == pytest.approx(math.log(by_token[settled.token]))
    expected = sorted(by_token, key=lambda token: (-by_token[token], token))[:num_top]
    assert [top.token for top in settled.top] == expected
    assert [top.logprob for top in settled.top] == pytest.approx([math.log(by_token[token]) for token in expected])


@given(st.integers(0, 10_000), st.integers(-4000, 4000))
def test_shares_add_up_to_the_target_distribution(seed: int, weight: int) -> None:
    opener, other = random_frame(seed, weight, 0.5), random_frame(seed + 1, 0, 0.5)
    mixture = target_distribution(opener, other)
    assert mixture.probabilities.sum() == pytest.approx(1.0)
    opener_share = 1 / (1 + math.exp(-weight / 1024))
    assert mixture.opener_parts.sum() == pytest.approx(opener_share)
    assert np.all(mixture.opener_parts <= mixture.probabilities)


def test_an_unknown_coupling_is_refused() -> None:
    """What a later version adds to the kinds must not become another coupling by default."""
    unknown: Any = "turns"
    with pytest.raises(AssertionError, match="turns"):
        make_coupling(unknown, seed=1, temperature=0.7, num_top_logprobs=None, constant_weight_levels={})
