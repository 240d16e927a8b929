"""Where the aggregator belongs: the paper's four cases, and one function that both ends compute alike."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragon_core.placement import (
    PRIOR_AGREEMENT,
    PlacementInputs,
    hit_rate_prior,
    initial_placement,
    saving_of_moving,
    seconds_per_token,
)
from dragon_core.types import Peer

seconds = st.floats(0.001, 0.5)
rates = st.floats(0.0, 1.0)
weights = st.none() | st.integers(-3000, 3000)
inputs = st.builds(PlacementInputs, constant_weight_level=weights, decode_seconds=seconds)


def paper_saving(c_l: float, c_r: float, a_l: float, a_r: float, rtt: float) -> float:
    """The paper's table: here is l, there is r."""
    if c_l <= c_r - rtt:
        return (1 - a_r) * rtt
    if c_l <= c_r:
        return (1 - a_l) * (c_r - c_l) + (a_l - a_r) * rtt
    if c_l <= c_r + rtt:
        return (1 - a_r) * (c_r - c_l) + (a_l - a_r) * rtt
    return (a_l - 1) * rtt


def saving(c_l: float, c_r: float, a_l: float, a_r: float, rtt: float) -> float:
    return saving_of_moving(decode_here=c_l, decode_there=c_r, hit_rate_here=a_l, hit_rate_there=a_r, rtt_seconds=rtt)


@pytest.mark.parametrize(
    ("c_l", "c_r", "expected"),
    [
        # a_l = 0.9, a_r = 0.6, rtt = 100 ms
        pytest.param(0.02, 0.20, 0.4 * 0.1, id="far faster here"),
        pytest.param(0.02, 0.12, 0.4 * 0.1, id="faster here by one round trip"),
        pytest.param(0.02, 0.05, 0.1 * 0.03 + 0.3 * 0.1, id="faster here"),
        pytest.param(0.05, 0.05, 0.3 * 0.1, id="equally fast"),
        pytest.param(0.05, 0.02, 0.4 * -0.03 + 0.3 * 0.1, id="slower here"),
        pytest.param(0.12, 0.02, -0.1 * 0.1, id="slower here by one round trip"),
        pytest.param(0.20, 0.02, -0.1 * 0.1, id="far slower here"),
    ],
)
def test_moving_saves_what_the_paper_says(c_l: float, c_r: float, expected: float) -> None:
    assert saving(c_l, c_r, 0.9, 0.6, 0.1) == pytest.approx(expected)


@given(seconds, seconds, rates, rates, st.floats(0.0, 1.0))
def test_the_difference_of_the_two_times_is_the_papers_table(
    c_l: float, c_r: float, a_l: float, a_r: float, rtt: float
) -> None:
    here = seconds_per_token(decode_here=c_l, decode_there=c_r, hit_rate_there=a_r, rtt_seconds=rtt)
    there = seconds_per_token(decode_here=c_r, decode_there=c_l, hit_rate_there=a_l, rtt_seconds=rtt)
    assert here - there == pytest.approx(paper_saving(c_l, c_r, a_l, a_r, rtt), abs=1e-12)
    assert saving(c_l, c_r, a_l, a_r, rtt) == here - there
    assert saving(c_r, c_l, a_r, a_l, rtt) == -saving(c_l, c_r, a_l, a_r, rtt)


@given(seconds, seconds, rates, st.floats(0.0, 1.0))
def test_a_token_takes_at_least_the_slower_side_and_at_most_the_way_back(
    c_l: float, c_r: float, a_r: float, rtt: float
) -> None:
    took = seconds_per_token(decode_here=c_l, decode_there=c_r, hit_rate_there=a_r, rtt_seconds=rtt)
    assert max(c_l, c_r) <= took + 1e-12
    assert took <= max(c_l, c_r + rtt) + 1e-12


@given(inputs, inputs, st.floats(0.0, 1.0))
def test_the_initial_placement_knows_no_role(ours: PlacementInputs, theirs: PlacementInputs, rtt: float) -> None:
    placed = initial_placement(ours, theirs, rtt_seconds=rtt, pinned=None)
    swapped = initial_placement(theirs, ours, rtt_seconds=rtt, pinned=None)
    if placed is swapped:
        # Only a tie: then it makes no difference, and both ends say the same.
        assert placed is Peer.OTHER
        assert initial_saving(ours, theirs, rtt) == pytest.approx(0.0, abs=1e-12)
    else:
        assert placed is swapped.opposite


def initial_saving(ours: PlacementInputs, theirs: PlacementInputs, rtt: float) -> float:
    """What moving away from the first of two peers saves, with the documented prior."""
    share = 0.5
    if ours.constant_weight_level is not None and theirs.constant_weight_level is not None:
        share = 1 / (1 + math.exp((theirs.constant_weight_level - ours.constant_weight_level) / 1024))
    a_l, a_r = (h + 0.6 * (1 - h) for h in (share, 1 - share))
    return paper_saving(ours.decode_seconds, theirs.decode_seconds, a_l, a_r, rtt)


@given(inputs, inputs, st.floats(0.0, 1.0))
def test_the_initial_placement_follows_the_papers_rule(
    ours: PlacementInputs, theirs: PlacementInputs, rtt: float
) -> None:
    expected = initial_saving(ours, theirs, rtt)
    placed = initial_placement(ours, theirs, rtt_seconds=rtt, pinned=None)
    if abs(expected) > 1e-12:
        assert placed is (Peer.OTHER if expected > 0 else Peer.OPENER)


@given(inputs, inputs, st.floats(0.0, 1.0), st.sampled_from(Peer))
def test_a_pinned_placement_is_kept(ours: PlacementInputs, theirs: PlacementInputs, rtt: float, pinned: Peer) -> None:
    assert initial_placement(ours, theirs, rtt_seconds=rtt, pinned=pinned) is pinned


def test_the_aggregator_belongs_with_the_peer_that_guesses_worse() -> None:
    heavy, light = (PlacementInputs(constant_weight_level=level, decode_seconds=0.01) for level in (3000, 0))
    assert initial_placement(heavy, light, rtt_seconds=0.1, pinned=None) is Peer.OTHER
    assert initial_placement(light, heavy, rtt_seconds=0.1, pinned=None) is Peer.OPENER


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (0.0, PRIOR_AGREEMENT), (0.5, 0.8)])
def test_the_prior_hit_rate_of_a_share(share: float, expected: float) -> None:
    assert hit_rate_prior(share) == pytest.approx(expected)
