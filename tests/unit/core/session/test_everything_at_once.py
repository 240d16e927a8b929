"""Invariance with everything at once: the answer is the oracle's with the same degraded positions, and ends cleanly."""

from hypothesis import given, settings

from dragon_core.types import Peer
from simulator.oracle import Question
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule
from tests.unit.core.session.expectations import require_clean_end, require_oracles_answer
from tests.unit.core.session.strategies import questions, quiet_schedules, rough_schedules


@settings(max_examples=40, deadline=None)
@given(questions, quiet_schedules)
def test_on_a_link_that_loses_nothing_every_token_is_mixed(question: Question, schedule: Schedule) -> None:
    pair = PeerPair(question, schedule)
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)
    assert not pair.degraded
    assert pair.closed[Peer.OTHER].error == ""
    assert pair.closed[Peer.OTHER].reason is pair.closed[Peer.OPENER].reason


@settings(max_examples=80, deadline=None)
@given(questions, rough_schedules)
def test_on_any_link_only_the_degraded_tokens_differ(question: Question, schedule: Schedule) -> None:
    pair = PeerPair(question, schedule)
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)
