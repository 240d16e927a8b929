"""Invariance: the answer is the oracle's under every schedule a channel may produce."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragon_core.messages import FinishReason
from dragon_core.types import CouplingKind, Peer, WeightingRule
from tests.peer_pair import PeerPair, Question, Schedule, oracle_tokens

RULES = list(WeightingRule)
schedules = st.builds(
    Schedule,
    delay_seconds=st.sampled_from([0.0, 0.003, 0.02, 0.15]),
    prefill_seconds=st.tuples(st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([0.0, 0.1, 0.5])),
    decode_seconds=st.tuples(st.sampled_from([0.002, 0.01, 0.03]), st.sampled_from([0.002, 0.01, 0.03])),
    window=st.integers(1, 12),
    branches=st.integers(1, 3),
    placement=st.sampled_from([None, Peer.OPENER, Peer.OTHER]),
)
questions = st.builds(
    Question,
    seed=st.integers(0, 2**64 - 1),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    rule=st.sampled_from(RULES),
    coupling=st.sampled_from(list(CouplingKind)),
)


@settings(max_examples=60, deadline=None)
@given(questions, schedules)
def test_the_answer_does_not_depend_on_the_schedule(question: Question, schedule: Schedule) -> None:
    pair = PeerPair(question, schedule)
    assert pair.run() == oracle_tokens(question)
    assert not any(emit.is_degraded for emit in pair.emitted)
    assert {closed.reason for closed in pair.closed.values()} <= {FinishReason.STOP, FinishReason.LENGTH}
    assert len(pair.closed) == 2


@settings(max_examples=40, deadline=None)
@given(questions, st.lists(st.floats(0.2, 3.0), min_size=1, max_size=4), st.sampled_from([0.003, 0.05]))
def test_handovers_at_any_moment_do_not_change_the_answer(
    question: Question, moves: list[float], delay_seconds: float
) -> None:
    pair = PeerPair(question, Schedule(moves=tuple(moves), delay_seconds=delay_seconds, branches=2))
    assert pair.run() == oracle_tokens(question)


@settings(max_examples=40, deadline=None)
@given(questions, st.floats(0.0, 2.0), st.floats(0.01, 6.0), st.sampled_from([None, Peer.OPENER, Peer.OTHER]))
def test_a_cut_changes_only_the_degraded_positions(
    question: Question, start: float, length: float, placement: Peer | None
) -> None:
    pair = PeerPair(question, Schedule(cuts=((start, start + length),), placement=placement))
    tokens = pair.run()
    degraded = frozenset(emit.position for emit in pair.emitted if emit.is_degraded)
    assert tokens == oracle_tokens(question, degraded=degraded)
    assert pair.closed[Peer.OPENER].error == ""


@pytest.mark.parametrize("placement", [Peer.OPENER, Peer.OTHER])
def test_drafting_ahead_hides_the_link(placement: Peer) -> None:
    question = Question(max_tokens=40, seed=5)
    seconds = {}
    for window in (1, 16):
        pair = PeerPair(question, Schedule(delay_seconds=0.15, window=window, placement=placement))
        pair.run()
        seconds[window] = pair.now
    assert seconds[16] < 0.75 * seconds[1]
