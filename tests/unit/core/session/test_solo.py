"""An answer that was asked of one end only."""

from dragon_core.types import Peer
from simulator.oracle import Question, oracle_tokens
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule


def test_a_solo_answer_is_our_own_and_not_degraded() -> None:
    question = Question(seed=5)
    pair = PeerPair(question, Schedule(), is_solo=True)
    tokens = pair.run()
    assert tokens == oracle_tokens(question, degraded=frozenset(range(question.max_tokens)))
    assert pair.num_frames == 0
    report = pair.closed[Peer.OPENER].report
    assert report is not None
    assert (report.num_degraded, report.num_tokens) == (0, len(tokens))
