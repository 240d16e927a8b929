"""The two ends together in short: each rule, coupling and temperature, and what drafting ahead is worth."""

import itertools

import pytest

from dragon_core.types import CouplingKind, Peer, WeightingRule
from simulator.oracle import Question, oracle_tokens
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule

ANSWERS = list(itertools.product(WeightingRule, CouplingKind, (0.0, 0.7, 1.0)))


@pytest.mark.parametrize(("rule", "coupling", "temperature"), ANSWERS)
def test_two_peers_give_the_answer_of_one_process(
    rule: WeightingRule, coupling: CouplingKind, temperature: float
) -> None:
    question = Question(rule=rule, coupling=coupling, temperature=temperature, seed=77)
    expected = oracle_tokens(question)
    assert len(expected) > 5
    for placement in Peer:
        pair = PeerPair(question, Schedule(placement=placement, branches=2))
        assert pair.run() == expected
        assert not pair.degraded


def test_answers_differ_where_they_may() -> None:
    """Or the tests above would show nothing."""
    answers = {
        tuple(oracle_tokens(Question(rule=rule, coupling=coupling, temperature=temperature, seed=77)))
        for rule, coupling, temperature in ANSWERS
        if temperature > 0
    }
    assert len(answers) > len(ANSWERS) / 2
    assert len({tuple(oracle_tokens(Question(seed=seed))) for seed in range(10)}) == 10


@pytest.mark.parametrize("placement", [Peer.OPENER, Peer.OTHER])
def test_drafting_ahead_hides_the_link(placement: Peer) -> None:
    question = Question(max_tokens=40, seed=5)
    seconds = {}
    for window in (1, 16):
        pair = PeerPair(question, Schedule(delay_seconds=0.15, window=window, placement=placement))
        pair.run()
        seconds[window] = pair.now
    assert seconds[16] < 0.75 * seconds[1]
