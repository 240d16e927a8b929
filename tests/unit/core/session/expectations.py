"""What must be true of every finished answer, whatever happened to it."""

from dragon_core.messages import FinishReason
from dragon_core.types import Peer
from simulator.oracle import oracle, oracle_text
from simulator.peer_pair import PeerPair

MOST_FRAMES = 5000


def require_oracles_answer(pair: PeerPair) -> None:
    """Tokens, text, log-probabilities, and what the report says of them."""
    expected = oracle(pair.question, degraded=pair.degraded)
    assert pair.tokens == [settled.token for settled in expected]
    assert [emit.position for emit in pair.emitted] == list(range(len(expected)))
    assert b"".join(emit.text for emit in pair.emitted) == oracle_text(pair.tokens, pair.question.stop)
    for emit, settled in zip(pair.emitted, expected, strict=True):
        is_one_sided = emit.settled.logprob is None
        assert is_one_sided or not emit.is_degraded
        if settled.logprob is not None and emit.settled.logprob is not None:
            assert abs(emit.settled.logprob - settled.logprob) <= 1 / 1024
            assert settled.opener_share is not None
            assert emit.settled.opener_share is not None
            assert abs(emit.settled.opener_share - settled.opener_share) <= 1 / 1000
            assert [top.token for top in emit.settled.top] == [top.token for top in settled.top]


def require_clean_end(pair: PeerPair) -> None:
    closed = pair.closed[Peer.OPENER]
    assert closed.error == ""
    assert closed.reason in (FinishReason.STOP, FinishReason.LENGTH)
    assert closed.report is not None
    assert closed.report.num_tokens == len(pair.tokens)
    assert closed.report.num_degraded == len(pair.degraded)
    assert pair.num_frames < MOST_FRAMES, "the ends answer each other without end"
