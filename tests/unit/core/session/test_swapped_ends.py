"""No end plays a part of its own: with the two machines exchanged, only the user stays where they are."""

import dataclasses

import pytest
from hypothesis import given, settings

from dragon_core.types import CouplingKind, Peer
from simulator.oracle import Question, oracle_tokens
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule
from tests.unit.core.session.expectations import require_clean_end, require_oracles_answer
from tests.unit.core.session.strategies import questions, quiet_schedules, rough_schedules


@settings(max_examples=25, deadline=None)
@given(questions, quiet_schedules)
def test_with_shared_noise_exchanged_machines_give_the_same_answer(question: Question, schedule: Schedule) -> None:
    question = dataclasses.replace(question, coupling=CouplingKind.SHARED_NOISE)
    there = PeerPair(question.swapped, schedule.swapped)
    assert there.run() == oracle_tokens(question)
    for emit, straight in zip(there.emitted, straight_shares(question, schedule), strict=True):
        if emit.settled.opener_share is not None and straight is not None:
            assert emit.settled.opener_share == pytest.approx(1 - straight, abs=0.0021)


def straight_shares(question: Question, schedule: Schedule) -> list[float | None]:
    pair = PeerPair(question, schedule)
    pair.run()
    return [emit.settled.opener_share for emit in pair.emitted]


@settings(max_examples=25, deadline=None)
@given(questions, rough_schedules)
def test_exchanged_machines_give_the_answer_of_their_own_oracle(question: Question, schedule: Schedule) -> None:
    """Degraded positions take the opener's own guess, from what are now its contexts."""
    pair = PeerPair(question.swapped, schedule.swapped)
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)


def test_what_a_degraded_opener_says_is_its_own() -> None:
    """The whole answer under a silence: exchanged machines say something else, each what it would say alone."""
    answers = []
    for question in (Question(seed=5), Question(seed=5).swapped):
        pair = PeerPair(question, Schedule(silences=((Peer.OTHER, 0.0, 100.0),)))
        answers.append(pair.run())
        assert pair.degraded == frozenset(range(len(pair.tokens)))
        solo = PeerPair(question, Schedule(), is_solo=True)
        assert solo.run() == pair.tokens
        assert not solo.degraded
    assert answers[0] != answers[1]


@pytest.mark.parametrize("coupling", CouplingKind)
def test_either_end_counts_its_hits_the_same_way(coupling: CouplingKind) -> None:
    """On a link without delay nothing but the role differs between an end and its image."""
    question = Question(seed=12, coupling=coupling, max_tokens=60, temperature=0.7)
    schedule = Schedule(delay_seconds=0.0, decode_seconds=(0.01, 0.01), placement=Peer.OPENER)
    rates = []
    for pair in (PeerPair(question, schedule), PeerPair(question.swapped, schedule.swapped)):
        tokens = pair.run()
        report = pair.closed[Peer.OPENER].report
        assert report is not None
        assert report.num_tokens == len(tokens)
        rates.append(report.hit_rate)
    if coupling is CouplingKind.SHARED_NOISE:  # the other's streams follow the role, shared noise does not
        assert rates[0][Peer.OPENER] == rates[1][Peer.OTHER]
        assert rates[0][Peer.OTHER] == rates[1][Peer.OPENER]
    assert all(rate is not None and rate > 0.2 for rate in (*rates[0].values(), *rates[1].values()))
